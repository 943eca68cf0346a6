/// dx[i] += ρ (weight ⊙ g[j] − x[i] ρ² / n Σ weight ⊙ g[j] ⊙ x[i]), i = index[j].
///
/// ρ errs by e = (√n / 2 + 10) u relative (cases_norm.c), the sum by (√n + 5) u Σ|weight g x|; the two parts are rounded about four times
/// each, their difference and the sum with dx once more.
#include "cases.h"
#include "reference.h"

#include <math.h>

typedef struct norm_case {
    uint32_t width, rows, spare;
    bool indexed;
    float eps, size; // deviation of x
} norm_case;

static const norm_case cases[] = {
    {1, 1, 0, false, 1e-5f, 1},    {31, 3, 32, true, 1e-5f, 1},  {64, 17, 0, false, 1e-2f, 0.1f}, {192, 5, 64, true, 1e-5f, 1e3f},
    {576, 70, 0, false, 1e-5f, 1}, {577, 9, 0, true, 1e-5f, 30}, {4096, 3, 32, true, 1e-5f, 1},
};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_rms_norm_back(recorder, user);
}

static void expect_row(const norm_case *c, const float *x, const float *weight, const float *g, expect *dx, const float *before) {
    double n = c->width, root = sqrt(n), scale = reference_rms_scale(x, c->width, (double)c->eps), e = (root / 2 + 10) * U32;
    double sum = 0, magnitude = 0;
    for (uint32_t i = 0; i < c->width; i++) {
        double term = (double)weight[i] * (double)g[i] * (double)x[i];
        sum += term;
        magnitude += fabs(term);
    }
    for (uint32_t i = 0; i < c->width; i++) {
        double direct = scale * (double)weight[i] * (double)g[i], factor = scale * scale * scale / n * (double)x[i], along = factor * sum;
        double value = direct - along + (double)before[i];
        dx[i].value = value;
        dx[i].bound = (e + 4 * U32) * fabs(direct) + (3 * e + 8 * U32) * fabs(along) + fabs(factor) * (root + 5) * U32 * magnitude +
                      U32 * (fabs(direct - along) + fabs(value)) + 1e-37;
    }
}

static void run_case(harness *h, const norm_case *c) {
    uint32_t stride = (c->width + 31) / 32 * 32 + c->spare, g_stride = stride + 32, x_rows = c->indexed ? c->rows * 2 : c->rows;
    size_t x_count = (size_t)x_rows * stride, g_count = (size_t)c->rows * g_stride;
    float *x = random_floats(h, x_count, c->size), *weight = random_floats(h, c->width, 1), *g = random_floats(h, g_count, 1),
          *dx = random_floats(h, x_count, 1);
    uint32_t *index = harness_alloc(h, c->rows, sizeof *index);
    expect *expected = harness_alloc(h, x_count, sizeof *expected);
    for (size_t i = 0; i < x_count; i++) expected[i] = UNTOUCHED;
    for (uint32_t j = 0; j < c->rows; j++) {
        index[j] = c->indexed ? (c->rows - 1 - j) * 2 + random_below(h, 2) : j;
        size_t at = (size_t)index[j] * stride;
        expect_row(c, x + at, weight, g + (size_t)j * g_stride, expected + at, dx + at);
    }
    op_rms_norm_back op = {.width = c->width, .x_stride = stride, .g_stride = g_stride, .rows = c->rows, .eps = c->eps};
    op.x = harness_put(h, x, x_count * sizeof *x);
    op.weight = harness_put(h, weight, c->width * sizeof *weight);
    op.g = harness_put(h, g, g_count * sizeof *g);
    op.dx = harness_put(h, dx, x_count * sizeof *dx);
    if (c->indexed) op.index = harness_put(h, index, c->rows * sizeof *index);
    harness_expect_f32(h, op.dx, expected, x_count);
    harness_run(h, record, NULL, &op);
}

void cases_rms_norm_back(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const norm_case *c = &cases[i];
        if (harness_case(h, "rms_norm_back", "width %u, %u rows, deviation %g%s", c->width, c->rows, (double)c->size,
                         c->indexed ? ", indexed" : ""))
            run_case(h, c);
    }
}
