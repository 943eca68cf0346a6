#include "loader/file_output.h"
#include "loader/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };

typedef struct bytes {
    uint8_t *data;
    size_t size, capacity;
} bytes;

struct gguf_writer {
    file_output *file;
    bytes keys, tensors; // encoded
    uint64_t key_count, tensor_count;
    uint64_t *sizes; // of each tensor's data
    size_t next;     // tensor to be written
    uint64_t offset; // of the next tensor's data, or the data written so far
    bool out_of_memory;
};

static void append(gguf_writer *w, bytes *to, const void *data, size_t size) {
    if (to->capacity - to->size < size) {
        size_t capacity = 2 * (to->size + size) + 256;
        uint8_t *grown = realloc(to->data, capacity);
        if (!grown) {
            w->out_of_memory = true;
            return;
        }
        to->data = grown;
        to->capacity = capacity;
    }
    if (size) memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void append_u32(gguf_writer *w, bytes *to, uint32_t value) { append(w, to, &value, sizeof value); }
static void append_u64(gguf_writer *w, bytes *to, uint64_t value) { append(w, to, &value, sizeof value); }

static void append_string(gguf_writer *w, bytes *to, const char *text, size_t size) {
    append_u64(w, to, size);
    append(w, to, text, size);
}

zs_status gguf_writer_create(const char *path, bool force, gguf_writer **writer, zs_error *error) {
    gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while creating %s", path);
    zs_status status = file_output_create(path, force, &w->file, error);
    if (status)
        free(w);
    else
        *writer = w;
    return status;
}

static void add_key(gguf_writer *w, const char *key, size_t size, uint32_t type) {
    append_string(w, &w->keys, key, size);
    append_u32(w, &w->keys, type);
    w->key_count++;
}

void gguf_writer_copy_value(gguf_writer *w, const gguf_value *value) {
    add_key(w, value->key.data, value->key.size, value->type);
    if (value->type == GGUF_ARRAY) {
        append_u32(w, &w->keys, value->element_type);
        append_u64(w, &w->keys, value->count);
    }
    append(w, &w->keys, value->data, value->size);
}

void gguf_writer_add_string(gguf_writer *w, const char *key, const char *value) {
    add_key(w, key, strlen(key), GGUF_STRING);
    append_string(w, &w->keys, value, strlen(value));
}

void gguf_writer_add_u32(gguf_writer *w, const char *key, uint32_t value) {
    add_key(w, key, strlen(key), GGUF_U32);
    append_u32(w, &w->keys, value);
}

void gguf_writer_add_strings(gguf_writer *w, const char *key, const char *const *values, size_t count) {
    add_key(w, key, strlen(key), GGUF_ARRAY);
    append_u32(w, &w->keys, GGUF_STRING);
    append_u64(w, &w->keys, count);
    for (size_t i = 0; i < count; i++) append_string(w, &w->keys, values[i], strlen(values[i]));
}

void gguf_writer_add_tensor(gguf_writer *w, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape) {
    uint64_t elements = 1;
    append_string(w, &w->tensors, name, strlen(name));
    append_u32(w, &w->tensors, dims);
    for (uint32_t i = 0; i < dims; i++) {
        append_u64(w, &w->tensors, shape[dims - 1 - i]);
        elements *= shape[i];
    }
    append_u32(w, &w->tensors, type);
    append_u64(w, &w->tensors, w->offset);
    uint64_t *sizes = realloc(w->sizes, (w->tensor_count + 1) * sizeof *sizes);
    if (!sizes) {
        w->out_of_memory = true;
        return;
    }
    w->sizes = sizes;
    sizes[w->tensor_count++] = tensor_type_bytes(type, elements);
    w->offset += (sizes[w->tensor_count - 1] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static zs_status pad(gguf_writer *w, uint64_t size, zs_error *error) {
    static const uint8_t zeros[ALIGNMENT];
    return file_output_write(w->file, zeros, (size_t)((ALIGNMENT - size % ALIGNMENT) % ALIGNMENT), error);
}

static void append_header(gguf_writer *w, bytes *to) {
    append(w, to, "GGUF", 4);
    append_u32(w, to, 3);
    append_u64(w, to, w->tensor_count);
    append_u64(w, to, w->key_count);
}

zs_status gguf_writer_start(gguf_writer *w, zs_error *error) {
    bytes header = {0};
    append_header(w, &header);
    if (w->out_of_memory) {
        free(header.data);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing a GGUF header");
    }
    zs_status status = file_output_write(w->file, header.data, header.size, error);
    if (!status) status = file_output_write(w->file, w->keys.data, w->keys.size, error);
    if (!status) status = file_output_write(w->file, w->tensors.data, w->tensors.size, error);
    if (!status) status = pad(w, header.size + w->keys.size + w->tensors.size, error);
    free(header.data);
    return status;
}

zs_status gguf_writer_write(gguf_writer *w, const void *data, size_t size, zs_error *error) {
    if (w->next >= w->tensor_count || w->sizes[w->next] != size)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "tensor %zu of a GGUF file: %zu bytes written, %llu announced", w->next, size,
                            (unsigned long long)(w->next < w->tensor_count ? w->sizes[w->next] : 0));
    w->next++;
    zs_status status = file_output_write(w->file, data, size, error);
    return status ? status : pad(w, size, error);
}

static void release(gguf_writer *w) {
    free(w->keys.data);
    free(w->tensors.data);
    free(w->sizes);
    free(w);
}

zs_status gguf_writer_finish(gguf_writer **writer, zs_error *error) {
    gguf_writer *w = *writer;
    *writer = NULL;
    zs_status status = ZS_OK;
    if (w->next != w->tensor_count) {
        status = zs_error_set(error, ZS_ERROR_ARGUMENT, "%zu of %llu tensors of a GGUF file were written", w->next,
                              (unsigned long long)w->tensor_count);
        file_output_discard(&w->file);
    } else {
        status = file_output_commit(&w->file, error);
    }
    release(w);
    return status;
}

void gguf_writer_discard(gguf_writer **writer) {
    if (!*writer) return;
    if ((*writer)->file) file_output_discard(&(*writer)->file);
    release(*writer);
    *writer = NULL;
}

// ---- keys in memory ------------------------------------------------------------------------------------------------

zs_status gguf_writer_create_keys(gguf_writer **writer, zs_error *error) {
    *writer = calloc(1, sizeof **writer);
    return *writer ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading a model");
}

void gguf_writer_add_bool(gguf_writer *w, const char *key, bool value) {
    const uint8_t byte = value;
    add_key(w, key, strlen(key), GGUF_BOOL);
    append(w, &w->keys, &byte, 1);
}

void gguf_writer_add_f32(gguf_writer *w, const char *key, float value) {
    add_key(w, key, strlen(key), GGUF_F32);
    append(w, &w->keys, &value, sizeof value);
}

void gguf_writer_add_text(gguf_writer *w, const char *key, gguf_string value) {
    add_key(w, key, strlen(key), GGUF_STRING);
    append_string(w, &w->keys, value.data, value.size);
}

void gguf_writer_add_texts(gguf_writer *w, const char *key, const gguf_string *values, size_t count) {
    add_key(w, key, strlen(key), GGUF_ARRAY);
    append_u32(w, &w->keys, GGUF_STRING);
    append_u64(w, &w->keys, count);
    for (size_t i = 0; i < count; i++) append_string(w, &w->keys, values[i].data, values[i].size);
}

void gguf_writer_add_words(gguf_writer *w, const char *key, gguf_value_type type, const void *values, size_t count) {
    add_key(w, key, strlen(key), GGUF_ARRAY);
    append_u32(w, &w->keys, type);
    append_u64(w, &w->keys, count);
    append(w, &w->keys, values, 4 * count);
}

/// Everything written as one image, which the caller frees.
static zs_status take_image(gguf_writer *w, bytes *image, zs_error *error) {
    append_header(w, image);
    if (w->keys.size) append(w, image, w->keys.data, w->keys.size);
    return w->out_of_memory ? zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading a model") : ZS_OK;
}

zs_status gguf_writer_open(gguf_writer **writer, const char *path, gguf_file *file, zs_error *error) {
    bytes image = {0};
    char *copy = malloc(strlen(path) + 1);
    zs_status status = take_image(*writer, &image, error);
    if (!status && !copy) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path);
    gguf_writer_discard(writer);
    if (!status) status = gguf_open_memory(image.data, image.size, file, error);
    if (status) {
        free(image.data);
        free(copy);
        return status;
    }
    file->image = image.data;
    file->map.path = strcpy(copy, path);
    return ZS_OK;
}
