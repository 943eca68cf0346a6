// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) for many rows on GPUs: tiles of W and x pass through shared memory as f32.
//
// Grid: x = output rows of all segments / 64, y = step rows / 64. A workgroup of 128 makes a 64 × 64 tile of y; an invocation
// 8 output rows × 4 step rows of it in registers. The inner dimension goes in chunks of 16.
// Memory per output: in / 64 of a weight, in / 64 of an x.
//
// Constants: 0 workgroup size (128) · 1 WEIGHT_GROUP · 2 FLAGS (shared.h) · 3 number of segments · 4, 5 the norm's width and eps (bits)
// Tiers: strict.
#version 450
#include "refs.glsl"
#include "weights.glsl"
#include "linear.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 2) const uint FLAGS = 0;
layout(constant_id = 3) const uint SEGMENTS = 1;
layout(constant_id = 4) const uint NORM_WIDTH = 1;
layout(constant_id = 5) const uint NORM_EPS = 0;

const uint TILE = 64u;          // output rows and step rows of a workgroup
const uint CHUNK = 16u;         // inner dimension of a chunk: two units
const uint PITCH = TILE + 4u;   // keeps rows 16-byte aligned and off each other's banks
const uint OUT = 8u, ROWS = 4u; // of an invocation
const bool NORM = (FLAGS & LINEAR_NORM) != 0u;

shared vec4 w_tile[CHUNK * PITCH / 4u]; // [k][output row]
shared vec4 x_tile[CHUNK * PITCH / 4u]; // [k][step row]

void store4(uint k, uint i, vec4 value, bool weights) {
    // Component c goes to row k + c, column i.
    [[unroll]] for (uint c = 0u; c < 4u; c++) {
        uint at = (k + c) * PITCH + i;
        if (weights) w_tile[at / 4u][at % 4u] = value[c];
        else x_tile[at / 4u][at % 4u] = value[c];
    }
}

// sums[i][j] += W[o0 + i, :] · x[t0 + j, :] of this invocation's block
void accumulate(uint s, uint o_tile, uint t_tile, out vec4 sums[OUT]) {
    uint id = gl_LocalInvocationID.x;
    uint units = push.in_units[s];
    ConstVec4Ref x = ConstVec4Ref(push.x), norm = ConstVec4Ref(push.norm);
    [[unroll]] for (uint i = 0u; i < OUT; i++) sums[i] = vec4(0);

    // Loading: invocation id brings unit id / 64 of output row id % 64, and the same of the step row.
    uint column = id % TILE, unit0 = id / TILE;
    WeightRow row = weight_row(push.weights[s], push.out_rows[s], units, min(o_tile + column, push.out_rows[s] - 1u));
    uint x_row = (min(t_tile + column, push.rows - 1u) * push.x_stride + push.x_offset[s]) / 4u;
    uint o_block = id % 8u * OUT / 4u, t_block = id / 8u * ROWS / 4u;

    float squares = 0.0; // of what this invocation brings

    for (uint chunk = 0u; chunk < units; chunk += 2u) {
        uint unit = chunk + unit0;
        vec4 a, b;
        weight_load(row, unit, weight_scale(row, unit), a, b);
        vec4 xa = x.v[x_row + 2u * unit], xb = x.v[x_row + 2u * unit + 1u];
        if (NORM) {
            squares += dot(xa, xa) + dot(xb, xb);
            xa *= norm.v[2u * unit];
            xb *= norm.v[2u * unit + 1u];
        }
        barrier();
        store4(8u * unit0, column, a, true);
        store4(8u * unit0 + 4u, column, b, true);
        store4(8u * unit0, column, xa, false);
        store4(8u * unit0 + 4u, column, xb, false);
        barrier();
        for (uint k = 0u; k < CHUNK; k++) {
            vec4 w0 = w_tile[k * (PITCH / 4u) + o_block], w1 = w_tile[k * (PITCH / 4u) + o_block + 1u];
            vec4 xs = x_tile[k * (PITCH / 4u) + t_block];
            [[unroll]] for (uint i = 0u; i < 4u; i++) {
                sums[i] += w0[i] * xs;
                sums[i + 4u] += w1[i] * xs;
            }
        }
    }
    if (!NORM) return;
    // The two invocations that brought a step row put their squares together.
    barrier();
    x_tile[id / 4u][id % 4u] = squares;
    barrier();
    vec4 scale;
    [[unroll]] for (uint j = 0u; j < ROWS; j++) {
        uint at = 4u * t_block + j;
        scale[j] = linear_rms(x_tile[at / 4u][at % 4u] + x_tile[(at + TILE) / 4u][at % 4u], NORM_WIDTH, NORM_EPS);
    }
    [[unroll]] for (uint i = 0u; i < OUT; i++) sums[i] *= scale;
    barrier();
}

void main() {
    uvec2 at = linear_segment(gl_WorkGroupID.x, TILE, (FLAGS & LINEAR_SILU_MUL) != 0u ? 1u : SEGMENTS);
    uint t_tile = gl_WorkGroupID.y * TILE;
    vec4 sums[OUT], ups[OUT];
    accumulate(at.x, at.y, t_tile, sums);
    if ((FLAGS & LINEAR_SILU_MUL) != 0u) accumulate(1u, at.y, t_tile, ups);

    // Every ROWS-th step row at a time passes through shared memory, so that neighbours store neighbours, by code that stands once each.
    uint id = gl_LocalInvocationID.x, place = (id / 8u * TILE + id % 8u * OUT) / 4u;
    [[unroll]] for (uint j = 0u; j < ROWS; j++) {
        vec4 values[OUT / 4u];
        [[unroll]] for (uint i = 0u; i < OUT; i++) {
            float value = sums[i][j];
            if ((FLAGS & LINEAR_SILU_MUL) != 0u) value = linear_gate(value, FLAGS) * ups[i][j];
            values[i / 4u][i % 4u] = value;
        }
        [[unroll]] for (uint i = 0u; i < OUT / 4u; i++) w_tile[place + i] = values[i];
        barrier();
        for (uint i = id; i < TILE * TILE / ROWS; i += WORKGROUP) {
            uint o = at.y + i % TILE, t = t_tile + i / TILE * ROWS + j;
            if (o < push.out_rows[at.x] && t < push.rows) linear_store(at.x, t, o, w_tile[i / 4u][i % 4u], FLAGS);
        }
        barrier();
    }
}
