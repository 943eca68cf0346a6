// out[j] = log π(targets[j]) = logits[j, targets[j]] − log Σ_i exp logits[j, i], and logits become the gradient of weights[j] · out[j]:
// logits[j, i] ← weights[j] ([i = targets[j]] − softmax(logits[j])_i). NaN where logits hold one.
//
// Grid: x = rows. A workgroup reads its row of logits three times.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(push_constant, std430) uniform Push { PushLogprobsBack push; };
#include "reduce.glsl"
#include "softmax.glsl"

void main() {
    uint j = gl_WorkGroupID.x, from = j * push.logits_stride, target = push.targets.v[j];
    Softmax softmax = softmax_of(push.logits, from, push.vocab);
    float logit = push.logits.v[from + target], weight = push.weights.v[j];
    barrier(); // the target's logit was read by all before it changes
    if (softmax.nan) weight = uintBitsToFloat(0x7fc00000u);
    for (uint i = gl_LocalInvocationID.x; i < push.vocab; i += WORKGROUP) {
        float p = exp(push.logits.v[from + i] - softmax.maximum) / softmax.sum;
        push.logits.v[from + i] = weight * ((i == target ? 1.0 : 0.0) - p);
    }
    if (gl_LocalInvocationID.x == 0u) push.out_.v[j] = softmax.nan ? weight : logit - softmax.maximum - log(softmax.sum);
}
