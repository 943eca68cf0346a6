/// The tower of a random model that sees images, as random.h has the rest: CLIP ViT-L/14 at 336 pixels, and LLaVA-NeXT's canvases.
#ifndef MODEL_RANDOM_TOWER_H
#define MODEL_RANDOM_TOWER_H

#include "loader/vision_file.h"

/// Matrices have no data, vectors have.
typedef struct random_tower {
    vision_file *file; // freed by vision_file_close
    gguf_tensor *tensors;
    size_t tensor_count;
    uint32_t type;       // of matrices
    float *ones, *zeros; // [the longest vector], [positions, hidden]
} random_tower;

/// Errors: ZS_ERROR_MEMORY; random_tower_free in any case.
zs_status random_tower_create(uint32_t text_hidden, uint32_t image_token, uint32_t type, random_tower *tower, zs_error *error);
/// All but the file.
void random_tower_free(random_tower *tower);

#endif
