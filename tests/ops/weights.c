#include "weights.h"

#include <string.h>

const uint32_t weight_types[WEIGHT_TYPES] = {TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_1,
                                             TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K};

uint32_t weights_inner(uint32_t type, uint32_t in) {
    uint32_t block = tensor_type_get_info(type)->block_elements;
    return (in + block - 1) / block * block;
}

/// Types without a quantiser: random bits with sensible scales.
static void fill_blocks(harness *h, uint32_t type, uint8_t *blocks, size_t bytes, uint32_t block_bytes) {
    for (size_t i = 0; i < bytes; i++) blocks[i] = (uint8_t)random_bits(h);
    for (uint8_t *block = blocks; block < blocks + bytes; block += block_bytes) {
        uint16_t d = half_from_float(random_between(h, 0.002f, 0.02f));
        uint16_t m = half_from_float(random_between(h, -0.15f, 0));
        if (type == TENSOR_Q6_K) {
            memcpy(block + 208, &d, 2);
            for (int i = 0; i < 16; i++) block[192 + i] = (uint8_t)(int8_t)((int)random_below(h, 33) - 16);
        } else if (type == TENSOR_Q4_K || type == TENSOR_Q5_K) { // scales and minima reach 63
            uint16_t small[2] = {half_from_float(half_to_float(d) / 32), half_from_float(-half_to_float(m) / 64)};
            memcpy(block, small, 4);
        } else {
            memcpy(block, &d, 2);
            if (type != TENSOR_Q5_0) memcpy(block + 2, &m, 2);
        }
    }
}

weights weights_random(harness *h, uint32_t type, uint32_t out, uint32_t in) {
    const tensor_type_info *info = tensor_type_get_info(type);
    static const uint32_t groups[] = {1, 4, 16}; // any kernel reads any
    size_t elements = (size_t)out * in;
    weights w = {.shape = matrix_of(matrix_type_from_gguf(type), out, in, groups[harness_pick(h, 3)]),
                 .type = type,
                 .block_bytes = (size_t)tensor_type_bytes(type, elements)};
    w.blocks = harness_alloc(h, w.block_bytes, 1);
    float *plain = random_floats(h, elements, 0.1f);
    if (!tensor_type_quantise(type, plain, w.blocks, elements)) fill_blocks(h, type, w.blocks, w.block_bytes, info->block_bytes);
    tensor_type_dequantise(type, w.blocks, plain, elements);
    w.values = harness_alloc(h, (size_t)out * w.shape.padded, sizeof *w.values);
    for (uint32_t o = 0; o < out; o++) memcpy(w.values + (size_t)o * w.shape.padded, plain + (size_t)o * in, in * sizeof *plain);
    return w;
}

void weights_put(harness *h, weights *w) {
    size_t row_bytes = w->block_bytes / w->shape.out;
    for (uint32_t p = 0; p < matrix_part_count(&w->shape); p++) {
        matrix part = matrix_part(&w->shape, p);
        const uint8_t *rows = (const uint8_t *)w->blocks + p * w->shape.part_rows * row_bytes;
        part.address = harness_put(h, NULL, (size_t)matrix_bytes(&part));
        matrix_pack_rows(&part, w->type, rows, 0, part.out, harness_before(h, part.address));
        matrix_set_part_address(&w->shape, p, part.address);
    }
}
