/// out[j] = log π(target), and logits become weights[j] ([i = target] − softmax_i).
///
/// log Σ errs as in cases_logprobs.c, and by so much relative every probability; its own exp adds (3 + 2|x|) 2u and the rounding of
/// x = logit − maximum, the division and the products four units.
///
/// With a reference: kl[j], and its gradient with that by the log-probability. An error of log π_i and of log π'_i is that of out[j]; a
/// term p (log p − log q) errs by both of them and p's, and a sum of n terms in strips of 128 by n / 128 + 7 units of their magnitudes.
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

// ---- with a reference ----------------------------------------------------------------------------------------------

static void record_kl(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_logprobs_kl_back(recorder, user);
}

/// Logarithms of a row's probabilities and what f32 may make of them.
static void log_softmax(const float *row, uint32_t vocab, expect *logs) {
    double log_sum = reference_log_sum(row, vocab), top = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) top = fmax(top, (double)row[i]);
    for (uint32_t i = 0; i < vocab; i++)
        logs[i] = (expect){(double)row[i] - log_sum, (sqrt((double)vocab) + 64) * U32 + 4 * U32 * (fabs((double)row[i]) + fabs(top))};
}

/// Error of exp x: that of x, and its own.
static double exp_error(expect x) { return exp(x.value) * (x.bound + (3 + 2 * fabs(x.value)) * 2 * U32) + 1e-37; }

static void expect_kl_row(const expect *p, const expect *q, uint32_t vocab, uint32_t target, double weight, double kl_weight, bool reverse,
                          expect *gradient, expect *kl) {
    double magnitude = 0, terms = 0;
    *kl = (expect){0, 0};
    for (uint32_t i = 0; i < vocab; i++) {
        expect from = reverse ? q[i] : p[i];
        double apart = reverse ? q[i].value - p[i].value : p[i].value - q[i].value, term = exp(from.value) * apart;
        kl->value += term;
        magnitude += fabs(term);
        terms += exp_error(from) * fabs(apart) + exp(from.value) * (p[i].bound + q[i].bound + 2 * U32 * fabs(apart));
    }
    kl->bound = terms + (vocab / 128.0 + 10) * U32 * magnitude + 1e-37;
    for (uint32_t i = 0; i < vocab; i++) {
        double pi = exp(p[i].value), apart = p[i].value - q[i].value - kl->value;
        double slope = reverse ? pi - exp(q[i].value) : pi * apart;
        double slope_error = reverse ? exp_error(p[i]) + exp_error(q[i])
                                     : exp_error(p[i]) * fabs(apart) +
                                           pi * (p[i].bound + q[i].bound + kl->bound + 4 * U32 * fabs(apart) + 4 * U32 * fabs(kl->value));
        double chosen = (i == target) - pi;
        gradient[i] = (expect){weight * chosen - kl_weight * slope, fabs(weight) * (exp_error(p[i]) + 3 * U32 * fabs(chosen)) +
                                                                        fabs(kl_weight) * (slope_error + 3 * U32 * fabs(slope)) + 1e-37};
    }
}

/// Rows 1, 3, … hold a NaN among the logits or the reference's: so do their results.
static void check_kl_nan(harness *h, const variant *v, void *user) {
    (void)v;
    const op_logprobs_kl_back *op = user;
    for (uint32_t j = 1; j < op->rows; j += 2) {
        uint64_t row = op->logits + (uint64_t)j * op->logits_stride * sizeof(float),
                 out[2] = {op->out + j * sizeof(float), op->kl + j * sizeof(float)};
        const float *values = harness_after(h, row);
        for (uint32_t i = 0; i < op->vocab; i++)
            if (!isnan(values[i])) harness_fail(h, "row %u holds NaN and has the gradient %g", j, (double)values[i]);
        harness_ignore(h, row, op->vocab * sizeof(float));
        for (int k = 0; k < 2; k++) {
            if (!isnan(*(const float *)harness_after(h, out[k]))) harness_fail(h, "row %u holds NaN and has a number", j);
            harness_ignore(h, out[k], sizeof(float));
        }
    }
}

static void run_kl_case(harness *h, uint32_t vocab, uint32_t rows, float size, bool nan_rows, bool reverse) {
    uint32_t stride = (vocab + 31) / 32 * 32 + 32;
    size_t count = (size_t)rows * stride;
    float *logits = random_floats(h, count, size), *reference = random_floats(h, count, size), *weights = random_floats(h, rows, 1),
          *kl_weights = random_floats(h, rows, 1);
    uint32_t *targets = harness_alloc(h, rows, sizeof *targets);
    expect *expected = harness_alloc(h, count, sizeof *expected), *out = harness_alloc(h, rows, sizeof *out),
           *kl = harness_alloc(h, rows, sizeof *kl), *p = harness_alloc(h, vocab, sizeof *p), *q = harness_alloc(h, vocab, sizeof *q);
    for (size_t i = 0; i < count; i++) expected[i] = UNTOUCHED;
    for (uint32_t j = 0; j < rows; j++) {
        float *row = logits + (size_t)j * stride, *other = reference + (size_t)j * stride;
        targets[j] = j == 0 ? vocab - 1 : random_below(h, vocab);
        if (j == 2) // the same distribution: no divergence
            for (uint32_t i = 0; i < vocab; i++) other[i] = row[i];
        if (nan_rows && j % 2) {
            (j % 4 == 1 ? row : other)[(targets[j] + 1) % vocab] = NAN;
            out[j] = kl[j] = UNTOUCHED; // looked at by check_kl_nan
            continue;
        }
        log_softmax(row, vocab, p);
        log_softmax(other, vocab, q);
        out[j] = p[targets[j]];
        expect_kl_row(p, q, vocab, targets[j], (double)weights[j], (double)kl_weights[j], reverse, expected + (size_t)j * stride, &kl[j]);
    }
    op_logprobs_kl_back op = {.logits_stride = stride, .vocab = vocab, .rows = rows, .reverse = reverse};
    op.logits = harness_put(h, logits, count * sizeof *logits);
    op.reference = harness_put(h, reference, count * sizeof *reference);
    op.targets = harness_put(h, targets, rows * sizeof *targets);
    op.weights = harness_put(h, weights, rows * sizeof *weights);
    op.kl_weights = harness_put(h, kl_weights, rows * sizeof *kl_weights);
    op.out = harness_put(h, NULL, rows * sizeof(float));
    op.kl = harness_put(h, NULL, rows * sizeof(float));
    for (uint32_t j = 0; j < rows; j++) {
        if (nan_rows && j % 2) continue;
        harness_expect_f32(h, op.logits + (uint64_t)j * stride * sizeof(float), expected + (size_t)j * stride, stride);
        harness_expect_f32(h, op.out + j * sizeof(float), &out[j], 1);
        harness_expect_f32(h, op.kl + j * sizeof(float), &kl[j], 1);
    }
    harness_run(h, record_kl, nan_rows ? check_kl_nan : NULL, &op);
}

void cases_logprobs_kl_back(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int reverse = 0; reverse < 2; reverse++)
            if (harness_case(h, "logprobs_kl_back", "vocabulary %u, %u rows, deviation %g%s%s", cases[i].vocab, cases[i].rows,
                             (double)cases[i].size, cases[i].nan ? ", NaN" : "", reverse ? ", reverse" : ""))
                run_kl_case(h, cases[i].vocab, cases[i].rows, cases[i].size, cases[i].nan, reverse);
    }
}
