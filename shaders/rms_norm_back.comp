// The gradient of h[j] = x[i] ρ ⊙ weight, ρ = 1 / √(mean x[i]² + eps), by x, from g[j], the gradient by h:
// dx[i, :] += ρ (weight ⊙ g[j] − x[i] ρ² / width Σ weight ⊙ g[j] ⊙ x[i]), i = index[j] (no two alike), or j without an index.
//
// Grid: x = rows. A workgroup takes one row. Reads it twice.
// Constants: 0 workgroup size · 1 INDEXED
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const bool INDEXED = false;
layout(push_constant, std430) uniform Push { PushRmsNormBack push; };
#include "reduce.glsl"

void main() {
    uint id = gl_LocalInvocationID.x;
    uint row = INDEXED ? push.index.v[gl_WorkGroupID.x] : gl_WorkGroupID.x;
    uint at = row * push.x_stride, from = gl_WorkGroupID.x * push.g_stride;
    float squares = 0.0, product = 0.0;
    for (uint i = id; i < push.width; i += WORKGROUP) {
        float x = push.x.v[at + i];
        squares += x * x;
        product += x * push.weight.v[i] * push.g.v[from + i];
    }
    float scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    float along = workgroup_sum(product) * scale * scale / float(push.width);
    for (uint i = id; i < push.width; i += WORKGROUP)
        push.dx.v[at + i] += scale * (push.weight.v[i] * push.g.v[from + i] - push.x.v[at + i] * along);
}
