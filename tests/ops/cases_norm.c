/// y[j] = x[index[j]] / √(mean x² + eps) ⊙ weight.
///
/// Bound: the sum of squares errs by √n u relative, its root by half of that; inversesqrt by 2 units (4u), the mean's division
/// by 2.5 (5u, halved by the root), two products: (√n / 2 + 10) u |y|. Where y is added to, one more rounding of the whole.
#include "cases.h"
#include "reference.h"

#include <math.h>

typedef struct norm_case {
    uint32_t width, rows, spare;
    float eps, size; // size: deviation of x
    uint32_t parts;  // of a row, each with a norm of its own
    bool indexed, residual;
} norm_case;

static const norm_case cases[] = {
    {1, 1, 0, 1e-5f, 1, 1, false, false},
    {31, 3, 32, 1e-5f, 1, 1, true, false},
    {64, 17, 0, 1e-6f, 1e-4f, 1, false, false},
    {192, 5, 64, 1e-5f, 1e3f, 1, true, false},
    {576, 1, 0, 1e-5f, 1, 1, false, false},
    {576, 64, 0, 1e-5f, 1, 1, false, false},
    {576, 9, 96, 1e-5f, 1e-6f, 1, true, false},
    {577, 2, 0, 1e-5f, 30, 1, true, false},
    {1536, 8, 0, 1e-5f, 1, 1, false, false},
    {4096, 3, 32, 1e-5f, 1, 1, true, false},
    // the heads of q; what is added to x
    {256, 5, 32, 1e-6f, 3, 4, false, false},
    {20, 40, 0, 1e-6f, 1, 7, false, false},
    {640, 9, 64, 1e-6f, 5, 1, false, true},
    {33, 1, 0, 1e-6f, 1, 3, true, true},
};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_rms_norm(recorder, user);
}

static void run_case(harness *h, const norm_case *c) {
    uint32_t stride = (c->width * c->parts + 31) / 32 * 32 + c->spare, y_stride = stride + 32, x_rows = c->indexed ? c->rows * 2 : c->rows;
    float *x = random_floats(h, (size_t)x_rows * stride, c->size), *weight = random_floats(h, c->width, 1),
          *y = random_floats(h, (size_t)c->rows * y_stride, 1);
    uint32_t *index = harness_alloc(h, c->rows, sizeof *index);
    for (uint32_t j = 0; j < c->rows; j++) index[j] = c->indexed ? random_below(h, x_rows) : j;
    expect *expected = harness_alloc(h, (size_t)c->rows * y_stride, sizeof *expected);
    for (size_t i = 0; i < (size_t)c->rows * y_stride; i++) expected[i] = UNTOUCHED;
    for (uint32_t j = 0; j < c->rows; j++) {
        for (uint32_t part = 0; part < c->parts; part++) {
            size_t from = (size_t)index[j] * stride + part * c->width, to = (size_t)j * y_stride + part * c->width;
            double scale = reference_rms_scale(x + from, c->width, (double)c->eps);
            for (uint32_t i = 0; i < c->width; i++) {
                expect *e = &expected[to + i];
                e->value = (double)x[from + i] * scale * (double)weight[i];
                e->bound = (sqrt((double)c->width) / 2 + 10) * U32 * fabs(e->value) + 1e-37;
                if (!c->residual) continue;
                e->value += (double)y[to + i];
                e->bound += U32 * fabs(e->value);
            }
        }
    }
    op_rms_norm op = {.width = c->width,
                      .x_stride = stride,
                      .y_stride = y_stride,
                      .rows = c->rows,
                      .parts = c->parts,
                      .eps = c->eps,
                      .residual = c->residual};
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
        if (harness_case(h, "rms_norm", "width %u in %u parts, %u rows, deviation %g%s%s", c->width, c->parts, c->rows, (double)c->size,
                         c->indexed ? ", indexed" : "", c->residual ? ", residual" : ""))
            run_case(h, c);
    }
}
