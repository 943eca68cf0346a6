/// The part of zs_model_load that brings an image tower onto the device, and that of plans that knows its shape.
#ifndef MODEL_LOAD_TOWER_H
#define MODEL_LOAD_TOWER_H

#include "model/upload.h"

/// What the tower will take on the device; 0 without one. Adds its bytes in the file.
uint64_t load_tower_bytes(const vision_file *file, const op_policy *policy, uint64_t *file_bytes);
/// Bytes of its matrices' canonical names.
size_t load_tower_names(const vision_file *file);
zs_status load_tower(zs_model *model, model_upload *upload, const vision_file *file, char **names, zs_error *error);

/// model->tower and tower_weights of one that is not loaded, for sizes; their numbers are in model->scale_count then.
zs_status load_tower_shape(zs_model *model, const vision_file *file, zs_error *error);

// of shape.c
/// A matrix that is not loaded; *scale_count goes on by its numbers.
model_weight model_shape_weight(const model_matrix *from, const op_policy *policy, uint32_t *scale_count);

// of load.c
uint64_t load_tensor_bytes(const gguf_tensor *tensor, const op_policy *policy);
/// One matrix, dense or with factors that are kept at a place; its name goes to *names, which moves on.
zs_status load_weight(zs_model *model, model_upload *upload, zs_place place, const model_matrix *from, model_weight *to, char **names,
                      zs_error *error);

#endif
