#include "input_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { FIRST_BYTES = 64 << 10, FREE_BYTES = 64 << 20, MOST_RATIO = 100 };
static const size_t most_bytes = (size_t)1 << 30;

static zs_status read_failed(gzFile file, const char *path, zs_error *error) {
    int code;
    const char *message = gzerror(file, &code);
    if (code == Z_ERRNO) return zs_error_set(error, ZS_ERROR_IO, "cannot read %s: %s", path, strerror(errno));
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s is a damaged gzip file: %s", path, message);
}

static zs_status check_size(const char *path, size_t size, size_t compressed, zs_error *error) {
    if (size > most_bytes)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s holds more than %zu MB: cut it into parts", path, most_bytes >> 20);
    if (size > FREE_BYTES && size / MOST_RATIO > compressed)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s expands to more than %d times its size, which no text does", path, MOST_RATIO);
    return ZS_OK;
}

/// Room for one more byte than there are, the terminating zero.
static zs_status grow(char **text, size_t *capacity, const char *path, zs_error *error) {
    size_t more = *capacity ? 2 * *capacity : FIRST_BYTES;
    char *grown = realloc(*text, more);
    if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    *text = grown;
    *capacity = more;
    return ZS_OK;
}

static zs_status read_all(gzFile file, const char *path, size_t compressed, char **text, size_t *size, zs_error *error) {
    size_t capacity = 0;
    for (;;) {
        zs_status status = *size + 1 >= capacity ? grow(text, &capacity, path, error) : ZS_OK;
        if (status) return status;
        size_t room = capacity - *size - 1;
        int got = gzread(file, *text + *size, (unsigned)(room < FREE_BYTES ? room : FREE_BYTES));
        if (got < 0) return read_failed(file, path, error);
        *size += (size_t)got;
        status = check_size(path, *size, compressed, error);
        if (status) return status;
        if (got == 0) break;
    }
    (*text)[*size] = 0;
    // A file that is cut short is told only when it is closed.
    return ZS_OK;
}

zs_status input_file_read(const char *path, char **out, size_t *size, zs_error *error) {
    struct stat info;
    if (stat(path, &info)) return zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return zs_error_set(error, ZS_ERROR_IO, "cannot read %s: it is a folder", path);
    // What is no regular file (a pipe) has no size to go by.
    size_t compressed = S_ISREG(info.st_mode) ? (size_t)info.st_size : most_bytes;
    gzFile file = gzopen(path, "rb");
    if (!file) return zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    char *text = NULL;
    *size = 0;
    zs_status status = read_all(file, path, compressed, &text, size, error);
    int closed = gzclose_r(file);
    if (!status && closed == Z_BUF_ERROR) status = zs_error_set(error, ZS_ERROR_FORMAT, "%s is a gzip file that is cut short", path);
    if (status)
        free(text);
    else
        *out = text;
    return status;
}
