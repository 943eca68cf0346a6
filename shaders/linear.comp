// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) without subgroups: few rows on any device (matvec), any number of rows on CPU drivers (matmul).
//
// Grid: x = output rows of all segments / (WORKGROUP / LANES · ROWS), y = step rows / TOKENS. LANES invocations share ROWS output
// rows, each taking every LANES-th chunk of SCALE_UNITS units; TOKENS step rows are multiplied at once, so a weight is
// read once per TOKENS. With LANES = 1 an invocation works alone (CPU drivers: x is then read by uniform loads, and weights
// by whole cache lines of a row of its own).
// Memory per output: in · bytes(type) / TOKENS of weights + 4 · in / ROWS of x.
//
// Constants: 0 workgroup size · 1 WEIGHT_GROUP · 2 LANES · 3 ROWS · 4 TOKENS · 5 FLAGS (shared.h) · 6 number of segments · 7, 8 the
// norm's width and eps (bits)
// Tiers: strict (sums over lanes in shared memory); STORAGE16: halves read as such.
#version 450
#include "refs.glsl"
#include "weights.glsl"
#include "linear.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 32;
layout(constant_id = 2) const uint LANES = 1;
layout(constant_id = 3) const uint ROWS = 2;
layout(constant_id = 4) const uint TOKENS = 1;
layout(constant_id = 5) const uint FLAGS = 0;
layout(constant_id = 6) const uint SEGMENTS = 1;
layout(constant_id = 7) const uint NORM_WIDTH = 1;
layout(constant_id = 8) const uint NORM_EPS = 0;

const uint SUMS = ROWS * TOKENS; // of an invocation
const bool NORM = (FLAGS & LINEAR_NORM) != 0u;
const bool GATED = (FLAGS & LINEAR_SILU_MUL) != 0u;

// What lanes have to add up, a value after the other, each of all invocations; one more, so that a group's lanes meet no bank twice.
const uint SQUARES = NORM ? TOKENS : 0u;
const uint VALUES = (SUMS + SQUARES) * (GATED ? 2u : 1u);
const uint PITCH = WORKGROUP + 1u;
shared float partial[LANES > 1u ? VALUES * PITCH : 1u];

void put_partials(uint first, float sums[SUMS], float squares[TOKENS]) {
    uint at = first * PITCH + gl_LocalInvocationID.x;
    [[unroll]] for (uint i = 0u; i < SUMS; i++) partial[at + i * PITCH] = sums[i];
    if (NORM) {
        [[unroll]] for (uint t = 0u; t < TOKENS; t++) partial[at + (SUMS + t) * PITCH] = squares[t];
    }
}

// Value `value` of this invocation's group, over its lanes.
float lanes_sum(uint value) {
    uint at = value * PITCH + gl_LocalInvocationID.x / LANES * LANES;
    float sum = partial[at];
    for (uint i = 1u; i < LANES; i++) sum += partial[at + i];
    return sum;
}

// sums[r · TOKENS + t] = this invocation's part of Σ_k W[o0 + r, k] x[t0 + t, k], squares[t] of Σ_k x[t0 + t, k]² where there is a norm
void accumulate(uint s, uint o0, uint t0, uint lane, out float sums[SUMS], out float squares[TOKENS]) {
    uint units = push.in_units[s];
    WeightRow rows[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++) rows[r] = weight_row(push.weights[s], push.out_rows[s], units, min(o0 + r, push.out_rows[s] - 1u));
    uint x_row[TOKENS]; // in vec4
    [[unroll]] for (uint t = 0u; t < TOKENS; t++) x_row[t] = (min(t0 + t, push.rows - 1u) * push.x_stride + push.x_offset[s]) / 4u;
    [[unroll]] for (uint i = 0u; i < SUMS; i++) sums[i] = 0.0;
    [[unroll]] for (uint t = 0u; t < TOKENS; t++) squares[t] = 0.0;

    ConstVec4Ref x = ConstVec4Ref(push.x), norm = ConstVec4Ref(push.norm);
    for (uint chunk = lane * SCALE_UNITS; chunk < units; chunk += LANES * SCALE_UNITS) {
        vec2 scale[ROWS];
        [[unroll]] for (uint r = 0u; r < ROWS; r++) scale[r] = weight_scale(rows[r], chunk);
        for (uint unit = chunk; unit < chunk + SCALE_UNITS; unit++) {
            vec4 a[ROWS], b[ROWS];
            [[unroll]] for (uint r = 0u; r < ROWS; r++) weight_load(rows[r], unit, scale[r], a[r], b[r]);
            vec4 na = vec4(1), nb = vec4(1);
            if (NORM) {
                na = norm.v[2u * unit];
                nb = norm.v[2u * unit + 1u];
            }
            [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
                vec4 xa = x.v[x_row[t] + 2u * unit], xb = x.v[x_row[t] + 2u * unit + 1u];
                if (NORM) {
                    squares[t] += dot(xa, xa) + dot(xb, xb);
                    xa *= na;
                    xb *= nb;
                }
                [[unroll]] for (uint r = 0u; r < ROWS; r++) sums[r * TOKENS + t] += dot(a[r], xa) + dot(b[r], xb);
            }
        }
    }
}

float normed(float sum, float squares) { return NORM ? linear_rms(squares, NORM_WIDTH, NORM_EPS) * sum : sum; }

void store(uint s, uint t, uint o, float value, float up) {
    if (GATED) value = linear_gate(value, FLAGS) * up;
    if (o < push.out_rows[s] && t < push.rows) linear_store(s, t, o, value, FLAGS);
}

void main() {
    const uint tile = WORKGROUP / LANES * ROWS;
    uvec2 at = linear_segment(gl_WorkGroupID.x, tile, GATED ? 1u : SEGMENTS);
    uint lane = gl_LocalInvocationID.x % LANES;
    uint o0 = at.y + gl_LocalInvocationID.x / LANES * ROWS;
    uint t0 = gl_WorkGroupID.y * TOKENS;

    float sums[SUMS], ups[SUMS], squares[TOKENS], up_squares[TOKENS];
    accumulate(at.x, o0, t0, lane, sums, squares);
    if (GATED) accumulate(1u, o0, t0, lane, ups, up_squares);

    if (LANES == 1u) {
        [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
            [[unroll]] for (uint r = 0u; r < ROWS; r++) {
                uint i = r * TOKENS + t;
                store(at.x, t0 + t, o0 + r, normed(sums[i], squares[t]), GATED ? normed(ups[i], up_squares[t]) : 0.0);
            }
        }
        return;
    }
    put_partials(0u, sums, squares);
    if (GATED) put_partials(SUMS + SQUARES, ups, up_squares);
    barrier();
    for (uint i = lane; i < SUMS; i += LANES) {
        uint t = i % TOKENS, ups_first = SUMS + SQUARES;
        float value = normed(lanes_sum(i), NORM ? lanes_sum(SUMS + t) : 0.0), up = 0.0;
        if (GATED) up = normed(lanes_sum(ups_first + i), NORM ? lanes_sum(ups_first + SUMS + t) : 0.0);
        store(at.x, t0 + t, o0 + i / TOKENS, value, up);
    }
}
