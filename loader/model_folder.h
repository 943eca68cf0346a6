/// A Hugging Face model folder seen as a GGUF file: config.json and the tokenizer's files as its keys, the safetensors
/// files' tensors under GGUF's names. So whatever reads one reads the other.
#ifndef LOADER_MODEL_FOLDER_H
#define LOADER_MODEL_FOLDER_H

#include "loader/gguf.h"

/// Whether the path is a folder.
bool model_folder_is(const char *path);
/// Opens a folder; gguf_close closes it. Rows of q and k stay in Hugging Face order, which MODEL_ROWS_KEY tells. Tensors that
/// are missing or misshapen are named one by one, by their own names.
zs_status model_folder_open(const char *path, gguf_file *file, zs_error *error);

#endif
