// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) on CPU drivers, for any number of rows: an invocation makes a block of ROWS output rows ×
// TOKENS step rows; nothing passes through shared memory.
//
// Grid: x = output rows of all segments / (SUBGROUP_SIZE · ROWS), y = step rows / TOKENS. How a block is made: lanes.glsl.
// Memory per output: in · bytes(type) / TOKENS of weights + 4 · in / (ROWS · SUBGROUP_SIZE) of x.
//
// Constants: 0 workgroup size (= SUBGROUP_SIZE, 4 to 16) · 1 WEIGHT_GROUP · 2 ROWS · 3 TOKENS · 4 FLAGS (shared.h) · 5 number of segments ·
// 6, 7 the norm's width and eps (bits)
// Tiers: subgroup; TOUCH (brings its weights near first; a workgroup's rows are whole groups of interleaved ones): storage.
#version 450
#include "refs.glsl"
#include "linear.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint SUBGROUP_SIZE = 8;
layout(constant_id = 2) const uint ROWS = 4;
layout(constant_id = 3) const uint TOKENS = 8;
layout(constant_id = 4) const uint FLAGS = 0;
layout(constant_id = 5) const uint SEGMENTS = 1;
layout(constant_id = 6) const uint NORM_WIDTH = 1;
layout(constant_id = 7) const uint NORM_EPS = 0;

const bool NORM = (FLAGS & LINEAR_NORM) != 0u, SILU_MUL = (FLAGS & LINEAR_SILU_MUL) != 0u;
#include "lanes.glsl"

Lanes lanes_of(uint s) {
    return Lanes(push.weights[s], push.x, push.norm, push.out_rows[s], push.in_units[s], push.x_offset[s], push.x_stride, push.rows, true);
}

void main() {
    uvec2 at = linear_segment(gl_WorkGroupID.x, SUBGROUP_SIZE * ROWS, SILU_MUL ? 1u : SEGMENTS);
    uint o0 = at.y + gl_LocalInvocationID.x * ROWS, t0 = gl_WorkGroupID.y * TOKENS;
    float sums[SUMS], gates[SUMS];
#ifdef TOUCH
    uint touched = lanes_touch(lanes_of(at.x), at.y);
    if (SILU_MUL) touched += lanes_touch(lanes_of(1u), at.y);
#endif
    if (SILU_MUL) {
        // One code for both matrices: twice as much would double what the first start takes to compile it.
        [[dont_unroll]] for (uint s = 0u; s < 2u; s++) {
            [[unroll]] for (uint i = 0u; i < SUMS; i++) gates[i] = sums[i];
            lanes_multiply(lanes_of(s), o0, t0, sums);
        }
    } else {
        lanes_multiply(lanes_of(at.x), o0, t0, sums);
    }
#ifdef TOUCH
    if (touched == 1u && push.rows == 0u) sums[0] = 0.0; // never
#endif
    // Likewise one code for all sums; taken by a variable index, they have to be copies for `lanes_multiply` to keep its own in registers.
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
