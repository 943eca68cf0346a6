// y[t, i] = Σ_o W[o, i] x[t, o], the gradient of a linear operation by its input, on GPUs: tiles of W and x pass through shared
// memory as f32.
//
// Grid: x = columns of all segments / 64, y = step rows / 64. A workgroup of 128 makes a 64 × 64 tile of y; an invocation 8 columns ×
// 4 step rows of it in registers. Rows of W go in chunks of 16. With LINEAR_SUM all segments make the same columns, and their
// products are added.
// Memory per output: out / 64 of a weight, out / 64 of an x.
//
// Constants: 0 workgroup size (128) · 1 WEIGHT_GROUP · 2 FLAGS (shared.h: RESIDUAL, SUM) · 3 number of segments
// Tiers: strict.
#version 450
#include "refs.glsl"
#include "weights.glsl"
#include "linear_back.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 2) const uint FLAGS = 0;
layout(constant_id = 3) const uint SEGMENTS = 1;

const uint TILE = 64u;              // columns and step rows of a workgroup
const uint TILE_UNITS = TILE / 8u;
const uint CHUNK = 16u;             // rows of W
const uint PITCH = TILE / 4u + 1u;  // in vec4: keeps rows off each other's banks
const uint ROWS = 4u;               // step rows of an invocation

shared vec4 w_tile[CHUNK * PITCH]; // [o][column]
shared vec4 x_tile[CHUNK * PITCH]; // [o][step row]

// a[j], b[j] += Σ_o W[o, 0…3 and 4…7 of this invocation's columns] x[its step row j, o]
void accumulate(uint s, uint unit_tile, uint t_tile, inout vec4 a[ROWS], inout vec4 b[ROWS]) {
    uint id = gl_LocalInvocationID.x, rows = push.out_rows[s], units = push.in_units[s];
    // Loading: invocation id brings unit id % 8 of row id / 8 of W, and eight values, from id / 64 · 8 on, of step row id % 64.
    uint unit = min(unit_tile + id % TILE_UNITS, units - 1u), w_row = id / TILE_UNITS;
    uint column = id % TILE, o_first = id / TILE * 8u;
    uint x_row = min(t_tile + column, push.rows - 1u) * push.x_stride + push.x_offset[s];
    uint i_block = id % 8u * 2u, t_block = id / 8u;

    for (uint chunk = push.first; chunk < min(rows, push.end); chunk += CHUNK) {
        WeightRow row = weight_row(push.weights[s], rows, units, min(chunk + w_row, rows - 1u));
        vec4 wa, wb;
        weight_load(row, unit, weight_scale(row, unit), wa, wb);
        float x[8];
        [[unroll]] for (uint k = 0u; k < 8u; k++) {
            uint o = chunk + o_first + k;
            float value = FloatRef(push.x).v[x_row + min(o, rows - 1u)];
            x[k] = o < rows ? value : 0.0;
        }
        barrier();
        w_tile[w_row * PITCH + 2u * (id % TILE_UNITS)] = wa;
        w_tile[w_row * PITCH + 2u * (id % TILE_UNITS) + 1u] = wb;
        [[unroll]] for (uint k = 0u; k < 8u; k++) x_tile[(o_first + k) * PITCH + column / 4u][column % 4u] = x[k];
        barrier();
        for (uint k = 0u; k < CHUNK; k++) {
            vec4 w0 = w_tile[k * PITCH + i_block], w1 = w_tile[k * PITCH + i_block + 1u], xs = x_tile[k * PITCH + t_block];
            [[unroll]] for (uint j = 0u; j < ROWS; j++) {
                a[j] += w0 * xs[j];
                b[j] += w1 * xs[j];
            }
        }
    }
    barrier();
}

void main() {
    const bool sum = (FLAGS & LINEAR_SUM) != 0u;
    uvec2 at = linear_back_segment(gl_WorkGroupID.x, TILE_UNITS, sum ? 1u : SEGMENTS);
    uint t_tile = gl_WorkGroupID.y * TILE;
    vec4 a[ROWS], b[ROWS];
    [[unroll]] for (uint j = 0u; j < ROWS; j++) a[j] = b[j] = vec4(0);
    if (sum) {
        for (uint s = 0u; s < SEGMENTS; s++) accumulate(s, at.y, t_tile, a, b);
    } else {
        accumulate(at.x, at.y, t_tile, a, b);
    }
    uint unit = at.y + gl_LocalInvocationID.x % 8u, t0 = t_tile + gl_LocalInvocationID.x / 8u * ROWS;
    [[unroll]] for (uint j = 0u; j < ROWS; j++) {
        if (unit >= push.in_units[at.x] || t0 + j >= push.rows) continue;
        linear_back_store(at.x, t0 + j, 2u * unit, a[j], FLAGS);
        linear_back_store(at.x, t0 + j, 2u * unit + 1u, b[j], FLAGS);
    }
}
