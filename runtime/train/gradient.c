/// Items become passes over rows, passes a gradient by z.
#include "adapt/expert.h"
#include "engine/engine.h"
#include "loader/safetensors.h"
#include "train/gradient.h"
#include "train/record.h"
#include "train/tower.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CPU_ROWS = 512,
    GPU_ROWS = 4096,
    LEAST_ROWS = 64,
    MOST_SEQUENCES = 256,
    MOST_LOGIT_ROWS = 256,
    LOGIT_BYTES = 64 << 20,
    KEPT_SHARE = 4
};

/// Where an item lies in a pass.
typedef struct placed_item {
    const zs_gradient_item *item;
    uint32_t sequence, first_logit;
    uint32_t begin;    // its first token with a row of its own
    int64_t first_row; // in the pass, of the token 0, whether or not it has a row
} placed_item;

struct zs_gradient {
    const zs_model *model;
    const zs_engine *engine; // NULL: no images
    zs_progress progress;
    zs_kl kl;
    train_workspace workspace;
    train_tower tower;   // opened where the model's has a z and there is an engine
    placed_item *placed; // [limits.sequences]: the items of a pass
    gpu_command *command;
    double *sums;  // [scale_count]: the gradient by σ ⊙ z
    float *values; // [scale_count]: by z
};

// ---- life ----------------------------------------------------------------------------------------------------------

static train_limits limits_of(const zs_model *model, const zs_gradient_params *params, uint32_t rows) {
    uint32_t logit_rows = (uint32_t)(LOGIT_BYTES / (4ull * model->config.vocab)), sequences = rows / 2 + 1;
    if (logit_rows > MOST_LOGIT_ROWS) logit_rows = MOST_LOGIT_ROWS;
    if (logit_rows < 16) logit_rows = 16;
    return (train_limits){
        .rows = rows,
        .sequences = sequences < MOST_SEQUENCES ? sequences : MOST_SEQUENCES,
        .logit_rows = logit_rows < rows ? logit_rows : rows,
        .reference = params && params->kl,
        .fast = engine_precision(model, params ? params->precision : ZS_PRECISION_DEFAULT) == ZS_PRECISION_FAST,
    };
}

/// Layers that keep their activations: the bytes for them are those asked for, or a share of the device's memory, of which the whole counts
/// and not what is free, so that it is the same the next time.
static uint32_t choose_kept(const zs_model *model, const zs_gradient_params *params, const train_limits *limits) {
    const uint64_t share = gpu_device_caps(model->device)->memory_bytes / KEPT_SHARE;
    uint64_t bytes = params && params->max_kept_bytes ? params->max_kept_bytes : share, layers = bytes / train_layer_bytes(model, limits);
    return layers < model->config.layers ? (uint32_t)layers : model->config.layers;
}

/// Rows of a pass: as asked, or as many as suit the device and fit.
static zs_status choose_limits(const zs_model *model, const zs_gradient_params *params, train_limits *limits, zs_error *error) {
    uint32_t asked = params ? params->max_rows : 0, least = params && params->min_rows > LEAST_ROWS ? params->min_rows : LEAST_ROWS;
    uint32_t usual = gpu_device_caps(model->device)->cpu ? CPU_ROWS : GPU_ROWS, fits;
    uint64_t free_bytes = gpu_device_memory_free(model->device);
    if (usual > model->config.context) usual = model->config.context;
    if (params && usual < params->min_rows) usual = params->min_rows;
    *limits = limits_of(model, params, asked ? asked : usual);
    limits->kept = choose_kept(model, params, limits);
    if (train_workspace_bytes(model, limits) <= free_bytes) return ZS_OK;
    limits->kept = 0;
    if (train_workspace_bytes(model, limits) <= free_bytes) return ZS_OK;
    for (fits = limits->rows; fits > 0; fits /= 2) {
        train_limits smaller = limits_of(model, params, fits);
        if (train_workspace_bytes(model, &smaller) > free_bytes) continue;
        if (asked || fits < least) break;
        *limits = smaller;
        return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY,
                        "a backward pass of %u tokens through %s needs %.0f MB and the device has %.0f MB free: %u tokens would fit",
                        limits->rows, model->path, (double)train_workspace_bytes(model, limits) / 1e6, (double)free_bytes / 1e6, fits);
}

/// What the backward pass has no derivatives of.
static zs_status check_architecture(const zs_model *model, zs_error *error) {
    const model_config *c = &model->config;
    const char *what = c->head_norms || c->post_norms                   ? "norms of heads and of what layers add"
                       : c->gelu                                        ? "gelu"
                       : c->full_every                                  ? "windows in some of the layers"
                       : c->score_scale != 0 || c->embedding_scale != 0 ? "attention scores or embeddings of another scale"
                                                                        : NULL;
    if (!what) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "%s is of architecture %s: a gradient through %s is not implemented; train a llama or qwen2 model", model->path,
                        c->architecture, what);
}

/// row[scale_count] into a buffer of as much.
static zs_status upload_row(const zs_model *model, const float *row, const gpu_buffer *to, zs_error *error) {
    return gpu_buffer_write(model->device, to, 0, model->scale_count * sizeof *row, row, error);
}

static zs_status upload_base_scales(const zs_gradient *g, zs_error *error) {
    float *row = malloc(g->model->scale_count * sizeof *row);
    if (!row) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the base model's scales");
    model_base_scales(g->model, row);
    zs_status status = upload_row(g->model, row, &g->workspace.base_scales, error);
    free(row);
    return status;
}

zs_status zs_gradient_create(zs_model *model, const zs_gradient_params *params, zs_gradient **out, zs_error *error) {
    if (!model->info.factored)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "%s is a dense model and has no z to take a gradient by: make a factored one with zsigma factor", model->path);
    if (model->factors != ZS_PLACE_DEVICE)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a gradient needs the factors of %s on the device, and it was loaded without them",
                            model->path);
    if (params && params->engine && params->engine->model != model)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "the engine whose images a gradient takes is another model's");
    train_limits limits;
    zs_status status = check_architecture(model, error);
    if (!status) status = choose_limits(model, params, &limits, error);
    if (status) return status;
    zs_gradient *g = calloc(1, sizeof *g);
    if (!g) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a gradient");
    g->model = model;
    if (params) g->progress = params->progress;
    if (params) g->engine = params->engine;
    if (params) g->kl = params->kl;
    g->sums = calloc(model->scale_count, sizeof *g->sums);
    g->values = calloc(model->scale_count, sizeof *g->values);
    g->placed = calloc(limits.sequences, sizeof *g->placed);
    if (!g->sums || !g->values || !g->placed) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a gradient");
    if (!status) status = train_workspace_create(model, &limits, &g->workspace, error);
    if (!status) status = gpu_command_create(model->device, "backward pass", &g->command, error);
    if (!status) status = zs_gradient_set_expert(g, NULL, false, error);
    if (!status && g->kl) status = upload_base_scales(g, error);
    if (!status && g->engine && model_tower_is_factored(model)) status = train_tower_open(&g->tower, model, g->engine, limits.rows, error);
    if (status)
        zs_gradient_destroy(&g);
    else
        *out = g;
    return status;
}

void zs_gradient_destroy(zs_gradient **handle) {
    zs_gradient *g = *handle;
    if (!g) return;
    *handle = NULL;
    gpu_command_destroy(&g->command);
    train_tower_close(&g->tower);
    train_workspace_destroy(&g->workspace);
    free(g->placed);
    free(g->sums);
    free(g->values);
    free(g);
}

uint32_t zs_gradient_max_rows(const zs_gradient *gradient) { return gradient->workspace.limits.rows; }
uint32_t zs_gradient_kept_layers(const zs_gradient *gradient) { return gradient->workspace.limits.kept; }

zs_status zs_gradient_set_expert(zs_gradient *g, const zs_expert *expert, bool transfer, zs_error *error) {
    float *row = malloc(g->model->scale_count * sizeof *row);
    if (!row) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    zs_status status = ZS_OK;
    if (expert)
        status = expert_fill_scales(expert, g->model, transfer, row, error);
    else
        model_base_scales(g->model, row);
    if (!status) status = upload_row(g->model, row, &g->workspace.scales, error);
    free(row);
    return status;
}

// ---- passes --------------------------------------------------------------------------------------------------------

/// A pass under construction. An item whose first tokens are those of the one before it has that one's keys and values for them, and no
/// rows there: whole pages are shared, and the page in which it parts has copies.
typedef struct pass_plan {
    train_pass pass;
    size_t items;
    uint32_t sequences, pages;
} pass_plan;

/// Tokens that go through the decoder: the answer's last one is only a target.
static uint32_t item_rows(const zs_gradient_item *item) { return (uint32_t)(item->prompt_count + item->answer_count - 1); }

static uint32_t item_token(const zs_gradient_item *item, size_t at) {
    return at < item->prompt_count ? item->prompt[at] : item->answer[at - item->prompt_count];
}

static zs_status check_item(const zs_gradient *g, const zs_gradient_item *item, size_t index, zs_error *error) {
    const model_config *c = &g->model->config;
    uint32_t rows = g->workspace.limits.rows, longest = rows < c->context ? rows : c->context;
    if (item->prompt_count == 0 || item->answer_count == 0 || !isfinite(item->weight) || !isfinite(item->kl_weight))
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "item %zu: a gradient needs at least one token of prompt and of answer, and a finite weight", index);
    if (item->prompt_count > longest || item->answer_count > longest || item_rows(item) > longest)
        return zs_error_set(error, ZS_ERROR_CONTEXT,
                            "item %zu: prompt and answer have %zu tokens, and a backward pass takes %u (the model %u)", index,
                            item->prompt_count + item->answer_count, rows, c->context);
    for (size_t i = 0; i < item->prompt_count + item->answer_count; i++) {
        uint32_t id = item_token(item, i);
        if (id < c->vocab || (g->engine && i < item->prompt_count && engine_knows_token(g->engine, id))) continue;
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "item %zu: token id %u is outside the vocabulary of %u%s", index, id, c->vocab,
                            g->engine ? ", and of no image that the engine has" : "");
    }
    return g->tower.model ? train_tower_check(&g->tower, item, index, error) : ZS_OK;
}

static uint32_t cut_spans(Span *spans, uint32_t first_row, uint32_t rows, uint32_t limit) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < rows; i += limit)
        spans[count++] = (Span){.first_row = first_row + i, .rows = rows - i < limit ? rows - i : limit};
    return count;
}

/// First tokens that two items share.
static uint32_t count_common(const zs_gradient_item *a, const zs_gradient_item *b) {
    size_t n = 0, of_a = a->prompt_count + a->answer_count, of_b = b->prompt_count + b->answer_count;
    while (n < of_a && n < of_b && item_token(a, n) == item_token(b, n)) n++;
    return (uint32_t)n;
}

/// First tokens of `item` for which it needs no rows behind `other`. The row in front of the answer is always an item's own: it predicts.
static uint32_t count_spared(const zs_gradient_item *item, const zs_gradient_item *other) {
    size_t common = count_common(item, other), most = item->prompt_count - 1;
    if (common > item_rows(other)) common = item_rows(other);
    return (uint32_t)(common < most ? common : most);
}

/// Whether an item says the same as another one, to which its terms are then added.
static bool is_same(const zs_gradient_item *a, const zs_gradient_item *b) {
    return a->prompt_count == b->prompt_count && a->answer_count == b->answer_count &&
           count_common(a, b) == a->prompt_count + a->answer_count;
}

/// Alike items come one after another, each behind the one that it has most in common with.
static int compare_items(const void *left, const void *right) {
    const zs_gradient_item *a = *(const zs_gradient_item *const *)left, *b = *(const zs_gradient_item *const *)right;
    size_t common = count_common(a, b), of_a = a->prompt_count + a->answer_count, of_b = b->prompt_count + b->answer_count;
    if (common < of_a && common < of_b) return item_token(a, common) < item_token(b, common) ? -1 : 1;
    if (of_a != of_b) return of_a < of_b ? -1 : 1;
    if (a->prompt_count != b->prompt_count) return a->prompt_count < b->prompt_count ? -1 : 1;
    return a < b ? -1 : 1; // as they were given
}

static void add_spans(const zs_gradient *g, train_pass *pass, uint32_t rows) {
    const train_workspace *w = &g->workspace;
    const model_config *c = &g->model->config;
    const uint32_t limits[] = {op_span_rows(w->policy, c->heads, c->kv_heads, c->head_dim), op_attention_back_span_rows(w->policy)};
    for (uint32_t i = 0; i < 2; i++) pass->spans[i] += cut_spans(w->arrays.spans[i] + pass->spans[i], pass->rows, rows, limits[i]);
}

static void add_logits(const zs_gradient *g, train_pass *pass, const placed_item *placed) {
    const train_arrays *a = &g->workspace.arrays;
    const zs_gradient_item *item = placed->item;
    for (uint32_t i = 0; i < item->answer_count; i++) {
        a->logit_rows[pass->logits] = (uint32_t)(placed->first_row + (int64_t)item->prompt_count - 1 + i);
        a->targets[pass->logits] = item->answer[i];
        a->weights[pass->logits] = item->weight;
        a->kl_weights[pass->logits++] = item->kl_weight;
    }
}

/// Adds an item to the terms of one that says the same.
static void add_again(const zs_gradient *g, pass_plan *plan, const zs_gradient_item *item, const placed_item *same) {
    const train_arrays *a = &g->workspace.arrays;
    for (uint32_t i = 0; i < item->answer_count; i++) {
        a->weights[same->first_logit + i] += item->weight;
        a->kl_weights[same->first_logit + i] += item->kl_weight;
    }
    g->placed[plan->items] = *same;
    g->placed[plan->items++].item = item;
}

/// Where the tower has a z, rows of images keep their ids until the pass is complete.
static uint32_t row_token(const zs_gradient *g, uint32_t id) { return g->engine && !g->tower.model ? engine_row_token(g->engine, id) : id; }

/// Puts an item's rows, pages and wanted logits behind those of the pass; false when it does not fit any more.
static bool add_item(const zs_gradient *g, pass_plan *plan, const zs_gradient_item *item) {
    const train_workspace *w = &g->workspace;
    const train_arrays *a = &w->arrays;
    train_pass *pass = &plan->pass;
    if (plan->items == w->limits.sequences) return false;
    const placed_item *before = plan->items ? &g->placed[plan->items - 1] : NULL;
    if (before && is_same(item, before->item)) {
        add_again(g, plan, item, before);
        return true;
    }
    uint32_t begin = before ? count_spared(item, before->item) : 0, number = plan->sequences, all = item_rows(item);
    uint32_t rows = all - begin, pages = begin / KV_PAGE_TOKENS, more = (all + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS - pages;
    if (pass->rows + rows > w->limits.rows || plan->pages + more > train_page_count(&w->limits)) return false;
    for (uint32_t p = begin; p < all; p++)
        a->rows[pass->rows + p - begin] = (Row){.token = row_token(g, item_token(item, p)), .position = p, .sequence = number};
    uint64_t *table = a->pages + (size_t)number * a->page_stride;
    for (uint32_t i = 0; i < pages + more; i++)
        table[i] = i < pages ? a->pages[before->sequence * a->page_stride + i]
                             : w->pages.address + 4 * train_page_floats(g->model, &w->limits) * plan->pages++;
    add_spans(g, pass, rows);
    placed_item *placed = &g->placed[plan->items++];
    *placed = (placed_item){
        .item = item, .sequence = number, .first_logit = pass->logits, .begin = begin, .first_row = (int64_t)pass->rows - begin};
    add_logits(g, pass, placed);
    pass->rows += rows;
    if (all > pass->longest) pass->longest = all;
    plan->sequences++;
    return true;
}

/// The row of token `at` of the placed item `i`: its own, or that of one of those before it.
static uint32_t row_of(const zs_gradient *g, size_t i, uint32_t at) {
    while (at < g->placed[i].begin) i--;
    return (uint32_t)(g->placed[i].first_row + at);
}

/// What every item has in the page in which it parts from the one before it.
static void add_copies(const zs_gradient *g, pass_plan *plan) {
    train_pass *pass = &plan->pass;
    for (size_t i = 0; i < plan->items; i++) {
        const placed_item *placed = &g->placed[i];
        if (i > 0 && placed->sequence == g->placed[i - 1].sequence) continue;
        for (uint32_t p = placed->begin / KV_PAGE_TOKENS * KV_PAGE_TOKENS; p < placed->begin; p++)
            g->workspace.arrays.rows[pass->rows + pass->copies++] =
                (Row){.token = row_of(g, i, p), .position = p, .sequence = placed->sequence};
    }
}

/// An item's log-probabilities and divergences out of the results; has_kl: there are any.
static zs_status take_item(const zs_gradient *g, const placed_item *placed, size_t index, bool has_kl, zs_error *error) {
    const zs_gradient_item *item = placed->item;
    const float *logprobs = (const float *)g->workspace.results.mapped + g->model->scale_count + placed->first_logit,
                *kl = logprobs + g->workspace.limits.rows;
    for (size_t k = 0; k < item->answer_count; k++) {
        if (!isfinite(logprobs[k]) || (has_kl && !isfinite(kl[k])))
            return zs_error_set(
                error, ZS_ERROR_NUMERIC,
                "item %zu: the log-probability of answer token %zu is not a number: the weights, the expert or the driver is at fault",
                index, k);
        if (item->logprobs) item->logprobs[k] = logprobs[k];
        if (item->kl && has_kl) item->kl[k] = kl[k];
    }
    return ZS_OK;
}

/// Takes log-probabilities and gradient out of the results. items: as the caller gave them.
static zs_status take_results(zs_gradient *g, const pass_plan *plan, const zs_gradient_item *items, zs_error *error) {
    const float *results = g->workspace.results.mapped;
    zs_status status = ZS_OK;
    for (size_t i = 0; i < plan->items && !status; i++)
        status = take_item(g, &g->placed[i], (size_t)(g->placed[i].item - items), plan->pass.reference, error);
    if (status || plan->pass.forward) return status;
    for (uint32_t r = 0; r < g->model->scale_count; r++) {
        if (!isfinite(results[r])) return zs_error_set(error, ZS_ERROR_NUMERIC, "the gradient of %zu items is not a number", plan->items);
    }
    for (uint32_t r = 0; r < g->model->scale_count; r++) g->sums[r] += (double)results[r];
    return ZS_OK;
}

static zs_status run_decoder(zs_gradient *g, const train_pass *pass, zs_error *error) {
    uint64_t value;
    zs_status status = gpu_command_begin(g->command, error);
    if (status) return status;
    train_record(&g->workspace, g->command, pass);
    status = gpu_command_end(g->command, error);
    if (!status) status = gpu_command_submit(g->command, &value, error);
    return status ? status : gpu_device_wait(g->model->device, value, error);
}

/// The features of a pass's images, under the expert's z and where it is wanted the base model's.
static zs_status encode_images(zs_gradient *g, pass_plan *plan, zs_error *error) {
    const train_workspace *w = &g->workspace;
    train_tower *tower = &g->tower;
    train_pass *pass = &plan->pass;
    zs_status status = ZS_OK;
    train_tower_clear(tower);
    for (size_t i = 0; i < plan->items && !status; i++) status = train_tower_add(tower, g->placed[i].item, error);
    if (!status) status = train_tower_number(tower, w->arrays.rows, pass->rows, w->activations[TRAIN_DX].stride, error);
    if (!status && pass->reference) status = train_tower_encode(tower, w->base_scales.address, true, error);
    if (!status) status = train_tower_encode(tower, w->scales.address, false, error);
    pass->features = tower->features.address;
    pass->reference_features = tower->reference.address;
    pass->feature_rows = 1 + tower->tiles * vision_config_features(&g->model->tower->config);
    pass->embeddings = tower->tiles > 0;
    return status;
}

static zs_status run_pass(zs_gradient *g, pass_plan *plan, const zs_gradient_item *items, zs_error *error) {
    const train_workspace *w = &g->workspace;
    zs_status status = g->tower.model ? encode_images(g, plan, error) : ZS_OK;
    if (!status) status = run_decoder(g, &plan->pass, error);
    if (!status && g->tower.model && !plan->pass.forward)
        status = train_tower_back(&g->tower, w->activations[TRAIN_DX].buffer.address, w->scales.address, &w->sums, &w->results, error);
    return status ? status : take_results(g, plan, items, error);
}

/// i-th matrix that there is a gradient by: the tower's only where it is opened; NULL behind the last.
static const model_weight *weight_at(const zs_gradient *g, uint32_t i) {
    return g->tower.model || i < g->model->config.layers * MODEL_MATRICES ? model_weight_at(g->model, i) : NULL;
}

/// dz = σ ⊙ ds
static void fill_values(zs_gradient *g) {
    const model_weight *w;
    for (uint32_t i = 0; (w = weight_at(g, i)); i++) {
        for (uint32_t r = 0; w->factored && r < w->rank; r++)
            g->values[w->scale_offset + r] = (float)((double)w->sigma[r] * g->sums[w->scale_offset + r]);
    }
}

static zs_status run_passes(zs_gradient *g, const zs_gradient_item *const *order, const zs_gradient_item *items, size_t count, bool forward,
                            zs_error *error) {
    double total = 0, done = 0;
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count; i++) total += item_rows(order[i]);
    for (size_t i = 0; i < count && !status;) {
        pass_plan plan = {.pass = {.forward = forward, .reference = g->kl && !forward, .reverse = g->kl == ZS_KL_BASE_POLICY}};
        if (g->engine) plan.pass.features = plan.pass.reference_features = g->engine->images.features.address;
        if (g->engine) plan.pass.feature_rows = g->engine->images.capacity;
        for (; i < count && add_item(g, &plan, order[i]); i++) done += item_rows(order[i]);
        add_copies(g, &plan);
        status = run_pass(g, &plan, items, error);
        if (!status && g->progress.report && !g->progress.report(g->progress.user, "gradient", done, total))
            status = zs_error_set(error, ZS_ERROR_CANCELLED, "the gradient was cancelled");
    }
    return status;
}

static zs_status run_items(zs_gradient *g, const zs_gradient_item *items, size_t count, bool forward, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count && !status; i++) status = check_item(g, &items[i], i, error);
    if (status || count == 0) return status;
    const zs_gradient_item **order = malloc(count * sizeof(*order));
    if (!order) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the order of %zu items", count);
    for (size_t i = 0; i < count; i++) order[i] = &items[i];
    qsort(order, count, sizeof(*order), compare_items);
    status = run_passes(g, order, items, count, forward, error);
    free(order);
    return status;
}

zs_status zs_gradient_add(zs_gradient *g, const zs_gradient_item *items, size_t count, zs_error *error) {
    zs_status status = run_items(g, items, count, false, error);
    fill_values(g);
    return status;
}

zs_status zs_gradient_score(zs_gradient *g, const zs_gradient_item *items, size_t count, zs_error *error) {
    return run_items(g, items, count, true, error);
}

const float *gradient_values(const zs_gradient *gradient) { return gradient->values; }
bool gradient_is_fast(const zs_gradient *gradient) { return gradient->workspace.policy.matrix_shape.tile > 0; }

void zs_gradient_clear(zs_gradient *g) {
    memset(g->sums, 0, g->model->scale_count * sizeof *g->sums);
    memset(g->values, 0, g->model->scale_count * sizeof *g->values);
}

// ---- what came out -------------------------------------------------------------------------------------------------

bool zs_gradient_matrix(const zs_gradient *g, uint32_t i, const char **name, uint32_t *rank, const float **values) {
    const model_weight *w;
    for (uint32_t k = 0; (w = weight_at(g, k)); k++) {
        if (!w->factored || i-- > 0) continue;
        *name = w->canonical;
        *rank = w->rank;
        *values = g->values + w->scale_offset;
        return true;
    }
    return false;
}

zs_status zs_gradient_save(const zs_gradient *g, const char *path, bool force, zs_error *error) {
    enum { NAME_BYTES = 128 };
    uint32_t most = g->model->info.matrices, count = 0;
    safetensors_entry *entries = calloc(most, sizeof *entries);
    char *names = malloc((size_t)most * NAME_BYTES);
    zs_status status = entries && names ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    const char *name;
    uint32_t rank;
    const float *values;
    for (; !status && count < most && zs_gradient_matrix(g, count, &name, &rank, &values); count++) {
        char *full = names + (size_t)count * NAME_BYTES;
        snprintf(full, NAME_BYTES, "%s.z", name);
        entries[count] = (safetensors_entry){.name = full, .dims = 1, .shape = {rank}, .data = values};
    }
    const safetensors_meta meta[] = {{(char[]){"format"}, (char[]){"zsigma-gradient"}}};
    if (!status) status = safetensors_save(path, force, entries, count, meta, 1, error);
    free(entries);
    free(names);
    return status;
}
