#include "engine/sequence.h"
#include "model/model.h"

#include <stdlib.h>

zs_status sequence_create(uint32_t capacity, sequence *seq, zs_error *error) {
    *seq = (sequence){.capacity = capacity};
    seq->tokens = malloc(capacity * sizeof *seq->tokens);
    seq->pages = malloc((capacity / KV_PAGE_TOKENS + 1) * sizeof *seq->pages);
    if (seq->tokens && seq->pages) return ZS_OK;
    free(seq->tokens);
    free(seq->pages);
    *seq = (sequence){0};
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a sequence of %u tokens", capacity);
}

void sequence_destroy(sequence *seq, kv_pool *pool) {
    for (uint32_t i = 0; i < seq->page_count; i++) kv_pool_release(pool, seq->pages[i]);
    free(seq->tokens);
    free(seq->pages);
    *seq = (sequence){0};
}

uint32_t sequence_pages(uint32_t length) { return length / KV_PAGE_TOKENS + (length % KV_PAGE_TOKENS != 0); }

void sequence_truncate(sequence *seq, kv_pool *pool, uint32_t length) {
    uint32_t pages = sequence_pages(length);
    while (seq->page_count > pages) kv_pool_release(pool, seq->pages[--seq->page_count]);
    if (seq->computed > length) seq->computed = length;
    if (seq->prefilled > length) seq->prefilled = length;
    if (seq->count > length) seq->count = length;
}

uint32_t sequence_common(const sequence *seq, const uint32_t *tokens, uint32_t count, bool prefilled_only) {
    uint32_t limit = prefilled_only ? seq->prefilled : seq->computed, i = 0;
    if (limit > count) limit = count;
    while (i < limit && seq->tokens[i] == tokens[i]) i++;
    return i;
}
