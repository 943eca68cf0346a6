// Causal attention of many rows on cards with matrix units: scores and sums of values are products of matrices, f16 in and f32 out. A
// workgroup takes one span × one KV head; each of its subgroups M queries, whose scores against KEYS positions, running maximum and sums
// stay in its matrices. Keys and values pass through shared memory, one chunk after the other; the next is on its way meanwhile.
//
// out[t, h, :] = Σ_p softmax_p(scale · q[t, h] · k[p]) v[p], rows[t].position − window < p ≤ rows[t].position
//
// Grid: x = spans, the last first: it has the most positions; y = KV heads. A query is a (row of the span, head of the group) pair, at
// most SUBGROUPS · M of them.
// Memory per (span, KV head): 2 · positions · head_dim of K and V.
//
// Constants: 0 workgroup size · 1 HEAD_DIM (a multiple of 8) · 2 GROUP · 3 subgroup size · 4, 5, 6 M, N, K of the device's matrices ·
// 7 KEYS of a chunk (a multiple of N and K, and a power of two)
// Tiers: subgroup, half, matrix. MATRIX2: rows of a matrix are reduced, and sums become operands, without shared memory; N = K.
// Pages of halves; KV_Q8: of bytes.
#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef MATRIX2
#extension GL_NV_cooperative_matrix2 : require
#endif
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const uint HEAD_DIM = 32;
layout(constant_id = 2) const uint GROUP = 1;
layout(constant_id = 3) const uint SUBGROUP = 32;
layout(constant_id = 4) const uint M = 16;
layout(constant_id = 5) const uint N = 16;
layout(constant_id = 6) const uint K = 16;
layout(constant_id = 7) const uint KEYS = 32;
layout(push_constant, std430) uniform Push { PushAttention push; };
#ifndef KV_Q8
#define KV_F16
#endif
#include "kv.glsl"
#include "halves.glsl"

const uint SUBGROUPS = WORKGROUP / SUBGROUP, QUERIES = SUBGROUPS * M;
const uint WIDEST = N > K ? N : K;                             // both divide 32
const uint WIDTH = (HEAD_DIM + WIDEST - 1u) / WIDEST * WIDEST; // of a vector; zeros behind HEAD_DIM
const uint PITCH = WIDTH / 4u + 2u;                            // of a tile's row, in f16vec4s: off each other's banks
const uint TILE_ROWS = KEYS > QUERIES ? KEYS : QUERIES;
const uint UNITS = WIDTH / 8u;                                 // of eight values
const uint LOADS = (KEYS * UNITS + WORKGROUP - 1u) / WORKGROUP; // units that an invocation brings
const uint SCORES = KEYS / N, VALUES = WIDTH / N, STEPS = WIDTH / K; // matrices of a subgroup
const float LOWEST = -3.0e38;

#define Sums coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
#define Left coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define Right coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>

const uint CORNER_PITCH = N / 4u + 1u;            // in vec4s
shared f16vec4 tile[TILE_ROWS * PITCH];           // queries, then keys and values in turns
shared vec4 corner[SUBGROUPS * M * CORNER_PITCH]; // a matrix of each subgroup
#ifndef MATRIX2
const uint WEIGHT_PITCH = KEYS / 4u + 2u;
shared f16vec4 weights[SUBGROUPS * M * WEIGHT_PITCH]; // exp(score − maximum) [query][key]
#endif

// Of this subgroup's queries:
Left q[STEPS];
Sums scores[SCORES], values[VALUES];
Sums top, total; // the maximum so far, the same in a whole row; Σ exp(score − top) column by column, added up at the end
uvec4 bring[LOADS];

uint corner_at() { return gl_SubgroupID * M * CORNER_PITCH; }

// Orders what the invocations of a subgroup write and read of its own part of shared memory.
void meet() {
    subgroupMemoryBarrierShared();
    subgroupBarrier();
}

// ---- rows of a matrix -----------------------------------------------------------------------------------------------

#ifdef MATRIX2
float larger(const in float a, const in float b) { return max(a, b); }
float sum(const in float a, const in float b) { return a + b; }
Sums row_maximum(Sums m) {
    Sums r;
    coopMatReduceNV(r, m, gl_CooperativeMatrixReduceRowNV, larger);
    return r;
}
Sums row_sum(Sums m) {
    Sums r;
    coopMatReduceNV(r, m, gl_CooperativeMatrixReduceRowNV, sum);
    return r;
}
#else
Sums reduce_rows(Sums m, bool largest) {
    coopMatStore(m, corner, corner_at(), CORNER_PITCH, gl_CooperativeMatrixLayoutRowMajor);
    meet();
    for (uint r = gl_SubgroupInvocationID; r < M; r += SUBGROUP) {
        uint at = corner_at() + r * CORNER_PITCH;
        vec4 all = corner[at];
        [[unroll]] for (uint i = 1u; i < N / 4u; i++) all = largest ? max(all, corner[at + i]) : all + corner[at + i];
        vec4 one = vec4(largest ? max(max(all.x, all.y), max(all.z, all.w)) : (all.x + all.y) + (all.z + all.w));
        [[unroll]] for (uint i = 0u; i < N / 4u; i++) corner[at + i] = one;
    }
    meet();
    coopMatLoad(m, corner, corner_at(), CORNER_PITCH, gl_CooperativeMatrixLayoutRowMajor);
    meet();
    return m;
}
Sums row_maximum(Sums m) { return reduce_rows(m, true); }
Sums row_sum(Sums m) { return reduce_rows(m, false); }
#endif

// ---- keys, values, queries ------------------------------------------------------------------------------------------

// The units of KEYS positions from `first` on, of keys (offset 0) or values; positions behind `last` are read as that one.
void fetch(uint sequence, uint first, uint last, uint offset) {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uint at = gl_LocalInvocationID.x + i * WORKGROUP, position = min(first + min(at / UNITS, KEYS - 1u), last);
        uint in_head = min(8u * (at % UNITS), HEAD_DIM - 8u);
        uint from = push.page_base + offset + kv_index(position, push.kv_heads, gl_WorkGroupID.y, HEAD_DIM) + in_head;
        uvec2 page = kv_page(sequence, position);
#ifdef KV_Q8
        bring[i] = uvec4(kv_fetch(page, from), WordRef(page).v[from / 4u + 1u], 0u);
#else
        bring[i] = Word4Ref(page).v[from / 8u];
#endif
    }
}

#ifdef KV_Q8
// Half of a unit: its bytes are x and z, their scale y.
f16vec4 kv_halves(uvec4 unit, uint half_) { return f16vec4(kv_unpack(uvec2(half_ == 0u ? unit.x : unit.z, unit.y))); }
#else
f16vec4 kv_halves(uvec4 unit, uint half_) { return halves(half_ == 0u ? unit.xy : unit.zw); }
#endif

void put() {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uint at = gl_LocalInvocationID.x + i * WORKGROUP, to = at / UNITS * PITCH + at % UNITS * 2u;
        if (at >= KEYS * UNITS) continue;
        bool inside = at % UNITS * 8u < HEAD_DIM;
        tile[to] = inside ? kv_halves(bring[i], 0u) : f16vec4(0);
        tile[to + 1u] = inside ? kv_halves(bring[i], 1u) : f16vec4(0);
    }
}

uint query_row(Span span, uint query) { return span.first_row + min(query / GROUP, span.rows - 1u); }
uint query_head(uint query) { return gl_WorkGroupID.y * GROUP + query % GROUP; }

void load_queries(Span span) {
    for (uint i = gl_LocalInvocationID.x; i < QUERIES * WIDTH / 4u; i += WORKGROUP) {
        uint query = i / (WIDTH / 4u), d = i % (WIDTH / 4u);
        vec4 value = vec4(0);
        if (query < span.rows * GROUP && 4u * d < HEAD_DIM)
            value = ConstVec4Ref(push.q).v[(query_row(span, query) * push.q_stride + query_head(query) * HEAD_DIM) / 4u + d] * push.scale;
        tile[query * PITCH + d] = f16vec4(value);
    }
    barrier();
    [[unroll]] for (uint k = 0u; k < STEPS; k++)
        coopMatLoad(q[k], tile, gl_SubgroupID * M * PITCH + k * K / 4u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
}

// ---- a chunk --------------------------------------------------------------------------------------------------------

void score() {
    [[unroll]] for (uint j = 0u; j < SCORES; j++) {
        scores[j] = Sums(0.0);
        [[unroll]] for (uint k = 0u; k < STEPS; k++) {
            Right keys;
            coopMatLoad(keys, tile, j * N * PITCH + k * K / 4u, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
            scores[j] = coopMatMulAdd(q[k], keys, scores[j]);
        }
    }
}

// Whether a query sees a position.
bool sees(Span span, uint query, uint position) {
    uint own = RowRef(push.step.v.rows).v[query_row(span, query)].position;
    return position <= own && position >= kv_lowest(own, push.window);
}

// The positions of a chunk that a query does not see get the score LOWEST.
#ifdef MATRIX2
float seen(const in uint row, const in uint column, const in float score, const in uint first_row, const in uint rows, const in uint position) {
    return sees(Span(first_row, rows), gl_SubgroupID * M + row, position + column) ? score : LOWEST;
}
void mask(Span span, uint first) {
    [[unroll]] for (uint j = 0u; j < SCORES; j++)
        coopMatPerElementNV(scores[j], scores[j], seen, span.first_row, span.rows, first + j * N);
}
#else
void mask(Span span, uint first) {
    [[unroll]] for (uint j = 0u; j < SCORES; j++) {
        coopMatStore(scores[j], corner, corner_at(), CORNER_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        meet();
        for (uint e = gl_SubgroupInvocationID; e < M * N; e += SUBGROUP)
            if (!sees(span, gl_SubgroupID * M + e / N, first + j * N + e % N))
                corner[corner_at() + e / N * CORNER_PITCH + e % N / 4u][e % 4u] = LOWEST;
        meet();
        coopMatLoad(scores[j], corner, corner_at(), CORNER_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        meet();
    }
}
#endif

// Turns scores into exp(score − top); top, total and values follow the new maximum.
void weigh() {
    Sums before = top;
    [[unroll]] for (uint j = 0u; j < SCORES; j++)
        [[unroll]] for (uint i = 0u; i < top.length(); i++) top[i] = max(top[i], scores[j][i]);
    top = row_maximum(top);
    [[unroll]] for (uint i = 0u; i < top.length(); i++) {
        float shrink = exp(before[i] - top[i]);
        total[i] *= shrink;
        [[unroll]] for (uint d = 0u; d < VALUES; d++) values[d][i] *= shrink;
    }
    [[unroll]] for (uint j = 0u; j < SCORES; j++)
        [[unroll]] for (uint i = 0u; i < top.length(); i++) {
            scores[j][i] = scores[j][i] > LOWEST ? exp(scores[j][i] - top[i]) : 0.0;
            total[i] += scores[j][i];
        }
#ifndef MATRIX2
    [[unroll]] for (uint j = 0u; j < SCORES; j++)
        coopMatStore(coopmat<float16_t, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(scores[j]), weights,
                     gl_SubgroupID * M * WEIGHT_PITCH + j * N / 4u, WEIGHT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
#endif
}

void sum_values() {
    [[unroll]] for (uint k = 0u; k < KEYS / K; k++) {
        Left weight;
#ifdef MATRIX2
        weight = Left(scores[k]);
#else
        coopMatLoad(weight, weights, gl_SubgroupID * M * WEIGHT_PITCH + k * K / 4u, WEIGHT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
#endif
        [[unroll]] for (uint d = 0u; d < VALUES; d++) {
            Right value;
            coopMatLoad(value, tile, k * K * PITCH + d * N / 4u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
            values[d] = coopMatMulAdd(weight, value, values[d]);
        }
    }
}

void store(Span span) {
    total = row_sum(total);
    [[unroll]] for (uint d = 0u; d < VALUES; d++) {
        [[unroll]] for (uint i = 0u; i < total.length(); i++) values[d][i] /= total[i];
        coopMatStore(values[d], corner, corner_at(), CORNER_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        meet();
        for (uint e = gl_SubgroupInvocationID; e < M * N / 4u; e += SUBGROUP) {
            uint query = gl_SubgroupID * M + e / (N / 4u), in_head = d * N + e % (N / 4u) * 4u;
            if (query >= span.rows * GROUP || in_head >= HEAD_DIM) continue;
            Vec4Ref(push.out_).v[(query_row(span, query) * push.out_stride + query_head(query) * HEAD_DIM + in_head) / 4u] =
                corner[corner_at() + e / (N / 4u) * CORNER_PITCH + e % (N / 4u)];
        }
        meet();
    }
}

void main() {
    Span span = SpanRef(push.step.v.spans).v[push.spans - 1u - gl_WorkGroupID.x];
    Row row = RowRef(push.step.v.rows).v[span.first_row];
    uint last = RowRef(push.step.v.rows).v[span.first_row + span.rows - 1u].position, sequence = row.sequence;
    uint begin = kv_lowest(row.position, push.window) / KEYS * KEYS, values_offset = kv_values(push.kv_heads, HEAD_DIM);

    fetch(sequence, begin, last, 0u);
    load_queries(span);
    top = Sums(LOWEST);
    total = Sums(0.0);
    [[unroll]] for (uint d = 0u; d < VALUES; d++) values[d] = Sums(0.0);
    for (uint first = begin; first <= last; first += KEYS) {
        barrier(); // the tile before has been read
        put();
        barrier();
        fetch(sequence, first, last, values_offset);
        score();
        // Every query sees every position of most chunks.
        if (first + KEYS - 1u > row.position || first < kv_lowest(last, push.window)) mask(span, first);
        weigh();
        barrier();
        put();
        barrier();
        fetch(sequence, min(first + KEYS, last), last, 0u);
        sum_values();
    }
    store(span);
}
