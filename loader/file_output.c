#include "loader/file_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_output {
    char *path, *temporary;
    FILE *stream;
    bool force;
};

static void release(file_output *file) {
    if (file->stream) fclose(file->stream);
    free(file->path);
    free(file->temporary);
    free(file);
}

zs_status file_output_check(const char *path, bool force, zs_error *error) {
    struct stat info;
    if (!*path) return zs_error_set(error, ZS_ERROR_ARGUMENT, "an output file needs a name");
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return zs_error_set(error, ZS_ERROR_IO, "cannot write %s: it is no regular file, and would be replaced by one", path);
    if (!force && stat(path, &info) == 0)
        return zs_error_set(error, ZS_ERROR_EXISTS, "%s exists: choose another name or give --force", path);
    return ZS_OK;
}

zs_status file_output_create(const char *path, bool force, file_output **out, zs_error *error) {
    zs_status status = file_output_check(path, force, error);
    if (status) return status;
    file_output *file = calloc(1, sizeof *file);
    if (!file) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while creating %s", path);
    size_t length = strlen(path);
    file->force = force;
    file->path = malloc(length + 1);
    file->temporary = malloc(length + 32);
    if (!file->path || !file->temporary) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while creating %s", path);
        goto fail;
    }
    memcpy(file->path, path, length + 1);
    snprintf(file->temporary, length + 32, "%s.%ld.tmp", path, (long)getpid());
    file->stream = fopen(file->temporary, "wbx");
    if (!file->stream) {
        status = zs_error_set(error, ZS_ERROR_IO, "cannot create %s: %s", file->temporary, strerror(errno));
        goto fail;
    }
    *out = file;
    return ZS_OK;
fail:
    release(file);
    return status;
}

zs_status file_output_write(file_output *file, const void *data, size_t size, zs_error *error) {
    if (size == 0 || fwrite(data, 1, size, file->stream) == size) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s", file->temporary, strerror(errno));
}

/// Without force, link() refuses what has appeared under the name since; where a file system has no links, look once more.
static zs_status put_in_place(file_output *file, zs_error *error) {
    struct stat info;
    if (!file->force && link(file->temporary, file->path) == 0) {
        unlink(file->temporary);
        return ZS_OK;
    }
    if (!file->force && (errno == EEXIST || stat(file->path, &info) == 0))
        return zs_error_set(error, ZS_ERROR_EXISTS, "%s has appeared meanwhile: choose another name or give --force", file->path);
    if (rename(file->temporary, file->path) == 0) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_IO, "cannot rename %s to %s: %s", file->temporary, file->path, strerror(errno));
}

zs_status file_output_commit(file_output **handle, zs_error *error) {
    file_output *file = *handle;
    *handle = NULL;
    zs_status status = ZS_OK;
    int closed = 0;
    if (fflush(file->stream) || fsync(fileno(file->stream)))
        status = zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s", file->temporary, strerror(errno));
    closed = fclose(file->stream);
    file->stream = NULL;
    if (!status && closed) status = zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s", file->temporary, strerror(errno));
    if (!status) status = put_in_place(file, error);
    if (status) unlink(file->temporary);
    release(file);
    return status;
}

void file_output_discard(file_output **handle) {
    if (!*handle) return;
    unlink((*handle)->temporary);
    release(*handle);
    *handle = NULL;
}
