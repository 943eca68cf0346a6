// y[t, :] = (x[t, :] − mean x[t, :]) / √(variance of x[t, :] + eps) ⊙ weight + bias.
//
// Grid: x = rows. A workgroup takes one row. Reads it three times, writes it once; y may be x.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(push_constant, std430) uniform Push { PushLayerNorm push; };
#include "reduce.glsl"

void main() {
    uint id = gl_LocalInvocationID.x;
    uint from = gl_WorkGroupID.x * push.x_stride, to = gl_WorkGroupID.x * push.y_stride;
    float sum = 0.0, squares = 0.0;
    for (uint i = id; i < push.width; i += WORKGROUP) sum += push.x.v[from + i];
    float mean = workgroup_sum(sum) / float(push.width);
    // From the mean, not as a difference of means: that would cancel where the mean is large.
    for (uint i = id; i < push.width; i += WORKGROUP) squares += (push.x.v[from + i] - mean) * (push.x.v[from + i] - mean);
    float scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    for (uint i = id; i < push.width; i += WORKGROUP) push.y.v[to + i] = (push.x.v[from + i] - mean) * scale * push.weight.v[i] + push.bias.v[i];
}
