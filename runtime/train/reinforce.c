/// REINFORCE: answers drawn from the policy, J = E[A log π(answer | prompt)] − λ KL, A the reward over the mean of the other answers to the
/// same prompt (Kool, van Hoof, Welling 2019), or the reward itself where there is only one (the paper, section 3.2).
#include "train/rollout.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>

/// Scores of answers; what the scorer cannot tell is left out, counted and logged.
static zs_status score(const zs_trainer *t, bool valid, rollout *rollouts, size_t count, uint32_t *failed, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    for (size_t i = 0; i < count; i++) {
        rollout *r = &rollouts[i];
        char *text = NULL;
        zs_error why = {0};
        zs_status status = rollout_text(t->model->tokenizer, r, &text, error);
        if (status) return status;
        status = p->reward(p->reward_user, valid, r->index, text, &r->score, &why);
        free(text);
        if (status == ZS_ERROR_CANCELLED) return zs_error_set(error, status, "%s", why.message);
        if (!status && !(r->score >= 0 && r->score <= 1))
            status = zs_error_set(&why, ZS_ERROR_NUMERIC, "the score %g is not between 0 and 1", r->score);
        r->scored = !status;
        *failed += status != ZS_OK;
        if (status)
            gpu_log(t->model->device, ZS_LOG_WARNING, "%s item %zu: an answer has no score: %s", valid ? "validation" : "training",
                    r->index, why.message);
    }
    if (*failed < count || !count) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "none of %zu answers could be scored: the scorer is at fault", count);
}

static zs_status make_answers(const zs_trainer *t, bool valid, rollout *rollouts, size_t count, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    zs_expert *expert = NULL;
    zs_status status = trainer_current(t, &expert, error);
    if (status) return status;
    const rollout_params params = {.engine = p->engine,
                                   .expert = expert,
                                   .transfer = p->transfer,
                                   .temperature = valid || p->greedy ? 0 : p->temperature,
                                   .seed = p->seed,
                                   .max_tokens = p->max_tokens,
                                   .progress = p->progress};
    status = rollout_run(&params, rollouts, count, error);
    zs_expert_destroy(&expert);
    return status;
}

static double reward_of(const zs_trainer_params *p, const rollout *r) { return p->wrong + (p->right - p->wrong) * r->score; }

/// Of one of the answers to a prompt: its reward over the mean of the others'.
static double advantage(const zs_trainer_params *p, const rollout *group, uint32_t which) {
    double others = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->rollouts; i++) {
        if (i == which || !group[i].scored) continue;
        others += reward_of(p, &group[i]);
        count++;
    }
    return reward_of(p, &group[which]) - (count ? others / count : 0);
}

/// One term an answer that says something: none without a score, and, but for the divergence, none whose reward is as expected.
static uint32_t make_terms(zs_trainer *t, const rollout *rollouts, size_t count, zs_train_figures *figures) {
    const zs_trainer_params *p = &t->params;
    uint32_t terms = 0, scored = 0;
    for (size_t i = 0; i < count; i++) scored += rollouts[i].scored;
    for (size_t i = 0; i < count; i++) {
        const rollout *r = &rollouts[i];
        uint32_t which = (uint32_t)(i % p->rollouts);
        if (!r->scored || !r->count) continue;
        figures->score += r->score / scored;
        figures->reward += reward_of(p, r) / scored;
        double a = advantage(p, r - which, which);
        if (a == 0 && p->kl_weight <= 0) continue;
        const train_prompt *prompt = &t->prompts[i / p->rollouts];
        figures->tokens += prompt->count + r->count - 1;
        t->batch[terms++] = (zs_gradient_item){.prompt = prompt->ids,
                                               .prompt_count = prompt->count,
                                               .answer = r->tokens,
                                               .answer_count = r->count,
                                               .images = r->item->images,
                                               .image_count = r->item->image_count,
                                               .weight = (float)(a / scored),
                                               .kl_weight = (float)(p->kl_weight / scored)};
    }
    return terms;
}

static zs_status learn(zs_trainer *t, uint32_t terms, zs_train_figures *figures, zs_error *error) {
    size_t tokens = 0, done = 0;
    for (uint32_t i = 0; i < terms; i++) tokens += t->batch[i].answer_count;
    if (!tokens) return ZS_OK; // nothing to learn from: a gradient of zero
    float *logprobs = calloc(2 * tokens, sizeof *logprobs), *kl = logprobs + tokens;
    if (!logprobs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's answers");
    for (uint32_t i = 0; i < terms; i++) {
        t->batch[i].logprobs = logprobs + done;
        t->batch[i].kl = kl + done;
        done += t->batch[i].answer_count;
    }
    zs_status status = zs_gradient_add(t->gradient, t->batch, terms, error);
    for (size_t k = 0; k < tokens && !status; k++) {
        figures->logprob += (double)logprobs[k] / (double)tokens;
        figures->kl += (double)kl[k] / (double)tokens;
    }
    free(logprobs);
    return status;
}

/// The prompts of a step, whose answers are made: images that made room meanwhile are encoded again.
static zs_status open_prompts(zs_trainer *t, const rollout *rollouts, zs_error *error) {
    const zs_train_item **items = malloc(t->params.batch * sizeof(*items));
    if (!items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's prompts");
    for (uint32_t i = 0; i < t->params.batch; i++) items[i] = rollouts[(size_t)i * t->params.rollouts].item;
    zs_status status = train_prompts_open(t->params.engine, items, t->params.batch, t->prompts, error);
    free(items);
    return status;
}

static void count_answers(const rollout *rollouts, size_t count, zs_train_figures *figures) {
    for (size_t i = 0; i < count; i++) {
        figures->answer_tokens += rollouts[i].count;
        figures->cut += !rollouts[i].ended;
    }
    figures->answers = (uint32_t)count;
}

zs_status reinforce_step(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    size_t count = (size_t)p->batch * p->rollouts;
    rollout *rollouts = calloc(count, sizeof *rollouts);
    if (!rollouts) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a step's answers");
    for (size_t i = 0; i < count; i++) {
        size_t place = trainer_item(t, (uint64_t)t->state.step * p->batch + i / p->rollouts);
        rollouts[i] = (rollout){.item = &p->items[place], .index = place, .stream = (uint64_t)t->state.step * count + i};
    }
    double start = trainer_now_ms();
    zs_status status = make_answers(t, false, rollouts, count, error);
    if (!status) status = score(t, false, rollouts, count, &figures->failed, error);
    figures->rollout_ms = trainer_now_ms() - start;
    if (!status) count_answers(rollouts, count, figures);
    if (!status) status = open_prompts(t, rollouts, error);
    if (!status) status = learn(t, make_terms(t, rollouts, count, figures), figures, error);
    train_prompts_close(t->prompts, p->batch);
    rollout_free(rollouts, count);
    return status;
}

zs_status reinforce_evaluate(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    rollout *rollouts = calloc(p->valid_count, sizeof *rollouts);
    if (!rollouts) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the validation set");
    for (size_t i = 0; i < p->valid_count; i++) rollouts[i] = (rollout){.item = &p->valid[i], .index = i};
    uint32_t failed = 0;
    zs_status status = make_answers(t, true, rollouts, p->valid_count, error);
    if (!status) status = score(t, true, rollouts, p->valid_count, &failed, error);
    figures->valid = 0; // an answer without a score counts as wrong
    for (size_t i = 0; i < p->valid_count && !status; i++)
        figures->valid += rollouts[i].scored ? rollouts[i].score / (double)p->valid_count : 0;
    rollout_free(rollouts, p->valid_count);
    return status;
}
