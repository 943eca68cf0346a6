/// Answers as they are given: the mean log-probability of their tokens is what grows.
#include "train/trainer.h"

#include <stdlib.h>

/// Items and what the gradient takes of them.
typedef struct lesson {
    size_t count, tokens; // tokens: of the answers
    train_prompt *prompts;
    zs_gradient_item *terms; // each of weight 1 / tokens
    float *logprobs;         // [tokens]
} lesson;

static size_t answer_tokens(const zs_train_item *const *items, size_t count) {
    size_t tokens = 0;
    for (size_t i = 0; i < count; i++) tokens += items[i]->answer_count;
    return tokens;
}

/// To be closed also after an error.
static zs_status open_lesson(const zs_trainer *t, const zs_train_item *const *items, size_t count, lesson *l, zs_error *error) {
    *l = (lesson){.count = count, .tokens = answer_tokens(items, count)};
    l->prompts = calloc(count, sizeof *l->prompts);
    l->terms = calloc(count, sizeof *l->terms);
    l->logprobs = calloc(l->tokens, sizeof *l->logprobs);
    if (!l->prompts || !l->terms || !l->logprobs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu answers", count);
    zs_status status = train_prompts_open(t->params.engine, items, count, l->prompts, error);
    float *next = l->logprobs;
    for (size_t i = 0; i < count; i++) {
        l->terms[i] = (zs_gradient_item){.prompt = l->prompts[i].ids,
                                         .prompt_count = l->prompts[i].count,
                                         .answer = items[i]->answer,
                                         .answer_count = items[i]->answer_count,
                                         .images = items[i]->images,
                                         .image_count = items[i]->image_count,
                                         .weight = 1 / (float)l->tokens,
                                         .logprobs = next};
        next += items[i]->answer_count;
    }
    return status;
}

static void close_lesson(lesson *l) {
    if (l->prompts) train_prompts_close(l->prompts, l->count);
    free(l->prompts);
    free(l->terms);
    free(l->logprobs);
}

static double sum_logprobs(const lesson *l) {
    double sum = 0;
    for (size_t i = 0; i < l->tokens; i++) sum += (double)l->logprobs[i];
    return sum;
}

zs_status supervised_step(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    const zs_train_item **items = calloc(p->batch, sizeof(*items));
    if (!items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's items");
    for (uint32_t i = 0; i < p->batch; i++) items[i] = &p->items[trainer_item(t, (uint64_t)t->state.step * p->batch + i)];
    lesson l;
    zs_status status = open_lesson(t, items, p->batch, &l, error);
    if (!status) status = zs_gradient_add(t->gradient, l.terms, l.count, error);
    if (!status) figures->logprob = sum_logprobs(&l) / (double)l.tokens;
    for (size_t i = 0; i < l.count && !status; i++) figures->tokens += l.terms[i].prompt_count + l.terms[i].answer_count - 1;
    close_lesson(&l);
    free(items);
    return status;
}

/// In parts: the engine keeps no more images than a step has.
zs_status supervised_evaluate(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    const zs_train_item **items = calloc(p->valid_count, sizeof(*items));
    if (!items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the validation set");
    for (size_t i = 0; i < p->valid_count; i++) items[i] = &p->valid[i];
    size_t tokens = answer_tokens(items, p->valid_count), part = t->images ? p->batch : p->valid_count;
    double sum = 0;
    zs_status status = ZS_OK;
    for (size_t first = 0; first < p->valid_count && !status; first += part) {
        size_t left = p->valid_count - first;
        lesson l;
        status = open_lesson(t, items + first, left < part ? left : part, &l, error);
        if (!status) status = zs_gradient_score(t->gradient, l.terms, l.count, error);
        if (!status) sum += sum_logprobs(&l);
        close_lesson(&l);
    }
    if (!status) figures->valid = sum / (double)tokens;
    free(items);
    return status;
}
