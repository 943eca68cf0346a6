/// Gradients by rotated q and k turned back in place; v's stay as they are.
///
/// Bound: two products and a sum, 3u (|a cos| + |b sin|).
#include "cases.h"

#include <math.h>

typedef struct rope_case {
    uint32_t heads, kv_heads, head_dim;
    uint32_t rows, first; // positions of the rows go on from first
} rope_case;

static const rope_case cases[] = {{9, 3, 64, 1, 0},    {9, 3, 64, 100, 0}, {4, 4, 32, 33, 31},
                                  {8, 1, 128, 7, 700}, {3, 1, 80, 17, 15}, {1, 1, 4, 3, 62}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_rope_back(recorder, user);
}

/// Pair i of a head at g by −angle, to its places in the expected row.
static void turn_back(const float *g, const float *turn, uint32_t half, uint32_t i, expect *expected) {
    double a = (double)g[i], b = (double)g[i + half], c = (double)turn[0], s = (double)turn[1];
    expected[i] = (expect){a * c + b * s, 3 * U32 * (fabs(a * c) + fabs(b * s))};
    expected[i + half] = (expect){b * c - a * s, 3 * U32 * (fabs(b * c) + fabs(a * s))};
}

static void run_case(harness *h, const rope_case *c) {
    uint32_t half = c->head_dim / 2, context = c->first + c->rows;
    op_rope_kv op = {.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim, .rows = c->rows, .q_offset = 32};
    op.k_offset = op.q_offset + c->heads * c->head_dim + 4;
    op.v_offset = op.k_offset + c->kv_heads * c->head_dim + 8;
    op.stride = (op.v_offset + c->kv_heads * c->head_dim + 31) / 32 * 32;
    size_t count = (size_t)c->rows * op.stride;
    float *g = random_floats(h, count, 2), *table = harness_alloc(h, (size_t)context * c->head_dim, sizeof *table);
    for (uint32_t p = 0; p < context; p++)
        for (uint32_t i = 0; i < half; i++) {
            double angle = p * pow(10000, -2.0 * i / c->head_dim);
            table[2 * ((size_t)p * half + i)] = (float)cos(angle);
            table[2 * ((size_t)p * half + i) + 1] = (float)sin(angle);
        }
    Row *rows = harness_alloc(h, c->rows, sizeof *rows);
    expect *expected = harness_alloc(h, count, sizeof *expected);
    for (size_t i = 0; i < count; i++) expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < c->rows; t++) {
        rows[t].position = c->first + t;
        for (uint32_t head = 0; head < c->heads + c->kv_heads; head++) {
            size_t at = (size_t)t * op.stride +
                        (head < c->heads ? op.q_offset + head * c->head_dim : op.k_offset + (head - c->heads) * c->head_dim);
            for (uint32_t i = 0; i < half; i++)
                turn_back(g + at, table + 2 * ((size_t)rows[t].position * half + i), half, i, expected + at);
        }
    }
    op.qkv = harness_put(h, g, count * sizeof *g);
    op.table = harness_put(h, table, (size_t)context * c->head_dim * sizeof *table);
    op.step = put_step(h, &(step_data){.rows = rows, .row_count = c->rows}).step;
    harness_expect_f32(h, op.qkv, expected, count);
    harness_run(h, record, NULL, &op);
}

void cases_rope_back(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const rope_case *c = &cases[i];
        if (harness_case(h, "rope_back", "heads %u/%u of %u, %u rows from %u", c->heads, c->kv_heads, c->head_dim, c->rows, c->first))
            run_case(h, c);
    }
}
