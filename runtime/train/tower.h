/// The images of a pass, where the tower or the projector is factored: their features are made under the z at which the gradient is taken,
/// and from the decoder's gradient by them comes that by the tower's z.
#ifndef TRAIN_TOWER_H
#define TRAIN_TOWER_H

#include "vision/encoder.h"
#include "zsigma/zsigma_lab.h"

/// One image of a pass.
typedef struct tower_image {
    uint32_t first_id; // of its rows, as the engine numbers them
    image_tiles tiles;
    uint32_t first_feature; // among those of the pass
} tower_image;

/// Feature rows are [1 + features, stride]: row 0 is the newline.
typedef struct train_tower {
    const zs_model *model;
    const zs_engine *engine; // which tells whose ids are whose
    uint32_t rows;           // of the tower at a time, but for a tile's
    vision_encoder *encoder;
    gpu_command *command;
    tower_image *images; // [count]
    uint32_t count, room, tiles;
    gpu_buffer features, reference, d_features;
    gpu_buffer takers; // GPU_MEMORY_SHARED: [features + 1], then [rows of the pass]: which rows took a feature
} train_tower;

zs_status train_tower_open(train_tower *tower, const zs_model *model, const zs_engine *engine, uint32_t rows, zs_error *error);
void train_tower_close(train_tower *tower);

/// Whether an item's images are as many as its prompt has. Errors: ZS_ERROR_ARGUMENT.
zs_status train_tower_check(const train_tower *tower, const zs_gradient_item *item, size_t index, zs_error *error);
/// Takes the images of a pass's next item. Errors: those of preprocessing.
zs_status train_tower_add(train_tower *tower, const zs_gradient_item *item, zs_error *error);
/// After the last item: rows' tokens become places among the features, and these know their takers. stride: of the takers' rows.
zs_status train_tower_number(train_tower *tower, Row *rows, uint32_t row_count, uint32_t stride, zs_error *error);
/// Features under a row of scales, into features or reference. The last call's layers are what train_tower_back goes through.
zs_status train_tower_encode(train_tower *tower, uint64_t scales, bool reference, zs_error *error);
/// Adds the gradient by σ ⊙ z to sums, and copies scale_count of them to results. dx: of the rows' embeddings.
zs_status train_tower_back(train_tower *tower, uint64_t dx, uint64_t scales, const gpu_buffer *sums, const gpu_buffer *results,
                           zs_error *error);
/// Before the next pass.
void train_tower_clear(train_tower *tower);

#endif
