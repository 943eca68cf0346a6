/// The loop that every kind of training shares: a step's gradient, the values moved along it, evaluations, checkpoints.
#include "train/trainer.h"

#include "adapt/random.h"
#include "engine/engine.h"
#include "vision/image.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { USUAL_BATCH = 32, USUAL_CHECKPOINT = 10, USUAL_ROUNDS = 3, USUAL_EVALUATIONS = 10, USUAL_ROLLOUTS = 4, USUAL_TOKENS = 256 };

double trainer_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

// ---- settings ------------------------------------------------------------------------------------------------------

static void choose_params(zs_trainer_params *p) {
    if (!p->batch) p->batch = USUAL_BATCH;
    if (!p->steps) p->steps = (uint32_t)((USUAL_ROUNDS * p->item_count + p->batch - 1) / p->batch);
    if (!p->valid_every) p->valid_every = p->steps < USUAL_EVALUATIONS ? 1 : p->steps / USUAL_EVALUATIONS;
    if (!p->checkpoint_every) p->checkpoint_every = USUAL_CHECKPOINT;
    if (p->learning_rate <= 0) p->learning_rate = 2e-3;
    if (p->max_mult <= 0) p->max_mult = 1;
    if (p->greedy || !p->reward) p->rollouts = 1;
    if (!p->rollouts) p->rollouts = USUAL_ROLLOUTS;
    if (p->temperature <= 0) p->temperature = 1;
    if (!p->max_tokens) p->max_tokens = USUAL_TOKENS;
    if (p->right == 0 && p->wrong == 0) p->right = 1, p->wrong = -1;
    if (p->kl == ZS_KL_NONE || !p->reward) p->kl_weight = 0;
}

static zs_status check_items(const zs_model *model, const zs_trainer_params *p, bool valid, zs_error *error) {
    const model_config *c = &model->config;
    const zs_train_item *items = valid ? p->valid : p->items;
    const char *what = valid ? "validation" : "training";
    size_t count = valid ? p->valid_count : p->item_count;
    for (size_t i = 0; i < count; i++) {
        const zs_train_item *item = &items[i];
        size_t answer_count = p->reward ? 0 : item->answer_count;
        if (!item->prompt_count || (!p->reward && !answer_count))
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s item %zu: at least one token of prompt and of answer is needed", what, i);
        size_t prompt_count;
        zs_status status = train_prompt_count(model, item, &prompt_count, error);
        if (status) return status;
        if (prompt_count > c->context || answer_count > c->context - prompt_count)
            return zs_error_set(error, ZS_ERROR_CONTEXT, "%s item %zu: prompt and answer have %zu tokens, and the model takes %u", what, i,
                                prompt_count + answer_count, c->context);
        for (size_t k = 0; k < item->prompt_count + answer_count; k++) {
            uint32_t id = k < item->prompt_count ? item->prompt[k] : item->answer[k - item->prompt_count];
            bool marks = item->image_count && k < item->prompt_count && id == model->info.image_token;
            if (id >= c->vocab && !marks)
                return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s item %zu: token id %u is outside the vocabulary of %u", what, i, id,
                                    c->vocab);
        }
    }
    return ZS_OK;
}

static bool has_images(const zs_trainer_params *p) {
    for (size_t i = 0; i < p->item_count + p->valid_count; i++) {
        if ((i < p->item_count ? &p->items[i] : &p->valid[i - p->item_count])->image_count) return true;
    }
    return false;
}

static zs_status check_images(const zs_model *model, const zs_trainer_params *p, zs_error *error) {
    if (!has_images(p)) return ZS_OK;
    if (!p->engine || p->engine->model != model)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "items with images need an engine of the model that is trained");
    if (!p->deterministic) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "a deterministic training has no images: in which order items are summed hangs on when their images were encoded");
}

static zs_status check_reward(const zs_model *model, const zs_trainer_params *p, zs_error *error) {
    if (!p->reward) return ZS_OK;
    if (!p->engine || p->engine->model != model)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "reinforcement needs an engine of the model that it trains");
    if (!model->tokenizer)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no tokenizer, so its answers are no text that could be scored", model->path);
    if (p->deterministic && !p->engine->params.deterministic)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a deterministic training needs a deterministic engine");
    return ZS_OK;
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u; // FNV-1a
    return hash;
}

static uint64_t hash_number(uint64_t hash, uint64_t number) { return (hash ^ number) * 0x100000001b3u; }

static uint64_t hash_image(uint64_t hash, const zs_image *image) {
    uint64_t pixels[2];
    image_hash(image, pixels);
    return hash_number(hash_number(hash, pixels[0]), pixels[1]);
}

static uint64_t hash_items(const zs_train_item *items, size_t count, bool answers) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) {
        hash = hash_number(hash_number(hash, items[i].prompt_count), answers ? items[i].answer_count : 0);
        hash = hash_bytes(hash, items[i].prompt, items[i].prompt_count * sizeof *items[i].prompt);
        if (answers) hash = hash_bytes(hash, items[i].answer, items[i].answer_count * sizeof *items[i].answer);
        for (size_t k = 0; k < items[i].image_count; k++) hash = hash_image(hash, items[i].images[k]);
    }
    return hash;
}

/// By its singular values.
static uint64_t hash_model(const zs_model *model) {
    uint64_t hash = 0xcbf29ce484222325u;
    const model_weight *w;
    for (uint32_t i = 0; (w = model_weight_at(model, i)); i++) {
        if (w->factored) hash = hash_bytes(hash, w->sigma, w->rank * sizeof *w->sigma);
    }
    return hash;
}

static void list_reward_settings(const zs_trainer_params *p, setting_list *list) {
    static const char *const kls[] = {"none", "policy from base", "base from policy"};
    const zs_engine_info *engine = zs_engine_get_info(p->engine);
    setting_add(list, "reward of what is right", p->right);
    setting_add(list, "reward of what is wrong", p->wrong);
    setting_add(list, "answers to a prompt", p->rollouts);
    setting_add_text(list, "answers", p->greedy ? "greedy" : "sampled");
    setting_add(list, "temperature", (double)p->temperature);
    setting_add(list, "tokens of an answer", p->max_tokens);
    setting_add_text(list, "divergence", kls[p->kl]);
    setting_add(list, "weight of the divergence", p->kl_weight);
    setting_add_text(list, "precision of answers", engine->precision == ZS_PRECISION_EXACT ? "exact" : "fast");
}

/// All that the result hangs on, as far as a second run could have it otherwise.
static void list_settings(zs_trainer *t) {
    const zs_trainer_params *p = &t->params;
    const parameters *values = &t->parameters;
    setting_list *list = &t->settings;
    setting_add_bits(list, "model", hash_model(t->model));
    setting_add_bits(list, "data", hash_items(p->items, p->item_count, !p->reward));
    setting_add_bits(list, "validation data", hash_items(p->valid, p->valid_count, !p->reward));
    setting_add_bits(list, "first values", hash_bytes(0xcbf29ce484222325u, values->values, values->count * sizeof *values->values));
    setting_add_text(list, "parameterisation", values->sigmoid ? "sigmoid" : "scale");
    setting_add_text(list, "normalise", values->trace ? "trace" : "none");
    setting_add(list, "max_mult", values->max_mult);
    setting_add(list, "matrices", values->matrix_count);
    setting_add(list, "batch", p->batch);
    setting_add(list, "steps", p->steps);
    setting_add(list, "learning rate", p->learning_rate);
    setting_add_text(list, "schedule", p->constant_rate ? "constant" : "cosine");
    setting_add(list, "clip", p->clip);
    setting_add(list, "weight decay", p->weight_decay);
    setting_add(list, "evaluation every so many steps", p->valid_every);
    setting_add(list, "patience", p->patience);
    setting_add_bits(list, "seed", p->seed);
    setting_add_text(list, "precision of gradients", gradient_is_fast(t->gradient) ? "fast" : "exact");
    setting_add_text(list, "method", p->reward ? "reinforcement" : "supervised");
    if (p->reward) list_reward_settings(p, list);
    setting_add_text(list, "deterministic", p->deterministic ? "yes" : "no");
    if (!p->deterministic) return;
    const gpu_caps *caps = gpu_device_caps(t->model->device);
    setting_add_text(list, "device and driver", caps->cache_key);
    setting_add(list, "tiers", caps->tiers);
    setting_add(list, "subgroup size", caps->subgroup_size);
    setting_add(list, "tokens of a pass", zs_gradient_max_rows(t->gradient));
    setting_add(list, "layers kept in a pass", zs_gradient_kept_layers(t->gradient));
}

// ---- life ----------------------------------------------------------------------------------------------------------

/// Rows of the longest, an answer that fills the context at most.
static uint32_t longest_item(const zs_model *model, const zs_trainer_params *p) {
    size_t longest = 1;
    for (size_t i = 0; i < p->item_count + p->valid_count; i++) {
        const zs_train_item *item = i < p->item_count ? &p->items[i] : &p->valid[i - p->item_count];
        size_t rows = 0;
        if (train_prompt_count(model, item, &rows, NULL)) continue; // check_items has told
        rows += (p->reward ? p->max_tokens : item->answer_count) - 1;
        if (rows > model->config.context) rows = model->config.context;
        if (rows > longest) longest = rows;
    }
    return (uint32_t)longest;
}

static zs_status create_values(zs_trainer *t, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    if (p->init) return parameters_from_expert(t->model, p->init, p->transfer, &t->parameters, error);
    const parameters_form form = {
        .sigmoid = p->sigmoid, .trace = p->trace, .max_mult = p->max_mult, .matrices = p->matrices, .images = t->images, .seed = p->seed};
    return parameters_create(t->model, &form, &t->parameters, error);
}

static zs_status create_arrays(zs_trainer *t, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    const optimiser_params adam = {.rate = p->learning_rate,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .epsilon = 1e-8,
                                   .decay = p->weight_decay,
                                   .clip = p->clip,
                                   .steps = p->steps,
                                   .constant = p->constant_rate};
    size_t count = t->parameters.count, bytes = count * sizeof(float);
    t->slope = calloc(count, sizeof(float));
    t->centres = calloc(count, sizeof(float));
    t->before = malloc(bytes);
    t->best = malloc(bytes);
    t->order = malloc(p->item_count * sizeof *t->order);
    t->batch = calloc((size_t)p->batch * p->rollouts, sizeof *t->batch);
    t->prompts = calloc(p->batch, sizeof *t->prompts);
    if (!t->slope || !t->centres || !t->before || !t->best || !t->order || !t->batch || !t->prompts)
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a training");
    memcpy(t->best, t->parameters.values, bytes);
    random_order(p->seed, 0, t->order, p->item_count);
    zs_status status = optimiser_create(&adam, count, &t->optimiser, error);
    if (!status)
        t->state = (checkpoint){
            .values = t->parameters.values, .best = t->best, .mean = t->optimiser.mean, .square = t->optimiser.square, .count = count};
    return status;
}

static zs_status take_up(zs_trainer *t, zs_error *error) {
    if (!t->params.checkpoint || access(t->params.checkpoint, F_OK) != 0) return ZS_OK;
    zs_status status = checkpoint_load(t->params.checkpoint, &t->settings, &t->state, error);
    t->resumed = !status;
    return status;
}

/// The values' effect on gradients from here on.
static zs_status apply_values(zs_trainer *t, zs_error *error) {
    zs_expert *expert = NULL;
    zs_status status = trainer_current(t, &expert, error);
    if (!status) status = zs_gradient_set_expert(t->gradient, expert, t->params.transfer, error);
    zs_expert_destroy(&expert);
    return status;
}

zs_status zs_trainer_create(zs_model *model, const zs_trainer_params *params, zs_trainer **out, zs_error *error) {
    if (!params || !params->item_count) return zs_error_set(error, ZS_ERROR_ARGUMENT, "there is nothing to train on");
    zs_status status = check_reward(model, params, error);
    if (!status) status = check_images(model, params, error);
    if (!status) status = check_items(model, params, false, error);
    if (!status) status = check_items(model, params, true, error);
    if (status) return status;
    zs_trainer *t = calloc(1, sizeof *t);
    if (!t) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a training");
    t->model = model;
    t->params = *params;
    choose_params(&t->params);
    t->images = has_images(params);
    const zs_gradient_params gradient = {.min_rows = longest_item(model, &t->params),
                                         .kl = t->params.kl_weight > 0 ? t->params.kl : ZS_KL_NONE,
                                         // The shape of matrix units' tiles is what a measurement found: not the same for good.
                                         .precision = t->params.deterministic ? ZS_PRECISION_EXACT : t->params.precision,
                                         .engine = t->params.engine,
                                         .progress = params->progress};
    status = zs_gradient_create(model, &gradient, &t->gradient, error);
    if (!status) status = create_values(t, error);
    if (!status) status = create_arrays(t, error);
    if (!status) list_settings(t);
    if (!status) status = take_up(t, error);
    if (!status) status = apply_values(t, error);
    if (status)
        zs_trainer_destroy(&t);
    else
        *out = t;
    return status;
}

void zs_trainer_destroy(zs_trainer **handle) {
    zs_trainer *t = *handle;
    if (!t) return;
    *handle = NULL;
    zs_gradient_destroy(&t->gradient);
    optimiser_destroy(&t->optimiser);
    parameters_destroy(&t->parameters);
    free(t->slope);
    free(t->centres);
    free(t->before);
    free(t->best);
    free(t->order);
    free(t->batch);
    free(t->prompts);
    free(t);
}

// ---- steps ---------------------------------------------------------------------------------------------------------

size_t trainer_item(zs_trainer *t, uint64_t position) {
    uint64_t round = position / t->params.item_count;
    if (round != t->round) random_order(t->params.seed, round, t->order, t->params.item_count);
    t->round = round;
    return t->order[position % t->params.item_count];
}

zs_status trainer_current(const zs_trainer *t, zs_expert **expert, zs_error *error) {
    const parameters_texts texts = {.name = t->params.name ? t->params.name : "in training"};
    return parameters_expert(&t->parameters, t->parameters.values, &texts, expert, error);
}

static bool all_finite(const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) return false;
    }
    return true;
}

/// Uphill along the gradient that the step left: what is minimised is the negative.
static zs_status move_values(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    size_t count = t->parameters.count;
    memcpy(t->before, t->parameters.values, count * sizeof *t->before);
    parameters_gradient(&t->parameters, gradient_values(t->gradient), t->slope);
    for (size_t i = 0; i < count; i++) t->slope[i] = -t->slope[i];
    bool decays = t->params.weight_decay > 0;
    if (decays) parameters_centres(&t->parameters, t->centres);
    figures->rate = optimiser_rate(&t->optimiser.params, t->state.step);
    zs_status status = all_finite(t->slope, count) && all_finite(t->centres, count)
                           ? ZS_OK
                           : zs_error_set(error, ZS_ERROR_NUMERIC, "the gradient is not a number");
    if (status) return status;
    figures->gradient_norm = optimiser_step(&t->optimiser, t->state.step, t->slope, decays ? t->centres : NULL, t->parameters.values);
    if (!all_finite(t->parameters.values, count)) status = zs_error_set(error, ZS_ERROR_NUMERIC, "a value of z is not a number");
    if (!status) status = apply_values(t, error);
    if (status) memcpy(t->parameters.values, t->before, count * sizeof *t->before);
    return status;
}

static zs_status take_step(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    double start = trainer_now_ms();
    zs_gradient_clear(t->gradient);
    zs_status status = t->params.reward ? reinforce_step(t, figures, error) : supervised_step(t, figures, error);
    if (!status) status = move_values(t, figures, error);
    if (status) return status;
    t->state.step++;
    t->state.tokens += figures->tokens;
    figures->learn_ms = trainer_now_ms() - start - figures->rollout_ms;
    return ZS_OK;
}

static zs_status evaluate(zs_trainer *t, zs_train_figures *figures, zs_error *error) {
    double start = trainer_now_ms();
    checkpoint *s = &t->state;
    zs_status status = t->params.reward ? reinforce_evaluate(t, figures, error) : supervised_evaluate(t, figures, error);
    if (status) return status;
    figures->evaluated = true;
    figures->evaluate_ms = trainer_now_ms() - start;
    figures->best = !s->evaluated || figures->valid > s->best_valid;
    if (!s->evaluated) s->first_valid = figures->valid;
    s->evaluated = s->step + 1;
    s->worse = figures->best ? 0 : s->worse + 1;
    if (!figures->best) return ZS_OK;
    s->best_step = s->step;
    s->best_valid = figures->valid;
    memcpy(t->best, t->parameters.values, t->parameters.count * sizeof *t->best);
    return ZS_OK;
}

/// Whether an evaluation belongs to the step that the training is at.
static bool is_due(const zs_trainer *t) {
    const zs_trainer_params *p = &t->params;
    return p->valid_count && (t->state.step % p->valid_every == 0 || t->state.step == p->steps);
}

/// It is due, and was not made before an interruption.
static bool is_pending(const zs_trainer *t) { return is_due(t) && t->state.evaluated <= t->state.step; }

static bool has_ended(zs_trainer *t) {
    t->stopped = t->params.patience && t->state.worse >= t->params.patience;
    return t->stopped || (t->state.step >= t->params.steps && !is_pending(t));
}

static zs_status save(const zs_trainer *t, zs_error *error) {
    return t->params.checkpoint ? checkpoint_save(t->params.checkpoint, &t->state, &t->settings, error) : ZS_OK;
}

/// A step and the evaluation that belongs to it, or only that where it is still to be made. It is told of before it is saved: a log may
/// know of a step that has to be made again, but not lack one.
static zs_status advance(zs_trainer *t, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    checkpoint *s = &t->state;
    zs_train_figures figures = {.steps = p->steps};
    zs_status status = is_pending(t) ? ZS_OK : take_step(t, &figures, error);
    if (!status && is_due(t)) status = evaluate(t, &figures, error);
    if (status) return status;
    figures.step = s->step;
    if (p->on_step && !p->on_step(p->user, &figures))
        return zs_error_set(error, ZS_ERROR_CANCELLED, "the training was stopped at step %u of %u", s->step, p->steps);
    return s->step && (s->step % p->checkpoint_every == 0 || has_ended(t)) ? save(t, error) : ZS_OK;
}

zs_status zs_trainer_run(zs_trainer *t, zs_error *error) {
    zs_status status = ZS_OK;
    while (!status && !has_ended(t)) status = advance(t, error);
    if (status == ZS_ERROR_NUMERIC) {
        zs_error cause = error ? *error : (zs_error){0};
        return zs_error_set(error, status, "the training diverged at step %u of %u: %s; try a lower learning rate", t->state.step + 1,
                            t->params.steps, cause.message);
    }
    if (status != ZS_ERROR_CANCELLED) return status;
    zs_status saved = save(t, error);
    return saved ? saved : status;
}

// ---- the result ----------------------------------------------------------------------------------------------------

zs_trainer_info zs_trainer_get_info(const zs_trainer *t) {
    return (zs_trainer_info){
        .step = t->state.step,
        .steps = t->params.steps,
        .resumed = t->resumed,
        .stopped = t->stopped,
        .has_best = t->state.evaluated > 0,
        .best_step = t->state.best_step,
        .first_valid = t->state.first_valid,
        .best_valid = t->state.best_valid,
        .matrices = t->parameters.matrix_count,
        .values = t->parameters.count,
    };
}

zs_status zs_trainer_get_expert(const zs_trainer *t, zs_expert **expert, zs_error *error) {
    const zs_trainer_params *p = &t->params;
    char training[512];
    int length = snprintf(training, sizeof training,
                          "{\"method\": \"%s\", \"items\": %zu, \"steps\": %u, \"batch\": %u, \"learning_rate\": %.9g, \"seed\": %llu",
                          p->reward ? "reinforcement" : "supervised", p->item_count, t->state.step, p->batch, p->learning_rate,
                          (unsigned long long)p->seed);
    if (t->state.evaluated)
        length += snprintf(training + length, sizeof training - (size_t)length,
                           ", \"best_step\": %u, \"valid_items\": %zu, \"first_valid\": %.9g, \"best_valid\": %.9g", t->state.best_step,
                           p->valid_count, t->state.first_valid, t->state.best_valid);
    snprintf(training + length, sizeof training - (size_t)length, "}");
    const parameters_texts texts = {.name = p->name, .description = p->description, .training = training, .dispatcher = p->dispatcher};
    return parameters_expert(&t->parameters, t->state.evaluated ? t->best : t->parameters.values, &texts, expert, error);
}
