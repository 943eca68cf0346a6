/// Pass 1: which expert a question belongs to.
#ifndef ADAPT_DISPATCH_H
#define ADAPT_DISPATCH_H

#include "zsigma/zsigma.h"

typedef struct dispatch_params {
    const zs_expert_set *experts;
    uint32_t expert; // table id under which pass 1 runs: 0, or the dispatcher
    zs_dispatch how;
    const char *current;           // expert of the turn before, or NULL
    const zs_image *const *images; // [image_count] in front of the question, which is then not empty
    size_t image_count;
} dispatch_params;

/// Probabilities of the set's experts and, last, of "other"; *chosen is an index into them. categories is malloc'ed,
/// zs_expert_set_count + 1 long, the caller frees it (on failure it is NULL).
zs_status dispatch_question(zs_engine *engine, const char *question, const dispatch_params *params, zs_category **categories,
                            uint32_t *chosen, zs_error *error);

#endif
