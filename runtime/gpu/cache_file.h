/// Small files in the cache folder: read whole, written whole or not at all, checked by a checksum of their own.
#ifndef GPU_CACHE_FILE_H
#define GPU_CACHE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Makes a folder and its parents. True when it is there.
bool cache_folder_make(const char *folder);
/// Reads folder/name.extension; what it was written with comes out malloc'ed in *data. False when there is none or it is damaged.
bool cache_file_read(const char *folder, const char *name, const char *extension, uint8_t **data, size_t *size);
/// Under a temporary name first, then renamed, so that programs that share the folder never see half a file.
bool cache_file_write(const char *folder, const char *name, const char *extension, const void *data, size_t size);
/// FNV-1a, to be continued from an earlier hash (first: CACHE_HASH_START).
#define CACHE_HASH_START 0xcbf29ce484222325u
uint64_t cache_hash(uint64_t hash, const void *data, size_t size);

#endif
