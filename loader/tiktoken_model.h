/// tiktoken's file, tokenizer.model of Llama 3: a line per token, its bytes in base64 and its rank.
#ifndef LOADER_TIKTOKEN_MODEL_H
#define LOADER_TIKTOKEN_MODEL_H

#include "loader/gguf.h"

/// Whether the first line is one of such a file.
bool tiktoken_model_is(const uint8_t *data, size_t size);
/// Tells the tokens as GGUF's keys: byte-level, merged by rank, cut by Llama 3's pattern, Llama 3's 256 control tokens
/// behind them. Ranks must be 0, 1, … without a gap, in any order of lines. data must outlive the call only.
zs_status tiktoken_model_read(const uint8_t *data, size_t size, gguf_writer *keys, zs_error *error);

#endif
