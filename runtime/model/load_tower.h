/// The part of zs_model_load that brings an image tower onto the device.
#ifndef MODEL_LOAD_TOWER_H
#define MODEL_LOAD_TOWER_H

#include "model/upload.h"

/// What the tower will take on the device; 0 without one. Adds its bytes in the file.
uint64_t load_tower_bytes(const vision_file *file, const op_policy *policy, uint64_t *file_bytes);
/// Bytes of its matrices' canonical names.
size_t load_tower_names(const vision_file *file);
zs_status load_tower(zs_model *model, model_upload *upload, const vision_file *file, char **names, zs_error *error);

// of load.c
uint64_t load_tensor_bytes(const gguf_tensor *tensor, const op_policy *policy);
/// One matrix, dense or with factors that are kept at a place; its name goes to *names, which moves on.
zs_status load_weight(zs_model *model, model_upload *upload, zs_place place, const model_matrix *from, model_weight *to, char **names,
                      zs_error *error);

#endif
