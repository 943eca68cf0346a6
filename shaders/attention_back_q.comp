// The gradient of attention by q, causal or over whole sequences, with what the gradients by k and v (attention_back_kv.comp) need of each query.
//
// With s_p = scale q · k[p], L = log Σ_p exp s_p, P_p = exp(s_p − L) over the positions p that the row sees and g the gradient by out:
//   dq = scale Σ_p P_p (g · v[p] − D) k[p],  D = g · out;  stats[t, h] = (L, D).
// Scores are made anew, twice: for L, then for dq. No row of them is kept.
//
// Grid: x = spans, y = heads / HEADS, z = SLICES. An invocation takes a row of the span and HEADS heads of one KV head; all walk the same
// keys, so keys and values are uniform loads, which SUBGROUP shares out (share.glsl). On GPUs, whose registers would not hold q, g and dq,
// q and g are read again for each key (KEEPS false), and dq goes in SLICES parts, for which the scores are made anew.
// Memory per (span, head): 3 · positions · head_dim of K and V, SLICES times.
//
// Constants: 0 workgroup size (≥ rows of a span) · 1 HEAD_DIM (a multiple of 4) · 2 HEADS (divides heads / kv_heads) · 3 SLICES (1 where
// KEEPS) · 4 KEEPS · 5 SUBGROUP_SIZE (SUBGROUP)
// Tiers: strict; SUBGROUP, with KEEPS.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 8;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint HEADS = 1;
layout(constant_id = 3) const uint SLICES = 1;
layout(constant_id = 4) const bool KEEPS = true;
layout(constant_id = 5) const uint SUBGROUP_SIZE = 8;
layout(push_constant, std430) uniform Push { PushAttentionBack push; };
#include "kv.glsl"

const uint VECS = HEAD_DIM / 4u;
const uint STATE = HEADS * VECS;
const uint KEPT = KEEPS ? STATE : 1u; // of q and g
const uint SLICE = (VECS + SLICES - 1u) / SLICES;
const float LOWEST = -3.0e38;
#include "share.glsl"

float sum4(vec4 v) { return v.x + v.y + v.z + v.w; }

void main() {
    uint id = gl_LocalInvocationID.x, head = gl_WorkGroupID.y * HEADS, kv_head = head / (push.heads / push.kv_heads);
    Span span = SpanRef(push.step.v.spans).v[gl_WorkGroupID.x];
    uint t = span.first_row + min(id, span.rows - 1u);
    uint sequence = RowRef(push.step.v.rows).v[span.first_row].sequence;
    uint last = push.whole > 0u ? push.whole - 1u : RowRef(push.step.v.rows).v[t].position;
    uint end = push.whole > 0u ? last : RowRef(push.step.v.rows).v[span.first_row + span.rows - 1u].position;
    uint lowest = kv_lowest(last, push.window), begin = kv_lowest(RowRef(push.step.v.rows).v[span.first_row].position, push.window);

    uint first = gl_WorkGroupID.z * SLICE; // of the slice's vectors in a head
    vec4 q[KEPT], g[KEPT], dq[HEADS * SLICE];
    float top[HEADS], total[HEADS], log_sum[HEADS], along[HEADS];
    uint from = (t * push.q_stride + head * HEAD_DIM) / 4u, out_from = (t * push.out_stride + head * HEAD_DIM) / 4u;
    [[unroll]] for (uint h = 0u; h < HEADS; h++) {
        vec4 sum = vec4(0);
        [[unroll]] for (uint d = 0u; d < VECS; d++) {
            uint i = h * VECS + d;
            vec4 gradient = ConstVec4Ref(push.d_out).v[out_from + i];
            sum += gradient * ConstVec4Ref(push.out_).v[out_from + i];
            if (KEEPS) {
                q[i] = ConstVec4Ref(push.q).v[from + i] * push.scale;
                g[i] = gradient;
            }
        }
        [[unroll]] for (uint d = 0u; d < SLICE; d++) dq[h * SLICE + d] = vec4(0);
        along[h] = sum4(sum);
        top[h] = LOWEST;
        total[h] = 0.0;
    }

    for (uint p = begin; p <= end; p++) {
        bool seen = p >= lowest && p <= last;
        uvec2 page = kv_page(sequence, p);
        uint at = push.page_base + kv_index(p, push.kv_heads, kv_head, HEAD_DIM);
        Share key;
        share_kv(key, page, at);
        vec4 sums[HEADS];
        [[unroll]] for (uint h = 0u; h < HEADS; h++) sums[h] = vec4(0);
        [[unroll]] for (uint d = 0u; d < VECS; d++) {
            vec4 k = share_kv_take(key, page, at, d);
            [[unroll]] for (uint h = 0u; h < HEADS; h++) {
                uint i = h * VECS + d;
                sums[h] += (KEEPS ? q[min(i, KEPT - 1u)] : ConstVec4Ref(push.q).v[from + i] * push.scale) * k;
            }
        }
        [[unroll]] for (uint h = 0u; h < HEADS; h++) {
            float score = seen ? sum4(sums[h]) : LOWEST, grown = max(top[h], score);
            total[h] = total[h] * exp(top[h] - grown) + (seen ? exp(score - grown) : 0.0);
            top[h] = grown;
        }
    }
    [[unroll]] for (uint h = 0u; h < HEADS; h++) log_sum[h] = top[h] + log(total[h]);

    for (uint p = begin; p <= end; p++) {
        bool seen = p >= lowest && p <= last;
        uvec2 page = kv_page(sequence, p);
        uint k_at = push.page_base + kv_index(p, push.kv_heads, kv_head, HEAD_DIM), v_at = k_at + kv_values(push.kv_heads, HEAD_DIM);
        Share key, of_key;
        share_kv(key, page, k_at);
        share_kv(of_key, page, v_at);
        vec4 scores[HEADS], products[HEADS];
        [[unroll]] for (uint h = 0u; h < HEADS; h++) scores[h] = products[h] = vec4(0);
        [[unroll]] for (uint d = 0u; d < VECS; d++) {
            vec4 k = share_kv_take(key, page, k_at, d), v = share_kv_take(of_key, page, v_at, d);
            [[unroll]] for (uint h = 0u; h < HEADS; h++) {
                uint i = h * VECS + d, kept = min(i, KEPT - 1u);
                scores[h] += (KEEPS ? q[kept] : ConstVec4Ref(push.q).v[from + i] * push.scale) * k;
                products[h] += (KEEPS ? g[kept] : ConstVec4Ref(push.d_out).v[out_from + i]) * v;
            }
        }
        float ds[HEADS];
        [[unroll]] for (uint h = 0u; h < HEADS; h++) ds[h] = seen ? exp(sum4(scores[h]) - log_sum[h]) * (sum4(products[h]) - along[h]) : 0.0;
        [[unroll]] for (uint d = 0u; d < SLICE; d++) {
            vec4 k = share_kv_take(key, page, k_at, min(first + d, VECS - 1u));
            [[unroll]] for (uint h = 0u; h < HEADS; h++) dq[h * SLICE + d] += ds[h] * k;
        }
    }

    if (id >= span.rows) return;
    uint to = (t * push.d_stride + push.dq_offset + head * HEAD_DIM) / 4u;
    if (KEEPS) { // one code for all of them: a store takes CPU drivers' compilers long
        vec4 all[HEADS * SLICE];
        [[unroll]] for (uint i = 0u; i < HEADS * SLICE; i++) all[i] = dq[i] * push.scale;
        [[dont_unroll]] for (uint i = 0u; i < HEADS * SLICE; i++) Vec4Ref(push.d_qkv).v[to + i] = all[i];
    } else {
        [[unroll]] for (uint i = 0u; i < HEADS * SLICE; i++) {
            uint d = first + i % SLICE;
            if (d < VECS) Vec4Ref(push.d_qkv).v[to + i / SLICE * VECS + d] = dq[i] * push.scale;
        }
    }
    if (first > 0u) return;
    [[unroll]] for (uint h = 0u; h < HEADS; h++) push.stats.v[t * push.heads + head + h] = vec2(log_sum[h], along[h]);
}
