/// Zip archives, read by mapping: stored and deflated entries, zip64 sizes as PyTorch writes them. Nothing is expanded before it is asked
/// for.
#ifndef LOADER_ZIP_FILE_H
#define LOADER_ZIP_FILE_H

#include "loader/file_map.h"

typedef struct zip_entry {
    char *name;    // owned
    uint64_t size; // of the contents
    uint64_t packed_size;
    uint64_t offset; // of the packed bytes
    uint32_t crc;
    bool deflated;
} zip_entry;

typedef struct zip_file {
    file_map map;
    zip_entry *entries; // in the order of the archive's directory
    size_t count;
    uint64_t expanded; // bytes that deflated entries have taken so far, at most ZIP_MAX_EXPANDED
} zip_file;

/// What deflated entries of one archive may take altogether, whatever they say.
#define ZIP_MAX_EXPANDED (1ull << 30)

/// Archives of several parts, encrypted entries, other methods, names that occur twice and offsets out of range are errors.
zs_status zip_open(const char *path, zip_file *file, zs_error *error);
zs_status zip_open_memory(const void *data, size_t size, zip_file *file, zs_error *error);
void zip_close(zip_file *file);

/// An entry's contents: into the map, or in memory of its own.
typedef struct zip_bytes {
    const uint8_t *data; // NULL when size is 0
    size_t size;
    uint8_t *owned; // for free(), or NULL
} zip_bytes;

/// Contents are held against their checksum; deflated ones that would grow past ZIP_MAX_EXPANDED are refused before any work.
zs_status zip_read(zip_file *file, const zip_entry *entry, zip_bytes *bytes, zs_error *error);

#endif
