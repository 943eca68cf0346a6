/// SentencePiece's own file, tokenizer.model: a protocol buffer of pieces and of how text is prepared for them.
#ifndef LOADER_SENTENCEPIECE_MODEL_H
#define LOADER_SENTENCEPIECE_MODEL_H

#include "loader/gguf.h"

/// Tells the file's pieces, scores, types and options as GGUF's keys (tokenizer.ggml.*). Models other than BPE, and texts
/// prepared otherwise than by spaces, are ZS_ERROR_UNSUPPORTED by name. data must outlive the call only.
zs_status sentencepiece_model_read(const uint8_t *data, size_t size, gguf_writer *keys, zs_error *error);

#endif
