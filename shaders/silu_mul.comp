// y[t, i] = silu(gate[t, i]) up[t, i], or (BACK) its gradients: y then holds the gradient by the result, and gate and up become the
// gradients by themselves.
//
// silu(x) = x s(x), silu'(x) = s(x) (1 + x (1 − s(x))), s(x) = 1 / (1 + e^−x)
//
// Grid: x = up to columns / workgroup size, y = rows. An invocation takes every so-many-th value of its row.
// Constants: 0 workgroup size · 1 BACK
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const bool BACK = false;
layout(push_constant, std430) uniform Push { PushSiluMul push; };

void main() {
    uint t = gl_WorkGroupID.y;
    for (uint i = gl_GlobalInvocationID.x; i < push.width; i += WORKGROUP * gl_NumWorkGroups.x) {
        uint gate_at = t * push.x_stride + push.gate_offset + i, up_at = t * push.x_stride + push.up_offset + i, y_at = t * push.y_stride + i;
        float gate = push.x.v[gate_at], up = push.x.v[up_at];
        float small = exp(-abs(gate)), s = (gate < 0.0 ? small : 1.0) / (1.0 + small); // no power of e that overflows
        if (BACK) {
            float d = push.y.v[y_at];
            push.x.v[gate_at] = d * up * (s * (1.0 + gate * (1.0 - s)));
            push.x.v[up_at] = d * (gate * s);
        } else {
            push.y.v[y_at] = gate * s * up;
        }
    }
}
