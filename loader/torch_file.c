#include "loader/torch_file.h"
#include "loader/pickle.h"
#include "loader/tensor_type.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char rebuild_tensor[] = "torch._utils._rebuild_tensor_v2", rebuild_parameter[] = "torch._utils._rebuild_parameter";

static const struct {
    const char *global;
    uint32_t bytes; // of an element
} types[] = {[TORCH_FLOAT] = {"torch.FloatStorage", 4},
             [TORCH_HALF] = {"torch.HalfStorage", 2},
             [TORCH_BFLOAT16] = {"torch.BFloat16Storage", 2},
             [TORCH_DOUBLE] = {"torch.DoubleStorage", 8}};
enum { TYPES = sizeof types / sizeof *types };

static const char *const globals[] = {rebuild_tensor,      rebuild_parameter,       "collections.OrderedDict", "torch.FloatStorage",
                                      "torch.HalfStorage", "torch.BFloat16Storage", "torch.DoubleStorage",     NULL};

static const char *path_of(const torch_file *file) { return file->zip.map.path ? file->zip.map.path : "PyTorch data"; }

static zs_status out_of_memory(const torch_file *file, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
}

// ---- the archive ---------------------------------------------------------------------------------------------------

/// The archive's folder, "archive" or the file's name: what stands in front of "/data.pkl". Its length; 0: there is none.
static size_t find_folder(const torch_file *file, const char **folder) {
    static const char pickle_name[] = "/data.pkl";
    for (size_t i = 0; i < file->zip.count; i++) {
        const char *name = file->zip.entries[i].name, *slash = strchr(name, '/');
        if (!slash || slash == name || strcmp(slash, pickle_name) != 0) continue;
        *folder = name;
        return (size_t)(slash - name);
    }
    return 0;
}

static const zip_entry *find_in_folder(const torch_file *file, const char *folder, size_t folder_size, const char *name, size_t name_size) {
    for (size_t i = 0; i < file->zip.count; i++) {
        const char *entry = file->zip.entries[i].name;
        if (strlen(entry) == folder_size + name_size && memcmp(entry, folder, folder_size) == 0 &&
            memcmp(entry + folder_size, name, name_size) == 0)
            return &file->zip.entries[i];
    }
    return NULL;
}

/// A small text of the archive without blanks around it; "" when it is not there.
static zs_status read_text(torch_file *file, const char *folder, size_t folder_size, const char *name, char text[16], zs_error *error) {
    const zip_entry *entry = find_in_folder(file, folder, folder_size, name, strlen(name));
    zip_bytes bytes;
    text[0] = 0;
    if (!entry) return ZS_OK;
    zs_status status = zip_read(&file->zip, entry, &bytes, error);
    if (status) return status;
    size_t size = bytes.size < 15 ? bytes.size : 15;
    memcpy(text, bytes.data, size);
    text[size] = 0;
    text[strcspn(text, " \r\n")] = 0;
    free(bytes.owned);
    return ZS_OK;
}

/// PyTorch writes version 3 and reads 1 to 10; without a byteorder the file is from before 2.1, which wrote little-endian only.
static zs_status check_archive(torch_file *file, const char *folder, size_t folder_size, zs_error *error) {
    char version[16], order[16];
    zs_status status = read_text(file, folder, folder_size, "/version", version, error);
    if (!status) status = read_text(file, folder, folder_size, "/byteorder", order, error);
    if (status) return status;
    long number = strtol(version, NULL, 10);
    if (number < 1 || number > 10)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: version '%s' of PyTorch's format; 1 to 10 are known", path_of(file), version);
    if (*order && strcmp(order, "little") != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: byte order '%s'; only little is read", path_of(file), order);
    return ZS_OK;
}

// ---- tensors -------------------------------------------------------------------------------------------------------

static zs_status tensor_error(const torch_file *file, const torch_tensor *t, const char *what, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %.200s %s", path_of(file), t->name, what);
}

/// ("storage", type, key, device, elements) → its bytes, and how many elements there are.
static zs_status find_storage(torch_file *file, const char *folder, size_t folder_size, const pickle_value *id, torch_tensor *t,
                              uint64_t *elements, zs_error *error) {
    const pickle_value *tuple = id->count ? id->items[0] : NULL;
    if (!tuple || id->kind != PICKLE_PERSISTENT || tuple->kind != PICKLE_TUPLE || tuple->count != 5 ||
        !pickle_text_is(tuple->items[0], "storage") || tuple->items[1]->kind != PICKLE_GLOBAL || tuple->items[2]->kind != PICKLE_TEXT ||
        tuple->items[2]->text_size > 100)
        return tensor_error(file, t, "has no proper storage", error);
    uint32_t type = 0;
    while (type < TYPES && strcmp(types[type].global, tuple->items[1]->text) != 0) type++;
    if (type == TYPES) return tensor_error(file, t, "has no proper storage", error);
    t->type = (torch_type)type;
    char name[128];
    int size = snprintf(name, sizeof name, "/data/%.*s", (int)tuple->items[2]->text_size, tuple->items[2]->text);
    const zip_entry *entry = find_in_folder(file, folder, folder_size, name, (size_t)size);
    if (!entry) return tensor_error(file, t, "has a storage that the archive does not hold: it is truncated or damaged", error);
    *elements = entry->size / types[type].bytes;
    for (size_t i = 0; i < file->storage_count; i++) {
        if (file->storages[i].entry != entry) continue;
        t->storage = file->storages[i].bytes.data;
        return ZS_OK;
    }
    torch_storage *storage = &file->storages[file->storage_count];
    zs_status status = zip_read(&file->zip, entry, &storage->bytes, error);
    if (status) return status;
    storage->entry = entry;
    file->storage_count++;
    t->storage = storage->bytes.data;
    return ZS_OK;
}

static bool read_size(const pickle_value *value, uint64_t *size) {
    if (value->kind != PICKLE_INT || value->integer < 0) return false;
    *size = (uint64_t)value->integer;
    return true;
}

/// Shape and strides; every element has to lie in the storage.
static zs_status read_view(const torch_file *file, const pickle_value *offset, const pickle_value *shape, const pickle_value *stride,
                           uint64_t stored, torch_tensor *t, zs_error *error) {
    if (!read_size(offset, &t->offset) || shape->kind != PICKLE_TUPLE || stride->kind != PICKLE_TUPLE || shape->count != stride->count ||
        shape->count > TORCH_MAX_DIMS)
        return tensor_error(file, t, "has no proper shape", error);
    t->dims = (uint32_t)shape->count;
    t->elements = 1;
    for (uint32_t i = 0; i < t->dims; i++) {
        if (!read_size(shape->items[i], &t->shape[i]) || !read_size(stride->items[i], &t->stride[i]))
            return tensor_error(file, t, "has no proper shape", error);
        if (t->shape[i] && t->elements > stored / t->shape[i]) return tensor_error(file, t, "has more elements than its storage", error);
        t->elements *= t->shape[i];
    }
    if (t->elements == 0) return ZS_OK;
    uint64_t last = t->offset;
    bool inside = t->offset < stored;
    for (uint32_t i = 0; i < t->dims && inside; i++) {
        inside = t->shape[i] < 2 || t->stride[i] <= (stored - 1 - last) / (t->shape[i] - 1);
        last += inside ? t->stride[i] * (t->shape[i] - 1) : 0;
    }
    return inside ? ZS_OK : tensor_error(file, t, "reaches outside of its storage", error);
}

/// A call of one of the two functions that tensors are pickled as; a parameter holds its tensor as the first argument.
static const pickle_value *arguments_of(const pickle_value *value, const char *function, size_t least) {
    bool found = value->kind == PICKLE_CALL && strcmp(value->items[0]->text, function) == 0 && value->items[1]->count >= least;
    return found ? value->items[1] : NULL;
}

static zs_status read_tensor(torch_file *file, const char *folder, size_t folder_size, const pickle_value *name, const pickle_value *value,
                             zs_error *error) {
    torch_tensor *t = &file->tensors[file->count];
    if (name->kind != PICKLE_TEXT || name->text_size == 0 || memchr(name->text, 0, name->text_size))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: a key of its dictionary is no name", path_of(file));
    t->name = malloc(name->text_size + 1);
    if (!t->name) return out_of_memory(file, error);
    memcpy(t->name, name->text, name->text_size);
    t->name[name->text_size] = 0;
    file->count++;
    const pickle_value *parameter = arguments_of(value, rebuild_parameter, 1);
    const pickle_value *a = arguments_of(parameter ? parameter->items[0] : value, rebuild_tensor, 4);
    if (!a)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %.200s is no tensor; a dictionary of names and tensors is expected",
                            path_of(file), t->name);
    uint64_t stored = 0;
    zs_status status = find_storage(file, folder, folder_size, a->items[0], t, &stored, error);
    return status ? status : read_view(file, a->items[1], a->items[2], a->items[3], stored, t, error);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static zs_status check_names(const torch_file *file, zs_error *error) {
    char **names = malloc((file->count + 1) * sizeof *names);
    if (!names) return out_of_memory(file, error);
    for (size_t i = 0; i < file->count; i++) names[i] = file->tensors[i].name;
    qsort(names, file->count, sizeof *names, by_name);
    zs_status status = ZS_OK;
    for (size_t i = 1; i < file->count && !status; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %.200s occurs twice", path_of(file), names[i]);
    }
    free(names);
    return status;
}

static zs_status read_dictionary(torch_file *file, const char *folder, size_t folder_size, const pickle_value *root, zs_error *error) {
    if (root->kind != PICKLE_DICT)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s holds no dictionary of names and tensors", path_of(file));
    file->tensors = calloc(root->count / 2 + 1, sizeof *file->tensors);
    file->storages = calloc(root->count / 2 + 1, sizeof *file->storages);
    if (!file->tensors || !file->storages) return out_of_memory(file, error);
    zs_status status = ZS_OK;
    for (size_t i = 0; i + 1 < root->count && !status; i += 2)
        status = read_tensor(file, folder, folder_size, root->items[i], root->items[i + 1], error);
    return status ? status : check_names(file, error);
}

static zs_status parse(torch_file *file, zs_error *error) {
    const char *folder = NULL;
    size_t folder_size = find_folder(file, &folder);
    if (folder_size == 0)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is an archive, but none of torch.save: it holds no data.pkl", path_of(file));
    zip_bytes bytes = {0};
    pickle p = {0};
    zs_status status = check_archive(file, folder, folder_size, error);
    if (!status) status = zip_read(&file->zip, find_in_folder(file, folder, folder_size, "/data.pkl", 9), &bytes, error);
    if (!status) status = pickle_parse(bytes.data, bytes.size, globals, path_of(file), &p, error);
    if (!status) status = read_dictionary(file, folder, folder_size, p.root, error);
    pickle_free(&p);
    free(bytes.owned);
    return status;
}

/// Before 1.6 torch.save wrote pickles one after another, the first of them this number.
static zs_status check_old(const file_map *map, zs_error *error) {
    static const uint8_t magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    if (map->size < sizeof magic || memcmp(map->data, magic, sizeof magic) != 0) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "%s is in torch.save's format from before PyTorch 1.6: load it in PyTorch and save it again",
                        map->path ? map->path : "PyTorch data");
}

static zs_status finish(zs_status status, torch_file *file, zs_error *error) {
    if (!status) status = parse(file, error);
    if (status) torch_close(file);
    return status;
}

zs_status torch_open(const char *path, torch_file *file, zs_error *error) {
    *file = (torch_file){0};
    file_map map;
    zs_status status = file_map_open(path, &map, error);
    if (status) return status;
    status = check_old(&map, error);
    file_map_close(&map);
    return finish(status ? status : zip_open(path, &file->zip, error), file, error);
}

zs_status torch_open_memory(const void *data, size_t size, torch_file *file, zs_error *error) {
    *file = (torch_file){0};
    zs_status status = check_old(&(file_map){.data = data, .size = size}, error);
    return finish(status ? status : zip_open_memory(data, size, &file->zip, error), file, error);
}

void torch_close(torch_file *file) {
    for (size_t i = 0; i < file->count; i++) free(file->tensors[i].name);
    for (size_t i = 0; i < file->storage_count; i++) free(file->storages[i].bytes.owned);
    free(file->tensors);
    free(file->storages);
    zip_close(&file->zip);
    *file = (torch_file){0};
}

const torch_tensor *torch_find(const torch_file *file, const char *name) {
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    }
    return NULL;
}

void torch_read(const torch_tensor *t, float *values) {
    static const uint32_t stored[TYPES] = {[TORCH_FLOAT] = TENSOR_F32, [TORCH_HALF] = TENSOR_F16, [TORCH_BFLOAT16] = TENSOR_BF16};
    uint64_t at[TORCH_MAX_DIMS] = {0};
    for (uint64_t i = 0; i < t->elements; i++) {
        uint64_t place = t->offset;
        for (uint32_t d = 0; d < t->dims; d++) place += at[d] * t->stride[d];
        const uint8_t *from = t->storage + place * types[t->type].bytes;
        double wide;
        if (t->type == TORCH_DOUBLE) {
            memcpy(&wide, from, sizeof wide);
            values[i] = (float)wide;
        } else {
            tensor_type_dequantise(stored[t->type], from, &values[i], 1);
        }
        for (uint32_t d = t->dims; d-- > 0 && ++at[d] == t->shape[d];) at[d] = 0;
    }
}
