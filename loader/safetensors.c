#include "loader/file_output.h"
#include "loader/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100 << 20, MAX_DIMS = 8 };

static const char *path_of(const safetensors_file *file) { return file->map.path ? file->map.path : "safetensors data"; }

static char *copy_string(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static bool type_from_name(const char *name, uint32_t *type) {
    static const struct {
        const char *name;
        uint32_t type;
    } types[] = {{"F32", TENSOR_F32}, {"F16", TENSOR_F16}, {"BF16", TENSOR_BF16}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(name, types[i].name) == 0) {
            *type = types[i].type;
            return true;
        }
    }
    return false;
}

static bool read_u64(const json_t *value, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static zs_status tensor_error(const safetensors_file *file, const char *name, zs_status status, const char *what, zs_error *error) {
    return zs_error_set(error, status, "%s: tensor %s %s", path_of(file), name, what);
}

static zs_status read_shape(const safetensors_file *file, const json_t *shape, safetensors_tensor *t, zs_error *error) {
    if (!json_is_array(shape) || json_array_size(shape) > MAX_DIMS)
        return tensor_error(file, t->name, ZS_ERROR_FORMAT, "has no shape or more than 8 dimensions", error);
    t->dims = (uint32_t)json_array_size(shape);
    t->elements = 1;
    for (uint32_t i = 0; i < t->dims; i++) {
        if (!read_u64(json_array_get(shape, i), &t->shape[i]) || (t->shape[i] && t->elements > INT64_MAX / t->shape[i]))
            return tensor_error(file, t->name, ZS_ERROR_FORMAT, "has an absurd shape", error);
        t->elements *= t->shape[i];
    }
    return ZS_OK;
}

static zs_status read_tensor(const safetensors_file *file, const char *name, const json_t *entry, const uint8_t *data, uint64_t data_size,
                             safetensors_tensor *t, zs_error *error) {
    t->name = copy_string(name);
    if (!t->name) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!type) return tensor_error(file, name, ZS_ERROR_FORMAT, "has no dtype", error);
    if (!type_from_name(type, &t->type))
        return tensor_error(file, name, ZS_ERROR_UNSUPPORTED, "has a dtype other than F32, F16, BF16", error);
    zs_status status = read_shape(file, json_object_get(entry, "shape"), t, error);
    if (status) return status;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !read_u64(json_array_get(offsets, 0), &begin) ||
        !read_u64(json_array_get(offsets, 1), &end))
        return tensor_error(file, name, ZS_ERROR_FORMAT, "has no data_offsets", error);
    t->size = tensor_type_bytes(t->type, t->elements);
    if (t->elements && !t->size) return tensor_error(file, t->name, ZS_ERROR_FORMAT, "has an absurd shape", error);
    if (begin > end || end > data_size || end - begin != t->size)
        return zs_error_set(error, ZS_ERROR_FORMAT,
                            "%s: tensor %s (bytes %llu to %llu of %llu) does not fit its shape or the file: it is truncated or damaged",
                            path_of(file), name, (unsigned long long)begin, (unsigned long long)end, (unsigned long long)data_size);
    if (begin % tensor_type_get_info(t->type)->block_bytes)
        return tensor_error(file, name, ZS_ERROR_FORMAT, "is not aligned to its type", error);
    t->data = data + begin;
    return ZS_OK;
}

static zs_status read_meta(safetensors_file *file, json_t *meta, zs_error *error) {
    const char *key;
    json_t *value;
    if (!json_is_object(meta)) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: __metadata__ is no object", path_of(file));
    file->meta = calloc(json_object_size(meta) + 1, sizeof *file->meta);
    if (!file->meta) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    json_object_foreach(meta, key, value) {
        safetensors_meta *m = &file->meta[file->meta_count++];
        if (!json_is_string(value)) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: metadata %s is no string", path_of(file), key);
        m->key = copy_string(key);
        m->value = copy_string(json_string_value(value));
        if (!m->key || !m->value) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    }
    return ZS_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_tensor *)a)->name, ((const safetensors_tensor *)b)->name);
}
static int by_place(const void *a, const void *b) {
    const safetensors_tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data ? 1 : (x->size > y->size) - (x->size < y->size);
}

static zs_status check_overlap(safetensors_file *file, zs_error *error) {
    qsort(file->tensors, file->tensor_count, sizeof *file->tensors, by_place);
    for (size_t i = 1; i < file->tensor_count; i++) {
        const safetensors_tensor *before = &file->tensors[i - 1];
        if ((const uint8_t *)before->data + before->size > (const uint8_t *)file->tensors[i].data)
            return tensor_error(file, file->tensors[i].name, ZS_ERROR_FORMAT, "overlaps another", error);
    }
    qsort(file->tensors, file->tensor_count, sizeof *file->tensors, by_name);
    return ZS_OK;
}

static zs_status read_header(safetensors_file *file, json_t *root, uint64_t header_size, zs_error *error) {
    const char *name;
    json_t *entry;
    file->tensors = calloc(json_object_size(root) + 1, sizeof *file->tensors);
    if (!file->tensors) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    zs_status status = ZS_OK;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            status = read_meta(file, entry, error);
        else
            status = read_tensor(file, name, entry, file->map.data + 8 + header_size, file->map.size - 8 - header_size,
                                 &file->tensors[file->tensor_count++], error);
        if (status) return status;
    }
    return check_overlap(file, error);
}

static zs_status parse(safetensors_file *file, zs_error *error) {
    uint64_t header_size;
    if (file->map.size < 8)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no safetensors file: %zu bytes", path_of(file), file->map.size);
    memcpy(&header_size, file->map.data, 8);
    if (header_size > MAX_HEADER || header_size > file->map.size - 8)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no safetensors file, or truncated: a header of %llu bytes in a file of %zu",
                            path_of(file), (unsigned long long)header_size, file->map.size);
    json_error_t problem;
    json_t *root = json_loadb((const char *)file->map.data + 8, (size_t)header_size, JSON_REJECT_DUPLICATES, &problem);
    zs_status status;
    if (!json_is_object(root))
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: the header is no JSON object: %s at byte %d", path_of(file),
                              root ? "another value" : problem.text, root ? 8 : 8 + problem.position);
    else
        status = read_header(file, root, header_size, error);
    json_decref(root);
    return status;
}

zs_status safetensors_open(const char *path, safetensors_file *file, zs_error *error) {
    *file = (safetensors_file){0};
    zs_status status = file_map_open(path, &file->map, error);
    if (!status) status = parse(file, error);
    if (status) safetensors_close(file);
    return status;
}

zs_status safetensors_open_memory(const void *data, size_t size, safetensors_file *file, zs_error *error) {
    *file = (safetensors_file){.map = {.data = data, .size = size}};
    zs_status status = parse(file, error);
    if (status) safetensors_close(file);
    return status;
}

void safetensors_close(safetensors_file *file) {
    for (size_t i = 0; i < file->tensor_count; i++) free(file->tensors[i].name);
    for (size_t i = 0; i < file->meta_count; i++) {
        free(file->meta[i].key);
        free(file->meta[i].value);
    }
    free(file->tensors);
    free(file->meta);
    file_map_close(&file->map);
    *file = (safetensors_file){0};
}

const safetensors_tensor *safetensors_find(const safetensors_file *file, const char *name) {
    size_t low = 0, high = file->tensor_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name, file->tensors[middle].name);
        if (order == 0) return &file->tensors[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *safetensors_find_meta(const safetensors_file *file, const char *key) {
    for (size_t i = 0; i < file->meta_count; i++) {
        if (strcmp(file->meta[i].key, key) == 0) return file->meta[i].value;
    }
    return NULL;
}

/// The header as JSON text, padded with spaces to a multiple of 8; NULL when a text is no UTF-8, a name occurs twice or
/// memory runs out.
static char *make_header(const safetensors_entry *entries, size_t count, const safetensors_meta *meta, size_t meta_count, size_t *size) {
    json_t *root = json_object(), *metadata = json_object();
    bool complete = true;
    for (size_t i = 0; i < meta_count; i++) complete &= json_object_set_new(metadata, meta[i].key, json_string(meta[i].value)) == 0;
    json_object_set_new(root, "__metadata__", metadata);
    json_int_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        json_t *shape = json_array();
        json_int_t elements = 1;
        for (uint32_t d = 0; d < entries[i].dims; d++) {
            json_array_append_new(shape, json_integer((json_int_t)entries[i].shape[d]));
            elements *= (json_int_t)entries[i].shape[d];
        }
        json_int_t end = offset + elements * (json_int_t)sizeof(float);
        complete &= !json_object_get(root, entries[i].name);
        complete &= json_object_set_new(root, entries[i].name,
                                        json_pack("{s:s, s:o, s:[I,I]}", "dtype", "F32", "shape", shape, "data_offsets", offset, end)) == 0;
        offset = end;
    }
    char *text = complete ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text) return NULL;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *grown = realloc(text, padded + 1);
    if (!grown) {
        free(text);
        return NULL;
    }
    memset(grown + length, ' ', padded - length);
    *size = padded;
    return grown;
}

zs_status safetensors_save(const char *path, bool force, const safetensors_entry *entries, size_t count, const safetensors_meta *meta,
                           size_t meta_count, zs_error *error) {
    file_output *file = NULL;
    zs_status status = file_output_create(path, force, &file, error);
    if (status) return status;
    size_t size = 0;
    char *header = make_header(entries, count, meta, meta_count, &size);
    if (!header) {
        status = zs_error_set(error, ZS_ERROR_ARGUMENT,
                              "cannot write %s: a name occurs twice, or a name or metadata is no UTF-8 text (or memory ran out)", path);
        goto done;
    }
    uint64_t wide = size;
    status = file_output_write(file, &wide, sizeof wide, error);
    if (!status) status = file_output_write(file, header, size, error);
    for (size_t i = 0; i < count && !status; i++) {
        size_t elements = 1;
        for (uint32_t d = 0; d < entries[i].dims; d++) elements *= (size_t)entries[i].shape[d];
        status = file_output_write(file, entries[i].data, elements * sizeof(float), error);
    }
    if (!status) status = file_output_commit(&file, error);
done:
    free(header);
    file_output_discard(&file);
    return status;
}
