/// From tiles of pixels to rows that take the place of token embeddings: the tower and its projector as a list of operations, all tiles of
/// all images together.
#ifndef VISION_ENCODER_H
#define VISION_ENCODER_H

#include "gpu/command.h"
#include "ops/ops.h"
#include "vision/preprocess.h"
#include "vision/tower.h"

/// Scratch for a number of tiles at a time.
typedef struct vision_encoder vision_encoder;

typedef struct vision_encoder_params {
    uint32_t tiles;   // at a time; more go in turns
    kv_type kv;       // KV_F32 or KV_F16
    bool gradients;   // vision_encoder_record_back may follow; every layer's input is kept. With KV_F32
    op_policy policy; // of the decoder whose prompt the features go into, or op_policy_within
} vision_encoder_params;

/// Tiles that are worth taking at a time when there are `tiles`, in up to so many rows (0: as many as are usual), but one at least.
uint32_t vision_encoder_tiles(const vision_tower *tower, uint32_t tiles, uint32_t rows);
/// What an encoder takes on the device. Of the tower only its shapes are looked at.
uint64_t vision_encoder_bytes(const vision_tower *tower, const vision_encoder_params *params);
zs_status vision_encoder_create(zs_device *device, const vision_tower *tower, const vision_encoder_params *params, vision_encoder **encoder,
                                zs_error *error);
void vision_encoder_destroy(vision_encoder **encoder);
uint32_t vision_encoder_capacity(const vision_encoder *encoder);

/// Which z: a row of the scale table [·, scale_stride]. Not looked at by a dense tower.
typedef struct vision_scales {
    uint64_t table;
    uint32_t stride, row;
} vision_scales;

/// Puts tiles first … first + count − 1 of all images into the encoder; nothing submitted may be using it.
void vision_encoder_fill(vision_encoder *encoder, const image_tiles *const *images, uint32_t first, uint32_t count,
                         const vision_scales *scales);
/// Records what makes features of them: f32 [count · vision_config_features, features_stride] at device address `features`.
void vision_encoder_record(vision_encoder *encoder, gpu_command *command, uint32_t count, uint64_t features, uint32_t features_stride);

/// Records what adds the gradient by σ ⊙ z to sums[…], laid out like a row of the scale table, from the gradient by the features of the
/// tiles that vision_encoder_record took last; d_features lies like features. Layers are computed again on the way, from the last one to
/// the first that is factored.
void vision_encoder_record_back(const vision_encoder *encoder, gpu_command *command, uint32_t count, uint64_t d_features,
                                uint32_t features_stride, uint64_t sums);

/// Records the tower's newline, where it has one, as a row of features.
void vision_encoder_record_newline(const vision_encoder *encoder, gpu_command *command, uint64_t to, uint32_t stride);
/// Records the rows that stand for images in a prompt: rows[t] = features[index[t]], where the row behind the last feature is the newline.
/// features has room for feature_rows + 1; index is at a device address.
void vision_encoder_record_rows(const vision_encoder *encoder, gpu_command *command, uint64_t features, uint32_t feature_rows,
                                uint64_t index, uint32_t rows, uint64_t to, uint32_t stride);

#endif
