/// A decoder without weights or buffers, whose steps are recorded only to have every kernel made that they would run. Addresses
/// are made up: nothing is ever submitted.
#ifndef COMPILE_RECORDING_H
#define COMPILE_RECORDING_H

#include "model/model.h"

/// The shapes that end up in specialisation constants.
typedef struct compile_shape {
    const char *name;
    uint32_t hidden, heads, kv_heads, head_dim, ffn, vocab;
    bool gemma; // what Gemma 3 has beside llama
} compile_shape;

/// Records prefill and decode steps of up to 16 rows, with sampling and log-probabilities, for a model whose matrices are dense or
/// factors of this type.
zs_status compile_record(zs_device *device, const compile_shape *shape, matrix_type type, bool factored, kv_type kv, bool deterministic,
                         zs_error *error);

/// Weights composed of factors of this type, as every type that there is.
zs_status compile_record_compose(zs_device *device, const compile_shape *shape, matrix_type type, zs_error *error);

/// The same for the gradient of a few sequences by z.
zs_status compile_record_gradient(zs_device *device, const compile_shape *shape, matrix_type type, bool factored, zs_error *error);

/// The operations of an image tower's layer (CLIP's large one), in every form that some tower has.
zs_status compile_record_tower(zs_device *device, matrix_type type, kv_type kv, zs_error *error);

#endif
