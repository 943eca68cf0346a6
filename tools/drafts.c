#include "drafts.h"

#include <stdlib.h>
#include <string.h>

static const double fading = 0.97; // of an answer's weight with each new one: about the last thirty count
static const double doubt = 0.5;   // a draft's least share of all answers and one more: what nobody draws is computed in vain

typedef struct answer {
    uint32_t *tokens; // [count]
    size_t count;
    double weight;
} answer;

typedef struct known_question {
    answer *answers; // [count]
    size_t count;
} known_question;

struct drafts {
    known_question *questions; // [count]
    size_t count;
};

zs_status drafts_create(size_t questions, drafts **out, zs_error *error) {
    drafts *d = calloc(1, sizeof *d);
    if (d) d->questions = calloc(questions, sizeof *d->questions);
    if (!d || !d->questions) {
        free(d);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu questions", questions);
    }
    d->count = questions;
    *out = d;
    return ZS_OK;
}

void drafts_destroy(drafts **handle) {
    drafts *d = *handle;
    if (!d) return;
    *handle = NULL;
    for (size_t q = 0; q < d->count; q++) {
        for (size_t i = 0; i < d->questions[q].count; i++) free(d->questions[q].answers[i].tokens);
        free(d->questions[q].answers);
    }
    free(d->questions);
    free(d);
}

static answer *find(known_question *q, const uint32_t *tokens, size_t count) {
    for (size_t i = 0; i < q->count; i++) {
        answer *a = &q->answers[i];
        if (a->count == count && memcmp(a->tokens, tokens, count * sizeof *tokens) == 0) return a;
    }
    return NULL;
}

zs_status drafts_add(drafts *d, size_t question, const uint32_t *tokens, size_t count, zs_error *error) {
    known_question *q = &d->questions[question];
    for (size_t i = 0; i < q->count; i++) q->answers[i].weight *= fading;
    answer *known = find(q, tokens, count);
    if (known) {
        known->weight += 1;
        return ZS_OK;
    }
    answer *longer = realloc(q->answers, (q->count + 1) * sizeof *longer);
    if (longer) q->answers = longer;
    uint32_t *copy = longer ? malloc((count + 1) * sizeof *copy) : NULL;
    if (!copy) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an answer");
    memcpy(copy, tokens, count * sizeof *copy);
    q->answers[q->count++] = (answer){copy, count, 1};
    return ZS_OK;
}

void drafts_apply(const drafts *d, size_t index, zs_question *question) {
    const known_question *q = &d->questions[index];
    const answer *best = NULL;
    double all = 0;
    for (size_t i = 0; i < q->count; i++) {
        all += q->answers[i].weight;
        if (!best || q->answers[i].weight > best->weight) best = &q->answers[i];
    }
    const bool likely = best && best->weight > doubt * (all + 1);
    question->draft = likely ? best->tokens : NULL;
    question->draft_count = likely ? best->count : 0;
}
