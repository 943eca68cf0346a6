// Causal attention for CPU drivers: an invocation keeps the whole state of its query (GROUP of the heads that share a KV head) and
// runs the online softmax over keys by itself.
//
// out[t, h, :] = Σ_p softmax_p(scale · q[t, h] · k[p]) v[p], rows[t].position − window < p ≤ rows[t].position
//
// Grid: x = spans, y = heads / GROUP. Prefill: invocation = row of the span; all walk the same keys, so keys and values are uniform
// loads, which SUBGROUP shares out (share.glsl). DECODE: spans of one row; the invocations split its positions and merge through shared
// memory, with SUBGROUP as one subgroup: what lives across a barrier of the workgroup costs CPU drivers' compilers seconds.
// Memory per (span, GROUP heads): 2 · positions · head_dim of K and V.
//
// Constants: 0 workgroup size · 1 HEAD_DIM (a multiple of 4) · 2 GROUP · 3 DECODE · 4 SHARERS (heads / kv_heads, a multiple
// of GROUP) · 5 SUBGROUP_SIZE (SUBGROUP)
// Tiers: strict; SUBGROUP; TOUCH: storage. KV_F16: pages of halves; KV_Q8: of bytes.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 8;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint GROUP = 1;
layout(constant_id = 3) const bool DECODE = false;
layout(constant_id = 4) const uint SHARERS = 1;
layout(constant_id = 5) const uint SUBGROUP_SIZE = 8;
layout(push_constant, std430) uniform Push { PushAttention push; };
#ifdef TOUCH
#include "touch.glsl"
#include "long.glsl"
#endif
#include "kv.glsl"

const uint VECS = HEAD_DIM / 4u;
const uint STATE = GROUP * VECS; // of the queries of an invocation
const uint KEYS = 2u; // per rescaling of the sums, and unrolled: scores by a variable index would cost more; in DECODE no lane gets fewer
const float LOWEST = -3.0e38;
#include "share.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

shared vec4 lane_out[DECODE ? WORKGROUP * VECS : 1u];

struct State {
    float maximum[GROUP];
    float sum[GROUP];
    vec4 values[STATE]; // Σ exp(score − maximum) v
};

#ifdef TOUCH
const uint KEY_LINES = (HEAD_DIM / KV_WORD + LINE_WORDS - 1u) / LINE_WORDS;
// Brings near what take_keys is about to read; returns what has to be used.
uint touch_keys(uint sequence, uint kv_head, uint first, uint readable) {
    uint touched = 0u;
    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
        uint p = min(first + j, readable), at = push.page_base + kv_index(p, push.kv_heads, kv_head, HEAD_DIM);
        uvec2 page = kv_page(sequence, p);
        for (uint i = 0u; i < 2u * KEY_LINES; i++) {
            uint values = i < KEY_LINES ? 0u : kv_values(push.kv_heads, HEAD_DIM);
            touched += touch(page, (at + values) / KV_WORD + i % KEY_LINES * LINE_WORDS);
        }
    }
    return touched;
}
#endif

// Takes in keys first … first + KEYS − 1, of which those outside lowest … last do not count (past `readable` that one is read instead).
void take_keys(uint sequence, uint kv_head, uint first, uint lowest, uint last, uint readable, vec4 q[STATE], inout State state) {
    float scores[KEYS * GROUP];
    float top[GROUP];
    [[unroll]] for (uint g = 0u; g < GROUP; g++) top[g] = state.maximum[g];
    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
        uint p = min(first + j, readable);
        uvec2 page = kv_page(sequence, p);
        uint at = push.page_base + kv_index(p, push.kv_heads, kv_head, HEAD_DIM);
        KvRow row = kv_row(page, at);
        Share key;
        if (!DECODE) share_kv(key, page, at);
        vec4 sums[GROUP];
        [[unroll]] for (uint g = 0u; g < GROUP; g++) sums[g] = vec4(0);
        [[unroll]] for (uint d = 0u; d < VECS; d++) {
            vec4 k = DECODE ? kv_take(row, d) : share_kv_take(key, page, at, d);
            [[unroll]] for (uint g = 0u; g < GROUP; g++) sums[g] += q[g * VECS + d] * k;
        }
        [[unroll]] for (uint g = 0u; g < GROUP; g++) {
            float score = first + j >= lowest && first + j <= last ? sums[g].x + sums[g].y + sums[g].z + sums[g].w : LOWEST;
            scores[j * GROUP + g] = score;
            top[g] = max(top[g], score);
        }
    }
    [[unroll]] for (uint g = 0u; g < GROUP; g++) {
        float shrink = exp(state.maximum[g] - top[g]);
        state.maximum[g] = top[g];
        state.sum[g] *= shrink;
        [[unroll]] for (uint d = 0u; d < VECS; d++) state.values[g * VECS + d] *= shrink;
    }
    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
        uint p = min(first + j, readable);
        uvec2 page = kv_page(sequence, p);
        uint at = push.page_base + kv_values(push.kv_heads, HEAD_DIM) + kv_index(p, push.kv_heads, kv_head, HEAD_DIM);
        KvRow row = kv_row(page, at);
        Share of_key;
        if (!DECODE) share_kv(of_key, page, at);
        float weight[GROUP];
        [[unroll]] for (uint g = 0u; g < GROUP; g++) {
            weight[g] = first + j >= lowest && first + j <= last ? exp(scores[j * GROUP + g] - top[g]) : 0.0;
            state.sum[g] += weight[g];
        }
        [[unroll]] for (uint d = 0u; d < VECS; d++) {
            vec4 v = DECODE ? kv_take(row, d) : share_kv_take(of_key, page, at, d);
            [[unroll]] for (uint g = 0u; g < GROUP; g++) state.values[g * VECS + d] += weight[g] * v;
        }
    }
}

// What DECODE's invocations do together.
#ifdef SUBGROUP
void meet() { subgroupBarrier(); }
float lanes_max(float x) { return subgroupMax(x); }
float lanes_sum(float x) { return subgroupAdd(x); }
#else
#include "reduce.glsl"
void meet() { barrier(); }
float lanes_max(float x) {
    uint unused = 0u;
    workgroup_argmax(x, unused);
    return x;
}
float lanes_sum(float x) { return workgroup_sum(x); }
#endif

// Merges the lanes' states of head g and writes the head's output.
void merge_lanes(State state, uint g, uint to) {
    uint id = gl_LocalInvocationID.x;
    float top = lanes_max(state.maximum[g]), shrink = exp(state.maximum[g] - top), sum = lanes_sum(state.sum[g] * shrink);
    [[dont_unroll]] for (uint d = 0u; d < VECS; d++) lane_out[id * VECS + d] = state.values[g * VECS + d] * shrink;
    meet();
    for (uint d = id; d < VECS; d += WORKGROUP) {
        vec4 value = vec4(0);
        [[dont_unroll]] for (uint i = 0u; i < WORKGROUP; i++) value += lane_out[i * VECS + d];
        Vec4Ref(push.out_).v[to / 4u + d] = value / sum;
    }
    meet();
}

void main() {
    uint id = gl_LocalInvocationID.x, head = gl_WorkGroupID.y * GROUP, kv_head = head / SHARERS;
    Span span = SpanRef(push.step.v.spans).v[gl_WorkGroupID.x];
    uint t = DECODE ? span.first_row : span.first_row + min(id, span.rows - 1u);
    uint sequence = RowRef(push.step.v.rows).v[span.first_row].sequence;
    uint last = RowRef(push.step.v.rows).v[t].position;

    vec4 q[STATE];
    State state;
    uint from = (t * push.q_stride + head * HEAD_DIM) / 4u;
    [[unroll]] for (uint i = 0u; i < STATE; i++) {
        q[i] = ConstVec4Ref(push.q).v[from + i] * push.scale;
        state.values[i] = vec4(0);
    }
    for (uint g = 0u; g < GROUP; g++) {
        state.maximum[g] = LOWEST;
        state.sum[g] = 0.0;
    }

    if (DECODE) {
        uint lowest = kv_lowest(last, push.window);
        uint share = ((last + 1u - lowest + WORKGROUP - 1u) / WORKGROUP + KEYS - 1u) / KEYS * KEYS;
        uint first = lowest + id * share;
        uint mine = min(last, first + share - 1u); // below first where this lane has nothing to do
#ifdef TOUCH
        uint touched = 0u;
#endif
        for (uint i = 0u; i < share; i += KEYS) {
#ifdef TOUCH
            touched += touch_keys(sequence, kv_head, first + i, last);
#endif
            if (first + i <= last) take_keys(sequence, kv_head, first + i, lowest, mine, last, q, state);
        }
#ifdef TOUCH
        if (touched == 1u && push.q_stride == 0u) state.sum[0] = 0.0; // never
#endif
    } else {
        uint end = RowRef(push.step.v.rows).v[span.first_row + span.rows - 1u].position;
        // From the first row's lowest key on, in the same steps of KEYS whatever the span: a row's bits do not depend on it.
        uint lowest = kv_lowest(last, push.window), begin = kv_lowest(RowRef(push.step.v.rows).v[span.first_row].position, push.window);
        for (uint p = begin / KEYS * KEYS; p <= end; p += KEYS) take_keys(sequence, kv_head, p, lowest, last, end, q, state);
    }

    // By variable indices, so of a copy: take_keys keeps its own state in registers.
    State all;
    [[unroll]] for (uint g = 0u; g < GROUP; g++) {
        all.maximum[g] = state.maximum[g];
        all.sum[g] = state.sum[g];
    }
    [[unroll]] for (uint i = 0u; i < STATE; i++) all.values[i] = state.values[i];
    uint to = t * push.out_stride + head * HEAD_DIM;
    if (DECODE) {
        [[dont_unroll]] for (uint g = 0u; g < GROUP; g++) merge_lanes(all, g, to + g * HEAD_DIM);
    } else if (id < span.rows) {
        [[dont_unroll]] for (uint i = 0u; i < STATE; i++) Vec4Ref(push.out_).v[to / 4u + i] = all.values[i] / all.sum[i / VECS];
    }
}
