// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) on CPU drivers, for any number of rows: an invocation makes a block of ROWS output rows ×
// TOKENS step rows; nothing passes through shared memory.
//
// Grid: x = output rows of all segments / (SUBGROUP_SIZE · ROWS), y = step rows / TOKENS. CPU drivers vectorise over the invocations
// of a subgroup and, inside loops, load for each of them separately even where they read the same: so an x is loaded once per
// subgroup, each invocation its share, and handed round by subgroupBroadcast with constant indices. Loops are unrolled because
// every turn blends all sums by the execution mask; a turn of about a thousand products for each invocation is as much as the cache for
// instructions holds. WEIGHT_GROUP rows lie interleaved, the two rows of a subgroup's invocations by default, so what it reads next is what
// follows.
// Memory per output: in · bytes(type) / TOKENS of weights + 4 · in / (ROWS · SUBGROUP_SIZE) of x.
//
// Constants: 0 workgroup size (= SUBGROUP_SIZE, 4 to 16) · 1 WEIGHT_GROUP · 2 ROWS · 3 TOKENS · 4 FLAGS (shared.h) · 5 number of segments ·
// 6, 7 the norm's width and eps (bits)
// Tiers: subgroup; TOUCH (a workgroup's rows are a group of interleaved ones): storage.
#version 450
#include "refs.glsl"
#include "weights.glsl"
#include "linear.glsl"
#ifdef TOUCH
#include "touch.glsl"
#endif
#extension GL_KHR_shader_subgroup_ballot : require

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint SUBGROUP_SIZE = 8;
layout(constant_id = 2) const uint ROWS = 4;
layout(constant_id = 3) const uint TOKENS = 8;
layout(constant_id = 4) const uint FLAGS = 0;
layout(constant_id = 5) const uint SEGMENTS = 1;
layout(constant_id = 6) const uint NORM_WIDTH = 1;
layout(constant_id = 7) const uint NORM_EPS = 0;

const bool NORM = (FLAGS & LINEAR_NORM) != 0u, SILU_MUL = (FLAGS & LINEAR_SILU_MUL) != 0u;
const uint SUMS = ROWS * TOKENS;
const uint QUADS = SUMS > 128u ? 1u : SUMS > 32u ? 4u : 2u * SCALE_UNITS; // of each row's values in a turn
const uint TURN = 4u * QUADS, WEIGHTS = ROWS * QUADS;
const uint SHARES = TOKENS * TURN / SUBGROUP_SIZE;                   // of a turn's x, row after row, that an invocation loads
const uint SLOTS = TURN < SUBGROUP_SIZE ? 1u : TURN / SUBGROUP_SIZE; // of them that a row has a part in
const uint PART = TURN < SUBGROUP_SIZE ? TURN : SUBGROUP_SIZE;       // invocations that have a value of a row in such a slot
const uint TOGETHER = TOKENS < 2u ? 1u : 2u; // step rows whose sums are in registers at a time; a weight is brought there once for them

// w[r · QUADS + q] = W[row r, 4 · (quad + q) + 0…3]
void load_weights(WeightRow rows[ROWS], uint quad, out vec4 w[WEIGHTS]) {
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        if (QUADS == 1u) {
            w[r] = weight_quad(rows[r], quad);
            continue;
        }
        vec2 scale = weight_scale(rows[r], quad / 2u);
        [[unroll]] for (uint q = 0u; q < QUADS; q += 2u) weight_load(rows[r], (quad + q) / 2u, scale, w[r * QUADS + q], w[r * QUADS + q + 1u]);
    }
}

#ifdef TOUCH
// The lines of memory that a turn's weights lie in, plane after plane; a turn's invocations touch them all.
const uint TURN_QUARTERS = QUADS / 2u * WEIGHT_GROUP / 4u; // words of a plane that has a quarter of one for each unit
const uint LINES_0 = (TURN_QUARTERS * WEIGHT_PLANES.x + LINE_WORDS - 1u) / LINE_WORDS;
const uint LINES_1 = (TURN_QUARTERS * WEIGHT_PLANES.y + LINE_WORDS - 1u) / LINE_WORDS;
const uint LINES_2 = (TURN_QUARTERS * WEIGHT_PLANES.z + LINE_WORDS - 1u) / LINE_WORDS;
const uint TOUCHES = (LINES_0 + LINES_1 + LINES_2 + SUBGROUP_SIZE - 1u) / SUBGROUP_SIZE; // by each invocation

// The first word of line number `line` in the first turn, and how many words further it is there from unit to unit.
uvec2 line_place(uint s, uint o0, uint line) {
    const uint lines[3] = uint[](LINES_0, LINES_1, LINES_2);
    uint units = push.in_units[s], group = weight_place(o0 / WEIGHT_GROUP * WEIGHT_GROUP, units), plane = weight_plane(push.out_rows[s], units);
    uint before = 0u, start = 0u;
    uvec2 place = uvec2(0);
    [[unroll]] for (uint p = 0u; p < 3u; p++) {
        if (lines[p] != 0u && line >= before)
            place = uvec2(start + group / 4u * WEIGHT_PLANES[p] + min(line - before, lines[p] - 1u) * LINE_WORDS, WEIGHT_GROUP / 4u * WEIGHT_PLANES[p]);
        before += lines[p];
        start += plane / 4u * WEIGHT_PLANES[p];
    }
    return place;
}
#endif

// sums[r · TOKENS + t] = Σ_k W[o0 + r, k] x[t0 + t, k]
void accumulate(uint s, uint o0, uint t0, out float sums[SUMS]) {
    uint units = push.in_units[s];
    WeightRow rows[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++) rows[r] = weight_row(push.weights[s], push.out_rows[s], units, min(o0 + r, push.out_rows[s] - 1u));
    uint x_at[SHARES]; // where a turn's shares are, but for the turn
    [[unroll]] for (uint i = 0u; i < SHARES; i++) {
        uint at = i * SUBGROUP_SIZE + gl_SubgroupInvocationID;
        x_at[i] = min(t0 + at / TURN, push.rows - 1u) * push.x_stride + push.x_offset[s] + at % TURN;
    }
    [[unroll]] for (uint i = 0u; i < SUMS; i++) sums[i] = 0.0;
    float squares[SHARES / SLOTS];
    [[unroll]] for (uint i = 0u; i < SHARES / SLOTS; i++) squares[i] = 0.0;

#ifdef TOUCH
    uvec2 places[TOUCHES];
    uint touched = 0u;
    [[unroll]] for (uint i = 0u; i < TOUCHES; i++) places[i] = line_place(s, o0, i * SUBGROUP_SIZE + gl_SubgroupInvocationID);
#endif
    for (uint quad = 0u; quad < 2u * units; quad += QUADS) {
#ifdef TOUCH
        [[unroll]] for (uint i = 0u; i < TOUCHES; i++) touched += touch(push.weights[s], places[i].x + quad / 2u * places[i].y);
#endif
        float norm[SLOTS], share[SHARES];
        [[unroll]] for (uint i = 0u; NORM && i < SLOTS; i++)
            norm[i] = FloatRef(push.norm).v[4u * quad + i * SUBGROUP_SIZE + gl_SubgroupInvocationID % PART];
        [[unroll]] for (uint i = 0u; i < SHARES; i++) {
            float x = FloatRef(push.x).v[x_at[i] + 4u * quad];
            if (NORM) squares[i / SLOTS] += x * x;
            share[i] = NORM ? x * norm[i % SLOTS] : x;
        }
        vec4 w[WEIGHTS];
        load_weights(rows, quad, w);
        [[unroll]] for (uint t = 0u; t < TOKENS; t += TOGETHER) {
            [[unroll]] for (uint k = 0u; k < TURN; k++) {
                float x[TOGETHER];
                [[unroll]] for (uint i = 0u; i < TOGETHER; i++) {
                    uint at = (t + i) * TURN + k;
                    x[i] = subgroupBroadcast(share[at / SUBGROUP_SIZE], at % SUBGROUP_SIZE);
                }
                [[unroll]] for (uint i = 0u; i < ROWS * TOGETHER; i++)
                    sums[i / TOGETHER * TOKENS + t + i % TOGETHER] += w[i / TOGETHER * QUADS + k / 4u][k % 4u] * x[i % TOGETHER];
            }
        }
    }
#ifdef TOUCH
    if (touched == 1u && push.rows == 0u) sums[0] = 0.0; // never
#endif
    if (!NORM) return;
    [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
        float sum = 0.0;
        [[unroll]] for (uint i = 0u; i < PART; i++) {
            uint at = t * TURN + i;
            sum += subgroupBroadcast(squares[at / (SUBGROUP_SIZE * SLOTS)], at % SUBGROUP_SIZE);
        }
        float scale = linear_rms(sum, NORM_WIDTH, NORM_EPS);
        [[unroll]] for (uint r = 0u; r < ROWS; r++) sums[r * TOKENS + t] *= scale;
    }
}

void main() {
    uvec2 at = linear_segment(gl_WorkGroupID.x, SUBGROUP_SIZE * ROWS, SILU_MUL ? 1u : SEGMENTS);
    uint o0 = at.y + gl_LocalInvocationID.x * ROWS, t0 = gl_WorkGroupID.y * TOKENS;
    float sums[SUMS], gates[SUMS];
    if (SILU_MUL) {
        // One code for both matrices: twice as much would double what the first start takes to compile it.
        [[dont_unroll]] for (uint s = 0u; s < 2u; s++) {
            [[unroll]] for (uint i = 0u; i < SUMS; i++) gates[i] = sums[i];
            accumulate(s, o0, t0, sums);
        }
    } else {
        accumulate(at.x, o0, t0, sums);
    }
    // Likewise one code for all sums; taken by a variable index, they have to be copies for `accumulate` to keep its own in registers.
    float values[SUMS], of_gate[SUMS];
    [[unroll]] for (uint i = 0u; i < SUMS; i++) {
        values[i] = sums[i];
        of_gate[i] = gates[i];
    }
    [[dont_unroll]] for (uint i = 0u; i < SUMS; i++) {
        uint o = o0 + i / TOKENS, t = t0 + i % TOKENS;
        float value = SILU_MUL ? values[i] * linear_gate(of_gate[i], FLAGS) : values[i];
        if (o < push.out_rows[at.x] && t < push.rows) linear_store(at.x, t, o, value, FLAGS);
    }
}
