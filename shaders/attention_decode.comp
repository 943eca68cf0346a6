// Causal attention of single rows, for GPUs: decode. A workgroup takes one row × HEADS of the heads that share a KV head × one share of the
// positions. LANES neighbouring invocations take a key together, VECS vectors of four each, so that a load of all of them is one piece of
// memory; KEYS keys and their values are on their way to each at once. Every such group of lanes runs an online softmax of its own over
// the keys it sees, without a barrier, and they merge at the end.
//
// out[t, h, :] = Σ_p softmax_p(scale · q[t, h] · k[p]) v[p], rows[t].position − window < p ≤ rows[t].position
//
// Grid: x = rows, y = heads / HEADS, z = shares, at most ATTENTION_SHARES; those that a row's positions leave nothing return at once. Where
// several have one, each leaves Σ exp(score − m) v, m and Σ exp(score − m) of its heads in push.partials, and the one that comes last merges
// them, in their order: counters, zero before and after, tell which. Several only where x · y · z ≤ ATTENTION_FILL.
// Memory per (row, KV head): 2 · positions · head_dim of K and V.
//
// Constants: 0 workgroup size · 1 HEAD_DIM (a multiple of 4, ≤ 256) · 2 HEADS · 3 SHARERS (heads / kv_heads, a multiple of HEADS) ·
// 4 LANES (a power of two, at most a subgroup) · 5 KEYS (divides a page) · 6 subgroup size
// Tiers: subgroup. KV_F16: pages of halves; KV_Q8: of bytes.
#version 450
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint HEADS = 1;
layout(constant_id = 3) const uint SHARERS = 1;
layout(constant_id = 4) const uint LANES = 8;
layout(constant_id = 5) const uint KEYS = 4;
layout(constant_id = 6) const uint SUBGROUP_SIZE = 32;
layout(push_constant, std430) uniform Push { PushAttention push; };
// push.partials: uint counters[ATTENTION_FILL], then by (row, y, share, head) vec2(maximum, sum) and vec4 values[HEAD_VECS].
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer CounterRef { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) coherent buffer ShareRef { vec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer ShareValuesRef { vec4 v[]; };
#include "kv.glsl"

const uint HEAD_VECS = HEAD_DIM / 4u;
const uint VECS = (HEAD_VECS + LANES - 1u) / LANES; // of an invocation: lane, lane + LANES, …
const uint STATE = HEADS * VECS, BITS = KEYS * VECS, SCORES = KEYS * HEADS;
const uint GROUPS = WORKGROUP / LANES;
const uint TURN = GROUPS * KEYS; // positions that the workgroup takes at a time
const uint SHARES_AT = ATTENTION_FILL / 2u; // in vec2
const uint VALUES_AT = ATTENTION_FILL / 4u + ATTENTION_FILL * HEADS / 2u; // in vec4
const float LOWEST = -3.0e38;

shared float group_maximum[GROUPS * HEADS], group_sum[GROUPS * HEADS];
shared vec4 group_values[GROUPS * HEAD_VECS]; // of one head
shared vec2 share_states[ATTENTION_SHARES * HEADS];
shared uint arrived;

uint invocation() { return gl_SubgroupID * SUBGROUP_SIZE + gl_SubgroupInvocationID; }
float lanes_sum(float value) {
    [[unroll]] for (uint step = LANES / 2u; step > 0u; step /= 2u) value += subgroupShuffleXor(value, step);
    return value;
}

struct State {
    float maximum[HEADS];
    float sum[HEADS];
    vec4 values[STATE]; // Σ exp(score − maximum) v
};

uint vector_of(uint lane, uint i) { return min(i * LANES + lane, HEAD_VECS - 1u); }

void load_queries(uint row, uint head, uint lane, out vec4 q[STATE]) {
    [[unroll]] for (uint i = 0u; i < STATE; i++) {
        vec4 value = ConstVec4Ref(push.q).v[(row * push.q_stride + (head + i / VECS) * HEAD_DIM) / 4u + vector_of(lane, i % VECS)] * push.scale;
        q[i] = i % VECS * LANES + lane < HEAD_VECS ? value : vec4(0);
    }
}

// Where vector i of a lane lies in a page, behind `base`.
uint element(uint base, uint kv_head, uint position, uint lane, uint i) {
    return base + kv_index(position, push.kv_heads, kv_head, HEAD_DIM) + 4u * vector_of(lane, i);
}

// Takes in keys first … first + KEYS − 1 of a page, of which those outside lowest … last do not count (behind last, last is read instead).
void take_keys(uvec2 page, uint kv_head, uint first, uint lowest, uint last, uint lane, vec4 q[STATE], inout State state) {
    KvBits keys[BITS], values[BITS];
    const uint of_keys = push.page_base, of_values = push.page_base + kv_values(push.kv_heads, HEAD_DIM);
    [[unroll]] for (uint i = 0u; i < BITS; i++) keys[i] = kv_fetch(page, element(of_keys, kv_head, min(first + i / VECS, last), lane, i % VECS));
    [[unroll]] for (uint i = 0u; i < BITS; i++) values[i] = kv_fetch(page, element(of_values, kv_head, min(first + i / VECS, last), lane, i % VECS));

    float scores[SCORES];
    [[unroll]] for (uint j = 0u; j < KEYS; j++) {
        vec4 sums[HEADS];
        [[unroll]] for (uint h = 0u; h < HEADS; h++) sums[h] = vec4(0);
        [[unroll]] for (uint i = 0u; i < VECS; i++) {
            vec4 k = kv_unpack(keys[j * VECS + i]);
            [[unroll]] for (uint h = 0u; h < HEADS; h++) sums[h] += q[h * VECS + i] * k;
        }
        bool seen = first + j >= lowest && first + j <= last;
        [[unroll]] for (uint h = 0u; h < HEADS; h++) {
            float score = lanes_sum(sums[h].x + sums[h].y + sums[h].z + sums[h].w);
            scores[j * HEADS + h] = seen ? score : LOWEST;
        }
    }
    [[unroll]] for (uint h = 0u; h < HEADS; h++) {
        float top = state.maximum[h];
        [[unroll]] for (uint j = 0u; j < KEYS; j++) top = max(top, scores[j * HEADS + h]);
        float shrink = exp(state.maximum[h] - top);
        state.maximum[h] = top;
        state.sum[h] *= shrink;
        [[unroll]] for (uint i = 0u; i < VECS; i++) state.values[h * VECS + i] *= shrink;
        [[unroll]] for (uint j = 0u; j < KEYS; j++) {
            float weight = scores[j * HEADS + h] > LOWEST ? exp(scores[j * HEADS + h] - top) : 0.0;
            scores[j * HEADS + h] = weight;
            state.sum[h] += weight;
        }
    }
    [[unroll]] for (uint i = 0u; i < BITS; i++) {
        vec4 v = kv_unpack(values[i]);
        [[unroll]] for (uint h = 0u; h < HEADS; h++) state.values[h * VECS + i % VECS] += scores[i / VECS * HEADS + h] * v;
    }
}

// Brings a group's state to the workgroup's maximum and leaves its sums in shared memory.
void meet(uint group, uint lane, inout State state) {
    [[unroll]] for (uint h = 0u; h < HEADS; h++)
        if (lane == 0u) group_maximum[group * HEADS + h] = state.maximum[h];
    barrier();
    [[unroll]] for (uint h = 0u; h < HEADS; h++) {
        float top = LOWEST;
        for (uint g = 0u; g < GROUPS; g++) top = max(top, group_maximum[g * HEADS + h]);
        float shrink = exp(state.maximum[h] - top);
        state.maximum[h] = top;
        if (lane == 0u) group_sum[group * HEADS + h] = state.sum[h] * shrink;
        [[unroll]] for (uint i = 0u; i < VECS; i++) state.values[h * VECS + i] *= shrink;
    }
}

// Merges the groups of lanes, and writes the outputs, or this workgroup's share of them.
void leave(uint group, uint lane, uint slot, bool whole, uint to, State state) {
    uint id = invocation();
    meet(group, lane, state);
    [[unroll]] for (uint h = 0u; h < HEADS; h++) {
        [[unroll]] for (uint i = 0u; i < VECS; i++)
            if (i * LANES + lane < HEAD_VECS) group_values[group * HEAD_VECS + i * LANES + lane] = state.values[h * VECS + i];
        barrier();
        if (id < HEAD_VECS) {
            float sum = 0.0;
            vec4 value = vec4(0);
            for (uint g = 0u; g < GROUPS; g++) {
                sum += group_sum[g * HEADS + h];
                value += group_values[g * HEAD_VECS + id];
            }
            if (whole) {
                Vec4Ref(push.out_).v[to + h * HEAD_VECS + id] = value / sum;
            } else {
                ShareValuesRef(push.partials).v[VALUES_AT + (slot * HEADS + h) * HEAD_VECS + id] = value;
                if (id == 0u) ShareRef(push.partials).v[SHARES_AT + slot * HEADS + h] = vec2(state.maximum[h], sum);
            }
        }
        barrier();
    }
}

// Merges the shares of the positions, slot … slot + parts − 1, into the outputs.
void merge_shares(uint slot, uint parts, uint to) {
    const uint TOGETHER = 8u; // loads, which wait for memory together
    for (uint i = invocation(); i < parts * HEADS; i += WORKGROUP) share_states[i] = ShareRef(push.partials).v[SHARES_AT + slot * HEADS + i];
    barrier();
    for (uint i = invocation(); i < HEADS * HEAD_VECS; i += WORKGROUP) {
        uint h = i / HEAD_VECS;
        float top = LOWEST, sum = 0.0;
        for (uint s = 0u; s < parts; s++) top = max(top, share_states[s * HEADS + h].x);
        vec4 value = vec4(0);
        for (uint s = 0u; s < parts; s += TOGETHER) {
            vec4 values[TOGETHER];
            [[unroll]] for (uint j = 0u; j < TOGETHER; j++)
                values[j] = ShareValuesRef(push.partials).v[VALUES_AT + (slot + min(s + j, parts - 1u)) * HEADS * HEAD_VECS + i];
            [[unroll]] for (uint j = 0u; j < TOGETHER; j++) {
                vec2 share = share_states[min(s + j, parts - 1u) * HEADS + h];
                float weight = s + j < parts ? exp(share.x - top) : 0.0;
                sum += weight * share.y;
                value += weight * values[j];
            }
        }
        Vec4Ref(push.out_).v[to + i] = value / sum;
    }
}

void main() {
    uint id = invocation(), lane = id % LANES, group = id / LANES, t = gl_WorkGroupID.x, head = gl_WorkGroupID.y * HEADS, kv_head = head / SHARERS;
    Row row = RowRef(push.step.v.rows).v[t];
    uint last = row.position, lowest = kv_lowest(last, push.window), begin = lowest / KEYS * KEYS;
    // Whole turns, shared out evenly.
    uint turns = (last + TURN - begin) / TURN, each = (turns + gl_NumWorkGroups.z - 1u) / gl_NumWorkGroups.z, parts = (turns + each - 1u) / each;
    if (gl_WorkGroupID.z >= parts) return;

    vec4 q[STATE];
    load_queries(t, head, lane, q);
    State state;
    [[unroll]] for (uint h = 0u; h < HEADS; h++) {
        state.maximum[h] = LOWEST;
        state.sum[h] = 0.0;
    }
    [[unroll]] for (uint i = 0u; i < STATE; i++) state.values[i] = vec4(0);
    uint turn = gl_WorkGroupID.z * each, end = min(turns, turn + each), first = begin + turn * TURN + group * KEYS;
    uvec2 page = kv_page(row.sequence, min(first, last));
    for (; turn < end; turn++) {
        uvec2 next = kv_page(row.sequence, min(first + TURN, last)); // while the keys are on their way
        take_keys(page, kv_head, first, lowest, last, lane, q, state);
        page = next;
        first += TURN;
    }

    uint place = t * gl_NumWorkGroups.y + gl_WorkGroupID.y, slot = place * gl_NumWorkGroups.z, to = (t * push.out_stride + head * HEAD_DIM) / 4u;
    leave(group, lane, slot + gl_WorkGroupID.z, parts == 1u, to, state);
    if (parts == 1u) return;
    memoryBarrierBuffer();
    barrier();
    memoryBarrierBuffer();
    if (id == 0u) arrived = atomicAdd(CounterRef(push.partials).v[place], 1u);
    barrier();
    if (arrived + 1u != parts) return;
    memoryBarrierBuffer();
    merge_shares(slot, parts, to);
    if (id == 0u) CounterRef(push.partials).v[place] = 0u;
}
