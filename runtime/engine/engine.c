#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CACHE_ENTRIES = 32, MAX_EXPERTS = 1 << 16, MAX_ROWS = 1 << 16 };

double engine_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

// ---- creation ------------------------------------------------------------------------------------------------------

static const struct {
    matrix_type type;
    const char *mode;
} composed_types[] = {[ZS_COMPOSED_DEFAULT] = {MATRIX_F16, "composed:f16"},
                      [ZS_COMPOSED_F16] = {MATRIX_F16, "composed:f16"},
                      [ZS_COMPOSED_Q8_0] = {MATRIX_Q8, "composed:q8_0"},
                      [ZS_COMPOSED_Q4_0] = {MATRIX_Q4, "composed:q4_0"}};
enum { COMPOSED_TYPES = sizeof composed_types / sizeof *composed_types };

static uint32_t or_default(uint32_t value, uint32_t fallback) { return value ? value : fallback; }

matrix_type engine_composed_type(zs_composed_type type) { return composed_types[type].type; }

zs_precision engine_precision(const zs_model *model, zs_precision asked) {
    if (asked != ZS_PRECISION_DEFAULT) return asked;
    return gpu_device_caps(model->device)->cpu ? ZS_PRECISION_EXACT : ZS_PRECISION_FAST;
}

void engine_choose_params(const zs_model *model, const zs_engine_params *asked, zs_engine_params *p) {
    uint32_t longest = model->config.context < 4096 ? model->config.context : 4096;
    if (asked) *p = *asked;
    p->precision = engine_precision(model, p->precision);
    if (p->mode == ZS_MODE_DEFAULT && model->info.factored)
        p->mode = model->factors == ZS_PLACE_DEVICE ? ZS_MODE_FACTORED : ZS_MODE_COMPOSED;
    if (p->kv == ZS_KV_DEFAULT) p->kv = p->precision == ZS_PRECISION_EXACT ? ZS_KV_F32 : ZS_KV_F16;
    p->context = or_default(p->context, longest);
    p->max_sessions = or_default(p->max_sessions, 8);
    p->kv_tokens = or_default(p->kv_tokens, 2 * p->context);
    p->max_experts = or_default(p->max_experts, 16);
    p->max_rows = or_default(p->max_rows, 512);
}

static kv_type kv_of(zs_kv_type type) {
    static const kv_type types[] = {[ZS_KV_F32] = KV_F32, [ZS_KV_F16] = KV_F16, [ZS_KV_Q8_0] = KV_Q8};
    return types[type];
}

zs_status engine_check_kv(const zs_model *model, const zs_engine_params *p, zs_error *error) {
    if (p->kv < ZS_KV_F32 || p->kv > ZS_KV_Q8_0)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%d is no type of keys and values", (int)p->kv);
    if (kv_type_suits(kv_of(p->kv), model->config.head_dim)) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "keys and values as %s take heads of a multiple of %u values, and those of this model have %u: choose f16",
                        kv_type_name(kv_of(p->kv)), KV_BLOCK, model->config.head_dim);
}

/// Enough to make reading the weights worth it for drafts and scored answers; above LEAST no more than LOGIT_BYTES hold, or the device in
/// one piece.
static uint32_t choose_logit_rows(const zs_model *model, const zs_engine_params *p) {
    enum { LEAST = 64, LOGIT_BYTES = 64 << 20 };
    const uint64_t piece = gpu_device_caps(model->device)->max_allocation, bytes = piece < LOGIT_BYTES ? piece : LOGIT_BYTES;
    uint32_t rows = (uint32_t)(bytes / 4 / pad32(model->config.vocab));
    rows = rows < LEAST ? LEAST : rows > ENGINE_LOGIT_ROWS ? ENGINE_LOGIT_ROWS : rows;
    return rows > p->max_sessions ? rows : p->max_sessions;
}

static model_workspace_params workspace_params(const zs_model *model, const zs_engine_params *p) {
    return (model_workspace_params){
        .max_rows = p->max_rows < p->max_sessions ? p->max_sessions : p->max_rows,
        .max_logit_rows = choose_logit_rows(model, p),
        .context = p->context,
        .kv = kv_of(p->kv),
        .fast = p->precision == ZS_PRECISION_FAST,
        .deterministic = p->deterministic,
    };
}

/// Pages for kv_tokens, and for each session and branch one that is only partly used.
static uint32_t page_count(const zs_engine_params *p) { return sequence_pages(p->kv_tokens) + p->max_sessions + 8; }

engine_bytes engine_sizes(const zs_model *model, const zs_model *running, const zs_engine_params *p) {
    model_workspace_params w = workspace_params(model, p);
    uint64_t page = model_page_bytes(model, w.kv);
    return (engine_bytes){.workspace = model_workspace_bytes(running, &w),
                          .experts = 4ull * (p->max_experts + 1) * model->scale_count,
                          .kv = page * page_count(p),
                          .images = model->tower ? engine_image_bytes(model, &w, p->kv_tokens) : 0,
                          .page = page};
}

static zs_status check_memory(const zs_engine *e, zs_error *error) {
    engine_bytes b = engine_sizes(e->model, e->running, &e->params);
    uint64_t free_bytes = gpu_device_memory_free(e->model->device);
    if (b.workspace + b.experts + b.kv <= free_bytes) return ZS_OK;
    uint64_t rest = b.workspace + b.experts + b.page * (e->params.max_sessions + 8);
    double tokens = rest < free_bytes ? (double)((free_bytes - rest) / b.page * KV_PAGE_TOKENS) : 0;
    double fits = tokens * e->params.context / e->params.kv_tokens; // as large a share of the pool
    char advice[64] = "use a smaller model, or fewer sessions";
    if (fits >= KV_PAGE_TOKENS)
        snprintf(advice, sizeof advice, "--ctx %.0f would fit", floor(fits));
    else if (tokens >= e->params.context)
        snprintf(advice, sizeof advice, "%.0f tokens in all would fit", tokens);
    return zs_error_set(
        error, ZS_ERROR_DEVICE_MEMORY,
        "a context of %u tokens, of %u in all, needs %.0f MB of keys and values and %.0f MB of work space; %.0f MB are free: %s",
        e->params.context, e->params.kv_tokens, (double)b.kv / 1e6, (double)(b.workspace + b.experts) / 1e6, (double)free_bytes / 1e6,
        advice);
}

static zs_status create_arrays(zs_engine *e, uint32_t rows, const char *name, step_arrays *a, zs_error *error) {
    uint64_t rows_at = 256, spans_at = rows_at + rows * sizeof(Row), logit_rows_at = spans_at + rows * sizeof(Span);
    uint64_t logits = e->max_logit_rows, targets_at = logit_rows_at + logits * 4, size = targets_at + logits * 4;
    zs_status status = gpu_buffer_create(e->model->device, GPU_MEMORY_SHARED, size, true, name, &a->buffer, error);
    if (status) return status;
    uint8_t *host = a->buffer.mapped;
    uint64_t base = a->buffer.address;
    a->step = (Step *)(void *)host;
    a->rows = (Row *)(void *)(host + rows_at);
    a->spans = (Span *)(void *)(host + spans_at);
    a->logit_rows = (uint32_t *)(void *)(host + logit_rows_at);
    a->targets = (uint32_t *)(void *)(host + targets_at);
    a->step_address = base;
    a->rows_address = base + rows_at;
    a->logit_rows_address = base + logit_rows_at;
    a->targets_address = base + targets_at;
    *a->step = (Step){
        .rows = base + rows_at,
        .spans = base + spans_at,
        .scales = e->experts.scales.address,
        .pages = e->page_table.address,
        .scale_stride = e->model->scale_count,
        .page_stride = e->page_stride,
    };
    a->step[1] = *a->step;
    return ZS_OK;
}

static zs_status create_buffers(zs_engine *e, zs_error *error) {
    zs_device *device = e->model->device;
    const zs_engine_params *p = &e->params;
    e->page_stride = sequence_pages(p->context) + 1;
    uint64_t table_rows = p->max_sessions + ENGINE_BRANCHES;
    uint64_t result_bytes = (uint64_t)p->max_sessions * SAMPLED_RING * sizeof(Sampled) + e->max_logit_rows * sizeof(float);
    zs_status status =
        gpu_buffer_create(device, GPU_MEMORY_SHARED, table_rows * e->page_stride * 8, true, "page table", &e->page_table, error);
    if (!status)
        status = gpu_buffer_create(device, GPU_MEMORY_SHARED, p->max_sessions * sizeof(Sampler), true, "samplers", &e->samplers, error);
    if (!status) status = gpu_buffer_create(device, GPU_MEMORY_READBACK, result_bytes, true, "results", &e->results, error);
    if (!status) status = create_arrays(e, workspace_params(e->model, p).max_rows, "prefill rows", &e->prefill, error);
    if (!status) status = create_arrays(e, p->max_sessions, "decode rows", &e->decode, error);
    if (!status) status = gpu_command_create(device, "prefill", &e->prefill_command, error);
    if (!status) status = gpu_command_create(device, "copy", &e->copy_command, error);
    return status;
}

const char *engine_mode_name(zs_mode mode, zs_composed_type type) {
    if (mode == ZS_MODE_COMPOSED) return composed_types[type].mode;
    return mode == ZS_MODE_FACTORED ? "factored" : "dense";
}

static void fill_info(zs_engine *e) {
    const zs_engine_params *p = &e->params;
    model_workspace_params w = workspace_params(e->model, p);
    e->info = (zs_engine_info){
        .context = p->context,
        .max_sessions = p->max_sessions,
        .max_rows = p->max_rows,
        .kv_tokens = p->kv_tokens,
        .precision = p->precision,
        .kv = p->kv,
        .mode = engine_mode_name(p->mode, p->composed),
        .kv_bytes = e->pool.page_bytes * e->pool.page_count,
        .workspace_bytes = model_workspace_bytes(e->running, &w),
        .composed_bytes = e->composer ? model_composer_bytes(e->model, composed_types[p->composed].type, w.fast, NULL) : 0,
        .decode_dispatches_per_layer = model_layer_dispatches(e->running, e->workspace),
    };
}

static zs_status check_mode(const zs_model *model, const zs_engine_params *p, zs_error *error) {
    if ((uint32_t)p->mode > ZS_MODE_COMPOSED || (uint32_t)p->composed >= COMPOSED_TYPES)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "mode %u with type %u is none that an engine has", (unsigned)p->mode,
                            (unsigned)p->composed);
    if (p->mode != ZS_MODE_DEFAULT && !model->info.factored)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is a dense model, it has no factors to be %s", model->path,
                            p->mode == ZS_MODE_FACTORED ? "used" : "composed");
    if (p->mode == ZS_MODE_FACTORED && model->factors != ZS_PLACE_DEVICE)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "factored mode needs the factors of %s on the device, and it was loaded without them",
                            model->path);
    return ZS_OK;
}

static zs_status check_params(const zs_model *model, const zs_engine_params *p, zs_error *error) {
    if (p->context > model->config.context)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a context of %u tokens was asked for, but %s was made for %u", p->context,
                            model->path, model->config.context);
    if (p->kv_tokens < p->context)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "kv_tokens %u does not hold a context of %u", p->kv_tokens, p->context);
    const struct {
        const char *name;
        uint32_t value, most;
    } limits[] = {
        {"max_sessions", p->max_sessions, MAX_SESSIONS}, {"max_experts", p->max_experts, MAX_EXPERTS}, {"max_rows", p->max_rows, MAX_ROWS}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (limits[i].value > limits[i].most)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s %u is more than the %u that are possible", limits[i].name, limits[i].value,
                                limits[i].most);
    }
    return ZS_OK;
}

static zs_status create_composer(zs_engine *e, zs_error *error) {
    matrix_type type = composed_types[e->params.composed].type;
    bool fast = e->params.precision == ZS_PRECISION_FAST;
    uint64_t bytes = model_composer_bytes(e->model, type, fast, NULL), free_bytes = gpu_device_memory_free(e->model->device);
    if (bytes > free_bytes)
        return zs_error_set(
            error, ZS_ERROR_DEVICE_MEMORY,
            "composed weights as %s need %.0f MB and %.0f MB are free: use a smaller type, or keep the factors in host memory "
            "or in the file",
            matrix_type_name(type), (double)bytes / 1e6, (double)free_bytes / 1e6);
    zs_status status = model_composer_create(e->model, type, fast, &e->composer, error);
    if (!status) e->running = model_composed(e->composer);
    return status;
}

zs_status zs_engine_create(zs_model *model, const zs_engine_params *params, zs_engine **out, zs_error *error) {
    zs_engine *e = calloc(1, sizeof *e);
    if (!e) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an engine");
    e->model = model;
    engine_choose_params(model, params, &e->params);
    e->max_logit_rows = choose_logit_rows(model, &e->params);
    e->running = model;
    zs_status status = engine_check_kv(model, &e->params, error);
    if (!status) status = check_mode(model, &e->params, error);
    if (!status) status = check_params(model, &e->params, error);
    if (!status && e->params.mode == ZS_MODE_COMPOSED) status = create_composer(e, error);
    if (!status) status = check_memory(e, error);
    if (status) {
        model_composer_destroy(&e->composer);
        free(e);
        return status;
    }
    const model_workspace_params w = workspace_params(e->model, &e->params);
    e->cache_capacity = CACHE_ENTRIES + e->params.max_sessions;
    e->cache = calloc(e->cache_capacity, sizeof *e->cache);
    e->sessions = calloc(e->params.max_sessions, sizeof *e->sessions);
    e->decode_commands = calloc(e->params.max_sessions + 1, sizeof *e->decode_commands);
    if (!e->cache || !e->sessions || !e->decode_commands) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an engine");
    if (!status) status = model_workspace_create(e->running, &w, &e->workspace, error);
    if (!status) status = expert_table_create(model, e->params.max_experts, &e->experts, error);
    if (!status) status = kv_pool_create(model->device, model_page_bytes(model, w.kv), page_count(&e->params), &e->pool, error);
    if (!status) status = create_buffers(e, error);
    if (status) {
        zs_engine_destroy(&e);
        return status;
    }
    fill_info(e);
    *out = e;
    return ZS_OK;
}

void zs_engine_destroy(zs_engine **handle) {
    zs_engine *e = *handle;
    if (!e) return;
    *handle = NULL;
    zs_device *device = e->model->device;
    engine_drain(e, NULL);
    for (uint32_t i = 0; e->sessions && i < e->params.max_sessions; i++) zs_session_destroy(&(zs_session *){e->sessions[i]});
    for (uint32_t i = 0; i < e->cache_count; i++) sequence_destroy(&e->cache[i].seq, &e->pool);
    for (uint32_t i = 0; e->decode_commands && i <= e->params.max_sessions; i++) gpu_command_destroy(&e->decode_commands[i]);
    gpu_command_destroy(&e->prefill_command);
    gpu_command_destroy(&e->copy_command);
    gpu_buffer *const buffers[] = {&e->page_table, &e->samplers, &e->results, &e->prefill.buffer, &e->decode.buffer};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) gpu_buffer_destroy(device, buffers[i]);
    engine_destroy_images(e);
    kv_pool_destroy(&e->pool);
    expert_table_destroy(&e->experts);
    model_workspace_destroy(&e->workspace);
    model_composer_destroy(&e->composer);
    free(e->cache);
    free(e->sessions);
    free(e->decode_commands);
    free(e);
}

zs_model *zs_engine_get_model(const zs_engine *engine) { return engine->model; }
const zs_engine_info *zs_engine_get_info(const zs_engine *engine) { return &engine->info; }
const zs_engine_stats *zs_engine_get_stats(const zs_engine *engine) { return &engine->stats; }
void zs_engine_reset_stats(zs_engine *engine) { engine->stats = (zs_engine_stats){0}; }
void zs_engine_cancel(zs_engine *engine) { atomic_store(&engine->cancelled, true); }
void zs_engine_resume(zs_engine *engine) { atomic_store(&engine->cancelled, false); }

zs_status engine_check_cancelled(const zs_engine *engine, zs_error *error) {
    return atomic_load(&engine->cancelled) ? zs_error_set(error, ZS_ERROR_CANCELLED, "cancelled") : ZS_OK;
}

// ---- for the layer above -------------------------------------------------------------------------------------------

bool engine_find_memo(const zs_engine *engine, uint64_t key, double *value) {
    const engine_memo *memo = &engine->memos[key % ENGINE_MEMOS];
    if (memo->key == key) *value = memo->value;
    return memo->key == key;
}

void engine_keep_memo(zs_engine *engine, uint64_t key, double value) {
    engine->memos[key % ENGINE_MEMOS] = (engine_memo){.key = key, .value = value};
}

// ---- submitting ----------------------------------------------------------------------------------------------------

zs_status engine_submit(zs_engine *engine, gpu_command *command, zs_error *error) {
    engine->stats.submits++;
    return gpu_command_submit(command, &engine->last_submit, error);
}

zs_status engine_drain(zs_engine *engine, zs_error *error) {
    return engine->last_submit ? gpu_device_wait(engine->model->device, engine->last_submit, error) : ZS_OK;
}

// ---- the step loop -------------------------------------------------------------------------------------------------

zs_status zs_engine_run(zs_engine *engine, zs_token_callback on_token, void *user, zs_error *error) {
    zs_status status = ZS_OK;
    for (bool worked = true; worked && !status;) {
        bool decoded = false;
        status = engine_turn(engine, error);
        if (!status) status = engine_prefill(engine, on_token, user, &worked, error);
        if (!status) status = engine_decode(engine, on_token, user, &decoded, error);
        worked = worked || decoded;
    }
    zs_status drained = engine_drain(engine, status ? NULL : error);
    return status ? status : drained;
}

// ---- pages and prefixes --------------------------------------------------------------------------------------------

void engine_write_pages(zs_engine *engine, uint32_t row, const sequence *seq, uint32_t first) {
    uint64_t *entries = (uint64_t *)engine->page_table.mapped + (size_t)row * engine->page_stride;
    for (uint32_t i = first; i < seq->page_count; i++) entries[i] = kv_pool_address(&engine->pool, seq->pages[i]);
}

/// Drops the cached prefix that was not used for longest; false when there is none.
static bool evict(zs_engine *engine) {
    uint32_t oldest = 0;
    if (engine->cache_count == 0) return false;
    for (uint32_t i = 1; i < engine->cache_count; i++) {
        if (engine->cache[i].used < engine->cache[oldest].used) oldest = i;
    }
    sequence_destroy(&engine->cache[oldest].seq, &engine->pool);
    engine->cache[oldest] = engine->cache[--engine->cache_count];
    return true;
}

void engine_drop_prefixes(zs_engine *engine) {
    while (evict(engine)) {
    }
}

zs_status engine_reserve(zs_engine *engine, sequence *seq, uint32_t length, zs_error *error) {
    while (seq->page_count < sequence_pages(length)) {
        uint32_t page = kv_pool_take(&engine->pool);
        while (page == KV_NO_PAGE && evict(engine)) page = kv_pool_take(&engine->pool);
        if (page == KV_NO_PAGE)
            return zs_error_set(
                error, ZS_ERROR_CONTEXT,
                "the %u tokens of KV memory are all in use by live sessions: end some, or create the engine with a larger kv_tokens",
                engine->params.kv_tokens);
        seq->pages[seq->page_count++] = page;
    }
    return ZS_OK;
}

static zs_status copy_page(zs_engine *engine, uint32_t from, uint32_t to, zs_error *error) {
    zs_status status = engine_drain(engine, error);
    if (!status) status = gpu_command_begin(engine->copy_command, error);
    if (status) return status;
    kv_pool_record_copy(&engine->pool, engine->copy_command, from, to);
    status = gpu_command_end(engine->copy_command, error);
    return status ? status : engine_submit(engine, engine->copy_command, error);
}

zs_status engine_share_prefix(zs_engine *engine, const sequence *from, uint32_t length, sequence *to, zs_error *error) {
    uint32_t whole = length / KV_PAGE_TOKENS, prefilled = from->prefilled;
    for (uint32_t i = 0; i < whole; i++) {
        kv_pool_retain(&engine->pool, from->pages[i]);
        to->pages[to->page_count++] = from->pages[i];
    }
    if (length % KV_PAGE_TOKENS) {
        uint32_t source = from->pages[whole];
        kv_pool_retain(&engine->pool, source); // keeps it should reserving evict its owner, `from`
        zs_status status = engine_reserve(engine, to, length, error);
        if (!status) status = copy_page(engine, source, to->pages[whole], error);
        kv_pool_release(&engine->pool, source);
        if (status) {
            sequence_truncate(to, &engine->pool, 0);
            return status;
        }
    }
    to->computed = length;
    to->prefilled = length < prefilled ? length : prefilled;
    return ZS_OK;
}

const sequence *engine_find_prefix(zs_engine *engine, const sequence *seq, const uint32_t *tokens, uint32_t count, uint32_t *length) {
    const sequence *best = NULL;
    const uint64_t serial = seq->expert_serial;
    *length = 0;
    count--;
    for (uint32_t i = 0; i < engine->cache_count; i++) {
        cached_prefix *entry = &engine->cache[i];
        uint32_t common =
            entry->seq.expert_serial == serial ? sequence_common(&entry->seq, tokens, count, engine->params.deterministic) : 0;
        if (common > *length) {
            *length = common;
            best = &entry->seq;
            entry->used = ++engine->clock;
        }
    }
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        if (!engine->sessions[i] || engine->sessions[i]->seq.expert_serial != serial || &engine->sessions[i]->seq == seq) continue;
        uint32_t common = sequence_common(&engine->sessions[i]->seq, tokens, count, engine->params.deterministic);
        if (common > *length) {
            *length = common;
            best = &engine->sessions[i]->seq;
        }
    }
    return best;
}

zs_status engine_take_prefix(zs_engine *engine, sequence *seq, const uint32_t *tokens, uint32_t count, zs_error *error) {
    uint32_t length;
    const sequence *best = engine_find_prefix(engine, seq, tokens, count, &length);
    if (!best || length < ENGINE_WORTH_A_COPY) return ZS_OK;
    engine->stats.cached_tokens += length;
    return engine_share_prefix(engine, best, length, seq, error);
}

void engine_keep_prefix(zs_engine *engine, sequence *seq) {
    seq->count = seq->computed;
    if (seq->computed < KV_PAGE_TOKENS || seq->expert_serial == 0) {
        sequence_destroy(seq, &engine->pool);
        return;
    }
    // An entry that this one extends is superseded.
    for (uint32_t i = 0; i < engine->cache_count; i++) {
        sequence *old = &engine->cache[i].seq;
        if (old->expert_serial == seq->expert_serial && old->computed <= seq->computed &&
            sequence_common(old, seq->tokens, seq->computed, false) == old->computed &&
            (!engine->params.deterministic || old->prefilled <= seq->prefilled)) {
            sequence_destroy(old, &engine->pool);
            engine->cache[i--] = engine->cache[--engine->cache_count];
        }
    }
    if (engine->cache_count == engine->cache_capacity) evict(engine);
    engine->cache[engine->cache_count++] = (cached_prefix){.seq = *seq, .used = ++engine->clock};
    *seq = (sequence){0};
}
