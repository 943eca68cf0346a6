// Several linear operations on few step rows by CPU drivers, each of which may take what those before it left, in one dispatch: a dispatch
// wakes threads, which takes as long as a small matrix. Products and epilogues as linear_lanes.comp's.
//
// Workgroups take numbers as they begin: first those of the first stage, then those of the next, and so on. One brings its weights near,
// waits until the stage before is done, and then reads what that left. Whom it waits for has begun before, so that nothing waits forever if
// what has begun goes on, however few run at a time. That, and that loops may be long, is what ZS_TIER_CHAIN was tested for.
//
// Grid: x = workgroups of all pieces, each SUBGROUP_SIZE · ROWS output rows × TOKENS step rows; those of the same output rows follow each
// other, so that weights come from memory once.
// Memory per output: as linear_lanes.comp. push.counters: the next number, then of each stage how many are done; zero before and after.
//
// Constants: 0 workgroup size (= SUBGROUP_SIZE, 4 to 16) · 1 WEIGHT_GROUP · 2 ROWS · 3 TOKENS · 4 FLAGS: LINEAR_GELU,
// LINEAR_NORM where a piece has one · 5, 6 the norms' width and eps (bits)
// Tiers: subgroup, storage, chain.
#version 450
#include "refs.glsl"
#include "gate.glsl"
#extension GL_KHR_shader_subgroup_arithmetic : require

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint SUBGROUP_SIZE = 8;
layout(constant_id = 2) const uint ROWS = 2;
layout(constant_id = 3) const uint TOKENS = 1;
layout(constant_id = 4) const uint FLAGS = 0;
layout(constant_id = 5) const uint NORM_WIDTH = 1;
layout(constant_id = 6) const uint NORM_EPS = 0;
layout(push_constant, std430) uniform Push { PushLinearChain push; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer PieceRef { ChainPiece v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer CounterRef { uint v[]; };

const bool NORM = (FLAGS & LINEAR_NORM) != 0u;
#include "lanes.glsl"

// Which piece a workgroup belongs to.
uint piece_of(uint number) {
    uint last = 0u;
    for (uint i = gl_SubgroupInvocationID; i < push.pieces; i += SUBGROUP_SIZE)
        if (PieceRef(push.table).v[i].first <= number) last = i;
    return subgroupMax(last);
}

// s: 1 for the second matrix of a pair
Lanes lanes_of(ChainPiece p, uint s) {
    return Lanes(s == 0u ? p.weights : p.up_weights, s == 0u ? p.x : p.up_x, p.norm, p.out_rows, p.in_units, 0u, p.x_stride, push.rows,
                 (p.flags & LINEAR_NORM) != 0u);
}

// Adds to a counter, for the whole subgroup; what it was before.
uint count(uint counter, uint more) {
    uint before = 0u;
    if (gl_SubgroupInvocationID == 0u) before = atomicAdd(CounterRef(push.counters).v[counter], more);
    return subgroupBroadcast(before, 0u);
}

void store(ChainPiece p, uint o, uint t, float value) {
    uint at = t * p.y_stride + o;
    if ((p.flags & LINEAR_SCALE) != 0u) {
        uint expert = RowRef(push.step.v.rows).v[t].expert;
        value *= FloatRef(push.step.v.scales).v[expert * push.step.v.scale_stride + p.scale_offset + o];
    }
    if ((p.flags & LINEAR_RESIDUAL) != 0u) value += FloatRef(p.y).v[at];
    FloatRef(p.y).v[at] = value;
}

void main() {
    uint blocks = (push.rows + TOKENS - 1u) / TOKENS, number = count(0u, 1u), t0 = number % blocks * TOKENS;
    ChainPiece p = PieceRef(push.table).v[piece_of(number / blocks)];
    uint first = (number / blocks - p.first) * WORKGROUP_ROWS, o0 = first + gl_SubgroupInvocationID * ROWS;
    uint matrices = (p.flags & LINEAR_SILU_MUL) != 0u ? 2u : 1u;
    uint touched = 0u;
    for (uint s = 0u; s < matrices; s++) touched += lanes_touch(lanes_of(p, s), first);
    for (uint done = 0u; done < p.before * blocks;) done = count(p.stage, 0u);
    memoryBarrierBuffer();

    float sums[SUMS], gates[SUMS];
    [[dont_unroll]] for (uint s = 0u; s < matrices; s++) {
        [[unroll]] for (uint i = 0u; i < SUMS; i++) gates[i] = sums[i];
        lanes_multiply(lanes_of(p, s), o0, t0, sums);
    }
    if (touched == 1u && push.rows == 0u) sums[0] = 0.0; // never
    float values[SUMS]; // taken by a variable index
    [[unroll]] for (uint i = 0u; i < SUMS; i++) values[i] = matrices == 2u ? sums[i] * linear_gate(gates[i], FLAGS) : sums[i];
    [[dont_unroll]] for (uint i = 0u; i < SUMS; i++) {
        uint o = o0 + i / TOKENS, t = t0 + i % TOKENS;
        if (o < p.out_rows && t < push.rows) store(p, o, t, values[i]);
    }

    memoryBarrierBuffer();
    uint others = count(p.stage + 1u, 1u);
    if (p.last != 0u && others + 1u == p.last * blocks) // nobody counts any longer
        for (uint i = gl_SubgroupInvocationID; i < p.stage + 2u; i += SUBGROUP_SIZE) CounterRef(push.counters).v[i] = 0u;
}
