/// x Φ(x), and its gradient. Bound: erf's approximation errs by 1.5e-7, and 20 units pay for its evaluation. The others are x s,
/// s = 1 / (1 + e^−k): exp errs by (3 + 2|k|) units, the division by 2.5 (a unit is 2u), k itself by 5 roundings. The slope's second term
/// has s twice, as s (1 − s), and k', of 6 roundings; erf's has e^(−x²/2), which errs by 3 units and by four times its exponent.
#include "cases.h"

#include <math.h>

typedef enum gelu_form { IN_PLACE, APART, BACK } gelu_form;

static const struct { uint32_t width, rows; } cases[] = {{1, 1}, {63, 3}, {96, 85}, {577, 2}, {4096, 5}};
static const char *const names[] = {[OP_GELU_ERF] = "erf", [OP_GELU_TANH] = "tanh", [OP_GELU_QUICK] = "quick"};
static const char *const forms[] = {[IN_PLACE] = "in place", [APART] = "apart", [BACK] = "back"};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_gelu(recorder, user);
}

/// k of the approximations, and its slope.
static double exponent(double x, op_gelu_kind kind, double *slope) {
    double root = 2 * sqrt(2 / acos(-1.0));
    *slope = kind == OP_GELU_QUICK ? 1.702 : root * (1 + 3 * 0.044715 * x * x);
    return kind == OP_GELU_QUICK ? 1.702 * x : root * (x + 0.044715 * x * x * x);
}

static expect value_of(double x, op_gelu_kind kind) {
    double slope, k = exponent(x, kind, &slope), value = kind == OP_GELU_ERF ? 0.5 * x * (1 + erf(x * sqrt(0.5))) : x / (1 + exp(-k));
    if (kind == OP_GELU_ERF) return (expect){value, 0.5 * fabs(x) * (1.5e-7 + 20 * U32) + 3 * U32 * fabs(value)};
    return (expect){value, (8 + 7 * fabs(k)) * 2 * U32 * fabs(value) + 1e-37};
}

/// The slope times g.
static expect back_of(double x, double g, op_gelu_kind kind) {
    double first, second, error;
    if (kind == OP_GELU_ERF) {
        first = 0.5 * (1 + erf(x * sqrt(0.5)));
        second = x * exp(-0.5 * x * x) / sqrt(2 * acos(-1.0));
        error = 0.5 * (1.5e-7 + 20 * U32) + (10 + 4 * x * x) * 2 * U32 * fabs(second);
    } else {
        double slope, k = exponent(x, kind, &slope), part = exp(-fabs(k)), unit = (8 + 7 * fabs(k)) * 2 * U32;
        first = (k < 0 ? part : 1) / (1 + part);
        second = x * part / ((1 + part) * (1 + part)) * slope;
        error = unit * first + (2 * unit + 16 * U32) * fabs(second) + 1e-37 * (1 + fabs(x * slope));
    }
    double value = (first + second) * g;
    return (expect){value, error * fabs(g) + 3 * U32 * (fabs(value) + fabs(first * g) + fabs(second * g)) + 1e-37};
}

static void run_case(harness *h, uint32_t width, uint32_t rows, op_gelu_kind kind, gelu_form form) {
    // The largest: where powers of e go to infinity and to nothing.
    static const float ends[] = {0, -0.0f, 1e-20f, 60, -60, 300, -300};
    uint32_t stride = (width + 31) / 32 * 32 + 32;
    size_t count = (size_t)rows * stride;
    float *x = random_floats(h, count, 3), *y = random_floats(h, count, 1);
    expect *expected = harness_alloc(h, count, sizeof *expected);
    for (size_t at = 0; at < count; at++) {
        size_t i = at % stride;
        if (i % 9 == 4) x[at] = ends[(i / 9 + at / stride) % 7];
        expected[at] = i >= width ? UNTOUCHED : form == BACK ? back_of((double)x[at], (double)y[at], kind) : value_of((double)x[at], kind);
    }
    op_gelu op = {.width = width, .stride = stride, .rows = rows, .kind = kind, .back = form == BACK};
    op.x = harness_put(h, x, count * sizeof *x);
    op.y = form == IN_PLACE ? op.x : harness_put(h, y, count * sizeof *y);
    harness_expect_f32(h, op.y, expected, count);
    harness_run(h, record, NULL, &op);
}

void cases_gelu(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint32_t k = 0; k < 9; k++)
            if (harness_case(h, "gelu", "%s %s, width %u, %u rows", names[k / 3], forms[k % 3], cases[i].width, cases[i].rows))
                run_case(h, cases[i].width, cases[i].rows, k / 3, k % 3);
}
