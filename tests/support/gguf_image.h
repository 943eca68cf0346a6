/// A GGUF file put together in memory, by the format's description and not by the project's writer: sound or, where a
/// test wants it, nonsense.
#ifndef SUPPORT_GGUF_IMAGE_H
#define SUPPORT_GGUF_IMAGE_H

#include "loader/gguf.h"
#include "support/byte_buffer.h"

typedef struct gguf_image {
    byte_buffer keys, infos, data;
    uint64_t key_count, tensor_count;
    uint32_t alignment; // of the data; 0: 32, without a key that says so
} gguf_image;

/// A key with a value of size bytes as the file holds it.
void gguf_image_value(gguf_image *image, const char *key, uint32_t type, const void *value, size_t size);
void gguf_image_u32(gguf_image *image, const char *key, uint32_t value);
void gguf_image_f32(gguf_image *image, const char *key, float value);
void gguf_image_string(gguf_image *image, const char *key, const char *value);
void gguf_image_array(gguf_image *image, const char *key, uint32_t element_type, uint64_t count, const void *elements, size_t size);
void gguf_image_strings(gguf_image *image, const char *key, const char *const *values, size_t count);
/// shape row-major. data NULL: zeros, a mebibyte at most (absurd sizes stay claims). An unknown type has no
/// data.
void gguf_image_tensor(gguf_image *image, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape, const void *data);
/// The whole file, to be freed with byte_buffer_free. Empties the image.
byte_buffer gguf_image_finish(gguf_image *image);

#endif
