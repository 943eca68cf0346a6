/// A model of a few kilobytes as a GGUF image, which a test may add to before it is finished: for what a loader accepts,
/// refuses and survives. Its weights mean nothing (tiny_model.h has one that computes).
#ifndef SUPPORT_SMALL_MODEL_H
#define SUPPORT_SMALL_MODEL_H

#include "support/gguf_image.h"
#include "support/tiny_vocabulary.h"

enum { SMALL_LAYERS = 2, SMALL_HIDDEN = 8, SMALL_HEADS = 2, SMALL_KV_HEADS = 1, SMALL_HEAD_DIM = 4, SMALL_FFN = 12 };

typedef struct small_model_params {
    bool factored; // architecture zsigma, the matrices of the feed-forward layers as factors
    bool untied;
    uint32_t vocab;   // the first so many tokens of the tiny vocabulary (0: all); merges only with all
    const char *pre;  // pre-tokenizer; NULL: smollm
    const char *chat; // chat template; NULL: the tiny vocabulary's
    const char *omit; // a key or tensor to leave out
} small_model_params;

gguf_image small_model_image(const small_model_params *params);
/// Only the keys of the tokenizer.
void small_model_add_tokenizer(gguf_image *image, const small_model_params *params);

#endif
