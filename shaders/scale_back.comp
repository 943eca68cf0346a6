// The gradient of y = x ⊙ scales by both: sums[i] += Σ_t x[t, i] g[t, i], and g[t, i] ⊙= scales[i] in place, g being the gradient by y.
//
// Grid: x = columns of the widest segment / COLUMNS, y = 1, z = segments. WORKGROUP / COLUMNS invocations share a column, each with
// every so-many-th row; their sums meet in shared memory, in the same order every time.
// Constants: 0 workgroup size · 1 COLUMNS
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const uint COLUMNS = 16;
layout(push_constant, std430) uniform Push { PushScaleBack push; };

const uint PARTS = WORKGROUP / COLUMNS;
shared float partial[PARTS > 1u ? WORKGROUP : 1u];

void main() {
    uint s = gl_WorkGroupID.z, id = gl_LocalInvocationID.x, part = id / COLUMNS, i = gl_WorkGroupID.x * COLUMNS + id % COLUMNS;
    bool inside = i < push.width[s];
    uint scale_at = push.scale_offset[s] + min(i, push.width[s] - 1u);
    float scale = push.scales.v[scale_at], sum = 0.0;
    for (uint t = part; inside && t < push.rows; t += PARTS) {
        uint at = t * push.stride + push.offset[s] + i;
        float g = push.g.v[at];
        sum += push.x.v[at] * g;
        push.g.v[at] = g * scale;
    }
    if (PARTS > 1u) {
        partial[id] = sum;
        barrier();
        if (part == 0u) {
            for (uint p = 1u; p < PARTS; p++) sum += partial[p * COLUMNS + id];
        }
    }
    if (part == 0u && inside) push.sums.v[scale_at] += sum;
}
