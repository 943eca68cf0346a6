/// The tensors of a model in one or many safetensors files: model.safetensors, or what model.safetensors.index.json lists.
#ifndef LOADER_SHARDS_H
#define LOADER_SHARDS_H

#include "loader/safetensors.h"

typedef struct shard {
    char *name; // of the file, without the folder
    safetensors_file file;
} shard;

typedef struct shards {
    shard *list; // sorted by name
    size_t count;
} shards;

/// Opens all files. The index must agree with them: files that are missing are named one by one, and so are tensors that
/// are in no file, in another file than the index says, or in two.
zs_status shards_open(const char *folder, shards *all, zs_error *error);
void shards_close(shards *all);

#endif
