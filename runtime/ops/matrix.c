#include "ops/matrix.h"

#include <string.h>

enum { UNIT = 8 };

static uint32_t padded_inner(matrix_type type, uint32_t in) {
    return type == MATRIX_Q6 ? in : (in + 31) / 32 * 32;
}

matrix matrix_of(matrix_type type, uint32_t out, uint32_t in) {
    return (matrix){.type = type, .out = out, .in = in, .padded = padded_inner(type, in)};
}

matrix_planes matrix_get_planes(const matrix *shape) {
    uint64_t n = shape->padded;
    matrix_planes planes = {.count = 1};
    switch (shape->type) {
    case MATRIX_F32: planes.row_bytes[0] = 4 * n; break;
    case MATRIX_F16:
    case MATRIX_BF16: planes.row_bytes[0] = 2 * n; break;
    case MATRIX_Q8: planes = (matrix_planes){.count = 2, .row_bytes = {n, n / 32 * 2}}; break;
    case MATRIX_Q4: planes = (matrix_planes){.count = 2, .row_bytes = {n / 2, n / 32 * 4}}; break;
    case MATRIX_Q6: planes = (matrix_planes){.count = 4, .row_bytes = {n / 2, n / 4, n / 16, n / 256 * 2}}; break;
    case MATRIX_TYPES: break;
    }
    for (uint32_t i = 1; i < planes.count; i++) planes.offset[i] = planes.offset[i - 1] + shape->out * planes.row_bytes[i - 1];
    return planes;
}

uint64_t matrix_bytes(matrix_type type, uint32_t out, uint32_t in) {
    matrix shape = matrix_of(type, out, in);
    matrix_planes planes = matrix_get_planes(&shape);
    uint64_t bytes = planes.offset[planes.count - 1] + out * planes.row_bytes[planes.count - 1];
    return (bytes + 15) / 16 * 16;
}

const char *matrix_type_name(matrix_type type) {
    static const char *const names[MATRIX_TYPES] = {"f32", "f16", "bf16", "q8", "q4", "q6"};
    return type < MATRIX_TYPES ? names[type] : "?";
}

matrix_type matrix_type_from_gguf(uint32_t type) {
    switch (type) { // GGUF's numbers
    case 0: return MATRIX_F32;
    case 1: return MATRIX_F16;
    case 2:
    case 3: return MATRIX_Q4;
    case 8: return MATRIX_Q8;
    case 14: return MATRIX_Q6;
    case 30: return MATRIX_BF16;
    default: return MATRIX_TYPES;
    }
}

/// Values of 2 or 4 bytes: rows, padded by zeros.
static void pack_plain(const matrix *shape, const uint8_t *src, uint32_t first_row, uint32_t rows, uint8_t *dst, size_t width) {
    size_t used = shape->in * width, pitch = shape->padded * width;
    for (uint32_t i = 0; i < rows; i++) {
        uint8_t *row = dst + (size_t)(first_row + i) * pitch;
        memcpy(row, src + i * used, used);
        memset(row + used, 0, pitch - used);
    }
}

/// GGUF's Q8_0: f16 d, int8 q[32].
static void pack_q8(const matrix *shape, const uint8_t *src, uint32_t first_row, uint32_t rows, uint8_t *dst) {
    size_t blocks = shape->padded / 32, first = first_row * blocks;
    uint8_t *scales = dst + (size_t)shape->out * shape->padded;
    for (size_t i = 0; i < rows * blocks; i++, src += 34) {
        memcpy(scales + 2 * (first + i), src, 2);
        memcpy(dst + 32 * (first + i), src + 2, 32);
    }
}

/// Nibbles in the order that the kernels read: value i of a unit's first four in bits 8i of its word, of the last four in 8i + 4.
static uint32_t pack_nibbles(const uint8_t values[UNIT]) {
    uint32_t word = 0;
    for (uint32_t i = 0; i < 4; i++) word |= (uint32_t)values[i] << (8 * i) | (uint32_t)values[i + 4] << (8 * i + 4);
    return word;
}

/// f16 −8 d: the exponent grows by three and the sign flips; subnormals are shifted up, overflow becomes infinity.
static uint16_t half_minus_eight(uint16_t d) {
    uint32_t sign = (d & 0x8000u) ^ 0x8000u, exponent = d >> 10 & 31, mantissa = d & 0x3ff;
    if (exponent == 31) return (uint16_t)(sign | (d & 0x7fffu));
    if (exponent == 0) {
        for (int i = 0; i < 3; i++) { // doubled three times, subnormal or not
            if (exponent > 0) exponent++;
            else if ((mantissa <<= 1) & 0x400) {
                mantissa &= 0x3ff;
                exponent = 1;
            }
        }
    } else {
        exponent += 3;
    }
    if (exponent >= 31) return (uint16_t)(sign | 0x7c00u);
    return (uint16_t)(sign | exponent << 10 | mantissa);
}

/// GGUF's Q4_0 (f16 d, nibbles) and Q4_1 (f16 d, f16 m, nibbles): low nibble of byte j is value j, high one j + 16.
static void pack_q4(const matrix *shape, bool has_minimum, const uint8_t *src, uint32_t first_row, uint32_t rows, uint8_t *dst) {
    size_t blocks = shape->padded / 32, first = first_row * blocks, block_bytes = has_minimum ? 20 : 18;
    uint8_t *scales = dst + (size_t)shape->out * shape->padded / 2;
    for (size_t i = 0; i < rows * blocks; i++, src += block_bytes) {
        const uint8_t *nibbles = src + block_bytes - 16;
        uint16_t d, m;
        memcpy(&d, src, 2);
        if (has_minimum) memcpy(&m, src + 2, 2);
        else m = half_minus_eight(d);
        memcpy(scales + 4 * (first + i), &d, 2);
        memcpy(scales + 4 * (first + i) + 2, &m, 2);
        for (uint32_t unit = 0; unit < 4; unit++) {
            uint8_t values[UNIT];
            for (uint32_t j = 0; j < UNIT; j++) {
                uint32_t k = unit * UNIT + j;
                values[j] = k < 16 ? nibbles[k] & 15 : nibbles[k - 16] >> 4;
            }
            uint32_t word = pack_nibbles(values);
            memcpy(dst + 16 * (first + i) + 4 * unit, &word, 4);
        }
    }
}

/// GGUF's Q6_K, 256 values: ql[128], qh[64], int8 scales[16], f16 d.
static void pack_q6(const matrix *shape, const uint8_t *src, uint32_t first_row, uint32_t rows, uint8_t *dst) {
    size_t blocks = shape->padded / 256, first = first_row * blocks, elements = (size_t)shape->out * shape->padded;
    uint8_t *high = dst + elements / 2, *scales = high + elements / 4, *d = scales + elements / 16;
    for (size_t i = 0; i < rows * blocks; i++, src += 210) {
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
            memcpy(dst + 128 * (first + i) + 4 * unit, &word, 4);
            memcpy(high + 64 * (first + i) + 2 * unit, &bits, 2);
        }
        memcpy(scales + 16 * (first + i), src + 192, 16);
        memcpy(d + 2 * (first + i), src + 208, 2);
    }
}

bool matrix_pack_rows(const matrix *shape, uint32_t src_type, const void *src, uint32_t first_row, uint32_t rows, void *dst) {
    if (matrix_type_from_gguf(src_type) != shape->type) return false;
    switch (shape->type) {
    case MATRIX_F32: pack_plain(shape, src, first_row, rows, dst, 4); return true;
    case MATRIX_F16:
    case MATRIX_BF16: pack_plain(shape, src, first_row, rows, dst, 2); return true;
    case MATRIX_Q8: pack_q8(shape, src, first_row, rows, dst); return true;
    case MATRIX_Q4: pack_q4(shape, src_type == 3, src, first_row, rows, dst); return true;
    case MATRIX_Q6: pack_q6(shape, src, first_row, rows, dst); return true;
    case MATRIX_TYPES: break;
    }
    return false;
}
