#include "engine/engine.h"

/// The sessions of a decode run, in row order, and the submits whose tokens have not been read.
typedef struct batch {
    session_ref sessions[MAX_SESSIONS];
    uint32_t count;
    uint64_t pending[ENGINE_AHEAD]; // timeline values, oldest first
    uint32_t pending_count;
} batch;

/// Whether a session ended, went or changed since the batch began: the steps go on without it.
static bool is_outdated(const zs_engine *engine, const batch *b) {
    for (uint32_t i = 0; i < b->count; i++) {
        const zs_session *session = session_find(engine, b->sessions[i]);
        if (!session || session->done) return true;
    }
    return false;
}

/// Of a batch that is not outdated.
static uint32_t least_remaining(const zs_engine *engine, const batch *b) {
    uint32_t least = UINT32_MAX;
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t remaining = session_find(engine, b->sessions[i])->remaining;
        least = remaining < least ? remaining : least;
    }
    return least;
}

static uint32_t longest_position(const zs_engine *engine, const batch *b) {
    uint32_t longest = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t count = session_find(engine, b->sessions[i])->seq.count;
        longest = count > longest ? count : longest;
    }
    return longest;
}

/// The step of `count` rows, one per sequence, each its own span and logit row; recorded once and replayed, the sampling
/// kernel moving the rows on.
static zs_status command_for(zs_engine *engine, uint32_t count, uint32_t longest, gpu_command **command, zs_error *error) {
    gpu_command **slot = &engine->decode_commands[count];
    *command = *slot;
    if (*slot) return ZS_OK;
    zs_status status = gpu_command_create(engine->model->device, "decode", slot, error);
    if (!status) gpu_command_set_profiling(*slot, engine->profiling);
    if (!status) status = gpu_command_begin(*slot, error);
    if (!status) {
        model_step step = {
            .step = engine->decode.step_address,
            .rows = count,
            .spans = count,
            .decode = true,
            .longest = longest,
            .logit_rows = engine->decode.logit_rows_address,
            .logit_count = count,
        };
        model_record(engine->running, engine->workspace, *slot, &step);
        model_record_sample(engine->running, engine->workspace, *slot, &step, engine->samplers.address, engine->results.address, true);
        status = gpu_command_end(*slot, error);
    }
    if (status) gpu_command_destroy(slot);
    *command = *slot;
    return status;
}

static zs_status begin(zs_engine *engine, batch *b, zs_error *error) {
    *b = (batch){0};
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        if (session_decodes(engine->sessions[i])) b->sessions[b->count++] = session_refer(engine->sessions[i]);
    }
    zs_status status = b->count ? engine_drain(engine, error) : ZS_OK; // the arrays are about to be rewritten
    for (uint32_t i = 0; i < b->count && !status; i++) {
        zs_session *session = session_find(engine, b->sessions[i]);
        const sequence *seq = &session->seq;
        status = session_check_expert(session, error);
        engine->decode.rows[i] = (Row){
            .token = seq->tokens[seq->count - 1], .position = seq->count - 1, .sequence = session->index, .expert = session->params.expert};
        engine->decode.spans[i] = (Span){.first_row = i, .rows = 1};
        engine->decode.logit_rows[i] = i;
        engine_write_pages(engine, session->index, seq, 0);
        engine_write_sampler(session);
    }
    return status;
}

/// Submits one more step; the pages of its positions are in the table before.
static zs_status submit_step(zs_engine *engine, batch *b, zs_error *error) {
    for (uint32_t i = 0; i < b->count; i++) {
        sequence *seq = &session_find(engine, b->sessions[i])->seq;
        uint32_t pages = seq->page_count;
        zs_status status = engine_reserve(engine, seq, seq->count + b->pending_count, error);
        if (status) return status;
        engine_write_pages(engine, b->sessions[i].index, seq, pages);
    }
    gpu_command *command;
    zs_status status = command_for(engine, b->count, longest_position(engine, b), &command, error);
    if (!status) status = engine_submit(engine, command, error);
    if (!status) b->pending[b->pending_count++] = engine->last_submit;
    return status;
}

/// Waits for the oldest step and takes its tokens, of sessions that still want them.
static zs_status read_step(zs_engine *engine, batch *b, zs_token_callback on_token, void *user, zs_error *error) {
    zs_status status = gpu_device_wait(engine->model->device, b->pending[0], error);
    for (uint32_t i = 1; i < b->pending_count; i++) b->pending[i - 1] = b->pending[i];
    b->pending_count--;
    engine->stats.steps++;
    for (uint32_t i = 0; i < b->count && !status; i++) {
        zs_session *session = session_find(engine, b->sessions[i]);
        if (!session || session->done) continue;
        session->seq.computed++;
        engine->stats.decode_tokens++;
        status = engine_take_token(session, on_token, user, error);
    }
    return status;
}

static bool work_waits(const zs_engine *engine, const batch *b) {
    uint32_t live = 0;
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        const zs_session *session = engine->sessions[i];
        live += session && !session->done && engine_serves(engine, session);
    }
    return live > b->count;
}

zs_status engine_decode(zs_engine *engine, zs_token_callback on_token, void *user, bool *worked, zs_error *error) {
    batch b;
    double start = engine_now_ms();
    zs_status status = begin(engine, &b, error);
    *worked = b.count > 0;
    bool changed = false;
    while (b.count && !status && !(changed && b.pending_count == 0)) {
        status = engine_check_cancelled(engine, error);
        while (!status && !changed && b.pending_count < ENGINE_AHEAD && b.pending_count < least_remaining(engine, &b))
            status = submit_step(engine, &b, error);
        if (!status) status = read_step(engine, &b, on_token, user, error);
        changed = changed || is_outdated(engine, &b) || work_waits(engine, &b);
    }
    if (b.count) engine->stats.decode_ms += engine_now_ms() - start;
    if (b.count && !status) {
        double ms = gpu_command_last_ms(engine->decode_commands[b.count]);
        engine->stats.step_ms = ms > 0 ? ms : 0;
    }
    return status;
}
