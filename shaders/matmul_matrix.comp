// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) for many rows on cards with matrix units: tiles of W and x pass through shared memory as
// f16, products are summed in f32. x comes as half_rows.comp leaves it: h[t, k] = x[t, k] / undo[t], undo behind all rows of h.
//
// BACK: y[t, i] = Σ_o W[o, i] x[t, o], the gradient by the input, of each segment or (LINEAR_SUM) of all together.
//
// Grid: x = output rows (BACK: columns) of all segments / TILE, y = step rows / X_TILE, z = SPLITS. The LINES × COLUMNS subgroups of a
// workgroup each make TILE/LINES × X_TILE/COLUMNS values of y, in matrices of M × N. The inner dimension goes in chunks; the next one is on
// its way while one is multiplied. With SPLITS > 1 a workgroup takes a share of the chunks and leaves its sums behind `undo`, as
// [split][part][row, y_stride], for matmul_combine.comp.
// Memory per output: in / X_TILE of a weight, in / TILE of an x.
//
// Constants: 0 workgroup size (LINES · COLUMNS subgroups) · 1 WEIGHT_GROUP · 2 FLAGS (shared.h; no norm; BACK: RESIDUAL, SUM) · 3 number of
// segments · 4 subgroup size · 5, 6, 7 M, N, K of the device's matrices · 8 TILE · 9 UNITS of eight values in a chunk (4 or 8) · 10 X_TILE,
// N times a power of two, with a matrix for every subgroup · 11 SPLITS
// Tiers: subgroup, half, matrix.
#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "refs.glsl"
#include "weights.glsl"
#include "halves.glsl"
#ifdef BACK
#include "linear_back.glsl"
#else
#include "linear.glsl"
#endif

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 2) const uint FLAGS = 0;
layout(constant_id = 3) const uint SEGMENTS = 1;
layout(constant_id = 4) const uint SUBGROUP = 32;
layout(constant_id = 5) const uint M = 16;
layout(constant_id = 6) const uint N = 16;
layout(constant_id = 7) const uint K = 16;
layout(constant_id = 8) const uint TILE = 64;
layout(constant_id = 9) const uint UNITS = 4;
layout(constant_id = 10) const uint X_TILE = 64;
layout(constant_id = 11) const uint SPLITS = 1;

const uint SUBGROUPS = WORKGROUP / SUBGROUP;
const uint COLUMNS = SUBGROUPS / 2u < X_TILE / N ? SUBGROUPS / 2u : X_TILE / N, LINES = SUBGROUPS / COLUMNS;
const uint CHUNK = 8u * UNITS;                             // of the inner dimension
const uint PITCH = CHUNK / 4u + 2u;                        // of a tile's row, in f16vec4s: off each other's banks
const uint LOADS = TILE * UNITS / WORKGROUP;               // units of W that an invocation brings, and of x
const uint X_LOADS = (X_TILE * UNITS + WORKGROUP - 1u) / WORKGROUP;
const uint OUT = TILE / LINES / M, ROWS = X_TILE / COLUMNS / N; // matrices of a subgroup
#ifdef BACK
const uint PARTS = 1u;
shared float16_t w_tile[4u * TILE * PITCH]; // [column][k]
#else
const bool SILU_MUL = (FLAGS & LINEAR_SILU_MUL) != 0u;
const uint PARTS = SILU_MUL ? 2u : 1u;
shared f16vec4 w_tile[TILE * PITCH]; // [output row][k]
#endif
shared f16vec4 x_tile[X_TILE * PITCH]; // [step row][k]
shared float y_tile[SUBGROUPS * PARTS * M * N];

#define Sums coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

// What is on its way, as it lies in memory: to convert it would be to wait for it.
WeightBits bring_w[LOADS];
uvec4 bring_x[X_LOADS];

// Which row of a tile of x, and which unit of it, the i-th load of this invocation is.
uvec2 load_place(uint i) {
    uint at = gl_LocalInvocationID.x + i * WORKGROUP;
    return uvec2(at / UNITS, at % UNITS);
}

// Units of the inner dimension.
uint inner_units(uint s) {
#ifdef BACK
    return (push.out_rows[s] + 7u) / 8u;
#else
    return push.in_units[s];
#endif
}

// Row and unit of W that a load brings, from the tile's first. BACK: neighbours bring the two halves of 32 bytes, and then rows that lie
// side by side in w_tile.
uvec2 weight_place(uint i) {
#ifdef BACK
    uint at = gl_LocalInvocationID.x + i * WORKGROUP;
    return uvec2(at / 2u % CHUNK, at / (2u * CHUNK) * 2u + at % 2u);
#else
    return load_place(i);
#endif
}

// The same within the matrix: put leaves out what lies behind. `tile` is the first output row or column.
uvec2 weight_from(uint s, uint tile, uint chunk, uint i) {
#ifdef BACK
    uvec2 at = weight_place(i) + uvec2(8u * chunk, tile / 8u);
#else
    uvec2 at = weight_place(i) + uvec2(tile, chunk);
#endif
    return min(at, uvec2(push.out_rows[s], push.in_units[s]) - 1u);
}

WeightRow load_row(uint s, uint o) { return weight_row(push.weights[s], push.out_rows[s], push.in_units[s], o); }

void fetch(uint s, uint tile, uint t_tile, uint chunk) {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uvec2 from = weight_from(s, tile, chunk, i);
        bring_w[i] = weight_fetch(load_row(s, from.x), from.y);
    }
    [[unroll]] for (uint i = 0u; i < X_LOADS; i++) {
        uvec2 at = load_place(i);
        uint x_row = (min(t_tile + at.x, push.rows - 1u) * push.x_stride + push.x_offset[s]) / 8u;
        bring_x[i] = Word4Ref(push.x).v[x_row + min(chunk + at.y, inner_units(s) - 1u)];
    }
}

void put(uint s, uint tile, uint chunk) {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uvec2 from = weight_from(s, tile, chunk, i), at = weight_place(i);
        f16vec4 first, second;
#ifdef WEIGHT_F16
        first = halves(bring_w[i].values.xy);
        second = halves(bring_w[i].values.zw);
#else
        vec4 a, b;
        weight_unpack(bring_w[i], load_row(s, from.x), from.y, a, b);
        first = f16vec4(a);
        second = f16vec4(b);
#endif
#ifdef BACK
        if (8u * chunk + at.x >= push.out_rows[s]) first = second = f16vec4(0); // x may hold the next segment's values there
        [[unroll]] for (uint c = 0u; c < 4u; c++) {
            w_tile[(8u * at.y + c) * 4u * PITCH + at.x] = first[c];
            w_tile[(8u * at.y + 4u + c) * 4u * PITCH + at.x] = second[c];
        }
#else
        w_tile[at.x * PITCH + 2u * at.y] = first;
        w_tile[at.x * PITCH + 2u * at.y + 1u] = second;
#endif
    }
    [[unroll]] for (uint i = 0u; i < X_LOADS; i++) {
        uvec2 at = load_place(i);
        uint to = at.x * PITCH + 2u * at.y;
        if (at.x >= X_TILE) continue;
        if (chunk + at.y >= inner_units(s)) bring_x[i] = uvec4(0);
        x_tile[to] = halves(bring_x[i].xy);
        x_tile[to + 1u] = halves(bring_x[i].zw);
    }
}

// Of this subgroup: [part][output rows][step rows]; parts: gate and up.
Sums sums[PARTS * OUT * ROWS];

// sums[p][i][j] += W[o0 + i · M, :] · x[t0 + j · N, :]ᵀ of segment s; BACK: Wᵀ in W's place
void multiply(uint p, uint s, uint tile, uint t_tile) {
    uint o_part = gl_SubgroupID % LINES * (TILE / LINES), t_part = gl_SubgroupID / LINES * (X_TILE / COLUMNS), units = inner_units(s);
    uint share = ((units + UNITS - 1u) / UNITS + SPLITS - 1u) / SPLITS * UNITS;
    uint begin = gl_WorkGroupID.z * share, end = min(units, begin + share);
    uint last = (end - 1u) / UNITS * UNITS;
    fetch(s, tile, t_tile, min(begin, last));
    for (uint chunk = begin; chunk < end; chunk += UNITS) {
        barrier();
        put(s, tile, chunk);
        barrier();
        fetch(s, tile, t_tile, min(chunk + UNITS, last)); // no branch: what it brings would have to be there at its end
        [[unroll]] for (uint k = 0u; k < CHUNK; k += K) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[OUT];
            coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
            [[unroll]] for (uint i = 0u; i < OUT; i++)
#ifdef BACK
                coopMatLoad(a[i], w_tile, (o_part + i * M) * 4u * PITCH + k, 4u * PITCH, gl_CooperativeMatrixLayoutRowMajor);
#else
                coopMatLoad(a[i], w_tile, (o_part + i * M) * PITCH + k / 4u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
#endif
            [[unroll]] for (uint j = 0u; j < ROWS; j++) {
                coopMatLoad(b, x_tile, (t_part + j * N) * PITCH + k / 4u, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0u; i < OUT; i++) {
                    uint at = (p * OUT + i) * ROWS + j;
                    sums[at] = coopMatMulAdd(a[i], b, sums[at]);
                }
            }
        }
    }
}

// y[t, o] of segment s, whose sum lies in y_tile, or its share.
void store(uint s, uint part, uint t, uint o) {
    uint undo = push.x_stride / 2u * push.rows; // the floats behind all rows of h
#ifdef BACK
    if (o >= 8u * push.in_units[s]) return;
    float value = y_tile[part] * FloatRef(push.x).v[undo + t];
    uint to = t * push.y_stride + push.y_offset[s] + o;
    if ((FLAGS & LINEAR_RESIDUAL) != 0u) value += FloatRef(push.y).v[to];
    FloatRef(push.y).v[to] = value;
#else
    if (o >= push.out_rows[s]) return;
    if (SPLITS > 1u) {
        uint to = matrix_shares(undo, push.rows) + (gl_WorkGroupID.z * PARTS * push.rows + t) * push.y_stride + push.y_offset[s] + o;
        FloatRef(push.x).v[to] = y_tile[part];
        if (SILU_MUL) FloatRef(push.x).v[to + push.rows * push.y_stride] = y_tile[part + M * N];
        return;
    }
    float value = y_tile[part] * FloatRef(push.x).v[undo + t];
    if (SILU_MUL) value = linear_gate(value, FLAGS) * (y_tile[part + M * N] * FloatRef(push.x).v[undo + t]);
    linear_store(s, t, o, value, FLAGS);
#endif
}

void main() {
    uint t_tile = gl_WorkGroupID.y * X_TILE;
    [[unroll]] for (uint i = 0u; i < PARTS * OUT * ROWS; i++) sums[i] = Sums(0.0);
#ifdef BACK
    const bool together = (FLAGS & LINEAR_SUM) != 0u;
    uvec2 at = linear_back_segment(gl_WorkGroupID.x, TILE / 8u, together ? 1u : SEGMENTS);
    at.y *= 8u;
    for (uint s = at.x; s < (together ? SEGMENTS : at.x + 1u); s++) multiply(0u, s, at.y, t_tile);
#else
    uvec2 at = linear_segment(gl_WorkGroupID.x, TILE, SILU_MUL ? 1u : SEGMENTS);
    multiply(0u, at.x, at.y, t_tile);
    if (SILU_MUL) multiply(1u, 1u, at.y, t_tile);
#endif

    // One matrix after another through the subgroup's part of y_tile, [step row][output row].
    uint part = gl_SubgroupID * PARTS * M * N;
    [[unroll]] for (uint i = 0u; i < OUT * ROWS; i++) {
        coopMatStore(sums[i], y_tile, part, M, gl_CooperativeMatrixLayoutColumnMajor);
#ifndef BACK
        if (SILU_MUL) coopMatStore(sums[OUT * ROWS + i], y_tile, part + M * N, M, gl_CooperativeMatrixLayoutColumnMajor);
#endif
        barrier();
        uint o0 = at.y + gl_SubgroupID % LINES * (TILE / LINES) + i / ROWS * M;
        uint t0 = t_tile + gl_SubgroupID / LINES * (X_TILE / COLUMNS) + i % ROWS * N;
        for (uint e = gl_SubgroupInvocationID; e < M * N; e += SUBGROUP) {
            uint t = t0 + e / M;
            if (t < push.rows) store(at.x, part + e, t, o0 + e % M);
        }
        barrier();
    }
}
