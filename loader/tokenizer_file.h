/// A tokenizer's own file, of whatever kind, told as GGUF's keys (tokenizer.ggml.*), which tokenizers are built from.
#ifndef LOADER_TOKENIZER_FILE_H
#define LOADER_TOKENIZER_FILE_H

#include "loader/gguf.h"

/// By the file's first bytes: tokenizer.json, or a tokenizer.model of tiktoken's or sentencepiece's.
zs_status tokenizer_file_read(const char *path, gguf_writer *keys, zs_error *error);
/// The same over bytes in memory (fuzzing, tests).
zs_status tokenizer_file_read_memory(const void *data, size_t size, gguf_writer *keys, zs_error *error);

#endif
