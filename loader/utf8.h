/// UTF-8, read character by character.
#ifndef LOADER_UTF8_H
#define LOADER_UTF8_H

#include <stddef.h>
#include <stdint.h>

/// Length (1 to 4) of the character that text[size] begins with, and its code point. 0 when there is none: nothing left,
/// a stray or missing continuation byte, an overlong form, a surrogate, or a value above U+10FFFF.
size_t utf8_decode(const char *text, size_t size, uint32_t *point);
/// Bytes of a code point up to U+10FFFF (not named utf8_encode, because jansson has one); out holds at least 4. Returns how many were
/// written.
size_t utf8_write(uint32_t point, char *out);

#endif
