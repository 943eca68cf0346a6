// Merges the shares that attention_tiles.comp leaves when positions are split:
// out[t, h, :] = Σ_s exp(m_s − m) values_s / Σ_s exp(m_s − m) total_s, m = max_s m_s
//
// Grid: x = heads, y = rows. An invocation takes every WORKGROUP-th value of the head.
// Constants: 0 workgroup size · 1 HEAD_DIM · 2 SPLITS
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint SPLITS = 2;
layout(push_constant, std430) uniform Push { PushAttentionCombine push; };

void main() {
    uint head = gl_WorkGroupID.x, t = gl_WorkGroupID.y;
    uint from = (t * push.heads + head) * SPLITS * (HEAD_DIM + 2u);
    float top = -3.0e38, sum = 0.0;
    for (uint s = 0u; s < SPLITS; s++) top = max(top, push.partials.v[from + s * (HEAD_DIM + 2u) + HEAD_DIM]);
    for (uint s = 0u; s < SPLITS; s++) {
        uint at = from + s * (HEAD_DIM + 2u) + HEAD_DIM;
        sum += push.partials.v[at + 1u] * exp(push.partials.v[at] - top);
    }
    for (uint d = gl_LocalInvocationID.x; d < HEAD_DIM; d += WORKGROUP) {
        float value = 0.0;
        for (uint s = 0u; s < SPLITS; s++) {
            uint at = from + s * (HEAD_DIM + 2u);
            value += push.partials.v[at + d] * exp(push.partials.v[at + HEAD_DIM] - top);
        }
        push.out_.v[t * push.out_stride + head * HEAD_DIM + d] = value / sum;
    }
}
