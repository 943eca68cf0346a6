#include "loader/tensor_type.h"

#include <math.h>
#include <string.h>

const tensor_type_info *tensor_type_get_info(uint32_t type) {
    static const tensor_type_info infos[] = {
        [TENSOR_F32] = {"F32", 1, 4},       [TENSOR_F16] = {"F16", 1, 2},       [TENSOR_Q4_0] = {"Q4_0", 32, 18},
        [TENSOR_Q4_1] = {"Q4_1", 32, 20},   [TENSOR_Q8_0] = {"Q8_0", 32, 34},   [TENSOR_Q6_K] = {"Q6_K", 256, 210},
        [TENSOR_BF16] = {"BF16", 1, 2},     [TENSOR_Q5_0] = {"Q5_0", 32, 22},   [TENSOR_Q5_1] = {"Q5_1", 32, 24},
        [TENSOR_Q4_K] = {"Q4_K", 256, 144}, [TENSOR_Q5_K] = {"Q5_K", 256, 176},
    };
    return type < sizeof infos / sizeof *infos && infos[type].name ? &infos[type] : NULL;
}

uint64_t tensor_type_bytes(uint32_t type, uint64_t elements) {
    const tensor_type_info *info = tensor_type_get_info(type);
    if (!info || elements % info->block_elements || elements / info->block_elements > UINT64_MAX / info->block_bytes) return 0;
    return elements / info->block_elements * info->block_bytes;
}

float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ffu, bits;
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31)
        bits = sign | 0x7f800000u | mantissa << 13;
    else
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t half_from_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // 65520 and more round to infinity
    if (magnitude < 0x38800000u) {                                   // below the smallest normal half
        float value;
        memcpy(&value, &magnitude, sizeof value);
        return (uint16_t)(sign | (uint32_t)lrintf(value * 0x1p24f));
    }
    uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

static float load_half(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_to_float(h);
}

static void store_half(uint8_t *p, float f) {
    uint16_t h = half_from_float(f);
    memcpy(p, &h, sizeof h);
}

static void dequantise_q6_k(const uint8_t *src, float *out, size_t n) {
    for (size_t i = 0; i < n / 256; i++, src += 210, out += 256) {
        float d = load_half(src + 208);
        for (size_t half = 0; half < 2; half++) {
            const uint8_t *ql = src + 64 * half, *qh = src + 128 + 32 * half;
            const int8_t *scales = (const int8_t *)src + 192 + 8 * half;
            float *y = out + 128 * half;
            for (size_t l = 0; l < 32; l++) {
                int q[4] = {(ql[l] & 15) | (qh[l] & 3) << 4, (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4, ql[l] >> 4 | (qh[l] >> 4 & 3) << 4,
                            ql[l + 32] >> 4 | (qh[l] >> 6) << 4};
                for (size_t k = 0; k < 4; k++) y[l + 32 * k] = d * (float)scales[l / 16 + 2 * k] * (float)(q[k] - 32);
            }
        }
    }
}

static void dequantise_q4(bool has_minimum, const uint8_t *src, float *out, size_t n) {
    for (size_t i = 0; i < n / 32; i++, out += 32) {
        float d = load_half(src);
        float m = has_minimum ? load_half(src + 2) : 0;
        int zero = has_minimum ? 0 : 8; // not d · q − 8 · d, which is NaN for an infinite d
        src += has_minimum ? 4 : 2;
        for (size_t j = 0; j < 16; j++) {
            out[j] = (float)((src[j] & 15) - zero) * d + m;
            out[j + 16] = (float)((src[j] >> 4) - zero) * d + m;
        }
        src += 16;
    }
}

/// Bit j of the 32 is the fifth of element j.
static void dequantise_q5(bool has_minimum, const uint8_t *src, float *out, size_t n) {
    for (size_t i = 0; i < n / 32; i++, out += 32) {
        float d = load_half(src);
        float m = has_minimum ? load_half(src + 2) : 0;
        int zero = has_minimum ? 0 : 16;
        src += has_minimum ? 4 : 2;
        uint32_t high;
        memcpy(&high, src, sizeof high);
        src += 4;
        for (size_t j = 0; j < 32; j++) {
            int q = (int)(j < 16 ? src[j] & 15 : src[j - 16] >> 4) | (int)(high >> j & 1) << 4;
            out[j] = (float)(q - zero) * d + m;
        }
        src += 16;
    }
}

/// Scale and minimum of the j-th 32 elements of a block of 256.
static void unpack_scale(const uint8_t packed[12], size_t j, uint8_t *scale, uint8_t *minimum) {
    if (j < 4) {
        *scale = packed[j] & 63;
        *minimum = packed[j + 4] & 63;
    } else {
        *scale = (uint8_t)((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
        *minimum = (uint8_t)(packed[j + 4] >> 4 | (packed[j] >> 6) << 4);
    }
}

/// f16 d, dmin; 12 bytes of scales and minima of 6 bits for each 32; Q5_K: qh[32]; qs[128]. Of each 64 elements the first 32 are
/// low nibbles and the others high ones of the same 32 bytes; their fifth bits are bits 2c and 2c + 1 of qh[…].
static void dequantise_q45_k(bool five, const uint8_t *src, float *out, size_t n) {
    for (size_t i = 0; i < n / 256; i++, src += five ? 176 : 144) {
        const uint8_t *high = src + 16, *nibbles = five ? src + 48 : src + 16;
        float d = load_half(src), dmin = load_half(src + 2);
        for (size_t j = 0; j < 8; j++) {
            uint8_t scale, minimum;
            unpack_scale(src + 4, j, &scale, &minimum);
            for (size_t l = 0; l < 32; l++) {
                uint8_t byte = nibbles[j / 2 * 32 + l];
                int q = j % 2 ? byte >> 4 : byte & 15;
                if (five) q |= (high[l] >> j & 1) << 4;
                *out++ = d * (float)scale * (float)q - dmin * (float)minimum;
            }
        }
    }
}

void tensor_type_dequantise(uint32_t type, const void *data, float *out, size_t n) {
    const uint8_t *src = data;
    switch (type) {
    case TENSOR_F32: memcpy(out, src, n * sizeof *out); break;
    case TENSOR_F16:
        for (size_t i = 0; i < n; i++) out[i] = load_half(src + 2 * i);
        break;
    case TENSOR_BF16:
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)src[2 * i] << 16 | (uint32_t)src[2 * i + 1] << 24;
            memcpy(&out[i], &bits, sizeof bits);
        }
        break;
    case TENSOR_Q8_0:
        for (size_t i = 0; i < n / 32; i++, src += 34) {
            float d = load_half(src);
            for (size_t j = 0; j < 32; j++) out[32 * i + j] = d * (float)(int8_t)src[2 + j];
        }
        break;
    case TENSOR_Q4_0:
    case TENSOR_Q4_1: dequantise_q4(type == TENSOR_Q4_1, src, out, n); break;
    case TENSOR_Q5_0:
    case TENSOR_Q5_1: dequantise_q5(type == TENSOR_Q5_1, src, out, n); break;
    case TENSOR_Q4_K:
    case TENSOR_Q5_K: dequantise_q45_k(type == TENSOR_Q5_K, src, out, n); break;
    case TENSOR_Q6_K: dequantise_q6_k(src, out, n); break;
    default: break;
    }
}

static void quantise_q8_0(const float *in, uint8_t *dst, size_t n) {
    for (size_t i = 0; i < n / 32; i++, in += 32, dst += 34) {
        float top = 0;
        for (size_t j = 0; j < 32; j++) top = fmaxf(top, fabsf(in[j]));
        float d = top / 127, inverse = d > 0 ? 1 / d : 0;
        store_half(dst, d);
        for (size_t j = 0; j < 32; j++) dst[2 + j] = (uint8_t)(int8_t)lrintf(in[j] * inverse);
    }
}

/// d so that the value of largest magnitude becomes −8.
static void quantise_q4_0(const float *in, uint8_t *dst, size_t n) {
    for (size_t i = 0; i < n / 32; i++, in += 32, dst += 18) {
        float extreme = 0;
        for (size_t j = 0; j < 32; j++) extreme = fabsf(in[j]) > fabsf(extreme) ? in[j] : extreme;
        float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
        store_half(dst, d);
        for (size_t j = 0; j < 16; j++) {
            int low = (int)lrintf(in[j] * inverse) + 8, high = (int)lrintf(in[j + 16] * inverse) + 8;
            low = low < 0 ? 0 : low > 15 ? 15 : low;
            high = high < 0 ? 0 : high > 15 ? 15 : high;
            dst[2 + j] = (uint8_t)(low | high << 4);
        }
    }
}

bool tensor_type_quantise(uint32_t type, const float *in, void *data, size_t n) {
    uint8_t *dst = data;
    switch (type) {
    case TENSOR_F32: memcpy(dst, in, n * sizeof *in); return true;
    case TENSOR_F16:
        for (size_t i = 0; i < n; i++) store_half(dst + 2 * i, in[i]);
        return true;
    case TENSOR_BF16:
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &in[i], sizeof bits);
            if ((bits & 0x7fffffffu) <= 0x7f800000u) bits += 0x7fffu + (bits >> 16 & 1); // NaN stays NaN
            dst[2 * i] = (uint8_t)(bits >> 16);
            dst[2 * i + 1] = (uint8_t)(bits >> 24);
        }
        return true;
    case TENSOR_Q8_0: quantise_q8_0(in, dst, n); return true;
    case TENSOR_Q4_0: quantise_q4_0(in, dst, n); return true;
    default: return false;
    }
}
