// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) for many rows on cards with matrix units: tiles of W and x pass through shared memory as
// f16, products are summed in f32. x comes as half_rows.comp leaves it: h[t, k] = x[t, k] / undo[t], undo behind all rows of h.
//
// Grid: x = output rows of all segments / TILE, y = step rows / TILE. The 2 × COLUMNS subgroups of a workgroup each make TILE/2 × TILE/COLUMNS
// values of y, in matrices of M × N. The inner dimension goes in chunks; the next one is on its way while one is multiplied.
// Memory per output: in / TILE of a weight, in / TILE of an x.
//
// Constants: 0 workgroup size (2 · COLUMNS subgroups) · 1 WEIGHT_GROUP · 2 FLAGS (shared.h; no norm) · 3 number of segments · 4 subgroup size ·
// 5, 6, 7 M, N, K of the device's matrices · 8 TILE · 9 UNITS of eight values in a chunk (4 or 8)
// Tiers: subgroup, half, matrix.
#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "refs.glsl"
#include "weights.glsl"
#include "linear.glsl"

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

const uint SUBGROUPS = WORKGROUP / SUBGROUP, COLUMNS = SUBGROUPS / 2u;
const uint CHUNK = 8u * UNITS;                             // of the inner dimension
const uint PITCH = CHUNK / 4u + 2u;                        // of a tile's row, in vec4s: off each other's banks
const uint LOADS = TILE * UNITS / WORKGROUP;               // units of W, and of x, that an invocation brings
const uint OUT = TILE / 2u / M, ROWS = TILE / COLUMNS / N; // matrices of a subgroup
const bool SILU_MUL = (FLAGS & LINEAR_SILU_MUL) != 0u;
const uint PARTS = SILU_MUL ? 2u : 1u;

shared f16vec4 w_tile[TILE * PITCH]; // [output row][k]
shared f16vec4 x_tile[TILE * PITCH]; // [step row][k]
shared float y_tile[SUBGROUPS * PARTS * M * N];

#define Sums coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

// What is on its way, as it lies in memory: to convert it would be to wait for it.
WeightBits bring_w[LOADS];
uvec4 bring_x[LOADS];

f16vec4 halves(uvec2 bits) { return f16vec4(unpackFloat2x16(bits.x), unpackFloat2x16(bits.y)); }

// Which row of the tiles and which unit of a chunk the i-th load of this invocation is.
uvec2 load_place(uint i) {
    uint at = gl_LocalInvocationID.x + i * WORKGROUP;
    return uvec2(at / UNITS, at % UNITS);
}

WeightRow load_row(uint s, uint o) { return weight_row(push.weights[s], push.out_rows[s], push.in_units[s], min(o, push.out_rows[s] - 1u)); }

void fetch(uint s, uint o_tile, uint t_tile, uint chunk) {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uvec2 at = load_place(i);
        uint unit = min(chunk + at.y, push.in_units[s] - 1u); // put leaves out what lies behind
        bring_w[i] = weight_fetch(load_row(s, o_tile + at.x), unit);
        uint x_row = (min(t_tile + at.x, push.rows - 1u) * push.x_stride + push.x_offset[s]) / 8u;
        bring_x[i] = Word4Ref(push.x).v[x_row + unit];
    }
}

void put(uint s, uint o_tile, uint chunk) {
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uvec2 at = load_place(i);
        uint to = at.x * PITCH + 2u * at.y, unit = min(chunk + at.y, push.in_units[s] - 1u);
        if (unit != chunk + at.y) bring_x[i] = uvec4(0);
#ifdef WEIGHT_F16
        w_tile[to] = halves(bring_w[i].values.xy);
        w_tile[to + 1u] = halves(bring_w[i].values.zw);
#else
        vec4 a, b;
        weight_unpack(bring_w[i], load_row(s, o_tile + at.x), unit, a, b);
        w_tile[to] = f16vec4(a);
        w_tile[to + 1u] = f16vec4(b);
#endif
        x_tile[to] = halves(bring_x[i].xy);
        x_tile[to + 1u] = halves(bring_x[i].zw);
    }
}

// Of this subgroup: [part][output rows][step rows]; parts: gate and up.
Sums sums[PARTS * OUT * ROWS];

// sums[p][i][j] = W[o0 + i · M, :] · x[t0 + j · N, :]ᵀ of segment s
void multiply(uint p, uint s, uint o_tile, uint t_tile) {
    uint o_part = gl_SubgroupID % 2u * TILE / 2u, t_part = gl_SubgroupID / 2u * TILE / COLUMNS, units = push.in_units[s];
    uint last = (units - 1u) / UNITS * UNITS;
    fetch(s, o_tile, t_tile, 0u);
    for (uint chunk = 0u; chunk < units; chunk += UNITS) {
        barrier();
        put(s, o_tile, chunk);
        barrier();
        fetch(s, o_tile, t_tile, min(chunk + UNITS, last)); // no branch: what it brings would have to be there at its end
        [[unroll]] for (uint k = 0u; k < CHUNK; k += K) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[OUT];
            coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
            [[unroll]] for (uint i = 0u; i < OUT; i++)
                coopMatLoad(a[i], w_tile, (o_part + i * M) * PITCH + k / 4u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
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

void main() {
    uvec2 at = linear_segment(gl_WorkGroupID.x, TILE, SILU_MUL ? 1u : SEGMENTS);
    uint t_tile = gl_WorkGroupID.y * TILE;
    [[unroll]] for (uint i = 0u; i < PARTS * OUT * ROWS; i++) sums[i] = Sums(0.0);
    multiply(0u, at.x, at.y, t_tile);
    if (SILU_MUL) multiply(1u, 1u, at.y, t_tile);

    // One matrix after another through the subgroup's part of y_tile, [step row][output row].
    uint part = gl_SubgroupID * PARTS * M * N;
    [[unroll]] for (uint i = 0u; i < OUT * ROWS; i++) {
        coopMatStore(sums[i], y_tile, part, M, gl_CooperativeMatrixLayoutColumnMajor);
        if (SILU_MUL) coopMatStore(sums[OUT * ROWS + i], y_tile, part + M * N, M, gl_CooperativeMatrixLayoutColumnMajor);
        barrier();
        uint o0 = at.y + gl_SubgroupID % 2u * TILE / 2u + i / ROWS * M, t0 = t_tile + gl_SubgroupID / 2u * TILE / COLUMNS + i % ROWS * N;
        for (uint e = gl_SubgroupInvocationID; e < M * N; e += SUBGROUP) {
            uint o = o0 + e % M, t = t0 + e / M;
            if (o >= push.out_rows[at.x] || t >= push.rows) continue;
            float undo = FloatRef(push.x).v[push.x_stride / 2u * push.rows + t], value = y_tile[part + e] * undo;
            if (SILU_MUL) value = linear_gate(value, FLAGS) * (y_tile[part + M * N + e] * undo);
            linear_store(at.x, t, o, value, FLAGS);
        }
        barrier();
    }
}
