/// x[t] = scale · embedding[rows[t].token]. Bound: dequantising rounds at most twice (2u), the scale once more.
#include "cases.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>

static const struct {
    uint32_t vocab, width, rows;
    uint32_t part; // rows of the embedding's parts; 0: whole
    float scale;   // 0: none
} cases[] = {{1, 1, 1, 0, 0},        {7, 31, 3, 0, 0},      {300, 33, 9, 0, 25.3f}, {65, 192, 17, 0, 0},
             {577, 576, 5, 0, 0.7f}, {40, 1536, 100, 0, 0}, {450, 64, 40, 32, 0},   {577, 33, 20, 96, 25.3f}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_embed(recorder, user);
}

static void run_case(harness *h, uint32_t type, uint32_t vocab, uint32_t width, uint32_t row_count, uint32_t part, float scale) {
    weights w = weights_random(h, type, vocab, width);
    w.shape.part_rows = part;
    weights_put(h, &w);
    uint32_t stride = (width + 31) / 32 * 32 + 32;
    size_t count = (size_t)row_count * stride;
    Row *rows = harness_alloc(h, row_count, sizeof *rows);
    expect *expected = harness_alloc(h, count, sizeof *expected);
    for (uint32_t t = 0; t < row_count; t++) {
        rows[t] = (Row){.token = t == 0 ? vocab - 1 : t == 1 ? 0 : random_below(h, vocab), .position = t};
        for (uint32_t i = 0; i < stride; i++) {
            double value = i < width ? (double)w.values[(size_t)rows[t].token * w.shape.padded + i] : 0;
            if (scale != 0) value *= (double)scale;
            expected[(size_t)t * stride + i] = i < width ? (expect){value, (scale != 0 ? 3 : 2) * U32 * fabs(value)} : UNTOUCHED;
        }
    }
    op_embed op = {.embedding = &w.shape, .stride = stride, .rows = row_count, .scale = scale};
    op.step = put_step(h, &(step_data){.rows = rows, .row_count = row_count}).step;
    op.x = harness_put(h, random_floats(h, count, 1), count * sizeof(float));
    harness_expect_f32(h, op.x, expected, count);
    harness_run(h, record, NULL, &op);
}

void cases_embed(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            char op[32];
            snprintf(op, sizeof op, "embed %s", tensor_type_get_info(weight_types[t])->name);
            uint32_t width = weights_inner(weight_types[t], cases[i].width);
            if (harness_case(h, op, "vocabulary %u, width %u, %u rows, scale %g%s", cases[i].vocab, width, cases[i].rows,
                             (double)cases[i].scale, cases[i].part ? ", parts" : ""))
                run_case(h, weight_types[t], cases[i].vocab, width, cases[i].rows, cases[i].part, cases[i].scale);
        }
}
