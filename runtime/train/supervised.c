/// Answers as they are given: the mean log-probability of their tokens is what grows.
#include "train/trainer.h"

#include <stdlib.h>

static double sum_of(const float *logprobs, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)logprobs[i];
    return sum;
}

/// The terms of items [count], at most a batch, in trainer->batch, each with its prompt in trainer->prompts; *tokens of answers in all.
static zs_status make_terms(zs_trainer *t, const zs_train_item *const *items, size_t count, size_t *tokens, zs_error *error) {
    zs_status status = trainer_open_prompts(t, items, count, error);
    *tokens = 0;
    for (size_t i = 0; i < count && !status; i++) {
        const train_prompt *prompt = &t->prompts[i];
        t->batch[i] = (zs_gradient_item){
            .prompt = prompt->ids, .prompt_count = prompt->count, .answer = items[i]->answer, .answer_count = items[i]->answer_count};
        *tokens += items[i]->answer_count;
    }
    return status;
}

/// Log-probabilities of the answers in trainer->batch[count] one after another; malloc'ed, NULL when memory is out.
static float *place_logprobs(const zs_trainer *t, size_t count, size_t tokens) {
    float *logprobs = malloc((tokens + 1) * sizeof *logprobs);
    size_t done = 0;
    for (size_t i = 0; i < count && logprobs; i++) {
        t->batch[i].logprobs = logprobs + done;
        done += t->batch[i].answer_count;
    }
    return logprobs;
}

/// Learns from items [batch].
static zs_status learn(zs_trainer *t, const zs_train_item *const *items, zs_train_figures *figures, zs_error *error) {
    const uint32_t count = t->params.batch;
    size_t tokens;
    float *logprobs = NULL;
    zs_status status = make_terms(t, items, count, &tokens, error);
    if (!status && !(logprobs = place_logprobs(t, count, tokens)))
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's answers");
    for (uint32_t i = 0; i < count && !status; i++) {
        t->batch[i].weight = 1 / (float)tokens;
        figures->tokens += t->batch[i].prompt_count + t->batch[i].answer_count - 1;
    }
    if (!status) status = zs_gradient_add(t->gradient, t->batch, count, error);
    if (!status) figures->logprob = sum_of(logprobs, tokens) / (double)tokens;
    trainer_close_prompts(t);
    free(logprobs);
    return status;
}

zs_status supervised_step(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    const zs_train_item **items = calloc(p->batch, sizeof(*items));
    if (!items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's items");
    for (uint32_t i = 0; i < p->batch; i++) items[i] = &p->items[trainer_item(t, (uint64_t)t->state.step * p->batch + i)];
    zs_status status = learn(t, items, figures, error);
    free(items);
    return status;
}

/// Adds what items [count] of the validation set, at most a batch, have.
static zs_status evaluate(zs_trainer *t, const zs_train_item *const *items, size_t count, double *sum, size_t *all, zs_error *error) {
    size_t tokens;
    float *logprobs = NULL;
    zs_status status = make_terms(t, items, count, &tokens, error);
    if (!status && !(logprobs = place_logprobs(t, count, tokens)))
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the validation set");
    if (!status) status = zs_gradient_score(t->gradient, t->batch, count, error);
    if (!status) *sum += sum_of(logprobs, tokens);
    *all += tokens;
    trainer_close_prompts(t);
    free(logprobs);
    return status;
}

zs_status supervised_evaluate(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    const zs_train_item **items = calloc(p->valid_count, sizeof(*items));
    if (!items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the validation set");
    double sum = 0;
    size_t tokens = 0;
    zs_status status = ZS_OK;
    for (size_t i = 0; i < p->valid_count; i++) items[i] = &p->valid[i];
    for (size_t first = 0; first < p->valid_count && !status; first += p->batch) {
        size_t left = p->valid_count - first;
        status = evaluate(t, items + first, left < p->batch ? left : p->batch, &sum, &tokens, error);
    }
    if (!status) figures->valid = sum / (double)tokens;
    free(items);
    return status;
}
