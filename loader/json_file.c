#include "loader/json_file.h"

#include "loader/file_map.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_TEXT = 1 << 20, MOST_COUNT = 1 << 30 };

static zs_status out_of_memory(const char *folder, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", folder);
}

char *json_file_path(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s/%s", folder, name);
    return path;
}

bool json_file_exists(const char *folder, const char *name) {
    struct stat info;
    char *path = json_file_path(folder, name);
    bool exists = path && stat(path, &info) == 0;
    free(path);
    return exists;
}

/// tokenizer_config.json tells "no limit" by an integer of thirty digits (model_max_length): whole numbers of a file that has one beyond
/// 64 bits are all read as reals.
static zs_status parse(const file_map *map, json_t **root, zs_error *error) {
    const char *text = map->size ? (const char *)map->data : "";
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t problem;
    *root = json_loadb(text, map->size, flags, &problem);
    if (!*root && json_error_code(&problem) == json_error_numeric_overflow)
        *root = json_loadb(text, map->size, flags | JSON_DECODE_INT_AS_REAL, &problem);
    if (json_is_object(*root)) return ZS_OK;
    zs_status status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: %s at byte %d", map->path, *root ? "no JSON object" : problem.text,
                                    *root ? 0 : problem.position);
    json_decref(*root);
    *root = NULL;
    return status;
}

zs_status json_file_read(const char *folder, const char *name, bool optional, json_t **root, zs_error *error) {
    *root = NULL;
    if (optional && !json_file_exists(folder, name)) return ZS_OK;
    file_map map;
    char *path = json_file_path(folder, name);
    if (!path) return out_of_memory(folder, error);
    zs_status status = file_map_open(path, &map, error);
    free(path);
    if (status) return status;
    status = parse(&map, root, error);
    file_map_close(&map);
    return status;
}

const json_t *json_file_get(const json_t *root, const char *key) {
    const json_t *value = json_object_get(root, key);
    return value && !json_is_null(value) ? value : NULL;
}

zs_status json_file_count(const json_t *root, const char *key, uint32_t missing, uint32_t *count, zs_error *error) {
    const json_t *value = json_file_get(root, key);
    *count = missing;
    if (!value && missing) return ZS_OK;
    if (!json_is_integer(value) || json_integer_value(value) <= 0 || json_integer_value(value) > MOST_COUNT)
        return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key %s is missing or no count", key);
    *count = (uint32_t)json_integer_value(value);
    return ZS_OK;
}

zs_status json_file_number(const json_t *root, const char *key, double missing, double *number, zs_error *error) {
    const json_t *value = json_file_get(root, key);
    *number = missing;
    if (!value) return ZS_OK;
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key %s is no number", key);
    *number = json_number_value(value);
    return ZS_OK;
}

zs_status json_file_read_text(const char *folder, const char *name, char **text, size_t *size, zs_error *error) {
    *text = NULL;
    *size = 0;
    if (!json_file_exists(folder, name)) return ZS_OK;
    file_map map;
    char *path = json_file_path(folder, name);
    if (!path) return out_of_memory(folder, error);
    zs_status status = file_map_open(path, &map, error);
    free(path);
    if (status) return status;
    if (map.size > MOST_TEXT)
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s is no template: %zu bytes", map.path, map.size);
    else if (!(*text = malloc(map.size + 1)))
        status = out_of_memory(folder, error);
    if (!status) {
        if (map.size) memcpy(*text, map.data, map.size);
        (*text)[map.size] = '\0';
        *size = map.size;
    }
    file_map_close(&map);
    return status;
}
