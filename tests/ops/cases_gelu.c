/// x Φ(x), in place. Bound: erf's approximation errs by 1.5e-7, and 20 units pay for its evaluation. The others are x / (1 + e^−k): exp
/// errs by (3 + 2|k|) units, the division by 2.5 (a unit is 2u), k itself by 5 roundings.
#include "cases.h"

#include <math.h>

static const struct { uint32_t width, rows; } cases[] = {{1, 1}, {63, 3}, {96, 85}, {577, 2}, {4096, 5}};
static const char *const names[] = {[OP_GELU_ERF] = "erf", [OP_GELU_TANH] = "tanh", [OP_GELU_QUICK] = "quick"};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_gelu(recorder, user);
}

static expect expected_of(double x, op_gelu_kind kind) {
    double k = kind == OP_GELU_QUICK ? 1.702 * x : 2 * sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x);
    double value = kind == OP_GELU_ERF ? 0.5 * x * (1 + erf(x * sqrt(0.5))) : x / (1 + exp(-k));
    if (kind == OP_GELU_ERF) return (expect){value, 0.5 * fabs(x) * (1.5e-7 + 20 * U32) + 3 * U32 * fabs(value)};
    return (expect){value, (8 + 7 * fabs(k)) * 2 * U32 * fabs(value) + 1e-37};
}

static void run_case(harness *h, uint32_t width, uint32_t rows, op_gelu_kind kind) {
    // The largest: where powers of e go to infinity and to nothing.
    static const float ends[] = {0, -0.0f, 1e-20f, 60, -60, 300, -300};
    uint32_t stride = (width + 31) / 32 * 32 + 32;
    float *x = random_floats(h, (size_t)rows * stride, 3);
    expect *expected = harness_alloc(h, (size_t)rows * stride, sizeof *expected);
    for (uint32_t t = 0; t < rows; t++)
        for (uint32_t i = 0; i < stride; i++) {
            size_t at = (size_t)t * stride + i;
            if (i % 9 == 4) x[at] = ends[(i / 9 + t) % 7];
            expected[at] = i < width ? expected_of((double)x[at], kind) : UNTOUCHED;
        }
    op_gelu op = {.width = width, .stride = stride, .rows = rows, .kind = kind};
    op.x = harness_put(h, x, (size_t)rows * stride * sizeof *x);
    harness_expect_f32(h, op.x, expected, (size_t)rows * stride);
    harness_run(h, record, NULL, &op);
}

void cases_gelu(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint32_t kind = 0; kind < 3; kind++)
            if (harness_case(h, "gelu", "%s, width %u, %u rows", names[kind], cases[i].width, cases[i].rows))
                run_case(h, cases[i].width, cases[i].rows, kind);
}
