#include "adapt/text_stream.h"

#include "loader/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { REPLACEMENT = 0xFFFD };

static zs_status reserve(text_stream *s, size_t more, zs_error *error) {
    if (s->capacity - s->size > more) return ZS_OK;
    size_t capacity = 2 * s->capacity + more + 64;
    char *grown = realloc(s->text, capacity);
    if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an answer");
    s->text = grown;
    s->capacity = capacity;
    return ZS_OK;
}

/// Whether text[size] (size < 4, no whole character) could become a character by more bytes.
static bool may_continue(const char *text, size_t size) {
    uint8_t first = (uint8_t)text[0];
    size_t length = first >= 0xF0 && first < 0xF5 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || size >= length) return false;
    for (size_t i = 1; i < size; i++) {
        if (((uint8_t)text[i] & 0xC0) != 0x80) return false;
    }
    return true;
}

/// A zero byte would end the C string that the text becomes.
static void append_point(text_stream *s, uint32_t point) {
    s->size += utf8_write(point ? point : REPLACEMENT, s->text + s->size);
    s->text[s->size] = 0;
}

zs_status text_stream_write(text_stream *s, const char *bytes, size_t size, zs_error *error) {
    zs_status status = reserve(s, 3 * size + 16, error);
    for (size_t i = 0; i < size && !status; i++) {
        s->pending[s->pending_size++] = bytes[i];
        uint32_t point;
        while (s->pending_size) {
            if (utf8_decode(s->pending, s->pending_size, &point) == s->pending_size) {
                append_point(s, point);
                s->pending_size = 0;
            } else if (may_continue(s->pending, s->pending_size)) {
                break;
            } else { // one stray byte; what follows it may begin anew
                append_point(s, utf8_decode(s->pending, 1, &point) ? point : REPLACEMENT);
                memmove(s->pending, s->pending + 1, --s->pending_size);
            }
        }
    }
    return status;
}

zs_status text_stream_finish(text_stream *s, zs_error *error) {
    zs_status status = reserve(s, 16, error);
    if (status) return status;
    s->text[s->size] = 0;
    if (s->pending_size) append_point(s, REPLACEMENT);
    s->pending_size = 0;
    return ZS_OK;
}
