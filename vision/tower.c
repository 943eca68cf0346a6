#include "vision/tower.h"

#include <stdlib.h>

uint32_t vision_positions(const vision_config *config) {
    uint32_t side = vision_config_side(config);
    return side * side + config->class_token;
}

uint32_t vision_stride(uint32_t width) { return (width + 31) / 32 * 32; }

uint32_t vision_qkv_offsets(const vision_config *config, uint32_t offsets[3]) {
    uint32_t stride = vision_stride(config->hidden);
    for (uint32_t i = 0; i < 3; i++) offsets[i] = i * stride;
    return 3 * stride;
}

/// Idefics3 numbers the patches of padded images by their place in the image; its processors make tiles that fill the tower's square, where
/// a patch's number is its own. (transformers' rounding repeats some numbers for squares of 19, 25, 29 … patches; known models have 24,
/// 26, 27 and 32.)
float *vision_position_table(const vision_file *file) {
    const vision_config *c = &file->config;
    uint32_t rows = vision_positions(c), stride = vision_stride(c->hidden);
    float *table = calloc((size_t)rows * stride, sizeof *table), *values = malloc((size_t)rows * c->hidden * sizeof *values),
          *first = calloc(c->hidden, sizeof *first), *bias = calloc(c->hidden, sizeof *bias);
    if (table && values && first && bias) {
        tensor_type_dequantise(file->positions->type, file->positions->data, values, (size_t)rows * c->hidden);
        if (file->class_vector) tensor_type_dequantise(file->class_vector->type, file->class_vector->data, first, c->hidden);
        if (file->patch_bias) tensor_type_dequantise(file->patch_bias->type, file->patch_bias->data, bias, c->hidden);
        for (uint32_t p = 0; p < rows; p++) {
            const float *added = p == 0 && c->class_token ? first : bias;
            for (uint32_t i = 0; i < c->hidden; i++) table[(size_t)p * stride + i] = values[(size_t)p * c->hidden + i] + added[i];
        }
    } else {
        free(table);
        table = NULL;
    }
    free(values);
    free(first);
    free(bias);
    return table;
}

float *vision_qkv_bias(const vision_file *file, uint32_t layer) {
    uint32_t offsets[3], stride = vision_qkv_offsets(&file->config, offsets);
    float *row = calloc(stride, sizeof *row);
    for (uint32_t m = 0; row && m < 3; m++) {
        const gguf_tensor *bias = file->layers[layer].biases[m];
        tensor_type_dequantise(bias->type, bias->data, row + offsets[m], file->config.hidden);
    }
    return row;
}
