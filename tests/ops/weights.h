/// Random weights in a file's storage type, with their values and their device layout.
#ifndef TESTS_OPS_WEIGHTS_H
#define TESTS_OPS_WEIGHTS_H

#include "harness.h"
#include "loader/tensor_type.h"

/// The file types that a device matrix is made from.
enum { WEIGHT_TYPES = 11 };
extern const uint32_t weight_types[WEIGHT_TYPES]; // GGUF numbers

typedef struct weights {
    matrix shape;  // address set once put
    uint32_t type; // GGUF number
    void *blocks;  // as in a file
    size_t block_bytes;
    float *values; // [out, padded], zero beyond `in`
} weights;

/// The inner dimension made a multiple of the type's block.
uint32_t weights_inner(uint32_t type, uint32_t in);
weights weights_random(harness *h, uint32_t type, uint32_t out, uint32_t in);
/// Packs into the arena, in parts of shape.part_rows rows where that is set, and sets the addresses.
void weights_put(harness *h, weights *w);

#endif
