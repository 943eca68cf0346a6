/// KV pages with scrambled addresses, for rope_kv and attention.
#ifndef TESTS_OPS_KV_PAGES_H
#define TESTS_OPS_KV_PAGES_H

#include "harness.h"

typedef struct kv_pages {
    uint32_t layers, kv_heads, head_dim;
    kv_type type;
    uint32_t sequences, page_stride; // of the table
    uint32_t page_count;
    size_t page_values; // values of one page
    size_t page_bytes;
    uint64_t *table; // [sequences, page_stride] device addresses; where no page is, one whose values are all NaN
    uint64_t base;   // of all pages, one after another
    uint32_t *index; // [sequences, page_stride]: which page
} kv_pages;

/// lengths[s]: positions of sequence s. Pages start as 0xff.
kv_pages kv_pages_make(harness *h, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, kv_type type, const uint32_t *lengths,
                       uint32_t sequences);
/// A sequence's pages first … end − 1 become those of sequence `of`.
void kv_pages_share(kv_pages *kv, uint32_t sequence, uint32_t of, uint32_t first, uint32_t end);
/// Index (in values, scales aside) of a position's key (or value) vector of a head.
size_t kv_pages_at(const kv_pages *kv, uint32_t layer, bool value, uint32_t sequence, uint32_t position, uint32_t kv_head);
/// Stores the vector of a head, whose index is `at`, and rounds it as the pages do.
void kv_pages_set(harness *h, const kv_pages *kv, size_t at, float *vector);
/// A value of pages as they were, or as they are now, by its index; KV_Q8.
float kv_pages_q8(const kv_pages *kv, const uint8_t *pages, size_t at);
/// Where its byte and its scale are; KV_Q8.
void kv_pages_q8_places(const kv_pages *kv, size_t at, size_t *byte, size_t *scale);

#endif
