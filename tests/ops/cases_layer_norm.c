/// y[t] = (x[t] − mean) / √(variance + eps) ⊙ weight + bias.
///
/// Bound: a sum of n values errs by √n u Σ|x|, so the mean by (√n + 5) u of the mean magnitude (a division: 2.5 units, 5u), which shifts
/// every difference; differences round once more. That moves the variance by twice its mean product with the differences, at most
/// 2 δ times the deviation, and its sum and root err as an RMS norm's: (√n / 2 + 10) u. Two products and the bias: 3u.
///
/// And its gradient, dx += ρ (w − mean w − n mean (w ⊙ n)), w = weight ⊙ g: n errs as above, means of products by (√n + 6) u of the mean
/// magnitude, and the second one by Σ|w| times n's error besides.
#include "cases.h"

#include <math.h>

typedef struct layer_norm_case {
    uint32_t width, rows, spare;
    bool in_place;
    float eps, size, shift; // deviation and mean of x
} layer_norm_case;

static const layer_norm_case cases[] = {
    {2, 1, 0, false, 1e-5f, 1, 0},       {31, 3, 32, true, 1e-5f, 1, 0.5f},   {48, 85, 0, true, 1e-5f, 1, 0},
    {64, 17, 0, false, 1e-6f, 1e-3f, 0}, {192, 5, 64, false, 1e-5f, 1e3f, 0}, {577, 2, 0, true, 1e-6f, 1, 30},
    {1024, 9, 0, false, 1e-5f, 2, -3},   {1152, 3, 32, true, 1e-6f, 1, 0},
};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_layer_norm(recorder, user);
}

static void expect_row(const layer_norm_case *c, const float *x, const float *weight, const float *bias, expect *e) {
    double mean = 0, magnitude = 0, variance = 0, n = c->width;
    for (uint32_t i = 0; i < c->width; i++) mean += (double)x[i] / n, magnitude += fabs((double)x[i]) / n;
    for (uint32_t i = 0; i < c->width; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
    double root = sqrt(variance + (double)c->eps), shift = (sqrt(n) + 6) * U32 * magnitude;
    for (uint32_t i = 0; i < c->width; i++) {
        double difference = (double)x[i] - mean, weighted = fabs((double)weight[i]) / root;
        double relative = (sqrt(n) / 2 + 13) * U32 + shift / root;
        e[i].value = difference / root * (double)weight[i] + (double)bias[i];
        e[i].bound = weighted * (shift + fabs(difference) * relative) + 2 * U32 * (fabs(e[i].value) + fabs((double)bias[i])) + 1e-37;
    }
}

static void run_case(harness *h, const layer_norm_case *c) {
    uint32_t stride = (c->width + 31) / 32 * 32 + c->spare, y_stride = c->in_place ? stride : stride + 32;
    float *x = random_floats(h, (size_t)c->rows * stride, c->size), *weight = random_floats(h, c->width, 1),
          *bias = random_floats(h, c->width, 1), *y = random_floats(h, (size_t)c->rows * y_stride, 1);
    for (size_t i = 0; i < (size_t)c->rows * stride; i++) x[i] += c->shift;
    expect *expected = harness_alloc(h, (size_t)c->rows * y_stride, sizeof *expected);
    for (size_t i = 0; i < (size_t)c->rows * y_stride; i++) expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < c->rows; t++) expect_row(c, x + (size_t)t * stride, weight, bias, expected + (size_t)t * y_stride);
    op_layer_norm op = {.width = c->width, .x_stride = stride, .y_stride = y_stride, .rows = c->rows, .eps = c->eps};
    op.x = harness_put(h, x, (size_t)c->rows * stride * sizeof *x);
    op.weight = harness_put(h, weight, c->width * sizeof *weight);
    op.bias = harness_put(h, bias, c->width * sizeof *bias);
    op.y = c->in_place ? op.x : harness_put(h, y, (size_t)c->rows * y_stride * sizeof *y);
    harness_expect_f32(h, op.y, expected, (size_t)c->rows * y_stride);
    harness_run(h, record, NULL, &op);
}

void cases_layer_norm(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const layer_norm_case *c = &cases[i];
        if (harness_case(h, "layer_norm", "width %u, %u rows, deviation %g, mean %g%s", c->width, c->rows, (double)c->size,
                         (double)c->shift, c->in_place ? ", in place" : ""))
            run_case(h, c);
    }
}

static void record_back(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_layer_norm_back(recorder, user);
}

static void expect_back(const layer_norm_case *c, const float *x, const float *weight, const float *g, expect *dx, const float *before) {
    double mean = 0, magnitude = 0, variance = 0, n = c->width, direct = 0, direct_size = 0, product = 0, product_error = 0;
    for (uint32_t i = 0; i < c->width; i++) mean += (double)x[i] / n, magnitude += fabs((double)x[i]) / n;
    for (uint32_t i = 0; i < c->width; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
    double root = sqrt(variance + (double)c->eps), shift = (sqrt(n) + 6) * U32 * magnitude;
    double relative = (sqrt(n) / 2 + 13) * U32 + shift / root, sum = (sqrt(n) + 6) * U32;
    for (uint32_t i = 0; i < c->width; i++) {
        double w = (double)weight[i] * (double)g[i], of = ((double)x[i] - mean) / root;
        direct += w / n;
        direct_size += fabs(w) / n;
        product += w * of / n;
        product_error += (fabs(w) * (shift / root + fabs(of) * relative) + sum * fabs(w * of)) / n;
    }
    for (uint32_t i = 0; i < c->width; i++) {
        double w = (double)weight[i] * (double)g[i], of = ((double)x[i] - mean) / root, along = of * product;
        double change = (w - direct - along) / root, error = shift / root + fabs(of) * relative;
        dx[i].value = change + (double)before[i];
        dx[i].bound = (fabs(product) * error + fabs(of) * product_error + sum * direct_size) / root +
                      (relative + 5 * U32) * (fabs(w) + fabs(direct) + fabs(along)) / root + U32 * (fabs(change) + fabs(dx[i].value)) +
                      1e-37;
    }
}

static void run_back(harness *h, const layer_norm_case *c) {
    uint32_t stride = (c->width + 31) / 32 * 32 + c->spare, g_stride = stride + 32;
    size_t count = (size_t)c->rows * stride;
    float *x = random_floats(h, count, c->size), *weight = random_floats(h, c->width, 1),
          *g = random_floats(h, (size_t)c->rows * g_stride, 1), *dx = random_floats(h, count, 1);
    expect *expected = harness_alloc(h, count, sizeof *expected);
    for (size_t i = 0; i < count; i++) x[i] += c->shift, expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < c->rows; t++) {
        size_t at = (size_t)t * stride;
        expect_back(c, x + at, weight, g + (size_t)t * g_stride, expected + at, dx + at);
    }
    op_layer_norm_back op = {.width = c->width, .x_stride = stride, .g_stride = g_stride, .rows = c->rows, .eps = c->eps};
    op.x = harness_put(h, x, count * sizeof *x);
    op.weight = harness_put(h, weight, c->width * sizeof *weight);
    op.g = harness_put(h, g, (size_t)c->rows * g_stride * sizeof *g);
    op.dx = harness_put(h, dx, count * sizeof *dx);
    harness_expect_f32(h, op.dx, expected, count);
    harness_run(h, record_back, NULL, &op);
}

void cases_layer_norm_back(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const layer_norm_case *c = &cases[i];
        if (harness_case(h, "layer_norm_back", "width %u, %u rows, deviation %g, mean %g", c->width, c->rows, (double)c->size,
                         (double)c->shift))
            run_back(h, c);
    }
}
