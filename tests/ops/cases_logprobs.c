/// out[j] = logits[j, targets[j]] − log Σ exp logits[j]. Bound as in cases_sample.c; NaN logits give NaN.
#include "cases.h"
#include "reference.h"

#include <math.h>

static const struct {
    uint32_t vocab, rows;
    float size;
    bool nan;
} cases[] = {{1, 1, 1, false},  {7, 5, 1, false},     {300, 64, 3, false},  {300, 9, 60, false},
             {300, 4, 3, true}, {49152, 7, 3, false}, {128256, 3, 5, false}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_logprobs(recorder, user);
}

static void check_nan(harness *h, const variant *v, void *user) {
    (void)v;
    const op_logprobs *op = user;
    const float *out = harness_after(h, op->out);
    for (uint32_t j = 1; j < op->rows; j += 2)
        if (!isnan(out[j])) harness_fail(h, "row %u holds NaN and gives %g", j, (double)out[j]);
    for (uint32_t j = 1; j < op->rows; j += 2) harness_ignore(h, op->out + j * sizeof(float), sizeof(float));
}

static void run_case(harness *h, uint32_t vocab, uint32_t rows, float size, bool nan_rows) {
    uint32_t stride = (vocab + 31) / 32 * 32 + 32;
    float *logits = random_floats(h, (size_t)rows * stride, size);
    uint32_t *targets = harness_alloc(h, rows, sizeof *targets);
    expect *expected = harness_alloc(h, rows, sizeof *expected);
    for (uint32_t j = 0; j < rows; j++) {
        float *row = logits + (size_t)j * stride;
        targets[j] = j == 0 ? vocab - 1 : random_below(h, vocab);
        double top = -INFINITY, logit = (double)row[targets[j]];
        for (uint32_t i = 0; i < vocab; i++) top = fmax(top, (double)row[i]);
        expected[j] =
            (expect){logit - reference_log_sum(row, vocab), (sqrt((double)vocab) + 64) * U32 + 4 * U32 * (fabs(logit) + fabs(top))};
        if (nan_rows && j % 2) {
            row[targets[j] ? targets[j] - 1 : 1] = NAN;
            expected[j] = UNTOUCHED; // looked at by check_nan
        }
    }
    op_logprobs op = {.logits_stride = stride, .vocab = vocab, .rows = rows};
    op.logits = harness_put(h, logits, (size_t)rows * stride * sizeof *logits);
    op.targets = harness_put(h, targets, rows * sizeof *targets);
    op.out = harness_put(h, NULL, rows * sizeof(float));
    if (!nan_rows) harness_expect_f32(h, op.out, expected, rows);
    for (uint32_t j = 0; nan_rows && j < rows; j += 2) harness_expect_f32(h, op.out + j * sizeof(float), &expected[j], 1);
    harness_run(h, record, nan_rows ? check_nan : NULL, &op);
}

void cases_logprobs(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (harness_case(h, "logprobs", "vocabulary %u, %u rows, deviation %g%s", cases[i].vocab, cases[i].rows, (double)cases[i].size,
                         cases[i].nan ? ", NaN" : ""))
            run_case(h, cases[i].vocab, cases[i].rows, cases[i].size, cases[i].nan);
}
