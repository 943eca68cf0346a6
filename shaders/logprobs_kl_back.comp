// As logprobs_back.comp, with the divergence from a reference π' of given logits: kl[j] = KL(π ‖ π'), or KL(π' ‖ π) where reverse, over the
// whole vocabulary, and logits become the gradient of weights[j] · out[j] − kl_weights[j] · kl[j]:
// d KL(π ‖ π') / d logits_i = π_i (log π_i − log π'_i − KL) and d KL(π' ‖ π) / d logits_i = π_i − π'_i.
// NaN where either row of logits holds one.
//
// Grid: x = rows. A workgroup reads its row of logits four times, of the reference's three times.
// Constants: 0 workgroup size
// Tiers: strict.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(push_constant, std430) uniform Push { PushLogprobsKlBack push; };
#include "reduce.glsl"
#include "softmax.glsl"

void main() {
    uint j = gl_WorkGroupID.x, from = j * push.logits_stride, target = push.targets.v[j], id = gl_LocalInvocationID.x;
    Softmax policy = softmax_of(push.logits, from, push.vocab), other = softmax_of(push.reference, from, push.vocab);
    float log_policy = policy.maximum + log(policy.sum), log_other = other.maximum + log(other.sum); // of their sums
    bool nan = policy.nan || other.nan, reverse = push.reverse != 0u;
    float sum = 0.0;
    for (uint i = id; i < push.vocab; i += WORKGROUP) {
        float p = push.logits.v[from + i] - log_policy, q = push.reference.v[from + i] - log_other; // log π_i, log π'_i
        sum += reverse ? exp(q) * (q - p) : exp(p) * (p - q);
    }
    float kl = workgroup_sum(sum);
    float logit = push.logits.v[from + target], weight = push.weights.v[j], kl_weight = push.kl_weights.v[j];
    barrier(); // the target's logit was read by all before it changes
    if (nan) weight = uintBitsToFloat(0x7fc00000u);
    for (uint i = id; i < push.vocab; i += WORKGROUP) {
        float log_p = push.logits.v[from + i] - log_policy, log_q = push.reference.v[from + i] - log_other, p = exp(log_p);
        float slope = reverse ? p - exp(log_q) : p * (log_p - log_q - kl);
        push.logits.v[from + i] = weight * ((i == target ? 1.0 : 0.0) - p) - kl_weight * slope;
    }
    if (id == 0u) {
        push.out_.v[j] = nan ? weight : logit - log_policy;
        push.kl.v[j] = nan ? weight : kl;
    }
}
