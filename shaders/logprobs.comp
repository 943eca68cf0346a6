// out[j] = logits[j, targets[j]] − log Σ_i exp logits[j, i]; NaN where logits hold one.
//
// Grid: x = rows. A workgroup reads its row of logits twice.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(push_constant, std430) uniform Push { PushLogprobs push; };
#include "reduce.glsl"
#include "softmax.glsl"

void main() {
    uint j = gl_WorkGroupID.x;
    Softmax softmax = softmax_of(push.logits, j * push.logits_stride, push.vocab);
    if (gl_LocalInvocationID.x != 0u) return;
    float logit = push.logits.v[j * push.logits_stride + push.targets.v[j]];
    push.out_.v[j] = softmax.nan ? uintBitsToFloat(0x7fc00000u) : logit - softmax.maximum - log(softmax.sum);
}
