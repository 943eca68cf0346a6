/// A file mapped for reading.
#ifndef LOADER_FILE_MAP_H
#define LOADER_FILE_MAP_H

#include "zsigma/zsigma.h"

typedef struct file_map {
    const uint8_t *data; // NULL when size is 0
    size_t size;
    char *path; // owned copy, for messages
} file_map;

zs_status file_map_open(const char *path, file_map *map, zs_error *error);
void file_map_close(file_map *map);
/// Lets go of the memory that holds these bytes of a mapped file; they are read again when next used. Only for bytes in a map of
/// file_map_open: of others the contents would be lost.
void file_map_release(const void *data, size_t size);

#endif
