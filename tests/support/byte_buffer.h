/// Bytes put together one after another, for files made in memory. Running out of memory aborts.
#ifndef SUPPORT_BYTE_BUFFER_H
#define SUPPORT_BYTE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

typedef struct byte_buffer {
    uint8_t *data; // malloc'ed
    size_t size, capacity;
} byte_buffer;

void byte_buffer_put(byte_buffer *buffer, const void *data, size_t size);
void byte_buffer_put_zeros(byte_buffer *buffer, size_t size);
void byte_buffer_put_u32(byte_buffer *buffer, uint32_t value);
void byte_buffer_put_u64(byte_buffer *buffer, uint64_t value);
/// GGUF's strings: u64 length, then the bytes.
void byte_buffer_put_string(byte_buffer *buffer, const char *text, size_t size);
void byte_buffer_free(byte_buffer *buffer);

#endif
