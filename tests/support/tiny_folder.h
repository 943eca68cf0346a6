/// A Hugging Face folder of a dense GGUF model of the tests: the same weights, tokenizer and chat template in its own files.
#ifndef SUPPORT_TINY_FOLDER_H
#define SUPPORT_TINY_FOLDER_H

#include "zsigma/zsigma.h"

typedef struct tiny_folder_params {
    uint32_t shards; // 0 or 1: model.safetensors; more: as many files and an index
} tiny_folder_params;

/// Makes the folder where it is missing, and writes over what is there.
zs_status tiny_folder_write(const char *gguf_path, const char *folder, const tiny_folder_params *params, zs_error *error);
/// Writes one file of it.
void tiny_folder_put(const char *folder, const char *name, const void *data, size_t size);

#endif
