// Storage types against the formats' own formulas, written a second time and plainly: one element at a time, in double.
#include "loader/safetensors.h"
#include "loader/tensor_type.h"
#include "support/guarded.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t random_state = 1;

static uint64_t next_random(void) {
    uint64_t x = random_state += 0x9E3779B97F4A7C15u; // splitmix64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static unsigned half_bits(const uint8_t *p) { return (unsigned)p[0] | (unsigned)p[1] << 8; }

/// IEEE 754 binary16: sign, 5 bits of exponent biased by 15, 10 bits of fraction.
static double half_value(unsigned bits) {
    double sign = bits & 0x8000 ? -1 : 1, fraction = bits & 0x3ff;
    int exponent = (int)(bits >> 10 & 31);
    if (exponent == 31) return fraction > 0 ? NAN : sign * INFINITY;
    return exponent == 0 ? sign * ldexp(fraction, -24) : sign * ldexp(1 + fraction / 1024, exponent - 15);
}

/// Element i of a tensor: its block, then its place in the block.
static double element(uint32_t type, const uint8_t *data, size_t i) {
    const uint8_t *block;
    size_t j;
    switch (type) {
    case TENSOR_F32: {
        float value;
        memcpy(&value, data + 4 * i, 4);
        return value;
    }
    case TENSOR_F16: return half_value(half_bits(data + 2 * i));
    case TENSOR_BF16: { // the upper half of a binary32
        unsigned bits = half_bits(data + 2 * i), exponent = bits >> 7 & 255, fraction = bits & 127;
        double sign = bits & 0x8000 ? -1 : 1;
        if (exponent == 255) return fraction ? NAN : sign * INFINITY;
        return exponent ? sign * ldexp(1 + fraction / 128.0, (int)exponent - 127) : sign * ldexp(fraction, -133);
    }
    case TENSOR_Q8_0:
        block = data + i / 32 * 34;
        return half_value(half_bits(block)) * (block[2 + i % 32] < 128 ? block[2 + i % 32] : block[2 + i % 32] - 256);
    case TENSOR_Q4_0:
        block = data + i / 32 * 18;
        j = i % 32;
        return half_value(half_bits(block)) * ((j < 16 ? block[2 + j] & 15 : block[2 + j - 16] >> 4) - 8);
    case TENSOR_Q4_1:
        block = data + i / 32 * 20;
        j = i % 32;
        return half_value(half_bits(block)) * (j < 16 ? block[4 + j] & 15 : block[4 + j - 16] >> 4) + half_value(half_bits(block + 2));
    case TENSOR_Q5_0:
    case TENSOR_Q5_1: { // d (and m), 32 high bits, 16 bytes of low nibbles (elements 0 … 15) and high ones (16 … 31)
        size_t scales = type == TENSOR_Q5_0 ? 2 : 4;
        block = data + i / 32 * (scales + 20);
        j = i % 32;
        unsigned low = block[scales + 4 + j % 16], high = block[scales + j / 8] >> j % 8 & 1;
        double q = (j < 16 ? low % 16 : low / 16) + 16 * high;
        if (type == TENSOR_Q5_0) return half_value(half_bits(block)) * (q - 16);
        return half_value(half_bits(block)) * q + half_value(half_bits(block + 2));
    }
    case TENSOR_Q4_K:
    case TENSOR_Q5_K: { // sub-blocks of 32: 6-bit scale and minimum; 64 elements share 32 bytes, first by low nibbles, then by high ones
        size_t nibbles = type == TENSOR_Q4_K ? 16 : 48;
        block = data + i / 256 * (nibbles + 128);
        const uint8_t *s = block + 4;
        size_t sub = i % 256 / 32, l = i % 32;
        int scale = sub < 4 ? s[sub] % 64 : s[sub + 4] % 16 + s[sub - 4] / 64 * 16;
        int minimum = sub < 4 ? s[sub + 4] % 64 : s[sub + 4] / 16 + s[sub] / 64 * 16;
        unsigned byte = block[nibbles + sub / 2 * 32 + l], q = sub % 2 ? byte / 16 : byte % 16;
        if (type == TENSOR_Q5_K) q += 16 * (block[16 + l] >> sub & 1);
        return half_value(half_bits(block)) * scale * q - half_value(half_bits(block + 2)) * minimum;
    }
    case TENSOR_Q6_K: { // 128 elements at a time; of these, 32 by 32: low nibbles of ql[0…63], then their high ones; two bits of qh
        block = data + i / 256 * 210;
        size_t half = i % 256 / 128, quarter = i % 128 / 32, l = i % 32;
        unsigned low = block[64 * half + 32 * (quarter % 2) + l], high = block[128 + 32 * half + l];
        int q = (int)((quarter < 2 ? low % 16 : low / 16) + 16 * (high >> 2 * quarter & 3)) - 32;
        int scale = block[192 + i % 256 / 16];
        return half_value(half_bits(block + 208)) * (scale < 128 ? scale : scale - 256) * q;
    }
    default: fail(); return 0;
    }
}

static bool close_enough(double value, double expected) {
    if (isnan(expected)) return isnan(value);
    if (isinf(expected)) return value == expected;
    // Two roundings of float (a product with the scale, then a second product or a sum), each 2^-24 of what it rounds.
    return fabs(value - expected) <= 0x1p-23 * fabs(expected);
}

static const uint32_t types[] = {TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_1,
                                 TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K};
enum { TYPES = sizeof types / sizeof *types, ELEMENTS = 1024 };

/// Where each type's scales lie in a block, for setting them.
static size_t scale_places(uint32_t type, size_t places[2]) {
    switch (type) {
    case TENSOR_Q8_0:
    case TENSOR_Q4_0:
    case TENSOR_Q5_0: places[0] = 0; return 1;
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
    case TENSOR_Q5_1:
    case TENSOR_Q4_1: places[0] = 0, places[1] = 2; return 2;
    case TENSOR_Q6_K: places[0] = 208; return 1;
    default: return 0;
    }
}

static void check_all(uint32_t type, const uint8_t *data, size_t n, double absolute) {
    float out[ELEMENTS + 1];
    out[n] = 12345; // not to be written
    tensor_type_dequantise(type, data, out, n);
    assert_true(out[n] == 12345);
    for (size_t i = 0; i < n; i++) {
        double expected = element(type, data, i);
        if (!close_enough((double)out[i], expected) && !(fabs((double)out[i] - expected) <= absolute))
            fail_msg("type %u element %zu: %.9g instead of %.9g", type, i, (double)out[i], expected);
    }
}

/// Scales of every kind over random contents: normal, sub-normal, the largest, zero of both signs, infinite, NaN.
static void test_dequantise(void **state) {
    (void)state;
    static const uint16_t scales[] = {0x3c00, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0, 0x8000, 0x7c00, 0xfc00, 0x7e00, 0x2e66};
    guarded area;
    guarded_create(&area, 8 * ELEMENTS);
    for (size_t t = 0; t < TYPES; t++) {
        size_t size = (size_t)tensor_type_bytes(types[t], ELEMENTS), block = tensor_type_get_info(types[t])->block_bytes, places[2];
        size_t place_count = scale_places(types[t], places);
        for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
            uint8_t data[8 * ELEMENTS];
            for (size_t i = 0; i < size; i++) data[i] = (uint8_t)next_random();
            for (size_t at = 0; at < size && place_count; at += block) {
                for (size_t p = 0; p < place_count; p++) {
                    uint16_t scale = scales[(s + 3 * p) % (sizeof scales / sizeof *scales)];
                    memcpy(data + at + places[p], &scale, 2);
                }
            }
            // Where a minimum is added, q·d + m may cancel: the rounding of its larger part, half of 2^-23 of it, stays.
            bool k = types[t] == TENSOR_Q4_K || types[t] == TENSOR_Q5_K, minimum = k || types[t] == TENSOR_Q4_1 || types[t] == TENSOR_Q5_1;
            double steps = k ? 63 * 31 : 31, minima = k ? 63 : 1;
            double top = minimum ? fmax(fabs(half_value(half_bits(data))) * steps, fabs(half_value(half_bits(data + 2))) * minima) : 0;
            // Exactly as many bytes as the elements take, then a guard page; unaligned by the odd block sizes.
            check_all(types[t], guarded_place(&area, data, size), ELEMENTS, isfinite(top) ? top * 0x1p-23 : 0);
            check_all(types[t], guarded_place(&area, data, block), tensor_type_get_info(types[t])->block_elements,
                      isfinite(top) ? top * 0x1p-23 : 0);
        }
    }
    guarded_destroy(&area);
}

/// What the gguf package makes of random blocks (tests/golden/quantised_types.py); both round to float, a few times each.
static void test_package(void **state) {
    (void)state;
    safetensors_file file;
    zs_error error;
    uint32_t seen = 0;
    if (safetensors_open(TEST_DATA "/golden/quantised-types.safetensors", &file, &error)) fail_msg("%s", error.message);
    for (uint32_t type = 0; type <= TENSOR_BF16; type++) {
        const tensor_type_info *info = tensor_type_get_info(type);
        char name[32];
        if (!info || info->block_elements == 1) continue;
        snprintf(name, sizeof name, "%s.blocks", info->name);
        const safetensors_tensor *blocks = safetensors_find(&file, name);
        snprintf(name, sizeof name, "%s.values", info->name);
        const safetensors_tensor *values = safetensors_find(&file, name);
        assert_non_null(blocks);
        assert_non_null(values);
        size_t n = (size_t)(blocks->size / info->block_bytes * info->block_elements);
        assert_true(n > 0 && n <= ELEMENTS && values->size == n * sizeof(float));
        float out[ELEMENTS], top = 0;
        const float *expected = values->data;
        tensor_type_dequantise(type, blocks->data, out, n);
        for (size_t i = 0; i < n; i++) top = fmaxf(top, fabsf(expected[i]));
        for (size_t i = 0; i < n; i++) {
            if (!(fabsf(out[i] - expected[i]) <= top * 0x1p-21f))
                fail_msg("%s element %zu: %.9g instead of %.9g", info->name, i, (double)out[i], (double)expected[i]);
        }
        seen++;
    }
    assert_int_equal(seen, 8);
    safetensors_close(&file);
}

static void test_sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t elements, bytes;
    } cases[] = {
        {TENSOR_F32, 3, 12},
        {TENSOR_F16, 3, 6},
        {TENSOR_BF16, 3, 6},
        {TENSOR_Q8_0, 64, 68},
        {TENSOR_Q4_0, 64, 36},
        {TENSOR_Q4_1, 64, 40},
        {TENSOR_Q6_K, 512, 420},
        {TENSOR_Q8_0, 33, 0},
        {TENSOR_Q4_0, 16, 0},
        {TENSOR_Q4_1, 31, 0},
        {TENSOR_Q6_K, 128, 0}, // part of a block
        {TENSOR_F32, UINT64_MAX / 4 + 1, 0},
        {TENSOR_Q8_0, UINT64_MAX - 31, 0}, // overflow: the latter is 2^64 − 32
        {TENSOR_F32, UINT64_MAX / 4, UINT64_MAX - 3},
        {99, 32, 0},
        {TENSOR_Q5_0, 64, 44},
        {TENSOR_Q5_1, 64, 48},
        {TENSOR_Q4_K, 512, 288},
        {TENSOR_Q5_K, 512, 352},
        {TENSOR_Q5_1, 16, 0},
        {TENSOR_Q5_K, 128, 0},
        {5, 32, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (tensor_type_bytes(cases[i].type, cases[i].elements) != cases[i].bytes)
            fail_msg("type %u, %llu elements", cases[i].type, (unsigned long long)cases[i].elements);
    }
    static const uint32_t unknown[] = {4, 5, 9, 10, 11, 15, 29, 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) assert_null(tensor_type_get_info(unknown[i]));
    assert_string_equal(tensor_type_get_info(TENSOR_Q6_K)->name, "Q6_K");
}

/// Every half there is, exactly, and back.
static void test_every_half(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        double expected = half_value(bits);
        float value = half_to_float((uint16_t)bits);
        if (isnan(expected)) {
            assert_true(isnan(value) && isnan(half_to_float(half_from_float(value))));
            continue;
        }
        if ((double)value != expected || !signbit(value) != !signbit(expected)) fail_msg("half %04x is %g", bits, (double)value);
        if (half_from_float(value) != bits) fail_msg("%g becomes half %04x instead of %04x", (double)value, half_from_float(value), bits);
    }
}

/// Between any two neighbouring halves: nearest, ties to even.
static void test_half_rounding(void **state) {
    (void)state;
    for (uint16_t bits = 0; bits < 0x7bff; bits++) {
        float low = half_to_float(bits), high = half_to_float((uint16_t)(bits + 1)), middle = (low + high) / 2; // exact
        uint16_t even = bits % 2 ? (uint16_t)(bits + 1) : bits;
        if (half_from_float(middle) != even) fail_msg("the middle above %04x becomes %04x", bits, half_from_float(middle));
        assert_int_equal(half_from_float(nextafterf(middle, 0)), bits);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), bits + 1);
        assert_int_equal(half_from_float(-middle), even | 0x8000);
    }
    assert_int_equal(half_from_float(nextafterf(65520, 0)), 0x7bff);
    assert_int_equal(half_from_float(65520), 0x7c00);
    assert_int_equal(half_from_float(3e38f), 0x7c00);
    assert_int_equal(half_from_float(-INFINITY), 0xfc00);
    assert_int_equal(half_from_float(0x1p-149f), 0);
}

/// Rounded to a type and back: off by at most half a step of it.
static void test_quantise(void **state) {
    (void)state;
    float in[ELEMENTS], out[ELEMENTS];
    uint8_t data[8 * ELEMENTS];
    for (int magnitude = -3; magnitude <= 3; magnitude++) {
        for (size_t i = 0; i < ELEMENTS; i++) in[i] = ((float)(next_random() >> 40) * 0x1p-23f - 1) * powf(10, (float)magnitude);
        for (size_t t = 0; t < TYPES; t++) {
            bool written = types[t] == TENSOR_F32 || types[t] == TENSOR_F16 || types[t] == TENSOR_BF16 || types[t] == TENSOR_Q8_0 ||
                           types[t] == TENSOR_Q4_0;
            assert_int_equal(tensor_type_quantise(types[t], in, data, ELEMENTS), written);
            if (!written) continue;
            tensor_type_dequantise(types[t], data, out, ELEMENTS);
            for (size_t i = 0; i < ELEMENTS; i++) {
                double top = 0, step = 0;
                for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++) top = fmax(top, fabs((double)in[j]));
                // Half a step; a half's rounding of the scale (2^-11) at up to 127 or 8 steps; Q4_0 has 8 steps on one side
                // and 7 on the other, so that a value there may be cut by a whole step.
                if (types[t] == TENSOR_F16) step = fabs((double)in[i]) * 0x1p-11 + 0x1p-25;
                if (types[t] == TENSOR_BF16) step = fabs((double)in[i]) * 0x1p-8;
                if (types[t] == TENSOR_Q8_0) step = top / 127 * (0.5 + 127 * 0x1p-11 + 0x1p-16) + 127 * 0x1p-25;
                if (types[t] == TENSOR_Q4_0) step = top / 8 * (1 + 8 * 0x1p-11 + 0x1p-16) + 8 * 0x1p-25;
                if (!(fabs((double)out[i] - (double)in[i]) <= step))
                    fail_msg("type %u: %g became %g", types[t], (double)in[i], (double)out[i]);
            }
        }
    }
}

static void test_quantise_edges(void **state) {
    (void)state;
    float in[32] = {0}, out[32];
    uint8_t data[128];
    static const uint32_t blocks[] = {TENSOR_Q8_0, TENSOR_Q4_0};
    for (size_t t = 0; t < 2; t++) { // all zero: no division by zero
        assert_true(tensor_type_quantise(blocks[t], in, data, 32));
        tensor_type_dequantise(blocks[t], data, out, 32);
        for (size_t i = 0; i < 32; i++) assert_true(out[i] == 0);
    }
    in[0] = 1, in[1] = -127, in[31] = 63.5f;
    assert_true(tensor_type_quantise(TENSOR_Q8_0, in, data, 32));
    const int8_t expected[] = {1, -127, 0};
    assert_memory_equal(data + 2, expected, 3);
    assert_int_equal((int8_t)data[33], 64); // to even
    in[0] = 4, in[1] = -8, in[31] = 7;
    assert_true(tensor_type_quantise(TENSOR_Q4_0, in, data, 32));
    assert_int_equal(half_bits(data), 0x3c00);
    assert_true((data[2] & 15) == 12 && (data[3] & 15) == 0 && data[17] >> 4 == 15);
    in[0] = NAN;
    in[1] = -0x1.fffffep127f; // rounds up to infinity as a bfloat
    in[2] = 0x1.01p0f;        // a tie: to even
    in[3] = 0x1.03p0f;
    assert_true(tensor_type_quantise(TENSOR_BF16, in, data, 4));
    tensor_type_dequantise(TENSOR_BF16, data, out, 4);
    assert_true(isnan(out[0]) && out[1] == -INFINITY && out[2] == 1 && out[3] == 0x1.04p0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantise),     cmocka_unit_test(test_package),       cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_every_half),     cmocka_unit_test(test_half_rounding), cmocka_unit_test(test_quantise),
        cmocka_unit_test(test_quantise_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
