#include "support/gguf_image.h"

#include <string.h>

enum { MOST_ZEROS = 1 << 20 };

void gguf_image_value(gguf_image *image, const char *key, uint32_t type, const void *value, size_t size) {
    byte_buffer_put_string(&image->keys, key, strlen(key));
    byte_buffer_put_u32(&image->keys, type);
    byte_buffer_put(&image->keys, value, size);
    image->key_count++;
}

void gguf_image_u32(gguf_image *image, const char *key, uint32_t value) { gguf_image_value(image, key, GGUF_U32, &value, sizeof value); }
void gguf_image_f32(gguf_image *image, const char *key, float value) { gguf_image_value(image, key, GGUF_F32, &value, sizeof value); }

void gguf_image_string(gguf_image *image, const char *key, const char *value) {
    gguf_image_value(image, key, GGUF_STRING, NULL, 0);
    byte_buffer_put_string(&image->keys, value, strlen(value));
}

void gguf_image_array(gguf_image *image, const char *key, uint32_t element_type, uint64_t count, const void *elements, size_t size) {
    gguf_image_value(image, key, GGUF_ARRAY, NULL, 0);
    byte_buffer_put_u32(&image->keys, element_type);
    byte_buffer_put_u64(&image->keys, count);
    byte_buffer_put(&image->keys, elements, size);
}

void gguf_image_strings(gguf_image *image, const char *key, const char *const *values, size_t count) {
    gguf_image_array(image, key, GGUF_STRING, count, NULL, 0);
    for (size_t i = 0; i < count; i++) byte_buffer_put_string(&image->keys, values[i], strlen(values[i]));
}

static void align(byte_buffer *buffer, size_t alignment) {
    byte_buffer_put_zeros(buffer, (alignment - buffer->size % alignment) % alignment);
}

void gguf_image_tensor(gguf_image *image, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape, const void *data) {
    uint64_t elements = 1;
    align(&image->data, image->alignment ? image->alignment : 32);
    byte_buffer_put_string(&image->infos, name, strlen(name));
    byte_buffer_put_u32(&image->infos, dims);
    for (uint32_t i = 0; i < dims; i++) {
        byte_buffer_put_u64(&image->infos, shape[dims - 1 - i]);
        elements *= shape[i];
    }
    byte_buffer_put_u32(&image->infos, type);
    byte_buffer_put_u64(&image->infos, image->data.size);
    size_t size = (size_t)tensor_type_bytes(type, elements);
    if (data)
        byte_buffer_put(&image->data, data, size);
    else
        byte_buffer_put_zeros(&image->data, size < MOST_ZEROS ? size : MOST_ZEROS);
    image->tensor_count++;
}

byte_buffer gguf_image_finish(gguf_image *image) {
    byte_buffer file = {0};
    byte_buffer_put(&file, "GGUF", 4);
    byte_buffer_put_u32(&file, 3);
    byte_buffer_put_u64(&file, image->tensor_count);
    byte_buffer_put_u64(&file, image->key_count);
    byte_buffer_put(&file, image->keys.data, image->keys.size);
    byte_buffer_put(&file, image->infos.data, image->infos.size);
    if (image->tensor_count) align(&file, image->alignment ? image->alignment : 32);
    byte_buffer_put(&file, image->data.data, image->data.size);
    byte_buffer_free(&image->keys);
    byte_buffer_free(&image->infos);
    byte_buffer_free(&image->data);
    *image = (gguf_image){0};
    return file;
}
