/// A sentencepiece tokenizer.model put together in memory.
#ifndef SUPPORT_SENTENCEPIECE_IMAGE_H
#define SUPPORT_SENTENCEPIECE_IMAGE_H

#include "support/byte_buffer.h"

#include <stdbool.h>

typedef struct sentencepiece_piece {
    const char *text; // NULL ends a list
    float score;
    uint32_t type; // GGUF's numbers are the same; 0: left out, which means normal
} sentencepiece_piece;

typedef struct sentencepiece_image_params {
    const sentencepiece_piece *pieces;
    bool bytes;                                   // 256 byte pieces behind the first one
    uint32_t model_type;                          // 0: 2, BPE
    bool no_prefix, removes, unescaped, suffixed; // options other than llama's
    const char *charsmap;
} sentencepiece_image_params;

/// To be freed with byte_buffer_free.
byte_buffer sentencepiece_image(const sentencepiece_image_params *params);

/// Fields of any protocol buffer.
void protobuf_put_varint(byte_buffer *message, uint32_t field, uint64_t value);
void protobuf_put_bytes(byte_buffer *message, uint32_t field, const void *data, size_t size);

/// <unk>, <s>, </s>, bytes, and merges of "the other": for corpora and tests. Ends with NULL.
extern const sentencepiece_piece tiny_pieces[];

#endif
