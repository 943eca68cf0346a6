// The gradient of RoPE: turns the gradients by the rotated q and k back, in place:
// (g_i, g_{i+d/2}) → (g_i cos + g_{i+d/2} sin, g_{i+d/2} cos − g_i sin). v is not rotated.
//
// Grid: x = (heads + kv_heads) · head_dim / 4 / workgroup size, y = rows. An invocation takes values i, i + 1 of a head and their
// partners i + d/2, i + 1 + d/2.
// Constants: 0 workgroup size · 1 HEAD_DIM (a multiple of 4)
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(push_constant, std430) uniform Push { PushRopeKv push; };

void main() {
    uint item = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y;
    uint head = item / (HEAD_DIM / 4u), i = item % (HEAD_DIM / 4u) * 2u;
    if (head >= push.heads + push.kv_heads) return;
    uint position = RowRef(push.step.v.rows).v[t].position;
    uint a = t * push.stride + i + (head < push.heads ? push.q_offset + head * HEAD_DIM : push.k_offset + (head - push.heads) * HEAD_DIM);
    uint b = a + HEAD_DIM / 2u, turn = position * (HEAD_DIM / 2u) + i;
    for (uint c = 0u; c < 2u; c++) {
        vec2 r = push.table.v[turn + c]; // (cos, sin)
        float ga = push.qkv.v[a + c], gb = push.qkv.v[b + c];
        push.qkv.v[a + c] = ga * r.x + gb * r.y;
        push.qkv.v[b + c] = gb * r.x - ga * r.y;
    }
}
