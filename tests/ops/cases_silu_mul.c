/// y = silu(gate) ⊙ up, and its gradients in place of gate and up.
///
/// s = 1 / (1 + e^−g) errs by ε = (8 + 2|g|) 2u relative: exp by 3 + 2|g| units (a unit is 2u), the division by 2.5, and roundings.
/// y and the gradient by up are products with it. The gradient by gate is d up s (1 + g (1 − s)): the bracket errs by
/// |g| (ε s + u) besides its own roundings. An s below the smallest normal number, 1.2e-38, may become 0.
#include "cases.h"
#include "reference.h"

#include <math.h>

typedef struct silu_case {
    uint32_t width, rows, spare;
    float size; // deviation of gate
} silu_case;

static const silu_case cases[] = {{1, 1, 0, 1}, {65, 3, 32, 1}, {1536, 9, 0, 1}, {96, 70, 0, 20}, {33, 5, 32, 1e-3f}, {64, 4, 0, 90}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_silu_mul(recorder, user);
}

static void run_case(harness *h, const silu_case *c, bool back) {
    uint32_t inner = (c->width + 31) / 32 * 32, y_stride = inner + c->spare, x_stride = 2 * inner + 64 + c->spare, gate_at = 4,
             up_at = inner + 40;
    size_t x_count = (size_t)c->rows * x_stride, y_count = (size_t)c->rows * y_stride;
    float *x = random_floats(h, x_count, 1), *y = random_floats(h, y_count, 1);
    expect *x_expected = harness_alloc(h, x_count, sizeof(expect)), *y_expected = harness_alloc(h, y_count, sizeof(expect));
    for (size_t i = 0; i < x_count; i++) x_expected[i] = UNTOUCHED;
    for (size_t i = 0; i < y_count; i++) y_expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < c->rows; t++)
        for (uint32_t i = 0; i < c->width; i++) {
            size_t g_i = (size_t)t * x_stride + gate_at + i, u_i = (size_t)t * x_stride + up_at + i, y_i = (size_t)t * y_stride + i;
            x[g_i] *= c->size;
            double g = (double)x[g_i], up = (double)x[u_i], d = (double)y[y_i], s = 1 / (1 + exp(-g)), e = (8 + 2 * fabs(g)) * 2 * U32;
            y_expected[y_i] = (expect){g * s * up, e * fabs(g * s * up) + 1.2e-38 * (1 + fabs(g * up))};
            x_expected[u_i] = (expect){d * g * s, e * fabs(d * g * s) + 1.2e-38 * (1 + fabs(d * g))};
            double slope = 1 + g * (1 - s), spread = (e + 6 * U32) * (1 + fabs(g) * (1 - s)) + fabs(g) * (e * s + U32);
            x_expected[g_i] = (expect){d * up * s * slope, fabs(d * up) * (s * spread + 1.2e-38 * (1 + fabs(g))) + 1.2e-38};
        }
    op_silu_mul op = {.gate_offset = gate_at,
                      .up_offset = up_at,
                      .width = c->width,
                      .x_stride = x_stride,
                      .y_stride = y_stride,
                      .rows = c->rows,
                      .back = back};
    op.x = harness_put(h, x, x_count * sizeof *x);
    op.y = harness_put(h, y, y_count * sizeof *y);
    if (back)
        harness_expect_f32(h, op.x, x_expected, x_count);
    else
        harness_expect_f32(h, op.y, y_expected, y_count);
    harness_run(h, record, NULL, &op);
}

void cases_silu_mul(harness *h) {
    for (int back = 0; back < 2; back++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            if (harness_case(h, back ? "silu_mul_back" : "silu_mul", "width %u, %u rows, deviation %g", cases[i].width, cases[i].rows,
                             (double)cases[i].size))
                run_case(h, &cases[i], back);
}
