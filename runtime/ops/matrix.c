#include "ops/matrix.h"

#include <string.h>

enum { UNIT = 8 };

static uint32_t padded_inner(uint32_t in) {
    return (in + 31) / 32 * 32; // 256 divides the inner dimension of the K types
}

matrix matrix_of(matrix_type type, uint32_t out, uint32_t in, uint32_t group) {
    return (matrix){.type = type, .out = out, .in = in, .padded = padded_inner(in), .group = group};
}

/// Rows with those that fill the last group.
static uint64_t padded_rows(const matrix *shape) { return ((uint64_t)shape->out + shape->group - 1) / shape->group * shape->group; }

matrix_planes matrix_get_planes(const matrix *shape) {
    uint64_t n = shape->padded;
    matrix_planes planes = {.count = 1};
    switch (shape->type) {
    case MATRIX_F32: planes = (matrix_planes){.count = 1, .row_bytes = {4 * n}, .element_bytes = {32}}; break;
    case MATRIX_F16:
    case MATRIX_BF16: planes = (matrix_planes){.count = 1, .row_bytes = {2 * n}, .element_bytes = {16}}; break;
    case MATRIX_Q8: planes = (matrix_planes){.count = 2, .row_bytes = {n, n / 32 * 2}, .element_bytes = {8, 2}}; break;
    case MATRIX_Q4: planes = (matrix_planes){.count = 2, .row_bytes = {n / 2, n / 32 * 4}, .element_bytes = {4, 4}}; break;
    case MATRIX_Q5: planes = (matrix_planes){.count = 3, .row_bytes = {n / 2, n / 8, n / 32 * 4}, .element_bytes = {4, 1, 4}}; break;
    case MATRIX_Q4K: planes = (matrix_planes){.count = 3, .row_bytes = {n / 2, n / 32 * 2, n / 256 * 4}, .element_bytes = {4, 2, 4}}; break;
    case MATRIX_Q5K:
        planes = (matrix_planes){.count = 4, .row_bytes = {n / 2, n / 8, n / 32 * 2, n / 256 * 4}, .element_bytes = {4, 1, 2, 4}};
        break;
    case MATRIX_Q6:
        planes = (matrix_planes){.count = 4, .row_bytes = {n / 2, n / 4, n / 16, n / 256 * 2}, .element_bytes = {4, 2, 1, 2}};
        break;
    case MATRIX_TYPES: break;
    }
    for (uint32_t i = 1; i < planes.count; i++) planes.offset[i] = planes.offset[i - 1] + padded_rows(shape) * planes.row_bytes[i - 1];
    return planes;
}

static uint64_t part_bytes(const matrix *part) {
    matrix_planes planes = matrix_get_planes(part);
    uint64_t bytes = planes.offset[planes.count - 1] + padded_rows(part) * planes.row_bytes[planes.count - 1];
    return (bytes + 15) / 16 * 16;
}

uint64_t matrix_bytes(const matrix *shape) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < matrix_part_count(shape); i++) {
        matrix part = matrix_part(shape, i);
        bytes += part_bytes(&part);
    }
    return bytes;
}

// ---- parts ------------------------------------------------------------------------------------------------------------

uint32_t matrix_part_count(const matrix *whole) {
    return whole->part_rows ? whole->out / whole->part_rows + (whole->out % whole->part_rows != 0) : 1;
}

matrix matrix_part(const matrix *whole, uint32_t index) {
    matrix part = *whole;
    if (!whole->part_rows) return part;
    uint32_t first = index * whole->part_rows, left = whole->out - first;
    part.out = left < whole->part_rows ? left : whole->part_rows;
    part.part_rows = 0;
    part.address = index ? whole->further[index - 1] : whole->address;
    return part;
}

void matrix_set_part_address(matrix *whole, uint32_t index, uint64_t address) {
    if (index)
        whole->further[index - 1] = address;
    else
        whole->address = address;
}

static uint64_t bytes_of_rows(const matrix *whole, uint64_t rows) {
    matrix part = *whole;
    part.out = rows < whole->out ? (uint32_t)rows : whole->out;
    part.part_rows = 0;
    return part_bytes(&part);
}

bool matrix_split(matrix *whole, uint64_t limit, uint64_t *needed) {
    // Whole groups, whole words in every plane, and outputs and scales that stay aligned.
    uint64_t unit = whole->group > 32 ? whole->group : 32;
    uint64_t units = (whole->out + unit - 1) / unit;
    whole->part_rows = 0;
    if (part_bytes(whole) <= limit) return true;
    for (uint64_t parts = 2; parts <= MATRIX_MAX_PARTS; parts++) {
        uint64_t rows = (units + parts - 1) / parts * unit;
        if (rows >= whole->out) break;
        *needed = bytes_of_rows(whole, rows);
        if (*needed > limit) continue;
        whole->part_rows = (uint32_t)rows;
        return true;
    }
    if (units == 1) *needed = part_bytes(whole);
    return false;
}

const char *matrix_type_name(matrix_type type) {
    static const char *const names[MATRIX_TYPES] = {"f32", "f16", "bf16", "q8", "q4", "q5", "q4k", "q5k", "q6"};
    return type < MATRIX_TYPES ? names[type] : "?";
}

matrix_type matrix_type_from_gguf(uint32_t type) {
    switch (type) { // GGUF's numbers
    case 0: return MATRIX_F32;
    case 1: return MATRIX_F16;
    case 2:
    case 3: return MATRIX_Q4;
    case 6:
    case 7: return MATRIX_Q5;
    case 8: return MATRIX_Q8;
    case 12: return MATRIX_Q4K;
    case 13: return MATRIX_Q5K;
    case 14: return MATRIX_Q6;
    case 30: return MATRIX_BF16;
    default: return MATRIX_TYPES;
    }
}

/// Where a row's elements go: element i of plane p to at[p] + i · step[p].
typedef struct row_places {
    uint8_t *at[MATRIX_MAX_PLANES];
    size_t step[MATRIX_MAX_PLANES];
} row_places;

static row_places places_of(const matrix *shape, const matrix_planes *planes, uint32_t row, uint8_t *dst) {
    row_places places = {0};
    uint32_t member = row % shape->group;
    for (uint32_t p = 0; p < planes->count; p++) {
        places.at[p] = dst + planes->offset[p] + (row - member) * planes->row_bytes[p] + (size_t)member * planes->element_bytes[p];
        places.step[p] = (size_t)shape->group * planes->element_bytes[p];
    }
    return places;
}

/// Values of 2 or 4 bytes, padded by zeros.
static void pack_plain(const matrix *shape, const uint8_t *src, const row_places *to, size_t width) {
    size_t used = shape->in * width, unit = UNIT * width, at = 0;
    uint8_t *dst = to->at[0];
    for (; at + unit <= used; at += unit, dst += to->step[0]) memcpy(dst, src + at, unit);
    for (; at < shape->padded * width; at += unit, dst += to->step[0]) {
        size_t left = at < used ? used - at : 0;
        if (left) memcpy(dst, src + at, left);
        memset(dst + left, 0, unit - left);
    }
}

/// GGUF's Q8_0: f16 d, int8 q[32].
static void pack_q8(const matrix *shape, const uint8_t *src, const row_places *to) {
    for (size_t block = 0; block < shape->padded / 32; block++, src += 34) {
        memcpy(to->at[1] + block * to->step[1], src, 2);
        for (size_t unit = 0; unit < 4; unit++) memcpy(to->at[0] + (4 * block + unit) * to->step[0], src + 2 + UNIT * unit, UNIT);
    }
}

/// Nibbles in the order that the kernels read: value i of a unit's first four in bits 8i of its word, of the last four in 8i + 4.
static uint32_t pack_nibbles(const uint8_t values[UNIT]) {
    uint32_t word = 0;
    for (uint32_t i = 0; i < 4; i++) word |= (uint32_t)values[i] << (8 * i) | (uint32_t)values[i + 4] << (8 * i + 4);
    return word;
}

/// f16 −2^power d: the exponent grows by the power and the sign flips; subnormals are shifted up, overflow becomes infinity.
static uint16_t half_minus_scaled(uint16_t d, int power) {
    uint32_t sign = (d & 0x8000u) ^ 0x8000u, exponent = d >> 10 & 31, mantissa = d & 0x3ff;
    if (exponent == 31) return (uint16_t)(sign | (d & 0x7fffu));
    if (exponent == 0) {
        for (int i = 0; i < power; i++) { // doubled again and again, subnormal or not
            if (exponent > 0)
                exponent++;
            else if ((mantissa <<= 1) & 0x400) {
                mantissa &= 0x3ff;
                exponent = 1;
            }
        }
    } else {
        exponent += (uint32_t)power;
    }
    if (exponent >= 31) return (uint16_t)(sign | 0x7c00u);
    return (uint16_t)(sign | exponent << 10 | mantissa);
}

/// GGUF's Q4_0 (f16 d, nibbles) and Q4_1 (f16 d, f16 m, nibbles): low nibble of byte j is value j, high one j + 16.
static void pack_q4(const matrix *shape, bool has_minimum, const uint8_t *src, const row_places *to) {
    size_t block_bytes = has_minimum ? 20 : 18;
    for (size_t block = 0; block < shape->padded / 32; block++, src += block_bytes) {
        const uint8_t *nibbles = src + block_bytes - 16;
        uint16_t d, m;
        memcpy(&d, src, 2);
        if (has_minimum)
            memcpy(&m, src + 2, 2);
        else
            m = half_minus_scaled(d, 3);
        memcpy(to->at[1] + block * to->step[1], &d, 2);
        memcpy(to->at[1] + block * to->step[1] + 2, &m, 2);
        for (uint32_t unit = 0; unit < 4; unit++) {
            uint8_t values[UNIT];
            for (uint32_t j = 0; j < UNIT; j++) {
                uint32_t k = unit * UNIT + j;
                values[j] = k < 16 ? nibbles[k] & 15 : nibbles[k - 16] >> 4;
            }
            uint32_t word = pack_nibbles(values);
            memcpy(to->at[0] + (4 * block + unit) * to->step[0], &word, 4);
        }
    }
}

/// Eight values of five bits: their nibbles' word and their fifth bits' byte.
static void store_fives(const row_places *to, size_t unit, const uint8_t values[UNIT]) {
    uint8_t low[UNIT], high = 0;
    for (uint32_t j = 0; j < UNIT; j++) {
        low[j] = values[j] & 15;
        high = (uint8_t)(high | (values[j] >> 4) << j);
    }
    uint32_t word = pack_nibbles(low);
    memcpy(to->at[0] + unit * to->step[0], &word, 4);
    to->at[1][unit * to->step[1]] = high;
}

/// GGUF's Q5_0 (f16 d, 32 fifth bits, nibbles) and Q5_1 (f16 d, f16 m, …).
static void pack_q5(const matrix *shape, bool has_minimum, const uint8_t *src, const row_places *to) {
    for (size_t block = 0; block < shape->padded / 32; block++, src += has_minimum ? 24 : 22) {
        const uint8_t *bits = src + (has_minimum ? 4 : 2), *nibbles = bits + 4;
        uint16_t d, m;
        uint32_t high;
        memcpy(&d, src, 2);
        memcpy(&high, bits, 4);
        if (has_minimum)
            memcpy(&m, src + 2, 2);
        else
            m = half_minus_scaled(d, 4);
        memcpy(to->at[2] + block * to->step[2], &d, 2);
        memcpy(to->at[2] + block * to->step[2] + 2, &m, 2);
        for (uint32_t unit = 0; unit < 4; unit++) {
            uint8_t values[UNIT];
            for (uint32_t j = 0; j < UNIT; j++) {
                uint32_t k = unit * UNIT + j, low = k < 16 ? nibbles[k] & 15 : nibbles[k - 16] >> 4;
                values[j] = (uint8_t)(low | (high >> k & 1) << 4);
            }
            store_fives(to, 4 * block + unit, values);
        }
    }
}

/// GGUF's 6-bit scales and minima: of the j-th 32 values among 256.
static void unpack_scale(const uint8_t packed[12], uint32_t j, uint8_t pair[2]) {
    bool first = j < 4;
    pair[0] = (uint8_t)(first ? packed[j] & 63 : (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
    pair[1] = (uint8_t)(first ? packed[j + 4] & 63 : packed[j + 4] >> 4 | (packed[j] >> 6) << 4);
}

/// GGUF's Q4_K and Q5_K, 256 values: f16 d, dmin; scales[12]; Q5_K: qh[32]; qs[128].
static void pack_k(const matrix *shape, const uint8_t *src, const row_places *to) {
    bool five = shape->type == MATRIX_Q5K;
    uint32_t scales = five ? 2 : 1, supers = scales + 1; // their planes
    for (size_t block = 0; block < shape->padded / 256; block++, src += five ? 176 : 144) {
        const uint8_t *high = src + 16, *nibbles = five ? src + 48 : src + 16;
        memcpy(to->at[supers] + block * to->step[supers], src, 4);
        for (uint32_t unit = 0; unit < 32; unit++) {
            uint32_t j = unit / 4; // 32 values
            uint8_t values[UNIT];
            for (uint32_t i = 0; i < UNIT; i++) {
                uint32_t l = unit % 4 * UNIT + i, byte = nibbles[j / 2 * 32 + l];
                values[i] = (uint8_t)(j % 2 ? byte >> 4 : byte & 15);
                if (five) values[i] = (uint8_t)(values[i] | (high[l] >> j & 1) << 4);
            }
            if (unit % 4 == 0) unpack_scale(src + 4, j, to->at[scales] + (8 * block + j) * to->step[scales]);
            if (five) {
                store_fives(to, 32 * block + unit, values);
            } else {
                uint32_t word = pack_nibbles(values);
                memcpy(to->at[0] + (32 * block + unit) * to->step[0], &word, 4);
            }
        }
    }
}

/// GGUF's Q6_K, 256 values: ql[128], qh[64], int8 scales[16], f16 d.
static void pack_q6(const matrix *shape, const uint8_t *src, const row_places *to) {
    for (size_t block = 0; block < shape->padded / 256; block++, src += 210) {
        uint8_t q[256]; // 6 bits each
        for (uint32_t half = 0; half < 2; half++) {
            const uint8_t *ql = src + 64 * half, *qh = src + 128 + 32 * half;
            for (uint32_t l = 0; l < 32; l++) {
                uint8_t *out = q + 128 * half + l;
                out[0] = (uint8_t)((ql[l] & 15) | (qh[l] & 3) << 4);
                out[32] = (uint8_t)((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4);
                out[64] = (uint8_t)(ql[l] >> 4 | (qh[l] >> 4 & 3) << 4);
                out[96] = (uint8_t)(ql[l + 32] >> 4 | (qh[l] >> 6) << 4);
            }
        }
        for (uint32_t unit = 0; unit < 32; unit++) {
            uint8_t values[UNIT];
            uint16_t bits = 0;
            for (uint32_t j = 0; j < UNIT; j++) {
                values[j] = q[unit * UNIT + j] & 15;
                bits = (uint16_t)(bits | (uint32_t)(q[unit * UNIT + j] >> 4) << (2 * j));
            }
            uint32_t word = pack_nibbles(values);
            memcpy(to->at[0] + (32 * block + unit) * to->step[0], &word, 4);
            memcpy(to->at[1] + (32 * block + unit) * to->step[1], &bits, 2);
        }
        for (size_t i = 0; i < 16; i++) to->at[2][(16 * block + i) * to->step[2]] = src[192 + i];
        memcpy(to->at[3] + block * to->step[3], src + 208, 2);
    }
}

static size_t source_row_bytes(uint32_t src_type, uint32_t in) {
    switch (src_type) { // GGUF's numbers
    case 0: return 4 * (size_t)in;
    case 2: return in / 32 * (size_t)18;
    case 3: return in / 32 * (size_t)20;
    case 6: return in / 32 * (size_t)22;
    case 7: return in / 32 * (size_t)24;
    case 8: return in / 32 * (size_t)34;
    case 12: return in / 256 * (size_t)144;
    case 13: return in / 256 * (size_t)176;
    case 14: return in / 256 * (size_t)210;
    default: return 2 * (size_t)in; // F16, BF16
    }
}

bool matrix_pack_rows(const matrix *shape, uint32_t src_type, const void *src, uint32_t first_row, uint32_t rows, void *dst) {
    if (matrix_type_from_gguf(src_type) != shape->type) return false;
    size_t row_bytes = source_row_bytes(src_type, shape->in);
    matrix_planes planes = matrix_get_planes(shape);
    for (uint32_t i = 0; i < rows; i++) {
        const uint8_t *row = (const uint8_t *)src + i * row_bytes;
        row_places to = places_of(shape, &planes, first_row + i, dst);
        switch (shape->type) {
        case MATRIX_F32: pack_plain(shape, row, &to, 4); break;
        case MATRIX_F16:
        case MATRIX_BF16: pack_plain(shape, row, &to, 2); break;
        case MATRIX_Q8: pack_q8(shape, row, &to); break;
        case MATRIX_Q4: pack_q4(shape, src_type == 3, row, &to); break;
        case MATRIX_Q5: pack_q5(shape, src_type == 7, row, &to); break;
        case MATRIX_Q4K:
        case MATRIX_Q5K: pack_k(shape, row, &to); break;
        case MATRIX_Q6: pack_q6(shape, row, &to); break;
        case MATRIX_TYPES: return false;
        }
    }
    return true;
}
