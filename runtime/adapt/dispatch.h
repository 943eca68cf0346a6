/// Pass 1: which expert a question belongs to.
#ifndef ADAPT_DISPATCH_H
#define ADAPT_DISPATCH_H

#include "zsigma/zsigma.h"

typedef struct dispatch_params {
    const zs_expert_set *experts;
    uint32_t expert; // table id under which pass 1 runs
    bool trained;    // it is a dispatcher, which was trained on what labels are likely: there is no habit to be taken away
    zs_dispatch how;
    const char *current; // expert of the turn before, or NULL
} dispatch_params;

typedef struct dispatch_question {
    const char *text;
    const zs_image *const *images; // [image_count] in front of the text, which is then not empty
    size_t image_count;
} dispatch_question;

/// Probabilities of the set's experts and, last, of "other"; chosen is an index into them. categories is malloc'ed,
/// zs_expert_set_count + 1 long, the caller frees it.
typedef struct dispatch_decision {
    zs_category *categories;
    uint32_t chosen;
} dispatch_decision;

/// Decides about questions [count] together. On failure the decisions' categories are NULL.
zs_status dispatch_questions(zs_engine *engine, const dispatch_question *questions, size_t count, const dispatch_params *params,
                             dispatch_decision *decisions, zs_error *error);

#endif
