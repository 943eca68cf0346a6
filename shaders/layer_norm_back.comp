// The gradient of h = n ⊙ weight + bias, n = (x − mean x) ρ, ρ = 1 / √(variance of x + eps), by x, from g, the gradient by h:
// dx[t, :] += ρ (w − mean w − n mean (w ⊙ n)), w = weight ⊙ g[t].
//
// Grid: x = rows. A workgroup takes one row. Reads x four times, g twice.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(push_constant, std430) uniform Push { PushLayerNormBack push; };
#include "reduce.glsl"

void main() {
    uint id = gl_LocalInvocationID.x, at = gl_WorkGroupID.x * push.x_stride, from = gl_WorkGroupID.x * push.g_stride;
    float width = float(push.width), sum = 0.0, squares = 0.0, direct = 0.0, product = 0.0;
    for (uint i = id; i < push.width; i += WORKGROUP) sum += push.x.v[at + i];
    float mean = workgroup_sum(sum) / width;
    for (uint i = id; i < push.width; i += WORKGROUP) squares += (push.x.v[at + i] - mean) * (push.x.v[at + i] - mean);
    float scale = inversesqrt(workgroup_sum(squares) / width + push.eps);
    for (uint i = id; i < push.width; i += WORKGROUP) {
        float w = push.weight.v[i] * push.g.v[from + i];
        direct += w;
        product += w * ((push.x.v[at + i] - mean) * scale);
    }
    direct = workgroup_sum(direct) / width;
    product = workgroup_sum(product) / width;
    for (uint i = id; i < push.width; i += WORKGROUP) {
        float n = (push.x.v[at + i] - mean) * scale;
        push.dx.v[at + i] += scale * (push.weight.v[i] * push.g.v[from + i] - direct - n * product);
    }
}
