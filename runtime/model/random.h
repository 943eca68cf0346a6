/// Models of known shapes with random weights, for measurements: the description of a file that does not exist.
#ifndef MODEL_RANDOM_H
#define MODEL_RANDOM_H

#include "loader/model_file.h"
#include "zsigma/zsigma_lab.h"

#include <stdint.h>

/// The description of params' model. Its file lives until it is freed; nothing of it needs model_file_close.
typedef struct random_file random_file;
zs_status random_file_create(const zs_random_model_params *params, random_file **file, zs_error *error);
const model_file *random_file_get(const random_file *file);
void random_file_destroy(random_file **file);

/// Fills rows [first, first + rows) of a matrix without data, in its type: values of deviation about 1/√in, the same
/// whatever the chunks. dst holds rows · size / shape[0] bytes.
void random_weights_fill(const gguf_tensor *tensor, uint32_t first, uint32_t rows, void *dst);

#endif
