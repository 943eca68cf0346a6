/// Storage types of weights as files hold them, and their plain dequantisation. Layouts: GGUF (ggml) blocks.
#ifndef LOADER_TENSOR_TYPE_H
#define LOADER_TENSOR_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Values are GGUF's type numbers.
typedef enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_BF16 = 30,
} tensor_type;

typedef struct tensor_type_info {
    const char *name;        // "F32", "Q4_0", …
    uint32_t block_elements; // elements per block: 1, 32 or 256
    uint32_t block_bytes;
} tensor_type_info;

/// NULL for a type this version does not read.
const tensor_type_info *tensor_type_get_info(uint32_t type);
/// Bytes of n elements of a type; n must be a multiple of the block. 0 on overflow or a bad n.
uint64_t tensor_type_bytes(uint32_t type, uint64_t elements);
/// out[n] = values of n elements (a multiple of the block) starting at src.
void tensor_type_dequantise(uint32_t type, const void *src, float *out, size_t n);
/// Rounds in[n] into dst; types F32, F16, BF16, Q8_0, Q4_0. Q8_0: d = max|x| / 127, round to nearest.
bool tensor_type_quantise(uint32_t type, const float *in, void *dst, size_t n);
/// IEEE half ↔ float, round to nearest even.
float half_to_float(uint16_t h);
uint16_t half_from_float(float f);

#endif
