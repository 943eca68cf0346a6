/// Bytes of tokens become whole UTF-8 characters; what is no UTF-8, and the zero byte, becomes U+FFFD.
#ifndef ADAPT_TEXT_STREAM_H
#define ADAPT_TEXT_STREAM_H

#include "zsigma/zsigma.h"

typedef struct text_stream {
    char *text; // terminated once anything was written; the owner frees it
    size_t size, capacity;
    char pending[4]; // the beginning of a character
    size_t pending_size;
} text_stream;

/// Appends bytes; text[size before … size after] is what became complete.
zs_status text_stream_write(text_stream *stream, const char *bytes, size_t size, zs_error *error);
/// Nothing more will come: an unfinished character becomes U+FFFD.
zs_status text_stream_finish(text_stream *stream, zs_error *error);

#endif
