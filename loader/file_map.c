#include "loader/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

zs_status file_map_open(const char *path, file_map *map, zs_error *error) {
    *map = (file_map){0};
    zs_status status = ZS_OK;
    struct stat info = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &info) || !S_ISREG(info.st_mode)) {
        status = zs_error_set(error, ZS_ERROR_IO, S_ISDIR(info.st_mode) ? "%s is a folder; a file is expected" : "%s is not a regular file",
                              path);
        goto done;
    }
    map->path = malloc(strlen(path) + 1);
    if (!map->path) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while opening %s", path);
        goto done;
    }
    strcpy(map->path, path);
    map->size = (size_t)info.st_size;
    if (map->size == 0) goto done;
    void *data = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        status = zs_error_set(error, ZS_ERROR_IO, "cannot map %s (%zu bytes): %s", path, map->size, strerror(errno));
        free(map->path);
        *map = (file_map){0};
        goto done;
    }
    map->data = data;
done:
    close(fd);
    return status;
}

void file_map_close(file_map *map) {
    if (map->data && map->path) munmap((void *)(uintptr_t)map->data, map->size);
    free(map->path);
    *map = (file_map){0};
}

void file_map_release(const void *data, size_t size) {
    // Whole pages only: what lies beside belongs to somebody else, who may be reading it.
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)data + page - 1) / page * page,
              end = ((uintptr_t)data + size) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}
