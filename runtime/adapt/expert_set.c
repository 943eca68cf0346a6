/// A folder of expert files.
#include "adapt/expert.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct zs_expert_set {
    zs_expert **experts; // [count], sorted by name
    uint32_t count;
    zs_expert *dispatcher;
};

static bool is_expert_file(const char *name) {
    static const char suffix[] = ".safetensors";
    size_t length = strlen(name), tail = sizeof suffix - 1;
    return name[0] != '.' && length > tail && strcmp(name + length - tail, suffix) == 0;
}

static zs_status add(zs_expert_set *set, zs_expert *expert, const char *path, zs_error *error) {
    const char *name = expert->file.name;
    zs_status status = ZS_OK;
    if (!*name || strlen(name) > 63 || strcmp(name, "other") == 0)
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: an expert in a folder needs a name of 1 to 63 bytes other than 'other'", path);
    else if (zs_expert_set_find(set, name))
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: there is another expert named %s in its folder", path, name);
    else if (expert->file.dispatcher && set->dispatcher)
        status =
            zs_error_set(error, ZS_ERROR_FORMAT, "%s: there is another dispatcher in its folder (%s)", path, set->dispatcher->file.name);
    if (!status && expert->file.dispatcher) {
        set->dispatcher = expert;
        return ZS_OK;
    }
    zs_expert **grown = status ? NULL : realloc(set->experts, (set->count + 1) * sizeof *grown);
    if (!grown) {
        if (!status) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for experts");
        zs_expert_destroy(&expert);
        return status;
    }
    set->experts = grown;
    set->experts[set->count++] = expert;
    return ZS_OK;
}

static int compare_experts(const void *a, const void *b) {
    return strcmp((*(zs_expert *const *)a)->file.name, (*(zs_expert *const *)b)->file.name);
}

static zs_status read_folder(DIR *folder, const char *path, zs_expert_set *set, zs_error *error) {
    zs_status status = ZS_OK;
    for (struct dirent *entry; !status && (entry = readdir(folder));) {
        if (!is_expert_file(entry->d_name)) continue;
        size_t size = strlen(path) + strlen(entry->d_name) + 2;
        char *file = malloc(size);
        if (!file) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for experts");
        snprintf(file, size, "%s/%s", path, entry->d_name);
        zs_expert *expert = NULL;
        status = zs_expert_load(file, &expert, error);
        if (!status) status = add(set, expert, file, error);
        free(file);
    }
    if (!status && set->count == 0) status = zs_error_set(error, ZS_ERROR_ARGUMENT, "%s holds no experts (*.safetensors)", path);
    return status;
}

zs_status zs_expert_set_load(const char *path, zs_expert_set **out, zs_error *error) {
    DIR *folder = opendir(path);
    if (!folder) return zs_error_set(error, ZS_ERROR_IO, "cannot open the experts' folder %s: %s", path, strerror(errno));
    zs_expert_set *set = calloc(1, sizeof *set);
    zs_status status = set ? read_folder(folder, path, set, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for experts");
    closedir(folder);
    if (status) {
        zs_expert_set_destroy(&set);
        return status;
    }
    qsort(set->experts, set->count, sizeof(zs_expert *), compare_experts);
    *out = set;
    return ZS_OK;
}

void zs_expert_set_destroy(zs_expert_set **handle) {
    zs_expert_set *set = *handle;
    if (!set) return;
    *handle = NULL;
    for (uint32_t i = 0; i < set->count; i++) zs_expert_destroy(&set->experts[i]);
    zs_expert_destroy(&set->dispatcher);
    free(set->experts);
    free(set);
}

uint32_t zs_expert_set_count(const zs_expert_set *set) { return set->count; }
const zs_expert *zs_expert_set_get(const zs_expert_set *set, uint32_t i) { return i < set->count ? set->experts[i] : NULL; }
const zs_expert *zs_expert_set_dispatcher(const zs_expert_set *set) { return set->dispatcher; }

const zs_expert *zs_expert_set_find(const zs_expert_set *set, const char *name) {
    for (uint32_t i = 0; i < set->count; i++) {
        if (strcmp(set->experts[i]->file.name, name) == 0) return set->experts[i];
    }
    return NULL;
}

zs_status zs_expert_set_shuffle(zs_expert_set *set, uint64_t seed, zs_error *error) {
    zs_status status = set->dispatcher ? zs_expert_shuffle(set->dispatcher, seed, error) : ZS_OK;
    for (uint32_t i = 0; i < set->count && !status; i++) status = zs_expert_shuffle(set->experts[i], seed, error);
    return status;
}
