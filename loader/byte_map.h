/// GPT-2's byte map: byte-level vocabularies spell every byte as one printable character. Printable Latin-1 bytes stand
/// for themselves; the other 68 follow from U+0100 on, in the order of their values (so a space is spelled Ġ).
#ifndef LOADER_BYTE_MAP_H
#define LOADER_BYTE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Spells size bytes; out holds at least 2 · size. Returns the bytes written.
size_t byte_map_spell(const char *bytes, size_t size, char *out);
/// Bytes that a spelling stands for; out holds at least size. False when a character is not part of the map.
bool byte_map_read(const char *spelling, size_t size, char *out, size_t *out_size);

#endif
