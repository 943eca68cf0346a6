#include "whole_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct whole_file {
    char *path, *temporary;
    FILE *stream;
};

static void release(whole_file *file) {
    if (file->stream) fclose(file->stream);
    free(file->path);
    free(file->temporary);
    free(file);
}

zs_status whole_file_check(const char *path, bool replace, zs_error *error) {
    if (!replace && access(path, F_OK) == 0)
        return zs_error_set(error, ZS_ERROR_EXISTS, "%s exists: choose another name or give --force", path);
    const char *slash = strrchr(path, '/');
    char folder[4096] = ".";
    if (slash) snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (access(folder, W_OK | X_OK)) return zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s: %s", path, folder, strerror(errno));
    return ZS_OK;
}

zs_status whole_file_create(const char *path, whole_file **out, zs_error *error) {
    whole_file *file = calloc(1, sizeof *file);
    size_t room = strlen(path) + 32;
    if (file) {
        file->path = malloc(room);
        file->temporary = malloc(room);
    }
    if (!file || !file->path || !file->temporary) {
        if (file) release(file);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    }
    snprintf(file->path, room, "%s", path);
    snprintf(file->temporary, room, "%s.%ld.tmp", path, (long)getpid());
    file->stream = fopen(file->temporary, "wbx");
    if (!file->stream) {
        zs_error_set(error, ZS_ERROR_IO, "cannot create %s: %s", file->temporary, strerror(errno));
        release(file);
        return ZS_ERROR_IO;
    }
    *out = file;
    return ZS_OK;
}

FILE *whole_file_stream(whole_file *file) { return file->stream; }

zs_status whole_file_commit(whole_file **handle, zs_error *error) {
    whole_file *file = *handle;
    *handle = NULL;
    bool bad = ferror(file->stream) || fflush(file->stream) || fsync(fileno(file->stream));
    bad = fclose(file->stream) != 0 || bad;
    file->stream = NULL;
    bad = bad || rename(file->temporary, file->path) != 0;
    if (bad) {
        zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s", file->path, strerror(errno));
        unlink(file->temporary);
    }
    release(file);
    return bad ? ZS_ERROR_IO : ZS_OK;
}
