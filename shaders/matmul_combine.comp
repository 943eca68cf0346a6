// y[t, o] = epilogue(undo[t] Σ_split share[split, t, o]): adds up what the workgroups of matmul_matrix.comp left that shared a sum.
//
// Grid: x = output rows of all segments / workgroup size, y = step rows. An invocation makes one value.
// Memory per output: SPLITS floats.
//
// Constants: 0 workgroup size · 1 FLAGS (shared.h; no norm) · 2 number of segments · 3 SPLITS
// Tiers: none of its own; the matrix kernels are what it is for.
#version 450
#include "refs.glsl"
#include "linear.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const uint FLAGS = 0;
layout(constant_id = 2) const uint SEGMENTS = 1;
layout(constant_id = 3) const uint SPLITS = 2;

const bool SILU_MUL = (FLAGS & LINEAR_SILU_MUL) != 0u;
const uint PARTS = SILU_MUL ? 2u : 1u;

void main() {
    uvec2 at = linear_segment(gl_WorkGroupID.x, WORKGROUP, SILU_MUL ? 1u : SEGMENTS);
    uint s = at.x, o = at.y + gl_LocalInvocationID.x, t = gl_WorkGroupID.y, part = push.rows * push.y_stride;
    if (o >= push.out_rows[s]) return;
    uint undo = push.x_stride / 2u * push.rows, from = matrix_shares(undo, push.rows) + t * push.y_stride + push.y_offset[s] + o;
    float sums[2] = {0.0, 0.0};
    for (uint i = 0u; i < SPLITS; i++)
        [[unroll]] for (uint p = 0u; p < PARTS; p++) sums[p] += FloatRef(push.x).v[from + (i * PARTS + p) * part];
    float scale = FloatRef(push.x).v[undo + t], value = sums[0] * scale;
    if (SILU_MUL) value = linear_gate(value, FLAGS) * (sums[1] * scale);
    linear_store(s, t, o, value, FLAGS);
}
