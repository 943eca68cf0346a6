/// A tower and its projector on the device. The model that owns the memory fills it in; z comes as scales, as in the decoder.
#ifndef VISION_TOWER_H
#define VISION_TOWER_H

#include "loader/vision_file.h"
#include "ops/matrix.h"

/// One matrix, dense or factored, and the bias of its result.
typedef struct vision_weight {
    bool factored;
    matrix dense;          // [out, in]
    matrix u, vt;          // [out, r], [r, in]
    uint32_t scale_offset; // of its σ ⊙ z in a row of the scale table (factored only)
    uint64_t bias;         // f32 [out]; 0: none
} vision_weight;

typedef struct vision_norm {
    uint64_t weight, bias; // f32 [hidden]; 0: none
} vision_norm;

typedef struct vision_layer {
    vision_weight weights[VISION_MATRICES]; // q, k and v without their biases
    uint64_t qkv_bias;                      // f32, laid out like a row of q, k and v (vision_qkv_offsets)
    vision_norm norms[2];                   // before attention and before fc1
} vision_layer;

typedef struct vision_tower {
    vision_config config;
    matrix patch;       // [hidden, 3 · patch²]
    uint64_t positions; // f32 [vision_positions, vision_stride]: what is added to the patches, biases too; the class vector stands first
    vision_norm pre_norm, post_norm;
    vision_layer *layers; // [config.layers]
    vision_weight projector[2];
    uint32_t projector_count;
    uint64_t newline; // f32 [text_hidden]; 0: none
} vision_tower;

/// Rows that a tile has in the tower: its patches, and before them the class token where there is one.
uint32_t vision_positions(const vision_config *config);
/// Floats of a row of a width, as activations lie.
uint32_t vision_stride(uint32_t width);
/// Where q, k and v lie in a row; returns its stride.
uint32_t vision_qkv_offsets(const vision_config *config, uint32_t offsets[3]);
/// The table of positions on the host: malloc'ed f32 [vision_positions, vision_stride]; NULL when memory is short.
float *vision_position_table(const vision_file *file);
/// The biases of a layer's q, k and v as one row, malloc'ed; NULL when memory is short.
float *vision_qkv_bias(const vision_file *file, uint32_t layer);

#endif
