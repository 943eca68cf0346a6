/// safetensors files: u64 LE header length, JSON header, data.
#ifndef LOADER_SAFETENSORS_H
#define LOADER_SAFETENSORS_H

#include "loader/file_map.h"
#include "loader/tensor_type.h"

typedef struct safetensors_tensor {
    char *name;    // owned
    uint32_t type; // TENSOR_F32, TENSOR_F16 or TENSOR_BF16
    uint32_t dims;
    uint64_t shape[8];
    uint64_t elements;
    const void *data; // into the map, possibly unaligned
    uint64_t size;
} safetensors_tensor;

typedef struct safetensors_meta {
    char *key, *value; // owned
} safetensors_meta;

typedef struct safetensors_file {
    file_map map;
    safetensors_tensor *tensors; // sorted by name
    size_t tensor_count;
    safetensors_meta *meta;
    size_t meta_count;
} safetensors_file;

/// Overlapping, misaligned or out-of-range offsets, duplicate names, headers over 100 MB and other types are errors.
zs_status safetensors_open(const char *path, safetensors_file *file, zs_error *error);
zs_status safetensors_open_memory(const void *data, size_t size, safetensors_file *file, zs_error *error);
void safetensors_close(safetensors_file *file);
const safetensors_tensor *safetensors_find(const safetensors_file *file, const char *name);
/// NULL when absent.
const char *safetensors_find_meta(const safetensors_file *file, const char *key);

typedef struct safetensors_entry {
    const char *name;
    uint32_t dims;
    uint64_t shape[8];
    const float *data;
} safetensors_entry;
/// Writes F32 tensors, whole or not at all.
zs_status safetensors_save(const char *path, bool force, const safetensors_entry *entries, size_t count, const safetensors_meta *meta,
                           size_t meta_count, zs_error *error);

#endif
