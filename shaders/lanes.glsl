// What linear_lanes.comp and linear_chain.comp share: ROWS output rows × TOKENS step rows of x Wᵀ by each invocation of a subgroup.
//
// CPU drivers vectorise over the invocations of a subgroup and, inside loops, load for each of them separately even where they read the
// same: so an x is loaded once per subgroup, each invocation its share, and handed round by subgroupBroadcast with constant indices. Loops
// are unrolled because every turn blends all sums by the execution mask; a turn of about a thousand products for each invocation is as
// much as the cache for instructions holds. WEIGHT_GROUP rows lie interleaved, the two rows of a subgroup's invocations by default, so what
// it reads next is what follows.
//
// The constants SUBGROUP_SIZE, WEIGHT_GROUP, ROWS, TOKENS, NORM_WIDTH and NORM_EPS come first, and gate.glsl; and NORM: x may have a norm.
#include "weights.glsl"
#ifdef TOUCH
#include "touch.glsl"
#endif
#extension GL_KHR_shader_subgroup_ballot : require

// A matrix, and what it is multiplied with.
struct Lanes {
    uvec2 weights, x;
    uvec2 norm; // NORM: weights of an RMS norm on x
    uint out_rows, units;
    uint x_offset, x_stride, x_rows; // floats, and step rows
    bool normed;                     // NORM: there is one; else `norm` holds a single 1
};

const uint SUMS = ROWS * TOKENS;
const uint QUADS = SUMS > 128u ? 1u : SUMS > 32u ? 4u : 2u * SCALE_UNITS; // of each row's values in a turn
const uint TURN = 4u * QUADS, WEIGHTS = ROWS * QUADS;
const uint SHARES = TOKENS * TURN / SUBGROUP_SIZE;                   // of a turn's x, row after row, that an invocation loads
const uint SLOTS = TURN < SUBGROUP_SIZE ? 1u : TURN / SUBGROUP_SIZE; // of them that a row has a part in
const uint PART = TURN < SUBGROUP_SIZE ? TURN : SUBGROUP_SIZE;       // invocations that have a value of a row in such a slot
const uint TOGETHER = TOKENS < 2u ? 1u : 2u; // step rows whose sums are in registers at a time; a weight is brought there once for them

#ifdef TOUCH
const uint WORKGROUP_ROWS = ROWS * SUBGROUP_SIZE, STRIDE = LINE_WORDS * SUBGROUP_SIZE;
// Brings near the weights of the WORKGROUP_ROWS rows from `first` on, plane after plane; returns what has to be used.
uint lanes_touch(Lanes m, uint first) {
    uint touched = 0u, plane = 0u, all = weight_plane(m.out_rows, m.units), words = min(WORKGROUP_ROWS * m.units, all - first * m.units);
    [[unroll]] for (uint p = 0u; p < 4u; p++) { // in 32nds of a word
        if (WEIGHT_PLANES[p] == 0u) continue;
        uint from = (plane + first * m.units * WEIGHT_PLANES[p]) / 32u, end = from + words * WEIGHT_PLANES[p] / 32u;
        [[dont_unroll]] for (uint i = from + LINE_WORDS * gl_SubgroupInvocationID; i < end; i += 2u * STRIDE)
            touched += touch(m.weights, i) + touch(m.weights, min(i + STRIDE, end - 1u));
        plane += all * WEIGHT_PLANES[p];
    }
    return touched;
}
#endif

// w[r · QUADS + q] = W[row r, 4 · (quad + q) + 0…3]
void load_weights(WeightRow rows[ROWS], uint quad, out vec4 w[WEIGHTS]) {
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        if (QUADS == 1u) {
            w[r] = weight_quad(rows[r], quad);
            continue;
        }
        vec2 scale = weight_scale(rows[r], quad / 2u);
        [[unroll]] for (uint q = 0u; q < QUADS; q += 2u) weight_load(rows[r], (quad + q) / 2u, scale, w[r * QUADS + q], w[r * QUADS + q + 1u]);
    }
}

// sums[r · TOKENS + t] = Σ_k W[o0 + r, k] x[t0 + t, k]
void lanes_multiply(Lanes m, uint o0, uint t0, out float sums[SUMS]) {
    WeightRow rows[ROWS];
    [[unroll]] for (uint r = 0u; r < ROWS; r++) rows[r] = weight_row(m.weights, m.out_rows, m.units, min(o0 + r, m.out_rows - 1u));
    uint x_at[SHARES]; // where a turn's shares are, but for the turn
    [[unroll]] for (uint i = 0u; i < SHARES; i++) {
        uint at = i * SUBGROUP_SIZE + gl_SubgroupInvocationID;
        x_at[i] = min(t0 + at / TURN, m.x_rows - 1u) * m.x_stride + m.x_offset + at % TURN;
    }
    [[unroll]] for (uint i = 0u; i < SUMS; i++) sums[i] = 0.0;
    float squares[SHARES / SLOTS];
    [[unroll]] for (uint i = 0u; i < SHARES / SLOTS; i++) squares[i] = 0.0;

    for (uint quad = 0u; quad < 2u * m.units; quad += QUADS) {
        float norm[SLOTS], share[SHARES];
        [[unroll]] for (uint i = 0u; NORM && i < SLOTS; i++)
            norm[i] = FloatRef(m.norm).v[m.normed ? 4u * quad + i * SUBGROUP_SIZE + gl_SubgroupInvocationID % PART : 0u];
        [[unroll]] for (uint i = 0u; i < SHARES; i++) {
            float x = FloatRef(m.x).v[x_at[i] + 4u * quad];
            if (NORM) squares[i / SLOTS] += x * x;
            share[i] = NORM ? x * norm[i % SLOTS] : x;
        }
        vec4 w[WEIGHTS];
        load_weights(rows, quad, w);
        [[unroll]] for (uint t = 0u; t < TOKENS; t += TOGETHER) {
            [[unroll]] for (uint k = 0u; k < TURN; k++) {
                float x[TOGETHER];
                [[unroll]] for (uint i = 0u; i < TOGETHER; i++) {
                    uint at = (t + i) * TURN + k;
                    x[i] = subgroupBroadcast(share[at / SUBGROUP_SIZE], at % SUBGROUP_SIZE);
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
            uint at = t * TURN + i;
            sum += subgroupBroadcast(squares[at / (SUBGROUP_SIZE * SLOTS)], at % SUBGROUP_SIZE);
        }
        float scale = m.normed ? linear_rms(sum, NORM_WIDTH, NORM_EPS) : 1.0;
        [[unroll]] for (uint r = 0u; r < ROWS; r++) sums[r * TOKENS + t] *= scale;
    }
}
