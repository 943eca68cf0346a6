#include "loader/shards.h"

#include "loader/json_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX "model.safetensors.index.json"
#define SINGLE "model.safetensors"

enum { MOST_SHARDS = 10000, LIST_BYTES = 800 };

/// Names, one after another, as long as there is room for them in a message.
typedef struct name_list {
    char text[LIST_BYTES];
    size_t count, left_out;
} name_list;

static void name_list_add(name_list *list, const char *name) {
    size_t used = strlen(list->text), size = strlen(name);
    list->count++;
    if (used + size + 3 > sizeof list->text)
        list->left_out++;
    else
        snprintf(list->text + used, sizeof list->text - used, "%s%s", used ? ", " : "", name);
}

static zs_status name_list_report(const name_list *list, const char *folder, const char *what, zs_status status, zs_error *error) {
    char more[40] = "";
    if (list->left_out) snprintf(more, sizeof more, " and %zu more", list->left_out);
    return zs_error_set(error, status, "%.120s: %s %s%s", folder, what, list->text, more);
}

static zs_status out_of_memory(const char *folder, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", folder);
}

static int by_name(const void *a, const void *b) { return strcmp(((const shard *)a)->name, ((const shard *)b)->name); }

static shard *find_shard(const shards *all, const char *name) {
    const shard key = {.name = (char *)(uintptr_t)name};
    return all->count ? bsearch(&key, all->list, all->count, sizeof *all->list, by_name) : NULL;
}

static zs_status add_shard(const char *folder, const char *name, shards *all, zs_error *error) {
    size_t size = strlen(name) + 1;
    if (all->count == 0 || (all->count & (all->count - 1)) == 0) { // full at every power of two
        shard *grown = realloc(all->list, (all->count ? 2 * all->count : 1) * sizeof *grown);
        if (!grown) return out_of_memory(folder, error);
        all->list = grown;
    }
    shard *s = &all->list[all->count];
    *s = (shard){.name = malloc(size)};
    if (!s->name) return out_of_memory(folder, error);
    memcpy(s->name, name, size);
    all->count++;
    return ZS_OK;
}

// ---- the index -----------------------------------------------------------------------------------------------------

/// A file of this folder, and nothing else.
static bool is_plain_name(const char *name) { return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < 200; }

/// The files that the index names, each once.
static zs_status list_shards(const char *folder, const json_t *map, shards *all, zs_error *error) {
    const char *tensor;
    json_t *value;
    zs_status status = ZS_OK;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        const char *name = json_string_value(value);
        if (!name || !is_plain_name(name))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s/" INDEX ": the place of tensor %.80s is no file's name in this folder", folder,
                                tensor);
        bool known = false;
        for (size_t i = all->count; i-- > 0 && !known;) known = strcmp(all->list[i].name, name) == 0; // the last ones come again first
        if (!known && all->count >= MOST_SHARDS)
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s/" INDEX " names more than %d files", folder, MOST_SHARDS);
        if (!known) status = add_shard(folder, name, all, error);
        if (status) return status;
    }
    if (all->count == 0) return zs_error_set(error, ZS_ERROR_FORMAT, "%s/" INDEX " has no weight_map, or an empty one", folder);
    qsort(all->list, all->count, sizeof *all->list, by_name);
    return ZS_OK;
}

/// What the index lists must be where it says.
static zs_status check_listed(const char *folder, const json_t *map, const shards *all, zs_error *error) {
    name_list missing = {0};
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        char place[520];
        const shard *s = find_shard(all, json_string_value(value));
        if (s && safetensors_find(&s->file, tensor)) continue;
        snprintf(place, sizeof place, "%.255s (%.200s)", tensor, json_string_value(value));
        name_list_add(&missing, place);
    }
    return missing.count
               ? name_list_report(&missing, folder, "tensors that are not in the file where the index has them:", ZS_ERROR_FORMAT, error)
               : ZS_OK;
}

/// What the files hold must be listed, for that file.
static zs_status check_held(const char *folder, const json_t *map, const shards *all, zs_error *error) {
    name_list twice = {0}, unlisted = {0};
    for (size_t i = 0; i < all->count; i++) {
        for (size_t t = 0; t < all->list[i].file.tensor_count; t++) {
            char place[760];
            const char *tensor = all->list[i].file.tensors[t].name, *listed = json_string_value(json_object_get(map, tensor));
            if (listed && strcmp(listed, all->list[i].name) == 0) continue;
            snprintf(place, sizeof place, "%.255s (%.200s%s%.200s)", tensor, all->list[i].name, listed ? " and " : "",
                     listed ? listed : "");
            name_list_add(listed ? &twice : &unlisted, place);
        }
    }
    if (twice.count) return name_list_report(&twice, folder, "tensors that are in two files:", ZS_ERROR_FORMAT, error);
    return unlisted.count ? name_list_report(&unlisted, folder, "tensors that the index does not list:", ZS_ERROR_FORMAT, error) : ZS_OK;
}

// ---- the files -----------------------------------------------------------------------------------------------------

static zs_status check_present(const char *folder, const shards *all, zs_error *error) {
    name_list missing = {0};
    for (size_t i = 0; i < all->count; i++) {
        if (!json_file_exists(folder, all->list[i].name)) name_list_add(&missing, all->list[i].name);
    }
    return missing.count ? name_list_report(&missing, folder, "files that the index names are missing:", ZS_ERROR_IO, error) : ZS_OK;
}

/// Every file that cannot be read is told, not only the first.
static zs_status open_files(const char *folder, const shards *all, zs_error *error) {
    name_list broken = {0};
    zs_error inner = {0};
    zs_status first = ZS_OK;
    for (size_t i = 0; i < all->count; i++) {
        char *path = json_file_path(folder, all->list[i].name);
        zs_status status = path ? safetensors_open(path, &all->list[i].file, &inner) : out_of_memory(folder, &inner);
        free(path);
        if (!status) continue;
        if (!first) first = status;
        name_list_add(&broken, inner.message);
    }
    if (!first) return ZS_OK;
    return broken.count == 1 ? zs_error_set(error, first, "%s", inner.message)
                             : name_list_report(&broken, folder, "files that cannot be read:", first, error);
}

static zs_status open_indexed(const char *folder, shards *all, zs_error *error) {
    json_t *root;
    zs_status status = json_file_read(folder, INDEX, false, &root, error);
    if (status) return status;
    const json_t *map = json_object_get(root, "weight_map");
    status = list_shards(folder, map, all, error);
    if (!status) status = check_present(folder, all, error);
    if (!status) status = open_files(folder, all, error);
    if (!status) status = check_listed(folder, map, all, error);
    if (!status) status = check_held(folder, map, all, error);
    json_decref(root);
    return status;
}

zs_status shards_open(const char *folder, shards *all, zs_error *error) {
    *all = (shards){0};
    zs_status status;
    if (json_file_exists(folder, INDEX)) {
        status = open_indexed(folder, all, error);
    } else if (json_file_exists(folder, SINGLE)) {
        status = add_shard(folder, SINGLE, all, error);
        if (!status) status = open_files(folder, all, error);
    } else {
        status = zs_error_set(error, ZS_ERROR_IO, "%s has neither " SINGLE " nor " INDEX ": weights are read from safetensors files only",
                              folder);
    }
    if (status) shards_close(all);
    return status;
}

void shards_close(shards *all) {
    for (size_t i = 0; i < all->count; i++) {
        safetensors_close(&all->list[i].file);
        free(all->list[i].name);
    }
    free(all->list);
    *all = (shards){0};
}
