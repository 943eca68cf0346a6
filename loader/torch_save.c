/// Writing what torch.load reads: a stored zip archive whose data begin at multiples of 64, as torch.save's do, and a pickle.
#include "loader/file_output.h"
#include "loader/tensor_type.h"
#include "loader/torch_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { ALIGNMENT = 64, LOCAL_BYTES = 30 };

typedef struct bytes {
    uint8_t *data;
    size_t size, room;
    bool failed; // memory ran out
} bytes;

static void put(bytes *b, const void *data, size_t size) {
    if (b->failed || size == 0) return;
    if (size > b->room - b->size) {
        size_t room = 2 * b->room + size + 256;
        uint8_t *grown = realloc(b->data, room);
        b->failed = grown == NULL;
        if (!grown) return;
        b->data = grown;
        b->room = room;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_text(bytes *b, const char *text) { put(b, text, strlen(text)); }

static void put_number(bytes *b, uint64_t number, uint32_t size) {
    uint8_t little[8];
    for (uint32_t i = 0; i < size; i++) little[i] = (uint8_t)(number >> 8 * i);
    put(b, little, size);
}

// ---- the pickle ----------------------------------------------------------------------------------------------------

static void put_string(bytes *b, const char *text) {
    put_text(b, "X");
    put_number(b, strlen(text), 4);
    put_text(b, text);
}

static void put_integer(bytes *b, uint64_t number) {
    put_text(b, "J");
    put_number(b, number, 4);
}

/// {name: _rebuild_tensor_v2(("storage", type, "i", "cpu", n), 0, (n,), (1,), False, OrderedDict()), …}
static void put_pickle(bytes *b, torch_type type, const torch_entry *entries, size_t count) {
    put_text(b, "\x80\x02}(");
    for (size_t i = 0; i < count; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        put_string(b, entries[i].name);
        put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
        put_string(b, "storage");
        put_text(b, type == TORCH_FLOAT ? "ctorch\nFloatStorage\n" : "ctorch\nBFloat16Storage\n");
        put_string(b, key);
        put_string(b, "cpu");
        put_integer(b, entries[i].elements);
        put_text(b, "tQ");
        put_integer(b, 0);
        put_integer(b, entries[i].elements);
        put_text(b, "\x85");
        put_integer(b, 1);
        put_text(b, "\x85\x89"
                    "ccollections\nOrderedDict\n)RtR");
    }
    put_text(b, "u.");
}

// ---- the archive ---------------------------------------------------------------------------------------------------

typedef struct archive {
    file_output *file;
    uint64_t at;     // bytes written
    bytes directory; // of what was written
    uint32_t count;
} archive;

static zs_status write_bytes(archive *a, const void *data, size_t size, zs_error *error) {
    a->at += size;
    return file_output_write(a->file, data, size, error);
}

/// What a local header and the directory say of an entry alike: needs version 1.0, name in UTF-8, stored, the first day of 1980.
static void put_about(bytes *b, uint32_t crc, size_t size, size_t name_size) {
    put_number(b, 10, 2);
    put_number(b, 0x800, 2);
    put_number(b, 0, 2);
    put_number(b, 0, 2);
    put_number(b, 0x21, 2);
    put_number(b, crc, 4);
    put_number(b, size, 4);
    put_number(b, size, 4);
    put_number(b, name_size, 2);
}

static zs_status write_entry(archive *a, const char *name, const void *data, size_t size, zs_error *error) {
    static const uint8_t zeros[ALIGNMENT];
    uint64_t start = a->at;
    uint32_t crc = (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, size);
    size_t name_size = strlen(name), extra = ALIGNMENT - (size_t)(start + LOCAL_BYTES + name_size + 4) % ALIGNMENT;
    bytes local = {0};
    put_text(&local, "PK\3\4");
    put_about(&local, crc, size, name_size);
    put_number(&local, 4 + extra, 2);
    put_text(&local, name);
    put_text(&local, "FB"); // PyTorch's own mark of padding
    put_number(&local, extra, 2);
    put(&local, zeros, extra);
    bytes *d = &a->directory;
    put_text(d, "PK\1\2");
    put_number(d, 10, 2);
    put_about(d, crc, size, name_size);
    put_number(d, 0, 2 + 2 + 2 + 2); // no extra field, no comment, the first part, binary
    put_number(d, 0, 4);
    put_number(d, start, 4);
    put_text(d, name);
    a->count++;
    zs_status status = local.failed || d->failed ? zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing a PyTorch file")
                                                 : write_bytes(a, local.data, local.size, error);
    if (!status) status = write_bytes(a, data, size, error);
    free(local.data);
    return status;
}

static zs_status write_end(archive *a, zs_error *error) {
    uint64_t start = a->at, size = a->directory.size;
    bytes *d = &a->directory;
    put_text(d, "PK\5\6");
    put_number(d, 0, 4);
    put_number(d, a->count, 2);
    put_number(d, a->count, 2);
    put_number(d, size, 4);
    put_number(d, start, 4);
    put_number(d, 0, 2);
    if (d->failed) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing a PyTorch file");
    return write_bytes(a, d->data, d->size, error);
}

static zs_status write_vector(archive *a, size_t index, torch_type type, const torch_entry *entry, zs_error *error) {
    uint32_t stored = type == TORCH_FLOAT ? TENSOR_F32 : TENSOR_BF16;
    size_t size = (size_t)tensor_type_bytes(stored, entry->elements);
    char name[48];
    snprintf(name, sizeof name, "archive/data/%zu", index);
    void *data = malloc(size + 1);
    if (!data) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing a PyTorch file");
    tensor_type_quantise(stored, entry->data, data, (size_t)entry->elements);
    zs_status status = write_entry(a, name, data, size, error);
    free(data);
    return status;
}

static zs_status write_archive(archive *a, torch_type type, const torch_entry *entries, size_t count, zs_error *error) {
    bytes p = {0};
    put_pickle(&p, type, entries, count);
    zs_status status = p.failed ? zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing a PyTorch file")
                                : write_entry(a, "archive/data.pkl", p.data, p.size, error);
    free(p.data);
    if (!status) status = write_entry(a, "archive/byteorder", "little", 6, error);
    for (size_t i = 0; i < count && !status; i++) status = write_vector(a, i, type, &entries[i], error);
    if (!status) status = write_entry(a, "archive/version", "3\n", 2, error);
    return status ? status : write_end(a, error);
}

zs_status torch_save(const char *path, bool force, torch_type type, const torch_entry *entries, size_t count, zs_error *error) {
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) total += entries[i].elements;
    if (count > 60000 || total > INT32_MAX / sizeof(float)) // what an archive without zip64 holds
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: more than 60000 tensors or 2 GiB are not written", path);
    archive a = {0};
    zs_status status = file_output_create(path, force, &a.file, error);
    if (!status) status = write_archive(&a, type, entries, count, error);
    if (!status) status = file_output_commit(&a.file, error);
    file_output_discard(&a.file);
    free(a.directory.data);
    return status;
}
