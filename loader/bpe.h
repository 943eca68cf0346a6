/// Byte-pair merges: pairs of neighbouring tokens become one, lowest rank first, leftmost first among equals.
#ifndef LOADER_BPE_H
#define LOADER_BPE_H

#include "loader/merge_heap.h"
#include "loader/vocabulary.h"

typedef struct bpe_merge {
    uint32_t left, right, result;
} bpe_merge;

typedef struct bpe {
    bpe_merge *merges; // by rank
    uint32_t count;
    uint32_t *hash; // rank by (left, right), open addressing
    uint32_t hash_mask;
} bpe;

/// What one thread needs while merging; zero at first, kept between calls.
typedef struct bpe_workspace {
    uint32_t *links; // [2 · capacity]: previous and next neighbour of each position
    uint32_t capacity;
    merge_heap heap; // candidates
} bpe_workspace;

/// Reads tokenizer.ggml.merges ("left right" each). Every part and every result must be a token; a pair that occurs twice
/// is an error. Merges that result in a control token are left out: text never becomes one.
zs_status bpe_create(const gguf_file *file, const vocabulary *vocab, bpe *table, zs_error *error);
void bpe_free(bpe *table);

/// Merges ids[*count] in place in O(n log n); *count becomes the number left. More than BPE_MAX_IDS are an error.
zs_status bpe_apply(const bpe *table, bpe_workspace *workspace, uint32_t *ids, size_t *count, zs_error *error);
void bpe_workspace_free(bpe_workspace *workspace);

enum { BPE_MAX_IDS = 1 << 30 };

#endif
