#include "support/byte_buffer.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *grow(byte_buffer *buffer, size_t size) {
    if (buffer->capacity - buffer->size < size) {
        buffer->capacity = 2 * (buffer->size + size) + 64;
        buffer->data = realloc(buffer->data, buffer->capacity);
        if (!buffer->data) abort();
    }
    buffer->size += size;
    return buffer->data + buffer->size - size;
}

void byte_buffer_put(byte_buffer *buffer, const void *data, size_t size) {
    if (size) memcpy(grow(buffer, size), data, size);
}

void byte_buffer_put_zeros(byte_buffer *buffer, size_t size) {
    if (size) memset(grow(buffer, size), 0, size);
}

void byte_buffer_put_u32(byte_buffer *buffer, uint32_t value) { byte_buffer_put(buffer, &value, sizeof value); }
void byte_buffer_put_u64(byte_buffer *buffer, uint64_t value) { byte_buffer_put(buffer, &value, sizeof value); }

void byte_buffer_put_string(byte_buffer *buffer, const char *text, size_t size) {
    byte_buffer_put_u64(buffer, size);
    byte_buffer_put(buffer, text, size);
}

void byte_buffer_free(byte_buffer *buffer) {
    free(buffer->data);
    *buffer = (byte_buffer){0};
}
