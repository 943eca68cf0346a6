/// out[j] = log π(target), and logits become weights[j] ([i = target] − softmax_i).
///
/// log Σ errs as in cases_logprobs.c, and by so much relative every probability; its own exp adds (3 + 2|x|) 2u and the rounding of
/// x = logit − maximum, the division and the products four units.
#include "cases.h"
#include "reference.h"

#include <math.h>

static const struct {
    uint32_t vocab, rows;
    float size;
    bool nan;
} cases[] = {{1, 1, 1, false}, {7, 5, 1, false}, {300, 20, 3, false}, {300, 9, 60, false}, {300, 4, 3, true}, {49152, 3, 3, false}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_logprobs_back(recorder, user);
}

/// Rows 1, 3, … hold a NaN: so do their results, all of them.
static void check_nan(harness *h, const variant *v, void *user) {
    (void)v;
    const op_logprobs_back *op = user;
    for (uint32_t j = 1; j < op->rows; j += 2) {
        uint64_t row = op->logits + (uint64_t)j * op->logits_stride * sizeof(float), out = op->out + j * sizeof(float);
        const float *values = harness_after(h, row);
        for (uint32_t i = 0; i < op->vocab; i++)
            if (!isnan(values[i])) harness_fail(h, "row %u holds NaN and has the gradient %g", j, (double)values[i]);
        if (!isnan(*(const float *)harness_after(h, out))) harness_fail(h, "row %u holds NaN and has a log-probability", j);
        harness_ignore(h, row, op->vocab * sizeof(float));
        harness_ignore(h, out, sizeof(float));
    }
}

static void expect_row(const float *row, uint32_t vocab, uint32_t target, double weight, expect *gradient, expect *out) {
    double log_sum = reference_log_sum(row, vocab), top = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) top = fmax(top, (double)row[i]);
    double common = (sqrt((double)vocab) + 64) * U32;
    *out = (expect){(double)row[target] - log_sum, common + 4 * U32 * (fabs((double)row[target]) + fabs(top))};
    for (uint32_t i = 0; i < vocab; i++) {
        double p = exp((double)row[i] - log_sum), x = fabs((double)row[i] - top), value = (i == target) - p;
        double error = p * (common + 4 * U32 * (fabs((double)row[i]) + fabs(top)) + (8 + 3 * x) * 2 * U32);
        gradient[i] = (expect){weight * value, fabs(weight) * (error + 2 * U32 * fabs(value) + 1e-37)};
    }
}

static void run_case(harness *h, uint32_t vocab, uint32_t rows, float size, bool nan_rows) {
    uint32_t stride = (vocab + 31) / 32 * 32 + 32;
    size_t count = (size_t)rows * stride;
    float *logits = random_floats(h, count, size), *weights = random_floats(h, rows, 1);
    uint32_t *targets = harness_alloc(h, rows, sizeof *targets);
    expect *expected = harness_alloc(h, count, sizeof *expected), *out = harness_alloc(h, rows, sizeof *out);
    for (size_t i = 0; i < count; i++) expected[i] = UNTOUCHED;
    for (uint32_t j = 0; j < rows; j++) {
        float *row = logits + (size_t)j * stride;
        targets[j] = j == 0 ? vocab - 1 : random_below(h, vocab);
        if (nan_rows && j % 2)
            row[(targets[j] + 1) % vocab] = NAN; // looked at by check_nan
        else
            expect_row(row, vocab, targets[j], (double)weights[j], expected + (size_t)j * stride, &out[j]);
        if (nan_rows && j % 2) out[j] = UNTOUCHED;
    }
    op_logprobs_back op = {.logits_stride = stride, .vocab = vocab, .rows = rows};
    op.logits = harness_put(h, logits, count * sizeof *logits);
    op.targets = harness_put(h, targets, rows * sizeof *targets);
    op.weights = harness_put(h, weights, rows * sizeof *weights);
    op.out = harness_put(h, NULL, rows * sizeof(float));
    for (uint32_t j = 0; j < rows; j++) {
        if (nan_rows && j % 2) continue;
        harness_expect_f32(h, op.logits + (uint64_t)j * stride * sizeof(float), expected + (size_t)j * stride, stride);
        harness_expect_f32(h, op.out + j * sizeof(float), &out[j], 1);
    }
    harness_run(h, record, nan_rows ? check_nan : NULL, &op);
}

void cases_logprobs_back(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (harness_case(h, "logprobs_back", "vocabulary %u, %u rows, deviation %g%s", cases[i].vocab, cases[i].rows, (double)cases[i].size,
                         cases[i].nan ? ", NaN" : ""))
            run_case(h, cases[i].vocab, cases[i].rows, cases[i].size, cases[i].nan);
}
