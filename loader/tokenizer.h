/// Inside of zs_tokenizer: byte-level BPE from GGUF metadata.
#ifndef LOADER_TOKENIZER_H
#define LOADER_TOKENIZER_H

#include "loader/gguf.h"

/// Builds a tokenizer from an open file; copies what it needs.
zs_status tokenizer_from_gguf(const gguf_file *file, zs_tokenizer **tokenizer, zs_error *error);
/// Id of a control token by its spelling; false when absent.
bool tokenizer_find_special(const zs_tokenizer *tokenizer, const char *spelling, uint32_t *id);

#endif
