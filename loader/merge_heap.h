/// Pending merges, best first: keys of rank << 32 | position of the left part.
#ifndef LOADER_MERGE_HEAP_H
#define LOADER_MERGE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Zero at first; belongs to one thread and is kept between uses.
typedef struct merge_heap {
    uint64_t *keys;
    size_t count, capacity;
} merge_heap;

/// Room for the merges of `parts` neighbours: parts − 1 pairs to start with, and at most two new ones for each merge.
bool merge_heap_reserve(merge_heap *heap, size_t parts);
void merge_heap_push(merge_heap *heap, uint32_t rank, uint32_t left);
/// The least key. The heap must not be empty.
uint64_t merge_heap_pop(merge_heap *heap);
void merge_heap_free(merge_heap *heap);

#endif
