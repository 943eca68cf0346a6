#include "gpu/cache_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/// Before the data.
typedef struct header {
    char magic[8];
    uint64_t size, hash;
} header;

static const char magic[8] = {'Z', 'S', 'C', 'A', 'C', 'H', 'E', '1'};
static const uint64_t max_bytes = 1u << 30;

uint64_t cache_hash(uint64_t hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

bool cache_folder_make(const char *folder) {
    size_t length = strlen(folder);
    char *path = malloc(length + 1);
    if (!path) return false;
    memcpy(path, folder, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        char kept = path[i];
        path[i] = '\0';
        (void)mkdir(path, 0777); // parents may exist; whether the whole is there is asked below
        path[i] = kept;
    }
    struct stat status;
    bool there = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    free(path);
    return there;
}

/// folder/name.extension, malloc'ed; with a number it is a temporary name.
static char *file_path(const char *folder, const char *name, const char *extension, const char *suffix) {
    size_t length = strlen(folder) + strlen(name) + strlen(extension) + strlen(suffix) + 3;
    char *path = malloc(length);
    if (path) snprintf(path, length, "%s/%s.%s%s", folder, name, extension, suffix);
    return path;
}

static bool read_stream(FILE *file, uint8_t **data, size_t *size) {
    header h;
    if (fread(&h, sizeof h, 1, file) != 1 || memcmp(h.magic, magic, sizeof magic) != 0 || h.size > max_bytes) return false;
    uint8_t *bytes = malloc(h.size + 1);
    if (!bytes) return false;
    // One byte more than there should be, to notice a file that is too long.
    if (fread(bytes, 1, h.size + 1, file) != h.size || cache_hash(CACHE_HASH_START, bytes, h.size) != h.hash) {
        free(bytes);
        return false;
    }
    *data = bytes;
    *size = h.size;
    return true;
}

bool cache_file_read(const char *folder, const char *name, const char *extension, uint8_t **data, size_t *size) {
    char *path = file_path(folder, name, extension, "");
    FILE *file = path ? fopen(path, "rb") : NULL;
    bool read = file && read_stream(file, data, size);
    if (file) fclose(file);
    free(path);
    return read;
}

bool cache_file_write(const char *folder, const char *name, const char *extension, const void *data, size_t size) {
    header h = {.size = size, .hash = cache_hash(CACHE_HASH_START, data, size)};
    memcpy(h.magic, magic, sizeof magic);
    char *path = file_path(folder, name, extension, ""), *temporary = file_path(folder, name, extension, ".XXXXXX");
    int descriptor = path && temporary ? mkstemp(temporary) : -1;
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "wb") : NULL;
    bool written =
        file && fwrite(&h, sizeof h, 1, file) == 1 && fwrite(data, 1, size, file) == size && fflush(file) == 0 && fsync(descriptor) == 0;
    if (file)
        written = fclose(file) == 0 && written;
    else if (descriptor >= 0)
        close(descriptor);
    written = written && rename(temporary, path) == 0;
    if (!written && descriptor >= 0) unlink(temporary);
    free(temporary);
    free(path);
    return written;
}
