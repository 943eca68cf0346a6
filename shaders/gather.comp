// y[t, j · width + i] = x[index[t, j], i]: rows picked by number, several side by side in one.
//
// Grid: x = width / workgroup size, y = rows, z = pieces. An invocation takes one value.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(push_constant, std430) uniform Push { PushGather push; };

void main() {
    uint i = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y, j = gl_WorkGroupID.z;
    if (i >= push.width) return;
    uint from = push.index.v[t * push.pieces + j];
    push.y.v[t * push.y_stride + j * push.width + i] = push.x.v[from * push.x_stride + i];
}
