/// y[j] = x[index[j]] / √(mean x² + eps) ⊙ weight.
///
/// Bound: the sum of squares errs by √n u relative, its root by half of that; inversesqrt by 2 units (4u), the mean's division
/// by 2.5 (5u, halved by the root), two products: (√n / 2 + 10) u |y|.
#include "cases.h"
#include "reference.h"

#include <math.h>

typedef struct norm_case {
    uint32_t width, rows, spare;
    bool indexed;
    float eps, size; // deviation of x
} norm_case;

static const norm_case cases[] = {
    {1, 1, 0, false, 1e-5f, 1},    {31, 3, 32, true, 1e-5f, 1},   {64, 17, 0, false, 1e-6f, 1e-4f}, {192, 5, 64, true, 1e-5f, 1e3f},
    {576, 1, 0, false, 1e-5f, 1},  {576, 64, 0, false, 1e-5f, 1}, {576, 9, 96, true, 1e-5f, 1e-6f}, {577, 2, 0, true, 1e-5f, 30},
    {1536, 8, 0, false, 1e-5f, 1}, {4096, 3, 32, true, 1e-5f, 1},
};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_rms_norm(recorder, user);
}

static void run_case(harness *h, const norm_case *c) {
    uint32_t stride = (c->width + 31) / 32 * 32 + c->spare, y_stride = stride + 32, x_rows = c->indexed ? c->rows * 2 : c->rows;
    float *x = random_floats(h, (size_t)x_rows * stride, c->size), *weight = random_floats(h, c->width, 1),
          *y = random_floats(h, (size_t)c->rows * y_stride, 1);
    uint32_t *index = harness_alloc(h, c->rows, sizeof *index);
    for (uint32_t j = 0; j < c->rows; j++) index[j] = c->indexed ? random_below(h, x_rows) : j;
    expect *expected = harness_alloc(h, (size_t)c->rows * y_stride, sizeof *expected);
    for (uint32_t j = 0; j < c->rows; j++) {
        double scale = reference_rms_scale(x + (size_t)index[j] * stride, c->width, (double)c->eps);
        for (uint32_t i = 0; i < y_stride; i++) {
            expect *e = &expected[(size_t)j * y_stride + i];
            *e = UNTOUCHED;
            if (i >= c->width) continue;
            e->value = (double)x[(size_t)index[j] * stride + i] * scale * (double)weight[i];
            e->bound = (sqrt((double)c->width) / 2 + 10) * U32 * fabs(e->value) + 1e-37;
        }
    }
    op_rms_norm op = {.width = c->width, .x_stride = stride, .y_stride = y_stride, .rows = c->rows, .eps = c->eps};
    op.x = harness_put(h, x, (size_t)x_rows * stride * sizeof *x);
    op.weight = harness_put(h, weight, c->width * sizeof *weight);
    op.y = harness_put(h, y, (size_t)c->rows * y_stride * sizeof *y);
    if (c->indexed) op.index = harness_put(h, index, c->rows * sizeof *index);
    harness_expect_f32(h, op.y, expected, (size_t)c->rows * y_stride);
    harness_run(h, record, NULL, &op);
}

void cases_rms_norm(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const norm_case *c = &cases[i];
        if (harness_case(h, "rms_norm", "width %u, %u rows, deviation %g%s", c->width, c->rows, (double)c->size,
                         c->indexed ? ", indexed" : ""))
            run_case(h, c);
    }
}
