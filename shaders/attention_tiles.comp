// Causal attention for GPUs: a workgroup takes one span × GROUP of the heads that share a KV head; keys go in tiles of a page, scores and probabilities pass through
// shared memory, sums stay in registers. Decode has a kernel of its own, attention_decode.comp, but for `deterministic` and
// without subgroups.
//
// out[t, h, :] = Σ_p softmax_p(scale · q[t, h] · k[p]) v[p], rows[t].position − window < p ≤ rows[t].position
//
// Grid: x = spans, y = heads / GROUP. A query is a (row of the span, head of the group) pair, at most QUERIES of them.
// Memory per (span, GROUP heads): 2 · positions · head_dim of K and V.
//
// Constants: 0 workgroup size (128) · 1 HEAD_DIM (a multiple of 4, ≤ 256) · 2 GROUP · 3 QUERIES (≥ span rows · GROUP) ·
// 4 SHARERS (heads / kv_heads, a multiple of GROUP)
// Tiers: strict. KV_F16: pages of halves; KV_Q8: of bytes.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint GROUP = 1;
layout(constant_id = 3) const uint QUERIES = 8;
layout(constant_id = 4) const uint SHARERS = 1;
layout(push_constant, std430) uniform Push { PushAttention push; };
#include "kv.glsl"

const uint VECS = HEAD_DIM / 4u;
const uint TILE = KV_PAGE_TOKENS;
const uint KEY_GROUPS = WORKGROUP / TILE;              // queries scored at once
const uint SCORE_TURNS = (QUERIES + KEY_GROUPS - 1u) / KEY_GROUPS;
const uint VALUE_GROUPS = WORKGROUP / VECS;            // queries summed at once
const uint VALUE_TURNS = (QUERIES + VALUE_GROUPS - 1u) / VALUE_GROUPS;
const uint PARTS = 8u; // invocations that share a query's softmax: the same for any number of queries, as a row's bits are to be
const uint AHEAD = 4u; // loads that wait for memory together
const float LOWEST = -3.0e38;

shared vec4 queries[QUERIES * VECS];
shared float scores[QUERIES * TILE];
shared float maximum[QUERIES];
shared float total[QUERIES];
shared float shrink[QUERIES];
shared float part_top[QUERIES * PARTS], part_sum[QUERIES * PARTS];

uint query_row(Span span, uint query) { return span.first_row + query / GROUP; }
uint kv_head() { return gl_WorkGroupID.y * GROUP / SHARERS; }
uint query_head(uint query) { return gl_WorkGroupID.y * GROUP + query % GROUP; }

void load_queries(Span span, uint count) {
    for (uint i = gl_LocalInvocationID.x; i < QUERIES * VECS; i += WORKGROUP) {
        uint query = i / VECS;
        vec4 value = vec4(0);
        if (query < count) value = ConstVec4Ref(push.q).v[(query_row(span, query) * push.q_stride + query_head(query) * HEAD_DIM) / 4u + i % VECS] * push.scale;
        queries[i] = value;
    }
    for (uint i = gl_LocalInvocationID.x; i < QUERIES; i += WORKGROUP) {
        maximum[i] = LOWEST;
        total[i] = 0.0;
    }
}

// scores[query][key] of the tile at `first`; keys outside a row's window are masked.
void score_tile(Span span, uint count, uvec2 page, uint first, uint last) {
    uint key = gl_LocalInvocationID.x % TILE, group = gl_LocalInvocationID.x / TILE;
    uint at = push.page_base + kv_index(min(first + key, last), push.kv_heads, kv_head(), HEAD_DIM);
    vec4 sums[SCORE_TURNS];
    [[unroll]] for (uint i = 0u; i < SCORE_TURNS; i++) sums[i] = vec4(0);
    for (uint d = 0u; d < VECS; d += AHEAD) {
        KvBits bits[AHEAD];
        [[unroll]] for (uint j = 0u; j < AHEAD; j++) bits[j] = kv_fetch(page, at + 4u * min(d + j, VECS - 1u));
        [[unroll]] for (uint j = 0u; j < AHEAD; j++) {
            if (d + j >= VECS) continue;
            vec4 k = kv_unpack(bits[j]);
            [[unroll]] for (uint i = 0u; i < SCORE_TURNS; i++) sums[i] += queries[min(i * KEY_GROUPS + group, QUERIES - 1u) * VECS + d + j] * k;
        }
    }
    [[unroll]] for (uint i = 0u; i < SCORE_TURNS; i++) {
        uint query = i * KEY_GROUPS + group;
        if (query >= count) continue;
        uint position = RowRef(push.step.v.rows).v[query_row(span, query)].position;
        bool seen = first + key <= position && first + key >= kv_lowest(position, push.window);
        scores[query * TILE + key] = seen ? sums[i].x + sums[i].y + sums[i].z + sums[i].w : LOWEST;
    }
}

// Turns scores into exp(score − maximum) and brings maximum, total and shrink up to date. An invocation takes every PARTS-th key of a query.
void weigh_tile(uint count) {
    for (uint i = gl_LocalInvocationID.x; i < count * PARTS; i += WORKGROUP) {
        uint query = i / PARTS;
        float top = maximum[query];
        for (uint key = i % PARTS; key < TILE; key += PARTS) top = max(top, scores[query * TILE + key]);
        part_top[i] = top;
    }
    barrier();
    for (uint i = gl_LocalInvocationID.x; i < count * PARTS; i += WORKGROUP) {
        uint query = i / PARTS;
        float top = part_top[query * PARTS], sum = 0.0;
        for (uint part = 1u; part < PARTS; part++) top = max(top, part_top[query * PARTS + part]);
        for (uint key = i % PARTS; key < TILE; key += PARTS) {
            float score = scores[query * TILE + key];
            float weight = score > LOWEST ? exp(score - top) : 0.0;
            scores[query * TILE + key] = weight;
            sum += weight;
        }
        part_sum[i] = sum;
        if (i % PARTS == 0u) shrink[query] = exp(maximum[query] - top);
    }
    barrier();
    for (uint query = gl_LocalInvocationID.x; query < count; query += WORKGROUP) {
        float top = maximum[query], sum = 0.0;
        for (uint part = 0u; part < PARTS; part++) {
            top = max(top, part_top[query * PARTS + part]);
            sum += part_sum[query * PARTS + part];
        }
        total[query] = total[query] * shrink[query] + sum;
        maximum[query] = top;
    }
}

void sum_tile(uint count, uvec2 page, uint first, uint last, inout vec4 values[VALUE_TURNS]) {
    uint d = gl_LocalInvocationID.x % VECS, group = gl_LocalInvocationID.x / VECS;
    if (group >= VALUE_GROUPS) return;
    [[unroll]] for (uint i = 0u; i < VALUE_TURNS; i++) values[i] *= shrink[min(i * VALUE_GROUPS + group, QUERIES - 1u)];
    uint keys = min(TILE, last + 1u - first);
    for (uint key = 0u; key < keys; key += AHEAD) {
        KvBits bits[AHEAD];
        [[unroll]] for (uint j = 0u; j < AHEAD; j++) {
            uint at = push.page_base + kv_values(push.kv_heads, HEAD_DIM) + kv_index(min(first + key + j, last), push.kv_heads, kv_head(), HEAD_DIM);
            bits[j] = kv_fetch(page, at + 4u * d);
        }
        [[unroll]] for (uint j = 0u; j < AHEAD; j++) {
            vec4 v = kv_unpack(bits[j]); // behind the last key: that one again, weighing nothing
            [[unroll]] for (uint i = 0u; i < VALUE_TURNS; i++) {
                uint query = i * VALUE_GROUPS + group;
                if (query < count) values[i] += scores[query * TILE + key + j] * v;
            }
        }
    }
}

void store(Span span, uint count, vec4 values[VALUE_TURNS]) {
    uint d = gl_LocalInvocationID.x % VECS, group = gl_LocalInvocationID.x / VECS;
    if (group >= VALUE_GROUPS) return;
    [[unroll]] for (uint i = 0u; i < VALUE_TURNS; i++) {
        uint query = i * VALUE_GROUPS + group;
        if (query >= count) continue;
        uint row = query_row(span, query), head = query_head(query);
        Vec4Ref(push.out_).v[(row * push.out_stride + head * HEAD_DIM) / 4u + d] = values[i] / total[query];
    }
}

void main() {
    Span span = SpanRef(push.step.v.spans).v[gl_WorkGroupID.x];
    uint count = span.rows * GROUP;
    uint sequence = RowRef(push.step.v.rows).v[span.first_row].sequence;
    uint last = RowRef(push.step.v.rows).v[span.first_row + span.rows - 1u].position;
    uint begin = kv_lowest(RowRef(push.step.v.rows).v[span.first_row].position, push.window) / TILE * TILE;

    load_queries(span, count);
    vec4 values[VALUE_TURNS];
    [[unroll]] for (uint i = 0u; i < VALUE_TURNS; i++) values[i] = vec4(0);
    for (uint first = begin; first <= last; first += TILE) {
        uvec2 page = kv_page(sequence, first);
        barrier(); // queries are there; the tile before is summed
        score_tile(span, count, page, first, last);
        barrier();
        weigh_tile(count);
        barrier();
        sum_tile(count, page, first, last, values);
    }
    barrier();
    store(span, count, values);
}
