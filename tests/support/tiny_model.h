/// A tiny llama model as a GGUF file, made on the spot: random weights that are the same everywhere, a real tokenizer, a
/// chat template. Two layers, so that the second one meets what the first one wrote.
#ifndef SUPPORT_TINY_MODEL_H
#define SUPPORT_TINY_MODEL_H

#include "support/tiny_vocabulary.h"
#include "zsigma/zsigma.h"

enum {
    TINY_LAYERS = 2,
    TINY_HIDDEN = 64,
    TINY_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_HEAD_DIM = 16,
    TINY_FFN = 96,
    TINY_CONTEXT = 256,
};

typedef struct tiny_model_params {
    uint64_t seed;        // another seed, other weights
    uint32_t weight_type; // tensor_type of the matrices and the embedding: TENSOR_F32 (0), F16, BF16, Q8_0 or Q4_0
    bool untied;          // a head of its own instead of the embedding
    uint32_t hidden, ffn; // 0: TINY_HIDDEN, TINY_FFN
} tiny_model_params;

/// Writes the file, over an old one too. params NULL: all zero. The same params give the same bytes.
zs_status tiny_model_write(const char *path, const tiny_model_params *params, zs_error *error);

#endif
