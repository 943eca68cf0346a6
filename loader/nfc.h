/// Unicode's normalisation form C: characters composed, marks in canonical order.
#ifndef LOADER_NFC_H
#define LOADER_NFC_H

#include "zsigma/zsigma.h"

/// Normalises text[size], valid UTF-8, in O(n). *out is malloc'ed, or NULL when the text is in that form for certain (no
/// character from U+0300 on).
zs_status nfc_normalise(const char *text, size_t size, char **out, size_t *out_size, zs_error *error);

#endif
