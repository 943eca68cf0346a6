#include "loader/zip_file.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { END_BYTES = 22, END64_BYTES = 56, LOCATOR_BYTES = 20, DIRECTORY_BYTES = 46, LOCAL_BYTES = 30, MAX_COMMENT = 65535 };
/// No deflated byte stands for more than so many.
enum { DEFLATE_MOST = 1032 };

typedef struct directory {
    uint64_t offset, size, count;
} directory;

static const char *path_of(const zip_file *file) { return file->map.path ? file->map.path : "zip data"; }

static uint64_t read_number(const uint8_t *data, uint32_t bytes) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++) value |= (uint64_t)data[i] << 8 * i;
    return value;
}

static zs_status damaged(const zip_file *file, const char *what, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: %s: the archive is truncated or damaged", path_of(file), what);
}

// ---- the directory -------------------------------------------------------------------------------------------------

/// The end record is the last thing but a comment; NULL when there is none.
static const uint8_t *find_end(const zip_file *file) {
    size_t size = file->map.size;
    for (size_t back = END_BYTES; back <= size && back <= END_BYTES + MAX_COMMENT; back++) {
        const uint8_t *at = file->map.data + size - back;
        if (memcmp(at, "PK\5\6", 4) == 0 && read_number(at + 20, 2) == back - END_BYTES) return at;
    }
    return NULL;
}

static zs_status find_directory(const zip_file *file, directory *d, zs_error *error) {
    const uint8_t *data = file->map.data, *end = find_end(file);
    if (!end) return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no zip archive, or truncated: it has no end record", path_of(file));
    uint64_t at = (uint64_t)(end - data);
    *d = (directory){.offset = read_number(end + 16, 4), .size = read_number(end + 12, 4), .count = read_number(end + 10, 2)};
    bool parts = read_number(end + 4, 2) != 0 || read_number(end + 8, 2) != d->count;
    if (at >= LOCATOR_BYTES && memcmp(end - LOCATOR_BYTES, "PK\6\7", 4) == 0) {
        uint64_t at64 = read_number(end - LOCATOR_BYTES + 8, 8);
        if (at < LOCATOR_BYTES + END64_BYTES || at64 > at - LOCATOR_BYTES - END64_BYTES || memcmp(data + at64, "PK\6\6", 4) != 0)
            return damaged(file, "the zip64 end record is not where it should be", error);
        const uint8_t *end64 = data + at64;
        *d = (directory){.offset = read_number(end64 + 48, 8), .size = read_number(end64 + 40, 8), .count = read_number(end64 + 32, 8)};
        parts = read_number(end64 + 16, 4) != 0 || read_number(end64 + 24, 8) != d->count;
        at = at64;
    }
    if (parts) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: an archive in several parts cannot be read", path_of(file));
    if (d->offset > at || d->size > at - d->offset || d->count > d->size / DIRECTORY_BYTES)
        return damaged(file, "its directory lies outside of it", error);
    return ZS_OK;
}

/// Sizes and offset that do not fit 32 bits stand in the extra field 1, those that do not and in this order.
static bool read_zip64(const uint8_t *extra, uint64_t size, zip_entry *entry) {
    uint64_t *const values[] = {&entry->size, &entry->packed_size, &entry->offset};
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < 3; i++) wanted += *values[i] == UINT32_MAX;
    if (wanted == 0) return true;
    for (uint64_t at = 0; size - at >= 4;) {
        uint64_t id = read_number(extra + at, 2), length = read_number(extra + at + 2, 2);
        if (length > size - at - 4) return false;
        if (id == 1) {
            const uint8_t *from = extra + at + 4;
            if (length < 8 * (uint64_t)wanted) return false;
            for (uint32_t i = 0; i < 3; i++) {
                if (*values[i] != UINT32_MAX) continue;
                *values[i] = read_number(from, 8);
                from += 8;
            }
            return true;
        }
        at += 4 + length;
    }
    return false;
}

static zs_status read_entry(const zip_file *file, const directory *d, uint64_t *at, zip_entry *entry, zs_error *error) {
    const uint8_t *data = file->map.data, *from = data + *at;
    uint64_t left = d->offset + d->size - *at;
    if (left < DIRECTORY_BYTES || memcmp(from, "PK\1\2", 4) != 0) return damaged(file, "an entry of its directory is cut off", error);
    uint64_t flags = read_number(from + 8, 2), method = read_number(from + 10, 2), name = read_number(from + 28, 2);
    uint64_t extra = read_number(from + 30, 2), comment = read_number(from + 32, 2);
    if (name + extra + comment > left - DIRECTORY_BYTES) return damaged(file, "an entry of its directory is cut off", error);
    *at += DIRECTORY_BYTES + name + extra + comment;
    if (name == 0 || memchr(from + DIRECTORY_BYTES, 0, (size_t)name)) return damaged(file, "an entry has no proper name", error);
    entry->name = malloc((size_t)name + 1);
    if (!entry->name) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    memcpy(entry->name, from + DIRECTORY_BYTES, (size_t)name);
    entry->name[name] = 0;
    entry->crc = (uint32_t)read_number(from + 16, 4);
    entry->packed_size = read_number(from + 20, 4);
    entry->size = read_number(from + 24, 4);
    entry->offset = read_number(from + 42, 4);
    entry->deflated = method == 8;
    if (flags & 1) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: entry %.200s is encrypted", path_of(file), entry->name);
    if (method != 0 && method != 8)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: entry %.200s is packed by method %u; stored and deflated ones can be read",
                            path_of(file), entry->name, (unsigned)method);
    if (!read_zip64(from + DIRECTORY_BYTES + name, extra, entry)) return damaged(file, "an entry's zip64 sizes are missing", error);
    return ZS_OK;
}

/// From the local header, whose name and extra field may differ from the directory's, to the packed bytes.
static zs_status find_contents(const zip_file *file, const directory *d, zip_entry *entry, zs_error *error) {
    const uint8_t *local = file->map.data + entry->offset;
    if (entry->offset > d->offset || d->offset - entry->offset < LOCAL_BYTES || memcmp(local, "PK\3\4", 4) != 0)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s is not where the directory says: the archive is damaged",
                            path_of(file), entry->name);
    uint64_t begin = entry->offset + LOCAL_BYTES + read_number(local + 26, 2) + read_number(local + 28, 2);
    if (begin > d->offset || entry->packed_size > d->offset - begin || (!entry->deflated && entry->size != entry->packed_size))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s (%llu bytes) does not fit the archive: it is truncated or damaged",
                            path_of(file), entry->name, (unsigned long long)entry->packed_size);
    entry->offset = begin;
    return ZS_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static zs_status check_names(const zip_file *file, zs_error *error) {
    char **names = malloc((file->count + 1) * sizeof *names);
    if (!names) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    for (size_t i = 0; i < file->count; i++) names[i] = file->entries[i].name;
    qsort(names, file->count, sizeof *names, by_name);
    zs_status status = ZS_OK;
    for (size_t i = 1; i < file->count && !status; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s occurs twice", path_of(file), names[i]);
    }
    free(names);
    return status;
}

static zs_status parse(zip_file *file, zs_error *error) {
    directory d = {0};
    zs_status status = find_directory(file, &d, error);
    if (status) return status;
    file->entries = calloc((size_t)d.count + 1, sizeof *file->entries);
    if (!file->entries) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    uint64_t at = d.offset;
    while (file->count < d.count && !status) {
        zip_entry *entry = &file->entries[file->count++];
        status = read_entry(file, &d, &at, entry, error);
        if (!status) status = find_contents(file, &d, entry, error);
    }
    return status ? status : check_names(file, error);
}

zs_status zip_open(const char *path, zip_file *file, zs_error *error) {
    *file = (zip_file){0};
    zs_status status = file_map_open(path, &file->map, error);
    if (!status) status = parse(file, error);
    if (status) zip_close(file);
    return status;
}

zs_status zip_open_memory(const void *data, size_t size, zip_file *file, zs_error *error) {
    *file = (zip_file){.map = {.data = data, .size = size}};
    zs_status status = parse(file, error);
    if (status) zip_close(file);
    return status;
}

void zip_close(zip_file *file) {
    for (size_t i = 0; i < file->count; i++) free(file->entries[i].name);
    free(file->entries);
    file_map_close(&file->map);
    *file = (zip_file){0};
}

// ---- contents ------------------------------------------------------------------------------------------------------

static bool inflate_entry(const uint8_t *packed, const zip_entry *entry, uint8_t *out) {
    z_stream stream = {
        .next_in = (Bytef *)(uintptr_t)packed, .avail_in = (uInt)entry->packed_size, .next_out = out, .avail_out = (uInt)entry->size};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return false;
    int result = inflate(&stream, Z_FINISH);
    bool whole = result == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    return whole;
}

static zs_status expand(zip_file *file, const zip_entry *entry, zip_bytes *bytes, zs_error *error) {
    if (entry->packed_size > ZIP_MAX_EXPANDED || entry->size > ZIP_MAX_EXPANDED - file->expanded)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s grows to %llu bytes, too much for one archive (%llu in all)",
                            path_of(file), entry->name, (unsigned long long)entry->size, ZIP_MAX_EXPANDED);
    if (entry->size > entry->packed_size * DEFLATE_MOST)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s: %llu bytes cannot hold %llu: the archive is damaged", path_of(file),
                            entry->name, (unsigned long long)entry->packed_size, (unsigned long long)entry->size);
    bytes->owned = malloc((size_t)entry->size + 1); // one more, so that nothing is not NULL
    if (!bytes->owned) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    file->expanded += entry->size;
    bytes->data = bytes->owned;
    if (inflate_entry(file->map.data + entry->offset, entry, bytes->owned)) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s cannot be expanded to its %llu bytes: the archive is damaged",
                        path_of(file), entry->name, (unsigned long long)entry->size);
}

zs_status zip_read(zip_file *file, const zip_entry *entry, zip_bytes *bytes, zs_error *error) {
    *bytes = (zip_bytes){.data = file->map.data + entry->offset, .size = (size_t)entry->size};
    zs_status status = entry->deflated ? expand(file, entry, bytes, error) : ZS_OK;
    if (!status && crc32_z(crc32_z(0, NULL, 0), bytes->data, bytes->size) != entry->crc)
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: entry %.200s does not match its checksum: the archive is damaged", path_of(file),
                              entry->name);
    if (!status) return ZS_OK;
    free(bytes->owned);
    *bytes = (zip_bytes){0};
    return status;
}
