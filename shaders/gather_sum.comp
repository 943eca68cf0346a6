// y[t, i] = Σ_k x[from[k] + i], begin[t] ≤ k < begin[t + 1]: the gradient of gather.comp, and of rows that several others took.
//
// Grid: x = width / workgroup size, y = rows. An invocation takes one value; its terms are added in their order.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(push_constant, std430) uniform Push { PushGatherSum push; };

void main() {
    uint i = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y;
    if (i >= push.width) return;
    uint end = push.begin.v[t + 1u];
    float sum = 0.0;
    for (uint k = push.begin.v[t]; k < end; k++) sum += push.x.v[push.from.v[k] + i];
    push.y.v[t * push.y_stride + i] = sum;
}
