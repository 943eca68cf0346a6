// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) for few rows, on GPUs with subgroups: decode, and small batches of it.
//
// Grid: x = output rows of all segments / (subgroups of a workgroup · ROWS), y = step rows / TOKENS. A subgroup makes ROWS output rows
// (as many of each matrix of a pair); its lanes take neighbouring units of eight values, so that a load of all of them is one piece of
// memory, and the next DEPTH units of every row are on their way while those before are multiplied. x passes through shared memory once for
// all subgroups, STAGE units of each step row at a time, multiplied by the norm's weights on the way; the next ones are on their way too. What
// the results take besides, σ ⊙ z or a residual, is read before all that.
//
// DOT, for quantised weights m q + c: a unit of x becomes integers X = 256 h + l of 16 bits, its largest value 32512, with a scale e of
// its own, and Σ W x = m e (256 Σ q h + Σ q l) + c e Σ X by products of bytes. x errs by 2^−16 of the unit's largest value: less than in f16.
// In 8 bits, as is usual, log-probabilities would be off by 0.04 in the mean (tests/bench/README.md).
// Memory per output: in · bytes(type) / TOKENS of weights, in · 4 / (subgroups · ROWS) of x.
//
// Constants: 0 workgroup size · 1 WEIGHT_GROUP · 2 subgroup size · 3 ROWS · 4 TOKENS · 5 FLAGS (shared.h) · 6 number of segments · 7 DEPTH ·
// 8, 9 the norm's width and eps (bits)
// Tiers: subgroup; DOT.
#version 450
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#ifdef DOT
#include "dot.glsl"
#endif
#include "refs.glsl"
#include "weights.glsl"
#include "linear.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 256;
layout(constant_id = 2) const uint SUBGROUP = 32;
layout(constant_id = 3) const uint ROWS = 4;
layout(constant_id = 4) const uint TOKENS = 1;
layout(constant_id = 5) const uint FLAGS = 0;
layout(constant_id = 6) const uint SEGMENTS = 1;
layout(constant_id = 7) const uint DEPTH = 2;
layout(constant_id = 8) const uint NORM_WIDTH = 1;
layout(constant_id = 9) const uint NORM_EPS = 0;

const bool NORM = (FLAGS & LINEAR_NORM) != 0u;
const uint PARTS = (FLAGS & LINEAR_SILU_MUL) != 0u ? 2u : 1u; // gate and up
const uint INPUTS = (FLAGS & LINEAR_TWO_X) != 0u ? 2u : 1u;   // x of gate and of up
const uint SUBGROUPS = WORKGROUP / SUBGROUP;
const uint STEP = SUBGROUP * DEPTH;                             // units of a row that a subgroup multiplies at a time
const uint SHARE = 256u / (INPUTS * TOKENS); // 8 KiB of x in all, 6 with DOT
const uint STAGE = SHARE > STEP ? SHARE : STEP; // … of a step row in shared memory at a time
const uint LOADS = PARTS * ROWS * DEPTH;                        // units on their way to a lane
const uint X_STAGE = INPUTS * TOKENS * STAGE;                  // units of x in shared memory: [input][step row][unit]
const uint X_LOADS = (X_STAGE + WORKGROUP - 1u) / WORKGROUP;   // … of an invocation: its own number, and every WORKGROUP-th behind it
const uint RESULTS = (ROWS * TOKENS + SUBGROUP - 1u) / SUBGROUP; // that a lane stores

#ifdef DOT
shared uvec4 stage[X_STAGE];      // h, 0…3 and 4…7, and l
shared vec2 stage_scale[X_STAGE]; // e, e Σ X
#else
shared vec4 stage[2u * X_STAGE]; // first four values, then last four: neighbours in different banks
#endif
shared float unit_squares[NORM ? X_STAGE : 1u], squares_of[INPUTS * TOKENS];

WeightRow rows[PARTS * ROWS];
WeightBits here[LOADS], next[LOADS]; // [row][depth]
float sums[PARTS * ROWS * TOKENS]; // of this lane
vec4 x_next[2u * X_LOADS], norm_next[NORM ? 2u * X_LOADS : 1u];
float squares[X_LOADS]; // of this invocation's share of x

// next = units from, from + SUBGROUP, … of every row; where the matrix ends, its last unit again.
void fetch(uint from, uint units) {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) next[i] = weight_fetch(rows[i / DEPTH], min(from + i % DEPTH * SUBGROUP, units - 1u));
}

void arrive() {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) here[i] = next[i];
}

#ifdef DOT
// The bits of the largest magnitude, in which infinities and NaN are larger than numbers.
uint largest(vec4 v) {
    uvec4 bits = floatBitsToUint(v) & 0x7fffffffu;
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}
uint pack_bytes(ivec4 v) {
    uvec4 bytes = uvec4(v) & 255u;
    return bytes.x | bytes.y << 8 | bytes.z << 16 | bytes.w << 24;
}

// Puts a unit of x, as integers; its scale is NaN where a value is no number.
void put_unit(uint at, vec4 a, vec4 b) {
    uint bits = max(largest(a), largest(b));
    float top = uintBitsToFloat(bits), scale = bits < 0x7f800000u && top > 1.0e-30 ? 32512.0 / top : 0.0;
    ivec4 ia = ivec4(round(a * scale)), ib = ivec4(round(b * scale)), ha = (ia + 128) >> 8, hb = (ib + 128) >> 8, both = ia + ib;
    stage[at] = uvec4(pack_bytes(ha), pack_bytes(hb), pack_bytes(ia - (ha << 8)), pack_bytes(ib - (hb << 8)));
    float e = bits < 0x7f800000u ? top * (1.0 / 32512.0) : uintBitsToFloat(0x7fc00000u);
    stage_scale[at] = vec2(e, e * float(both.x + both.y + both.z + both.w));
}

// Adds the products of what is here, units unit, unit + SUBGROUP, … below end; x of unit `from` is the first in shared memory.
void multiply(uint unit, uint from, uint end) {
    [[unroll]] for (uint d = 0u; d < DEPTH; d++) {
        uint at = unit + d * SUBGROUP;
        if (at >= end) continue;
        uvec2 w[PARTS * ROWS];
        vec2 scale[PARTS * ROWS];
        [[unroll]] for (uint r = 0u; r < PARTS * ROWS; r++) {
            w[r] = weight_integers(here[r * DEPTH + d].values, rows[r], at);
            scale[r] = weight_integer_scale(weight_scale_of(here[r * DEPTH + d].scale, rows[r], at));
        }
        [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
            [[unroll]] for (uint j = 0u; j < INPUTS; j++) {
                uint i = (j * TOKENS + t) * STAGE + at - from;
                uvec4 x = stage[i];
                vec2 of = stage_scale[i];
                [[unroll]] for (uint r = j * ROWS; r < PARTS * ROWS / INPUTS * (j + 1u); r++) {
                    int high = dot_bytes(w[r].x, x.x) + dot_bytes(w[r].y, x.y), low = dot_bytes(w[r].x, x.z) + dot_bytes(w[r].y, x.w);
                    sums[r * TOKENS + t] += scale[r].x * of.x * float(256 * high + low) + scale[r].y * of.y;
                }
            }
        }
    }
}
#else
void put_unit(uint at, vec4 a, vec4 b) {
    stage[at] = a;
    stage[X_STAGE + at] = b;
}

// Adds the products of what is here, units unit, unit + SUBGROUP, … below end; x of unit `from` is the first in shared memory.
void multiply(uint unit, uint from, uint end) {
    [[unroll]] for (uint d = 0u; d < DEPTH; d++) {
        uint at = unit + d * SUBGROUP;
        if (at >= end) continue;
        vec4 a[PARTS * ROWS], b[PARTS * ROWS];
        [[unroll]] for (uint r = 0u; r < PARTS * ROWS; r++) weight_unpack(here[r * DEPTH + d], rows[r], at, a[r], b[r]);
        [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
            [[unroll]] for (uint j = 0u; j < INPUTS; j++) {
                uint x = (j * TOKENS + t) * STAGE + at - from;
                vec4 xa = stage[x], xb = stage[X_STAGE + x];
                [[unroll]] for (uint r = j * ROWS; r < PARTS * ROWS / INPUTS * (j + 1u); r++) sums[r * TOKENS + t] += dot(a[r], xa) + dot(b[r], xb);
            }
        }
    }
}
#endif

// Units from … from + STAGE − 1 of the step rows; where x ends, its last unit again.
void fetch_x(uint s, uint t0, uint from, uint units) {
    ConstVec4Ref x = ConstVec4Ref(push.x), norm = ConstVec4Ref(push.norm);
    [[unroll]] for (uint n = 0u; n < X_LOADS; n++) {
        uint i = n * WORKGROUP + gl_LocalInvocationID.x, j = min(i / STAGE, INPUTS * TOKENS - 1u), unit = min(from + i % STAGE, units - 1u);
        uint at = (min(t0 + j % TOKENS, push.rows - 1u) * push.x_stride + push.x_offset[s + j / TOKENS]) / 4u + 2u * unit;
        x_next[2u * n] = x.v[at];
        x_next[2u * n + 1u] = x.v[at + 1u];
        if (NORM) {
            norm_next[2u * n] = norm.v[2u * unit];
            norm_next[2u * n + 1u] = norm.v[2u * unit + 1u];
        }
    }
}

// Puts what fetch_x brought, normed but for a row's scale.
void put_x(uint from, uint units) {
    [[unroll]] for (uint n = 0u; n < X_LOADS; n++) {
        uint i = n * WORKGROUP + gl_LocalInvocationID.x;
        if (i >= X_STAGE || from + i % STAGE >= units) continue;
        vec4 a = x_next[2u * n], b = x_next[2u * n + 1u];
        if (NORM) {
            squares[n] += dot(a, a) + dot(b, b);
            a *= norm_next[2u * n];
            b *= norm_next[2u * n + 1u];
        }
        put_unit(i, a, b);
    }
}

// Σ x² of every step row and input into squares_of.
void sum_squares(uint lane) {
    [[unroll]] for (uint n = 0u; n < X_LOADS; n++) {
        uint i = n * WORKGROUP + gl_LocalInvocationID.x;
        if (i < X_STAGE) unit_squares[i] = squares[n];
    }
    barrier();
    for (uint j = gl_SubgroupID; j < INPUTS * TOKENS; j += SUBGROUPS) {
        float sum = 0.0;
        for (uint i = lane; i < STAGE; i += SUBGROUP) sum += unit_squares[j * STAGE + i];
        sum = subgroupAdd(sum);
        if (lane == 0u) squares_of[j] = sum;
    }
    barrier();
}

// 1 / √(mean x² + eps) of step row j % TOKENS of input j / TOKENS; 1 without a norm.
float norm_scale(uint j) { return NORM ? linear_rms(squares_of[j], NORM_WIDTH, NORM_EPS) : 1.0; }

void main() {
    const uint tile = SUBGROUPS * ROWS;
    uvec2 at = linear_segment(gl_WorkGroupID.x, tile, PARTS == 2u ? 1u : SEGMENTS);
    uint s = at.x, o0 = at.y + gl_SubgroupID * ROWS, t0 = gl_WorkGroupID.y * TOKENS, units = push.in_units[s], lane = gl_SubgroupInvocationID;
    fetch_x(s, t0, 0u, units);
    [[unroll]] for (uint r = 0u; r < PARTS * ROWS; r++)
        rows[r] = weight_row(push.weights[s + r / ROWS], push.out_rows[s], units, min(o0 + r % ROWS, push.out_rows[s] - 1u));
    fetch(lane, units);
    // Result i of the subgroup, of step row i / ROWS and output row i % ROWS, is lane i's.
    LinearEnd ends[RESULTS];
    [[unroll]] for (uint n = 0u; n < RESULTS; n++) {
        uint i = n * SUBGROUP + lane;
        ends[n] = linear_end(s, min(t0 + i / ROWS, push.rows - 1u), min(o0 + i % ROWS, push.out_rows[s] - 1u), FLAGS);
    }
    [[unroll]] for (uint i = 0u; i < PARTS * ROWS * TOKENS; i++) sums[i] = 0.0;
    [[unroll]] for (uint n = 0u; n < X_LOADS; n++) squares[n] = 0.0;

    for (uint from = 0u; from < units; from += STAGE) {
        barrier();
        put_x(from, units);
        barrier();
        if (from + STAGE < units) fetch_x(s, t0, from + STAGE, units);
        uint end = min(from + STAGE, units);
        for (uint unit = from + lane; unit < end; unit += STEP) {
            arrive();
            fetch(unit + STEP, units);
            multiply(unit, from, end);
        }
    }
    if (NORM) sum_squares(lane);

    float results[RESULTS];
    [[unroll]] for (uint i = 0u; i < ROWS * TOKENS; i++) {
        uint t = i / ROWS, r = i % ROWS;
        float scale = norm_scale(t), up_scale = INPUTS == 2u ? norm_scale(TOKENS + t) : scale;
        float value = scale * subgroupAdd(sums[r * TOKENS + t]);
        if (PARTS == 2u) value = linear_gate(value, FLAGS) * (up_scale * subgroupAdd(sums[(PARTS - 1u) * ROWS * TOKENS + r * TOKENS + t]));
        if (lane == i % SUBGROUP) results[i / SUBGROUP] = value;
    }
    [[unroll]] for (uint n = 0u; n < RESULTS; n++) {
        uint i = n * SUBGROUP + lane, t = t0 + i / ROWS, o = o0 + i % ROWS;
        if (i < ROWS * TOKENS && t < push.rows && o < push.out_rows[s]) linear_store_end(s, t, o, results[n], ends[n], FLAGS);
    }
}
