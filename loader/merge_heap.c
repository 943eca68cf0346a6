#include "loader/merge_heap.h"

#include <stdlib.h>

bool merge_heap_reserve(merge_heap *heap, size_t parts) {
    if (3 * parts <= heap->capacity) return true;
    uint64_t *grown = realloc(heap->keys, 3 * parts * sizeof *grown);
    if (!grown) return false;
    heap->keys = grown;
    heap->capacity = 3 * parts;
    return true;
}

void merge_heap_push(merge_heap *heap, uint32_t rank, uint32_t left) {
    uint64_t key = (uint64_t)rank << 32 | left;
    size_t child = heap->count++;
    while (child > 0 && heap->keys[(child - 1) / 2] > key) {
        heap->keys[child] = heap->keys[(child - 1) / 2];
        child = (child - 1) / 2;
    }
    heap->keys[child] = key;
}

uint64_t merge_heap_pop(merge_heap *heap) {
    uint64_t *keys = heap->keys, top = keys[0], last = keys[--heap->count];
    size_t parent = 0;
    for (size_t child; (child = 2 * parent + 1) < heap->count; parent = child) {
        if (child + 1 < heap->count && keys[child + 1] < keys[child]) child++;
        if (keys[child] >= last) break;
        keys[parent] = keys[child];
    }
    keys[parent] = last;
    return top;
}

void merge_heap_free(merge_heap *heap) {
    free(heap->keys);
    *heap = (merge_heap){0};
}
