/// matrix_pack_rows against the loader's dequantisation: the device layout is read back here by its description in ops/matrix.h.
#include "cases.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t out, in;
    uint32_t step; // rows packed per call
} cases[] = {
    {1, 1, 1}, {3, 31, 1}, {5, 32, 2}, {4, 33, 4}, {63, 192, 17}, {7, 576, 3}, {2, 1536, 1}, {64, 256, 64},
};

static float read_half(const uint8_t *plane, size_t i) {
    uint16_t half;
    memcpy(&half, plane + 2 * i, 2);
    return half_to_float(half);
}

/// Nibble i of a word: of the first four in bits 8i, of the last four in 8i + 4.
static uint32_t read_nibble(const uint8_t *from, uint32_t i) {
    uint32_t word;
    memcpy(&word, from, 4);
    return word >> (i < 4 ? 8 * i : 8 * (i - 4) + 4) & 15;
}

static float read_value(const matrix *shape, const uint8_t *bytes, uint32_t row, uint32_t column) {
    matrix_planes planes = matrix_get_planes(shape);
    // Element e of the row in plane p, where elements hold 8, 32 or more values each.
    uint32_t group = shape->group, member = row % group, i = column % 8;
    const uint8_t *element[MATRIX_MAX_PLANES];
    static const uint32_t held[MATRIX_TYPES][MATRIX_MAX_PLANES] = {
        {8}, {8}, {8}, {8, 32}, {8, 32}, {8, 8, 32}, {8, 32, 256}, {8, 8, 32, 256}, {8, 8, 16, 256}};
    for (uint32_t p = 0; p < MATRIX_MAX_PLANES; p++) element[p] = bytes;
    for (uint32_t p = 0; p < planes.count; p++)
        element[p] = bytes + planes.offset[p] + (row - member) * planes.row_bytes[p] +
                     ((size_t)column / held[shape->type][p] * group + member) * planes.element_bytes[p];
    uint16_t half, high;
    uint32_t word;
    float value;
    switch (shape->type) {
    case MATRIX_F32: memcpy(&value, element[0] + 4 * i, 4); return value;
    case MATRIX_F16: return read_half(element[0], i);
    case MATRIX_BF16:
        memcpy(&half, element[0] + 2 * i, 2);
        word = (uint32_t)half << 16;
        memcpy(&value, &word, 4);
        return value;
    case MATRIX_Q8: return read_half(element[1], 0) * (float)(int8_t)element[0][i];
    case MATRIX_Q4: return read_half(element[1], 0) * (float)read_nibble(element[0], i) + read_half(element[1], 1);
    case MATRIX_Q5:
        return read_half(element[2], 0) * (float)(read_nibble(element[0], i) | (uint32_t)(element[1][0] >> i & 1) << 4) +
               read_half(element[2], 1);
    case MATRIX_Q4K:
        return read_half(element[2], 0) * (float)element[1][0] * (float)read_nibble(element[0], i) -
               read_half(element[2], 1) * (float)element[1][1];
    case MATRIX_Q5K:
        word = read_nibble(element[0], i) | (uint32_t)(element[1][0] >> i & 1) << 4;
        return read_half(element[3], 0) * (float)element[2][0] * (float)word - read_half(element[3], 1) * (float)element[2][1];
    case MATRIX_Q6:
        memcpy(&high, element[1], 2);
        word = read_nibble(element[0], i) | (uint32_t)(high >> (2 * i) & 3) << 4;
        return read_half(element[3], 0) * (float)(int8_t)element[2][0] * ((float)word - 32);
    case MATRIX_TYPES: break;
    }
    return NAN;
}

/// Both sides round once where a type has two factors or a minimum, so they may differ by one unit in the last place.
static void check_values(harness *h, const weights *w, const uint8_t *bytes) {
    for (uint32_t o = 0; o < w->shape.out; o++)
        for (uint32_t i = 0; i < w->shape.padded; i++) {
            double expected = (double)w->values[(size_t)o * w->shape.padded + i], value = (double)read_value(&w->shape, bytes, o, i);
            double bound = 2 * U32 * fabs(expected);
            if (!(fabs(value - expected) <= bound)) harness_fail(h, "[%u, %u] is %.9g, not %.9g", o, i, value, expected);
        }
}

/// Packing some rows leaves the others alone.
static void check_only_own_rows(harness *h, const weights *w, uint32_t first, uint32_t rows) {
    size_t bytes = (size_t)matrix_bytes(&w->shape), row_bytes = w->block_bytes / w->shape.out;
    matrix_planes planes = matrix_get_planes(&w->shape);
    uint8_t *packed = harness_alloc(h, bytes, 1), *expected = harness_alloc(h, bytes, 1), *other = harness_alloc(h, bytes, 1);
    memset(packed, 0xa5, bytes);
    memset(expected, 0xa5, bytes);
    matrix_pack_rows(&w->shape, w->type, w->blocks, 0, w->shape.out, other);
    for (uint32_t p = 0; p < planes.count; p++) {
        for (uint32_t row = first; row < first + rows; row++) {
            uint32_t member = row % w->shape.group, size = planes.element_bytes[p];
            size_t at = (size_t)(planes.offset[p] + (row - member) * planes.row_bytes[p]) + (size_t)member * size;
            for (uint64_t e = 0; e < planes.row_bytes[p] / size; e++, at += (size_t)w->shape.group * size)
                memcpy(expected + at, other + at, size);
        }
    }
    matrix_pack_rows(&w->shape, w->type, (const uint8_t *)w->blocks + first * row_bytes, first, rows, packed);
    if (memcmp(packed, expected, bytes)) harness_fail(h, "packing rows %u to %u touched others", first, first + rows - 1);
}

void cases_pack(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++) {
        uint32_t type = weight_types[t];
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            uint32_t out = cases[c].out, in = weights_inner(type, cases[c].in), step = cases[c].step;
            char op[32];
            snprintf(op, sizeof op, "pack %s", tensor_type_get_info(type)->name);
            if (!harness_case(h, op, "[%u, %u] %u rows at a time", out, in, step)) continue;
            weights w = weights_random(h, type, out, in);
            size_t bytes = (size_t)matrix_bytes(&w.shape), row_bytes = w.block_bytes / out;
            uint8_t *packed = harness_alloc(h, bytes, 1);
            for (uint32_t o = 0; o < out; o += step) {
                uint32_t rows = step < out - o ? step : out - o;
                if (!matrix_pack_rows(&w.shape, type, (const uint8_t *)w.blocks + o * row_bytes, o, rows, packed))
                    harness_fail(h, "refused");
            }
            check_values(h, &w, packed);
            check_only_own_rows(h, &w, out / 2, 1);
            uint32_t wrong = type == TENSOR_F32 ? TENSOR_F16 : TENSOR_F32;
            if (matrix_pack_rows(&w.shape, wrong, w.blocks, 0, 1, packed)) harness_fail(h, "took another type's data");
            harness_count(h);
        }
    }
}
