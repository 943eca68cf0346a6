// What linear_lanes.comp and linear_chain.comp share: ROWS output rows × TOKENS step rows of x Wᵀ by each invocation of a subgroup.
//
// CPU drivers vectorise over the invocations of a subgroup and, inside loops, load for each of them separately even where they read the
// same: so an x is loaded once per subgroup, each invocation its share, and handed round by subgroupBroadcast with constant indices. Loops
// are unrolled because every turn blends all sums by the execution mask; a turn of about a thousand products for each invocation is as
// much as the cache for instructions holds. WEIGHT_GROUP rows lie interleaved, the two rows of a subgroup's invocations by default, so what
// it reads next is what follows.
//
// The constants SUBGROUP_SIZE, WEIGHT_GROUP, ROWS, TOKENS, NORM_WIDTH and NORM_EPS come first, and gate.glsl; and NORM: x may have a norm.
#ifdef TOUCH
#include "touch.glsl"
#include "long.glsl"
#endif
#include "weights.glsl"
#extension GL_KHR_shader_subgroup_ballot : require

// A matrix, and what it is multiplied with.
struct Lanes {
    uvec2 weights, x;
    uvec2 norm; // NORM: weights of an RMS norm on x
    uint out_rows, units;
    uint x_offset, x_stride, x_rows; // floats, and step rows
    bool normed;                     // NORM: there is one; else `norm` holds a pair of ones
};

const uint SUMS = ROWS * TOKENS;
const uint QUADS = SUMS > 128u ? 1u : SUMS > 32u ? 4u : 2u * SCALE_UNITS; // of each row's values in a turn
const uint TURN = 4u * QUADS, WEIGHTS = ROWS * QUADS;
#ifdef LONG
const uint PER = TOKENS * TURN % (2u * SUBGROUP_SIZE) == 0u ? 2u : 1u; // values of x that an invocation loads at a time
#else
const uint PER = 1u;
#endif
const uint LOADS = TOKENS * TURN / (PER * SUBGROUP_SIZE);                          // of a turn's x, row after row, by each invocation
const uint SLOTS = TURN < PER * SUBGROUP_SIZE ? 1u : TURN / (PER * SUBGROUP_SIZE); // of them that a row has a part in
const uint PART = TURN < PER * SUBGROUP_SIZE ? TURN / PER : SUBGROUP_SIZE;         // invocations that have values of a row in such a slot
const uint TOGETHER = TOKENS < 2u ? 1u : 2u; // step rows whose sums are in registers at a time; a weight is brought there once for them

#ifdef TOUCH
const uint WORKGROUP_ROWS = ROWS * SUBGROUP_SIZE;
const uint STRIDE = LINE_WORDS * SUBGROUP_SIZE; // of a subgroup's touches
// Brings near the weights of the WORKGROUP_ROWS rows from `first` on, plane after plane; returns what has to be used.
uint lanes_touch(Lanes m, uint first) {
    const uint all = weight_plane(m.out_rows, m.units), before = first * m.units, count = min(WORKGROUP_ROWS * m.units, all - before); // units
    uint touched = 0u, plane = 0u;
    [[unroll]] for (uint p = 0u; p < 4u; p++) {
        if (WEIGHT_PLANES[p] == 0u) continue;
        uint from = plane + before / 32u * WEIGHT_PLANES[p], end = from + count * WEIGHT_PLANES[p] / 32u;
        [[dont_unroll]] for (uint i = from + LINE_WORDS * gl_SubgroupInvocationID; i < end; i += 2u * STRIDE)
            touched += touch(m.weights, i) + touch(m.weights, min(i + STRIDE, end - 1u));
        plane += all / 32u * WEIGHT_PLANES[p];
    }
    return touched;
}
#endif

// w[r · QUADS + q] = W[row r, 4 · (quad + q) + 0…3]
void load_weights(WeightRow rows[ROWS], uint quad, uint nothing, out vec4 w[WEIGHTS]) {
#ifdef WEIGHT_TWO
    if (WEIGHT_GROUP % 2u == 0u) {
        [[unroll]] for (uint r = 0u; r < ROWS; r += 2u) {
            vec4 a[2], b[2];
            if (QUADS == 1u) {
                weight_two_quad(rows[r], quad, nothing, a);
                [[unroll]] for (uint i = 0u; i < 2u; i++) w[r + i] = a[i];
                continue;
            }
            vec4 scales = weight_two_scales(rows[r], quad / 2u, nothing);
            LongRef at = weight_two_at(rows[r], quad / 2u);
            [[unroll]] for (uint q = 0u; q < QUADS; q += 2u) {
                weight_two(at, q / 2u, scales, nothing, a, b);
                [[unroll]] for (uint i = 0u; i < 2u; i++) {
                    w[(r + i) * QUADS + q] = a[i];
                    w[(r + i) * QUADS + q + 1u] = b[i];
                }
            }
        }
        return;
    }
#endif
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        if (QUADS == 1u) {
            w[r] = weight_quad(rows[r], quad);
            continue;
        }
        vec2 scale = weight_scale(rows[r], quad / 2u);
        [[unroll]] for (uint q = 0u; q < QUADS; q += 2u) weight_load(rows[r], (quad + q) / 2u, scale, w[r * QUADS + q], w[r * QUADS + q + 1u]);
    }
}

// values[0 … PER − 1] from index i on, a multiple of PER.
void load_floats(uvec2 address, uint i, out float values[PER]) {
#ifdef LONG
    if (PER == 2u) {
        uvec2 both = long_words(long_at(address, i), 0u);
        values[0] = uintBitsToFloat(both.x);
        values[PER - 1u] = uintBitsToFloat(both.y);
        return;
    }
#endif
    values[0] = FloatRef(address).v[i];
}

// sums[r · TOKENS + t] = Σ_k W[o0 + r, k] x[t0 + t, k]
void lanes_multiply(Lanes m, uint o0, uint t0, out float sums[SUMS]) {
    WeightRow rows[ROWS];
    // Whoever has none reads the last ones, in pairs where rows are interleaved.
    const uint there = weight_plane(m.out_rows, 1u);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        const uint most = there - (WEIGHT_GROUP % 2u == 0u ? 2u - r % 2u : 1u);
        rows[r] = weight_row(m.weights, m.out_rows, m.units, min(o0 + r, most));
    }
    uint x_at[LOADS]; // where a turn's loads are, but for the turn
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uint at = PER * (i * SUBGROUP_SIZE + gl_SubgroupInvocationID);
        x_at[i] = min(t0 + at / TURN, m.x_rows - 1u) * m.x_stride + m.x_offset + at % TURN;
    }
    [[unroll]] for (uint i = 0u; i < SUMS; i++) sums[i] = 0.0;
    float squares[LOADS / SLOTS];
    [[unroll]] for (uint i = 0u; i < LOADS / SLOTS; i++) squares[i] = 0.0;

    for (uint quad = 0u; quad < 2u * m.units; quad += QUADS) {
        float norm[SLOTS * PER], share[LOADS * PER], loaded[PER];
        [[unroll]] for (uint i = 0u; NORM && i < SLOTS; i++) {
            load_floats(m.norm, m.normed ? 4u * quad + PER * (i * SUBGROUP_SIZE + gl_SubgroupInvocationID % PART) : 0u, loaded);
            [[unroll]] for (uint j = 0u; j < PER; j++) norm[i * PER + j] = loaded[j];
        }
        [[unroll]] for (uint i = 0u; i < LOADS; i++) {
            load_floats(m.x, x_at[i] + 4u * quad, loaded);
            [[unroll]] for (uint j = 0u; j < PER; j++) {
                float x = loaded[j];
                if (NORM) squares[i / SLOTS] += x * x;
                share[i * PER + j] = NORM ? x * norm[i % SLOTS * PER + j] : x;
            }
        }
        vec4 w[WEIGHTS];
        load_weights(rows, quad, m.x_rows >> 31, w);
        [[unroll]] for (uint t = 0u; t < TOKENS; t += TOGETHER) {
            [[unroll]] for (uint k = 0u; k < TURN; k++) {
                float x[TOGETHER];
                [[unroll]] for (uint i = 0u; i < TOGETHER; i++) {
                    uint at = (t + i) * TURN + k;
                    x[i] = subgroupBroadcast(share[at / (PER * SUBGROUP_SIZE) * PER + at % PER], at / PER % SUBGROUP_SIZE);
                }
                [[unroll]] for (uint i = 0u; i < ROWS * TOGETHER; i++)
                    sums[i / TOGETHER * TOKENS + t + i % TOGETHER] += w[i / TOGETHER * QUADS + k / 4u][k % 4u] * x[i % TOGETHER];
            }
        }
    }
    if (!NORM) return;
    [[unroll]] for (uint t = 0u; t < TOKENS; t++) {
        float sum = 0.0;
        [[unroll]] for (uint i = 0u; i < PART; i++) {
            uint at = t * TURN / PER + i;
            sum += subgroupBroadcast(squares[at / (SUBGROUP_SIZE * SLOTS)], at % SUBGROUP_SIZE);
        }
        float scale = m.normed ? linear_rms(sum, NORM_WIDTH, NORM_EPS) : 1.0;
        [[unroll]] for (uint r = 0u; r < ROWS; r++) sums[r * TOKENS + t] *= scale;
    }
}
