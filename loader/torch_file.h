/// Files of torch.save: a dictionary of names and tensors (zip with a pickle, PyTorch 1.6 and later), read and written.
#ifndef LOADER_TORCH_FILE_H
#define LOADER_TORCH_FILE_H

#include "loader/zip_file.h"

typedef enum torch_type { TORCH_FLOAT, TORCH_HALF, TORCH_BFLOAT16, TORCH_DOUBLE } torch_type;

enum { TORCH_MAX_DIMS = 8 };

typedef struct torch_tensor {
    char *name; // owned
    torch_type type;
    uint32_t dims;
    uint64_t shape[TORCH_MAX_DIMS], stride[TORCH_MAX_DIMS]; // in elements
    uint64_t elements;
    uint64_t offset;        // of the first, in elements of the storage
    const uint8_t *storage; // every element lies in it
} torch_tensor;

typedef struct torch_storage {
    const zip_entry *entry;
    zip_bytes bytes;
} torch_storage;

typedef struct torch_file {
    zip_file zip;
    torch_tensor *tensors; // in the dictionary's order
    size_t count;
    torch_storage *storages;
    size_t storage_count;
} torch_file;

/// Refused by name: whatever the pickle holds besides a dictionary of F32, F16, BF16 and F64 tensors, big-endian data, the format from
/// before PyTorch 1.6. Tensors reach no byte outside their storage and have no more elements than it.
zs_status torch_open(const char *path, torch_file *file, zs_error *error);
zs_status torch_open_memory(const void *data, size_t size, torch_file *file, zs_error *error);
void torch_close(torch_file *file);
/// NULL when absent.
const torch_tensor *torch_find(const torch_file *file, const char *name);
/// values[elements], row-major.
void torch_read(const torch_tensor *tensor, float *values);

typedef struct torch_entry {
    const char *name; // UTF-8
    uint64_t elements;
    const float *data;
} torch_entry;
/// Writes vectors, whole or not at all, as torch.load(weights_only=True) reads them. type: FLOAT or BFLOAT16.
zs_status torch_save(const char *path, bool force, torch_type type, const torch_entry *entries, size_t count, zs_error *error);

#endif
