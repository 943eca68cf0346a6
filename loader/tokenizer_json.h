/// Hugging Face's tokenizer.json: byte-level BPE, and SentencePiece's BPE as a list of merges.
#ifndef LOADER_TOKENIZER_JSON_H
#define LOADER_TOKENIZER_JSON_H

#include "loader/gguf.h"

/// Whether the first character is an object's.
bool tokenizer_json_is(const uint8_t *data, size_t size);
/// Tells vocabulary, merges, added tokens and the steps before them as GGUF's keys. What would change ids and is not
/// implemented (other models, normalizers, pre-tokenizers, options of added tokens) is ZS_ERROR_UNSUPPORTED by name; what
/// concerns texts of other lengths or decoding only (truncation, padding, post_processor, decoder) is not looked at.
/// data must outlive the call only.
zs_status tokenizer_json_read(const uint8_t *data, size_t size, gguf_writer *keys, zs_error *error);

#endif
