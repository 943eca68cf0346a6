// y[t, i] = x Φ(x), Φ the normal distribution's: exactly, or by one of its approximations; or (BACK) its gradient: y then holds that by the
// result, and becomes that by x.
//
// The approximations are x s(k), s(k) = 1 / (1 + e^−k), whose slope is s + x s (1 − s) k'.
//
// Grid: x = up to columns / workgroup size, y = rows. An invocation takes every so-many-th value of its row.
// Constants: 0 workgroup size · 1 KIND (shared.h) · 2 BACK
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint KIND = 0;
layout(constant_id = 2) const bool BACK = false;
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

float slope(float x) {
    if (KIND == GELU_ERF) return 0.5 * (1.0 + error_function(0.70710678 * x)) + 0.39894228 * x * exp(-0.5 * x * x);
    bool quick = KIND == GELU_QUICK;
    float k = quick ? 1.702 * x : 1.59576912 * x * (1.0 + 0.044715 * x * x), of_k = quick ? 1.702 : 1.59576912 * (1.0 + 0.134145 * x * x);
    float small = exp(-abs(k)), share = 1.0 / (1.0 + small); // no power of e that overflows
    return (k < 0.0 ? small : 1.0) * share + x * (small * share * share) * of_k;
}

void main() {
    for (uint i = gl_GlobalInvocationID.x; i < push.width; i += WORKGROUP * gl_NumWorkGroups.x) {
        uint at = gl_WorkGroupID.y * push.stride + i;
        float x = push.x.v[at];
        push.y.v[at] = BACK ? push.y.v[at] * slope(x) : gelu(x);
    }
}
