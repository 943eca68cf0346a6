// y[t, i] = Σ_o W[o, i] x[t, o], the gradient of a linear operation by its input, on CPU drivers: an invocation makes a block of QUADS
// times four columns of W × TOKENS step rows; nothing passes through shared memory.
//
// Grid: x = columns of all segments / (4 · QUADS · workgroup size), y = step rows / TOKENS. QUADS is 1 for types of weights that can be read
// so (weights.glsl), else 2, a unit. With LINEAR_SUM all segments make the same columns, and their products are added. CHUNK rows of W go
// in a turn, unrolled; SUBGROUP: an x is loaded once per subgroup and handed round as in linear_lanes.comp.
// Memory per output: out · bytes(type) / TOKENS of weights + 4 · out / (4 · QUADS · subgroup size) of x.
//
// Constants: 0 workgroup size (SUBGROUP: the subgroup's size, ≥ 4) · 1 WEIGHT_GROUP · 2 TOKENS · 3 FLAGS (shared.h: RESIDUAL, SUM) ·
// 4 number of segments
// Tiers: strict; SUBGROUP.
#version 450
#include "refs.glsl"
#include "weights.glsl"
#include "linear_back.glsl"
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_ballot : require
#endif

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 8;
layout(constant_id = 2) const uint TOKENS = 8;
layout(constant_id = 3) const uint FLAGS = 0;
layout(constant_id = 4) const uint SEGMENTS = 1;

#ifdef WEIGHT_QUADS
const uint QUADS = 1u;
#else
const uint QUADS = 2u;
#endif
const uint SUMS = TOKENS * QUADS;
const uint TOGETHER = 2u; // step rows whose sums are in registers at a time; a weight is brought there once for them

// CHUNK: rows of W in a turn, which is as much as the cache for instructions holds. SPREAD: invocations that share out a turn's x [TOKENS, CHUNK].
#ifdef SUBGROUP
const uint CHUNK = 256u / SUMS;
const uint SPREAD = WORKGROUP;
#else
const uint CHUNK = 8u;
const uint SPREAD = 1u;
#endif
const uint SHARES = TOKENS * CHUNK / SPREAD; // of it that an invocation loads

// Value `at` of a turn's x, for the whole subgroup; share: of the invocations, of number at / SPREAD.
float take(float share, uint at) {
#ifdef SUBGROUP
    return subgroupBroadcast(share, at % SPREAD);
#else
    return share;
#endif
}

// sums[t · QUADS + q] += Σ_o W[o, 4 · (quad + q) + 0…3] x[t0 + t, o]
void accumulate(uint s, uint quad, uint t0, inout vec4 sums[SUMS]) {
    uint rows = push.out_rows[s], units = push.in_units[s];
#ifdef SUBGROUP
    uint place = gl_SubgroupInvocationID;
#else
    uint place = 0u;
#endif
    uint x_row[SHARES]; // of the shares
    [[unroll]] for (uint i = 0u; i < SHARES; i++)
        x_row[i] = min(t0 + (i * SPREAD + place) / CHUNK, push.rows - 1u) * push.x_stride + push.x_offset[s];

    for (uint chunk = push.first; chunk < min(rows, push.end); chunk += CHUNK) {
        float share[SHARES];
        [[unroll]] for (uint i = 0u; i < SHARES; i++) {
            uint o = chunk + (i * SPREAD + place) % CHUNK;
            float value = FloatRef(push.x).v[x_row[i] + min(o, rows - 1u)];
            share[i] = o < rows ? value : 0.0;
        }
        vec4 w[CHUNK * QUADS]; // all before the first is used: reads from memory overlap
        [[unroll]] for (uint k = 0u; k < CHUNK; k++) {
            WeightRow row = weight_row(push.weights[s], rows, units, min(chunk + k, rows - 1u));
#ifdef WEIGHT_QUADS
            w[k] = weight_quad(row, quad);
#else
            weight_load(row, quad / 2u, weight_scale(row, quad / 2u), w[k * QUADS], w[k * QUADS + 1u]);
#endif
        }
        [[unroll]] for (uint t = 0u; t < TOKENS; t += TOGETHER) {
            [[unroll]] for (uint k = 0u; k < CHUNK; k++) {
                float x[TOGETHER];
                [[unroll]] for (uint i = 0u; i < TOGETHER; i++) x[i] = take(share[((t + i) * CHUNK + k) / SPREAD], (t + i) * CHUNK + k);
                [[unroll]] for (uint i = 0u; i < QUADS * TOGETHER; i++)
                    sums[(t + i % TOGETHER) * QUADS + i / TOGETHER] += w[k * QUADS + i / TOGETHER] * x[i % TOGETHER];
            }
        }
    }
}

void main() {
    const bool sum = (FLAGS & LINEAR_SUM) != 0u;
    uvec2 at = linear_back_segment(gl_WorkGroupID.x, WORKGROUP * QUADS / 2u, sum ? 1u : SEGMENTS);
    uint mine = 2u * at.y + gl_LocalInvocationID.x * QUADS, quad = min(mine, 2u * push.in_units[at.x] - QUADS), t0 = gl_WorkGroupID.y * TOKENS;
    vec4 sums[SUMS];
    [[unroll]] for (uint i = 0u; i < SUMS; i++) sums[i] = vec4(0);
    if (sum) {
        for (uint s = 0u; s < SEGMENTS; s++) accumulate(s, quad, t0, sums);
    } else {
        accumulate(at.x, quad, t0, sums);
    }
    [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
        if (mine != quad || t0 + t >= push.rows) continue;
        [[unroll]] for (uint q = 0u; q < QUADS; q++) linear_back_store(at.x, t0 + t, quad + q, sums[t * QUADS + q], FLAGS);
    }
}
