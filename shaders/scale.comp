// y[t, i] = x[t, i] scales[i]: the z epilogue of a first factor as a step of its own, where what came before it is needed too.
//
// Grid: x = up to columns of the widest segment / workgroup size, y = rows, z = segments. An invocation takes every so-many-th value of
// its row.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(push_constant, std430) uniform Push { PushScale push; };

void main() {
    uint s = gl_WorkGroupID.z, from = gl_WorkGroupID.y * push.stride + push.offset[s];
    for (uint i = gl_GlobalInvocationID.x; i < push.width[s]; i += WORKGROUP * gl_NumWorkGroups.x)
        push.y.v[from + i] = push.x.v[from + i] * push.scales.v[push.scale_offset[s] + i];
}
