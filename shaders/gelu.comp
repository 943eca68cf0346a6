// x[t, i] = x Φ(x), Φ the normal distribution's: exactly, or by one of its approximations.
//
// Grid: x = columns / workgroup size, y = rows. An invocation takes one value.
// Constants: 0 workgroup size · 1 KIND (shared.h)
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint KIND = 0;
layout(push_constant, std430) uniform Push { PushGelu push; };

// erf by Abramowitz and Stegun's 7.1.26: off by at most 1.5e-7, and f32's rounding.
float error_function(float x) {
    float a = abs(x), t = 1.0 / (1.0 + 0.3275911 * a);
    float poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - poly * exp(-a * a));
}

float gelu(float x) {
    if (KIND == GELU_QUICK) return x / (1.0 + exp(-1.702 * x));
    // ½ (1 + tanh u) = 1 / (1 + e^−2u), u = √(2/π) (x + 0.044715 x³)
    if (KIND == GELU_TANH) return x / (1.0 + exp(-1.59576912 * x * (1.0 + 0.044715 * x * x)));
    return 0.5 * x * (1.0 + error_function(0.70710678 * x));
}

void main() {
    uint i = gl_GlobalInvocationID.x, at = gl_WorkGroupID.y * push.stride + i;
    if (i < push.width) push.x.v[at] = gelu(push.x.v[at]);
}
