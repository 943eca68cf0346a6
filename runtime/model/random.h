/// Models of known shapes with random weights, for measurements: the description of a file that does not exist.
#ifndef MODEL_RANDOM_H
#define MODEL_RANDOM_H

#include "loader/gguf.h"

#include <stdint.h>

/// Fills rows [first, first + rows) of a matrix without data, in its type: values of deviation about 1/√in, the same
/// whatever the chunks. dst holds rows · size / shape[0] bytes.
void random_weights_fill(const gguf_tensor *tensor, uint32_t first, uint32_t rows, void *dst);

#endif
