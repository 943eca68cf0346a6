/// A tokenizer from the bytes of a tokenizer's own file, of whatever kind.
#ifndef SUPPORT_TOKENIZER_BYTES_H
#define SUPPORT_TOKENIZER_BYTES_H

#include "loader/tokenizer.h"

/// NULL in *tokenizer on failure.
zs_status tokenizer_from_bytes(const void *data, size_t size, zs_tokenizer **tokenizer, zs_error *error);
/// Stops the test with what went wrong.
zs_tokenizer *tokenizer_must_read(const void *data, size_t size);
/// Stops the test unless the text's ids are those written in words, as "12 7".
void tokenizer_expect(const zs_tokenizer *tokenizer, const char *text, bool special, const char *ids);
/// Stops the test unless the file is refused with that status and a message with that part.
void tokenizer_expect_refused(const void *data, size_t size, zs_status expected, const char *part);

#endif
