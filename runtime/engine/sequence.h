/// A run of tokens with keys and values in pages: what sessions, cached prefixes and scoring branches are made of.
#ifndef ENGINE_SEQUENCE_H
#define ENGINE_SEQUENCE_H

#include "engine/kv_pool.h"

typedef struct sequence {
    uint32_t *tokens;   // [capacity]
    uint32_t count;     // tokens known
    uint32_t computed;  // positions 0 … computed − 1 have keys and values in the pages
    uint32_t prefilled; // of them, the first ones made by prefill kernels (a decode step's bits may differ)
    uint32_t capacity;
    uint32_t *pages; // [page_count]
    uint32_t page_count;
    uint64_t expert_serial; // under whose z they were computed
} sequence;

zs_status sequence_create(uint32_t capacity, sequence *seq, zs_error *error);
void sequence_destroy(sequence *seq, kv_pool *pool);
/// Pages that so many positions take.
uint32_t sequence_pages(uint32_t length);
/// Forgets positions from `length` on; pages no longer needed are released.
void sequence_truncate(sequence *seq, kv_pool *pool, uint32_t length);
/// Length of the common prefix of seq's computed tokens and tokens[count].
uint32_t sequence_common(const sequence *seq, const uint32_t *tokens, uint32_t count, bool prefilled_only);

#endif
