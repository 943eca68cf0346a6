// y[j, :] = x[i, :] / √(mean x[i, :]² + eps) ⊙ weight with i = index[j], or j without an index.
//
// Grid: x = rows, y = parts of a row (heads), each normed by itself with the same weights. A workgroup takes one. Reads it twice,
// writes it once.
// Constants: 0 workgroup size · 1 INDEXED · 2 RESIDUAL: y += …
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const bool INDEXED = false;
layout(constant_id = 2) const bool RESIDUAL = false;
layout(push_constant, std430) uniform Push { PushRmsNorm push; };
#include "reduce.glsl"

void main() {
    uint id = gl_LocalInvocationID.x;
    uint row = INDEXED ? push.index.v[gl_WorkGroupID.x] : gl_WorkGroupID.x;
    uint part = gl_WorkGroupID.y * push.part_stride;
    uint from = row * push.x_stride + part, to = gl_WorkGroupID.x * push.y_stride + part;
    float squares = 0.0;
    for (uint i = id; i < push.width; i += WORKGROUP) squares += push.x.v[from + i] * push.x.v[from + i];
    float scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    for (uint i = id; i < push.width; i += WORKGROUP) {
        float value = push.x.v[from + i] * scale * push.weight.v[i];
        if (RESIDUAL) value += push.y.v[to + i];
        push.y.v[to + i] = value;
    }
}
