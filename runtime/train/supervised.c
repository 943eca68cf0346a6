/// Answers as they are given: the mean log-probability of their tokens is what grows.
#include "train/trainer.h"

#include <stdlib.h>

static size_t answer_tokens(const zs_train_item *items, size_t count) {
    size_t tokens = 0;
    for (size_t i = 0; i < count; i++) tokens += items[i].answer_count;
    return tokens;
}

static double sum_of(const float *logprobs, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)logprobs[i];
    return sum;
}

static zs_gradient_item term_of(const zs_train_item *item, float weight, float *logprobs) {
    return (zs_gradient_item){.prompt = item->prompt,
                              .prompt_count = item->prompt_count,
                              .answer = item->answer,
                              .answer_count = item->answer_count,
                              .weight = weight,
                              .logprobs = logprobs};
}

zs_status supervised_step(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    size_t tokens = 0, done = 0;
    for (uint32_t i = 0; i < p->batch; i++) {
        const zs_train_item *item = &p->items[trainer_item(t, (uint64_t)t->state.step * p->batch + i)];
        t->batch[i] = term_of(item, 0, NULL);
        tokens += item->answer_count;
        figures->tokens += item->prompt_count + item->answer_count - 1;
    }
    float *logprobs = malloc(tokens * sizeof *logprobs);
    if (!logprobs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's answers");
    for (uint32_t i = 0; i < p->batch; i++) {
        t->batch[i].weight = 1 / (float)tokens;
        t->batch[i].logprobs = logprobs + done;
        done += t->batch[i].answer_count;
    }
    zs_status status = zs_gradient_add(t->gradient, t->batch, p->batch, error);
    if (!status) figures->logprob = sum_of(logprobs, tokens) / (double)tokens;
    free(logprobs);
    return status;
}

zs_status supervised_evaluate(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    size_t tokens = answer_tokens(p->valid, p->valid_count), done = 0;
    float *logprobs = malloc(tokens * sizeof *logprobs);
    zs_gradient_item *terms = malloc(p->valid_count * sizeof *terms);
    zs_status status = logprobs && terms ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the validation set");
    for (size_t i = 0; i < p->valid_count && !status; i++) {
        terms[i] = term_of(&p->valid[i], 0, logprobs + done);
        done += terms[i].answer_count;
    }
    if (!status) status = zs_gradient_score(t->gradient, terms, p->valid_count, error);
    if (!status) figures->valid = sum_of(logprobs, tokens) / (double)tokens;
    free(terms);
    free(logprobs);
    return status;
}
