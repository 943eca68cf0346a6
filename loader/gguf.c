#include "loader/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DIMS = 4, MAX_NAME = 64, MIN_VALUE_BYTES = 8 + 4 + 1, MIN_TENSOR_BYTES = 8 + 4 + 4 + 8 };

/// A place in the map, moved forward by checked reads.
typedef struct reader {
    const uint8_t *data;
    size_t size, at;
    const char *path;
    zs_error *error;
} reader;

static zs_status truncated(const reader *r, const char *what) {
    return zs_error_set(r->error, ZS_ERROR_FORMAT, "%s: the file ends inside %s at byte %zu of %zu: it is truncated or damaged", r->path,
                        what, r->at, r->size);
}

static zs_status take(reader *r, size_t size, const char *what, const uint8_t **bytes) {
    if (size > r->size - r->at) return truncated(r, what);
    *bytes = r->data + r->at;
    r->at += size;
    return ZS_OK;
}

static zs_status take_u32(reader *r, const char *what, uint32_t *value) {
    const uint8_t *bytes = NULL;
    zs_status status = take(r, sizeof *value, what, &bytes);
    if (!status) memcpy(value, bytes, sizeof *value);
    return status;
}

static zs_status take_u64(reader *r, const char *what, uint64_t *value) {
    const uint8_t *bytes = NULL;
    zs_status status = take(r, sizeof *value, what, &bytes);
    if (!status) memcpy(value, bytes, sizeof *value);
    return status;
}

static zs_status take_string(reader *r, const char *what, gguf_string *string) {
    uint64_t size;
    zs_status status = take_u64(r, what, &size);
    if (status) return status;
    if (size > r->size - r->at) return truncated(r, what);
    string->data = (const char *)r->data + r->at;
    string->size = (size_t)size;
    r->at += string->size;
    return ZS_OK;
}

/// Bytes of a fixed-size type; 0 for strings, arrays and unknown ones.
static size_t scalar_size(uint32_t type) {
    static const uint8_t sizes[] = {[GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
                                    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

static zs_status skip_elements(reader *r, gguf_value *value) {
    size_t width = scalar_size(value->element_type);
    if (width) {
        if (value->count > (r->size - r->at) / width) return truncated(r, "an array");
        r->at += (size_t)value->count * width;
        return ZS_OK;
    }
    if (value->element_type != GGUF_STRING)
        return zs_error_set(r->error, ZS_ERROR_FORMAT, "%s: key %.*s: array of type %d at byte %zu", r->path, (int)value->key.size,
                            value->key.data, (int)value->element_type, r->at);
    if (value->count > (r->size - r->at) / 8) return truncated(r, "an array");
    for (uint64_t i = 0; i < value->count; i++) {
        gguf_string ignored;
        zs_status status = take_string(r, "an array of strings", &ignored);
        if (status) return status;
    }
    return ZS_OK;
}

static zs_status take_value(reader *r, gguf_value *value) {
    uint32_t type;
    zs_status status = take_string(r, "a key", &value->key);
    if (!status && (value->key.size == 0 || value->key.size > 65535))
        return zs_error_set(r->error, ZS_ERROR_FORMAT, "%s: a key of %zu bytes at byte %zu", r->path, value->key.size, r->at);
    if (!status) status = take_u32(r, "a value's type", &type);
    if (status) return status;
    value->type = (gguf_value_type)type;
    value->count = 1;
    if (type == GGUF_ARRAY) {
        uint32_t element_type;
        status = take_u32(r, "an array's type", &element_type);
        if (!status) status = take_u64(r, "an array's length", &value->count);
        if (status) return status;
        value->element_type = (gguf_value_type)element_type;
        value->data = r->data + r->at;
        status = skip_elements(r, value);
    } else if (type == GGUF_STRING) {
        gguf_string ignored;
        value->data = r->data + r->at;
        status = take_string(r, "a string", &ignored);
    } else if (scalar_size(type)) {
        status = take(r, scalar_size(type), "a value", &value->data);
    } else {
        return zs_error_set(r->error, ZS_ERROR_FORMAT, "%s: key %.*s has the unknown type %u", r->path,
                            (int)(value->key.size < 64 ? value->key.size : 64), value->key.data, type);
    }
    value->size = (size_t)(r->data + r->at - value->data);
    return status;
}

static zs_status tensor_error(const reader *r, const gguf_tensor *tensor, zs_status status, const char *what) {
    return zs_error_set(r->error, status, "%s: tensor %s: %s", r->path, tensor->name, what);
}

static zs_status take_shape(reader *r, gguf_tensor *tensor) {
    zs_status status = take_u32(r, "a tensor's dimensions", &tensor->dims);
    if (status) return status;
    if (tensor->dims == 0 || tensor->dims > MAX_DIMS) return tensor_error(r, tensor, ZS_ERROR_FORMAT, "has no or more than 4 dimensions");
    tensor->elements = 1;
    for (uint32_t i = 0; i < tensor->dims; i++) {
        uint64_t extent;
        status = take_u64(r, "a tensor's shape", &extent);
        if (status) return status;
        if (extent == 0 || extent > INT64_MAX / tensor->elements) return tensor_error(r, tensor, ZS_ERROR_FORMAT, "has an absurd shape");
        tensor->elements *= extent;
        tensor->shape[tensor->dims - 1 - i] = extent;
    }
    return ZS_OK;
}

static zs_status take_tensor(reader *r, gguf_tensor *tensor) {
    gguf_string name;
    zs_status status = take_string(r, "a tensor's name", &name);
    if (status) return status;
    if (name.size == 0 || name.size > MAX_NAME || memchr(name.data, 0, name.size))
        return zs_error_set(r->error, ZS_ERROR_FORMAT, "%s: a tensor's name of %zu bytes at byte %zu", r->path, name.size, r->at);
    memcpy(tensor->name, name.data, name.size);
    status = take_shape(r, tensor);
    if (!status) status = take_u32(r, "a tensor's type", &tensor->type);
    if (!status) status = take_u64(r, "a tensor's offset", &tensor->offset);
    if (status) return status;
    const tensor_type_info *info = tensor_type_get_info(tensor->type);
    if (!info)
        return zs_error_set(r->error, ZS_ERROR_UNSUPPORTED, "%s: tensor %s has type %u, which this version does not read", r->path,
                            tensor->name, tensor->type);
    if (tensor->shape[tensor->dims - 1] % info->block_elements)
        return tensor_error(r, tensor, ZS_ERROR_FORMAT, "has rows that are no multiple of its type's block");
    tensor->size = tensor_type_bytes(tensor->type, tensor->elements);
    return tensor->size ? ZS_OK : tensor_error(r, tensor, ZS_ERROR_FORMAT, "has an absurd size");
}

static size_t hash_name(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return (size_t)(hash ^ hash >> 32);
}

/// Index + 1 of each tensor by name; duplicates are errors.
static zs_status index_tensors(gguf_file *file, zs_error *error) {
    file->hash_size = 16;
    while (file->hash_size < 2 * file->tensor_count) file->hash_size *= 2;
    file->tensor_hash = calloc(file->hash_size, sizeof *file->tensor_hash);
    if (!file->tensor_hash) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", file->map.path);
    for (size_t i = 0; i < file->tensor_count; i++) {
        size_t slot = hash_name(file->tensors[i].name) & (file->hash_size - 1);
        while (file->tensor_hash[slot]) {
            if (strcmp(file->tensors[file->tensor_hash[slot] - 1].name, file->tensors[i].name) == 0)
                return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s occurs twice", file->map.path,
                                    gguf_tensor_origin(&file->tensors[i]));
            slot = (slot + 1) & (file->hash_size - 1);
        }
        file->tensor_hash[slot] = (uint32_t)(i + 1);
    }
    return ZS_OK;
}

static zs_status read_counts(reader *r, uint64_t *tensors, uint64_t *values) {
    const uint8_t *magic = NULL;
    uint32_t version;
    zs_status status = take(r, 4, "the header", &magic);
    if (status) return status;
    if (memcmp(magic, "GGUF", 4) != 0) return zs_error_set(r->error, ZS_ERROR_FORMAT, "%s is no GGUF file", r->path);
    status = take_u32(r, "the header", &version);
    if (!status && version != 3)
        return zs_error_set(r->error, ZS_ERROR_UNSUPPORTED, "%s: GGUF version %u; version 3 is supported", r->path, version);
    if (!status) status = take_u64(r, "the header", tensors);
    if (!status) status = take_u64(r, "the header", values);
    if (status) return status;
    if (*tensors > r->size / MIN_TENSOR_BYTES || *values > r->size / MIN_VALUE_BYTES || *tensors > UINT32_MAX / 4)
        return zs_error_set(r->error, ZS_ERROR_FORMAT,
                            "%s: claims %" PRIu64 " tensors and %" PRIu64 " keys, more than its %zu bytes can hold", r->path, *tensors,
                            *values, r->size);
    return ZS_OK;
}

/// Offsets count from the data section; turns them into places in the map.
static zs_status place_tensors(gguf_file *file, const reader *r) {
    uint64_t start = ((uint64_t)r->at + file->alignment - 1) / file->alignment * file->alignment;
    for (size_t i = 0; i < file->tensor_count; i++) {
        gguf_tensor *tensor = &file->tensors[i];
        if (tensor->offset % file->alignment) return tensor_error(r, tensor, ZS_ERROR_FORMAT, "is not aligned");
        if (start > r->size || tensor->offset > r->size - start || tensor->size > r->size - start - tensor->offset)
            return zs_error_set(r->error, ZS_ERROR_FORMAT,
                                "%s: tensor %s (%" PRIu64 " bytes at %" PRIu64
                                ") reaches past the end of the file (%zu bytes): it is truncated or damaged",
                                r->path, tensor->name, tensor->size, start + tensor->offset, r->size);
        tensor->offset += start;
        tensor->data = r->data + tensor->offset;
        tensor->mapped = file->map.path != NULL;
    }
    return ZS_OK;
}

static int compare_keys(const void *a, const void *b) {
    const gguf_string *x = *(const gguf_string *const *)a, *y = *(const gguf_string *const *)b;
    size_t size = x->size < y->size ? x->size : y->size;
    int order = size ? memcmp(x->data, y->data, size) : 0;
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/// Which of two values of one key counts, no two readers agree on.
static zs_status check_keys(const gguf_file *file, const reader *r) {
    const gguf_string **keys = malloc((file->value_count + 1) * sizeof *keys);
    if (!keys) return zs_error_set(r->error, ZS_ERROR_MEMORY, "out of memory while reading %s", r->path);
    for (size_t i = 0; i < file->value_count; i++) keys[i] = &file->values[i].key;
    qsort(keys, file->value_count, sizeof *keys, compare_keys);
    zs_status status = ZS_OK;
    for (size_t i = 1; i < file->value_count && !status; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) != 0) continue;
        status = zs_error_set(r->error, ZS_ERROR_FORMAT, "%s: key %.*s occurs twice", r->path,
                              (int)(keys[i]->size < 80 ? keys[i]->size : 80), keys[i]->data);
    }
    free(keys);
    return status;
}

static zs_status parse(gguf_file *file, zs_error *error) {
    reader r = {.data = file->map.data, .size = file->map.size, .path = file->map.path ? file->map.path : "GGUF data", .error = error};
    uint64_t tensors = 0, values = 0;
    zs_status status = read_counts(&r, &tensors, &values);
    if (status) return status;
    file->values = calloc((size_t)values + 1, sizeof *file->values);
    file->tensors = calloc((size_t)tensors + 1, sizeof *file->tensors);
    if (!file->values || !file->tensors) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", r.path);
    for (; file->value_count < values; file->value_count++) {
        status = take_value(&r, &file->values[file->value_count]);
        if (status) return status;
    }
    status = check_keys(file, &r);
    if (status) return status;
    file->alignment = 32;
    if (gguf_find_value(file, "general.alignment") && !gguf_get_u32(file, "general.alignment", &file->alignment)) file->alignment = 0;
    if (file->alignment == 0 || file->alignment > 1 << 20 || (file->alignment & (file->alignment - 1)))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: general.alignment is no power of two", r.path);
    for (; file->tensor_count < tensors; file->tensor_count++) {
        status = take_tensor(&r, &file->tensors[file->tensor_count]);
        if (status) return status;
    }
    status = place_tensors(file, &r);
    return status ? status : index_tensors(file, error);
}

zs_status gguf_open(const char *path, gguf_file *file, zs_error *error) {
    *file = (gguf_file){0};
    zs_status status = file_map_open(path, &file->map, error);
    if (!status) status = parse(file, error);
    if (status) gguf_close(file);
    return status;
}

zs_status gguf_open_memory(const void *data, size_t size, gguf_file *file, zs_error *error) {
    *file = (gguf_file){.map = {.data = data, .size = size}};
    zs_status status = parse(file, error);
    if (status) gguf_close(file);
    return status;
}

void gguf_close(gguf_file *file) {
    free(file->values);
    free(file->tensors);
    free(file->tensor_hash);
    if (file->parts) file->close_parts(file->parts);
    if (file->image) file->map.data = NULL; // not a map
    free(file->image);
    file_map_close(&file->map);
    *file = (gguf_file){0};
}

void gguf_tensor_release(const gguf_tensor *tensor) {
    if (tensor->mapped) file_map_release(tensor->data, (size_t)tensor->size);
}

const char *gguf_tensor_origin(const gguf_tensor *tensor) { return tensor->origin ? tensor->origin : tensor->name; }

zs_status gguf_adopt_tensors(gguf_file *file, gguf_tensor *tensors, size_t count, void *parts, void (*close_parts)(void *parts),
                             zs_error *error) {
    free(file->tensors);
    free(file->tensor_hash);
    file->tensor_hash = NULL;
    file->tensors = tensors;
    file->tensor_count = count;
    file->parts = parts;
    file->close_parts = close_parts;
    return index_tensors(file, error);
}

const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name) {
    size_t slot = hash_name(name) & (file->hash_size - 1);
    for (; file->tensor_hash[slot]; slot = (slot + 1) & (file->hash_size - 1)) {
        const gguf_tensor *tensor = &file->tensors[file->tensor_hash[slot] - 1];
        if (strcmp(tensor->name, name) == 0) return tensor;
    }
    return NULL;
}

const gguf_value *gguf_find_value(const gguf_file *file, const char *key) {
    size_t size = strlen(key);
    for (size_t i = 0; i < file->value_count; i++) {
        if (file->values[i].key.size == size && memcmp(file->values[i].key.data, key, size) == 0) return &file->values[i];
    }
    return NULL;
}

/// An integer of any width at p; false for other types and negative numbers.
static bool load_unsigned(gguf_value_type type, const uint8_t *p, uint64_t *value) {
    int64_t i = 0;
    switch (type) {
    case GGUF_U8: *value = *p; return true;
    case GGUF_U16: {
        uint16_t v;
        memcpy(&v, p, 2);
        *value = v;
        return true;
    }
    case GGUF_U32: {
        uint32_t v;
        memcpy(&v, p, 4);
        *value = v;
        return true;
    }
    case GGUF_U64: memcpy(value, p, 8); return true;
    case GGUF_I8: i = (int8_t)*p; break;
    case GGUF_I16: {
        int16_t v;
        memcpy(&v, p, 2);
        i = v;
        break;
    }
    case GGUF_I32: {
        int32_t v;
        memcpy(&v, p, 4);
        i = v;
        break;
    }
    case GGUF_I64: memcpy(&i, p, 8); break;
    default: return false;
    }
    *value = (uint64_t)i;
    return i >= 0;
}

static bool load_float(gguf_value_type type, const uint8_t *p, float *value) {
    double d;
    switch (type) {
    case GGUF_F32: memcpy(value, p, 4); return true;
    case GGUF_F64:
        memcpy(&d, p, 8);
        *value = (float)d;
        return true;
    default: return false;
    }
}

bool gguf_get_u64(const gguf_file *file, const char *key, uint64_t *value) {
    const gguf_value *v = gguf_find_value(file, key);
    return v && load_unsigned(v->type, v->data, value);
}

bool gguf_get_u32(const gguf_file *file, const char *key, uint32_t *value) {
    uint64_t wide;
    if (!gguf_get_u64(file, key, &wide) || wide > UINT32_MAX) return false;
    *value = (uint32_t)wide;
    return true;
}

bool gguf_get_f32(const gguf_file *file, const char *key, float *value) {
    const gguf_value *v = gguf_find_value(file, key);
    return v && load_float(v->type, v->data, value);
}

bool gguf_get_bool(const gguf_file *file, const char *key, bool *value) {
    const gguf_value *v = gguf_find_value(file, key);
    if (!v || v->type != GGUF_BOOL) return false;
    *value = *v->data != 0;
    return true;
}

bool gguf_get_string(const gguf_file *file, const char *key, gguf_string *value) {
    const gguf_value *v = gguf_find_value(file, key);
    if (!v || v->type != GGUF_STRING) return false;
    *value = (gguf_string){(const char *)v->data + 8, v->size - 8};
    return true;
}

bool gguf_array_u64(const gguf_value *array, uint64_t i, uint64_t *value) {
    if (array->type != GGUF_ARRAY || i >= array->count || !scalar_size(array->element_type)) return false;
    return load_unsigned(array->element_type, array->data + i * scalar_size(array->element_type), value);
}

bool gguf_array_f32(const gguf_value *array, uint64_t i, float *value) {
    if (array->type != GGUF_ARRAY || i >= array->count || !scalar_size(array->element_type)) return false;
    return load_float(array->element_type, array->data + i * scalar_size(array->element_type), value);
}

bool gguf_array_next_string(const gguf_value *array, size_t *cursor, gguf_string *value) {
    if (array->type != GGUF_ARRAY || array->element_type != GGUF_STRING || *cursor >= array->size) return false;
    uint64_t size;
    memcpy(&size, array->data + *cursor, sizeof size);
    *value = (gguf_string){(const char *)array->data + *cursor + 8, (size_t)size};
    *cursor += 8 + (size_t)size;
    return true;
}
