// The gradients of attention by k and v, causal or over whole sequences, over all queries that see a key and all heads that share it:
//   dv[p] = Σ_{t, h} P g[t, h],  dk[p] = scale Σ_{t, h} P (g[t, h] · v[p] − D) q[t, h],  P = exp(scale q[t, h] · k[p] − L)
// with (L, D) = stats[t, h] of attention_back_q.comp, which runs before.
//
// A sequence's first positions may be those of the sequence before it: then its rows begin behind them, and its queries see those keys too.
// Rows of a sequence follow one another in order. Whole sequences share nothing, and every query of theirs sees every key.
//
// Grid: x = spans, y = KV heads, z = SLICES. An invocation takes the key of one row of the span; all walk the same queries, so q and g
// are uniform loads, which SUBGROUP shares out (share.glsl). On GPUs, whose registers would not hold k, v, dk and dv, k and v are read
// again for each query (KEEPS false), and dk and dv go in SLICES parts, for which the scores are made anew.
// Memory per (span, KV head): 2 · rows that follow, or of the whole sequence, · heads / kv_heads · head_dim of q and g, SLICES times.
//
// Constants: 0 workgroup size (≥ rows of a span) · 1 HEAD_DIM (a multiple of 4) · 2 SLICES (1 where KEEPS) · 3 KEEPS · 4 SUBGROUP_SIZE
// (SUBGROUP)
// Tiers: strict; SUBGROUP, with KEEPS.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 8;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint SLICES = 1;
layout(constant_id = 3) const bool KEEPS = true;
layout(constant_id = 4) const uint SUBGROUP_SIZE = 8;
layout(push_constant, std430) uniform Push { PushAttentionBack push; };
#include "kv.glsl"

const uint VECS = HEAD_DIM / 4u;
const uint KEPT = KEEPS ? VECS : 1u; // of k and v
const uint SLICE = (VECS + SLICES - 1u) / SLICES;

#include "share.glsl"

float sum4(vec4 v) { return v.x + v.y + v.z + v.w; }

void main() {
    uint id = gl_LocalInvocationID.x, kv_head = gl_WorkGroupID.y, group = push.heads / push.kv_heads;
    Span span = SpanRef(push.step.v.spans).v[gl_WorkGroupID.x];
    uint t = span.first_row + min(id, span.rows - 1u);
    Row row = RowRef(push.step.v.rows).v[t];
    uint first_position = RowRef(push.step.v.rows).v[span.first_row].position;
    uvec2 page = kv_page(row.sequence, row.position);
    uint k_at = push.page_base + kv_index(row.position, push.kv_heads, kv_head, HEAD_DIM), v_at = k_at + kv_values(push.kv_heads, HEAD_DIM);
    uint first = gl_WorkGroupID.z * SLICE; // of the slice's vectors in a head
    vec4 k[KEPT], v[KEPT], dk[SLICE], dv[SLICE];
    [[unroll]] for (uint d = 0u; KEEPS && d < VECS; d++) {
        k[d] = kv_load(page, k_at + 4u * d) * push.scale;
        v[d] = kv_load(page, v_at + 4u * d);
    }
    [[unroll]] for (uint d = 0u; d < SLICE; d++) dk[d] = dv[d] = vec4(0);

    uint sequence = row.sequence, shared_end = ~0u; // below it, `sequence` still has the keys of the span's sequence
    uint first_query = push.whole > 0u ? span.first_row - first_position : span.first_row;
    for (uint query = first_query; query < push.rows; query++) {
        Row other = RowRef(push.step.v.rows).v[query];
        if (other.sequence != sequence) { // its first row
            sequence = other.sequence;
            shared_end = min(shared_end, other.position);
            if (shared_end <= first_position) break;
        }
        bool sees = push.whole > 0u || (row.position < shared_end && other.position >= row.position && kv_lowest(other.position, push.window) <= row.position);
        if (!KEEPS && !sees) continue; // on CPUs nothing would be saved
        for (uint h = kv_head * group; h < (kv_head + 1u) * group; h++) {
            uint q_from = (query * push.q_stride + h * HEAD_DIM) / 4u, g_from = (query * push.out_stride + h * HEAD_DIM) / 4u;
            Share of_q, of_g;
            share_row(of_q, push.q, q_from);
            share_row(of_g, push.d_out, g_from);
            vec4 score = vec4(0), product = vec4(0);
            [[unroll]] for (uint d = 0u; d < VECS; d++) {
                uint kept = min(d, KEPT - 1u);
                score += share_row_take(of_q, push.q, q_from, d) * (KEEPS ? k[kept] : kv_load(page, k_at + 4u * d) * push.scale);
                product += share_row_take(of_g, push.d_out, g_from, d) * (KEEPS ? v[kept] : kv_load(page, v_at + 4u * d));
            }
            vec2 stats = push.stats.v[query * push.heads + h];
            float p = sees ? exp(sum4(score) - stats.x) : 0.0, ds = p * (sum4(product) - stats.y);
            [[unroll]] for (uint d = 0u; d < SLICE; d++) {
                uint i = min(first + d, VECS - 1u);
                dv[d] += p * share_row_take(of_g, push.d_out, g_from, i);
                dk[d] += ds * share_row_take(of_q, push.q, q_from, i);
            }
        }
    }

    if (id >= span.rows) return;
    uint k_to = (t * push.d_stride + push.dk_offset + kv_head * HEAD_DIM) / 4u, v_to = (t * push.d_stride + push.dv_offset + kv_head * HEAD_DIM) / 4u;
    if (KEEPS) { // one code for all of them: a store takes CPU drivers' compilers long
        vec4 all_k[SLICE], all_v[SLICE];
        [[unroll]] for (uint d = 0u; d < SLICE; d++) {
            all_k[d] = dk[d] * push.scale;
            all_v[d] = dv[d];
        }
        [[dont_unroll]] for (uint d = 0u; d < SLICE; d++) {
            Vec4Ref(push.d_qkv).v[k_to + d] = all_k[d];
            Vec4Ref(push.d_qkv).v[v_to + d] = all_v[d];
        }
        return;
    }
    [[unroll]] for (uint d = 0u; d < SLICE; d++) {
        if (first + d >= VECS) break;
        Vec4Ref(push.d_qkv).v[k_to + first + d] = dk[d] * push.scale;
        Vec4Ref(push.d_qkv).v[v_to + first + d] = dv[d];
    }
}
