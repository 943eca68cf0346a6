#include "settings.h"
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const uint64_t hash_start = 0xcbf29ce484222325u;

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u; // FNV-1a
    return hash;
}

static uint64_t hash_expert(uint64_t hash, const zs_expert *expert) {
    const char *name;
    const float *values;
    uint32_t rank;
    for (uint32_t i = 0; expert && zs_expert_matrix(expert, i, &name, &rank, &values); i++) {
        hash = hash_bytes(hash, name, strlen(name));
        hash = hash_bytes(hash, values, rank * sizeof *values);
    }
    return hash;
}

static json_t *hex(uint64_t hash) { return json_sprintf("%016llx", (unsigned long long)hash); }

json_t *settings_items(const data_item *items, size_t count) {
    uint64_t hash = hash_start;
    for (size_t i = 0; i < count; i++) {
        char *text = json_dumps(items[i].root, JSON_COMPACT | JSON_SORT_KEYS);
        if (text) hash = hash_bytes(hash, text, strlen(text));
        free(text);
    }
    return hex(hash);
}

json_t *settings_experts(const zs_expert_set *experts, const zs_expert *another) {
    uint64_t hash = hash_expert(hash_start, another);
    for (uint32_t i = 0; experts && i < zs_expert_set_count(experts); i++) hash = hash_expert(hash, zs_expert_set_get(experts, i));
    return hex(experts ? hash_expert(hash, zs_expert_set_dispatcher(experts)) : hash);
}

uint64_t settings_file_bytes(const char *path) {
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_size;
}

void settings_add_engine(json_t *settings, const zs_engine *engine) {
    const zs_engine_info *info = zs_engine_get_info(engine);
    json_object_set_new(settings, "precision", json_string(cli_precision_name(info->precision)));
    json_object_set_new(settings, "kv", json_string(cli_kv_name(info->kv)));
    json_object_set_new(settings, "mode", json_string(info->mode));
    json_object_set_new(settings, "context", json_integer(info->context));
}

zs_status settings_check(const json_t *now, const json_t *then, const char *path, zs_error *error) {
    const char *key;
    json_t *is;
    json_object_foreach((json_t *)(uintptr_t)now, key, is) {
        const json_t *was = json_object_get(then, key);
        if (was && json_equal(was, is)) continue;
        char *old = was ? json_dumps(was, JSON_ENCODE_ANY) : NULL, *new = json_dumps(is, JSON_ENCODE_ANY);
        zs_status status =
            zs_error_set(error, ZS_ERROR_EXISTS,
                         "%s was made with other settings: %s was %.200s and is %.200s; choose another -o, or --force to begin anew", path,
                         key, old ? old : "not there", new ? new : "?");
        free(old);
        free(new);
        return status;
    }
    return ZS_OK;
}
