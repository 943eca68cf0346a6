// Sketches: the formula of DESIGN.md §4 written a second time, plainly; what makes them useful: that rounding hardly moves
// them and another matrix has another one.
#include "loader/sketch.h"
#include "loader/tensor_type.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/// The usual splitmix64: outputs of it are published.
static uint64_t splitmix64(uint64_t x) {
    x = x + 0x9E3779B97F4A7C15u;
    uint64_t z = x;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int s(uint64_t a, uint64_t b) { return splitmix64(a * 4294967296u + b) >> 63 == 0 ? 1 : -1; }

static void fill(float *w, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) w[i] = (float)(splitmix64(seed * 1000003 + i) >> 40) * 0x1p-23f - 1;
}

static void test_random_numbers(void **state) {
    (void)state;
    // The generator seeded with 0 and with 1234567, as other implementations print it.
    assert_true(splitmix64(0) == 0xE220A8397B1DCDAFu);
    assert_true(splitmix64(0x9E3779B97F4A7C15u) == 0x6E789E6AA1B965F4u);
    assert_true(splitmix64(1234567) == 6457827717110365317u);
}

static void test_formula(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {1, 5}, {7, 1}, {3, 4}, {33, 20}, {64, 129}};
    float *w = malloc(64 * 129 * sizeof *w);
    assert_non_null(w);
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
        size_t out = shapes[c][0], in = shapes[c][1];
        float sketch[8];
        fill(w, out * in, c);
        sketch_matrix(w, out, in, sketch);
        for (uint64_t k = 0; k < 8; k++) {
            double t = 0;
            for (size_t i = 0; i < out; i++)
                for (size_t j = 0; j < in; j++) t += s(2 * k, i) * (double)w[i * in + j] * s(2 * k + 1, j);
            t /= sqrt((double)(out * in));
            // Sums of at most 8,256 terms below 1 in double, and one rounding to float.
            if (!(fabs((double)sketch[k] - t) <= fabs(t) * 0x1p-24 + 1e-11))
                fail_msg("[%zu, %zu] sketch %d: %g instead of %g", out, in, (int)k, (double)sketch[k], t);
        }
    }
    free(w);
}

/// Numbers that stand in files must not change: the sums of a small matrix, before the division.
static void test_known(void **state) {
    (void)state;
    static const float w[] = {1, 2, 4, 8, 16, 32};
    static const int sums[8] = {27, -27, 35, 27, -45, 9, -63, 45};
    float sketch[8];
    sketch_matrix(w, 2, 3, sketch);
    for (size_t k = 0; k < 8; k++) assert_true(fabs((double)sketch[k] * sqrt(6) - sums[k]) < 1e-5);
}

/// Of two stacks of n sketches [n, 8].
static double sketch_cosine(const float *a, const float *b, size_t n) {
    sketch_pairs pairs = {0};
    for (size_t i = 0; i < n; i++) sketch_pairs_add(&pairs, a + 8 * i, b + 8 * i);
    assert_int_equal(pairs.count, n);
    return sketch_pairs_cosine(&pairs);
}

static void test_cosine(void **state) {
    (void)state;
    float a[16] = {0}, b[16] = {0};
    assert_true(sketch_cosine(a, b, 2) == 0);
    assert_true(sketch_cosine(a, b, 0) == 0);
    a[0] = 3, a[9] = 4;
    assert_true(sketch_cosine(a, b, 2) == 0);
    b[0] = 6, b[9] = 8;
    assert_true(fabs(sketch_cosine(a, b, 2) - 1) < 1e-15);
    assert_true(fabs(sketch_cosine(a, b, 1) - 1) < 1e-15);
    b[9] = -8;
    assert_true(fabs(sketch_cosine(a, b, 2) - (18.0 - 32) / 50) < 1e-15);
    b[0] = 0, b[9] = 0, b[15] = 1;
    assert_true(sketch_cosine(a, b, 2) == 0);
    a[0] = 1e30f, a[9] = 0, b[0] = 1e30f, b[15] = 0; // squares beyond float
    assert_true(fabs(sketch_cosine(a, b, 2) - 1) < 1e-15);
}

/// Rounding to 4 bits keeps the base recognisable, another base falls below the bar of 0.9 by far.
static void test_tells_bases_apart(void **state) {
    (void)state;
    enum { OUT = 64, IN = 96, MATRICES = 12 };
    static float w[OUT * IN], rounded[OUT * IN];
    static uint8_t data[OUT * IN];
    float own[8 * MATRICES], same[8 * MATRICES], other[8 * MATRICES];
    for (uint64_t m = 0; m < MATRICES; m++) {
        fill(w, OUT * IN, m);
        sketch_matrix(w, OUT, IN, own + 8 * m);
        assert_true(tensor_type_quantise(TENSOR_Q4_0, w, data, OUT * IN));
        tensor_type_dequantise(TENSOR_Q4_0, data, rounded, OUT * IN);
        sketch_matrix(rounded, OUT, IN, same + 8 * m);
        fill(w, OUT * IN, 1000 + m);
        sketch_matrix(w, OUT, IN, other + 8 * m);
    }
    // Relative error e of 4-bit rounding, about 0.07, leaves 1 − e²/2; unrelated stacks of 96 numbers: |cosine| about 0.1.
    assert_true(sketch_cosine(own, same, MATRICES) > 0.98);
    assert_true(fabs(sketch_cosine(own, other, MATRICES)) < 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_numbers), cmocka_unit_test(test_formula),           cmocka_unit_test(test_known),
        cmocka_unit_test(test_cosine),         cmocka_unit_test(test_tells_bases_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
