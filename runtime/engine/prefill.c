#include "engine/engine.h"

#include <string.h>

enum { WORTH_A_STEP = 128 }; // rows that take about as long as the weights take to be read: a step of fewer costs the same

uint32_t prefill_fill_rows(zs_engine *engine, const prefill_run *run, uint32_t first_row, uint32_t limit, uint32_t *spans) {
    uint32_t left = run->end - run->seq->computed, count = left < limit ? left : limit;
    uint32_t span_rows = model_span_rows(engine->workspace, engine->running);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t position = run->seq->computed + i;
        engine->prefill.rows[first_row + i] = (Row){.token = engine_row_token(engine, run->seq->tokens[position]),
                                                    .position = position,
                                                    .sequence = run->table_row,
                                                    .expert = run->expert};
    }
    for (uint32_t i = 0; i < count; i += span_rows) {
        uint32_t rows = count - i < span_rows ? count - i : span_rows;
        engine->prefill.spans[(*spans)++] = (Span){.first_row = first_row + i, .rows = rows};
    }
    return count;
}

static bool needs_prefill(const zs_session *session) {
    // A decoded session lacks only its newest token, which the next decode step takes in.
    return session && !session->done && engine_serves(session->engine, session) &&
           (session->seq.computed + 1 < session->seq.count || session->seq.count == session->prompt_count);
}

// ---- prompts that begin alike --------------------------------------------------------------------------------------

/// Takes in what other sequences have computed of a prompt since it was set: rollouts of one prompt, questions behind the same examples or
/// about one image.
static zs_status catch_up(zs_engine *engine, zs_session *session, zs_error *error) {
    sequence *seq = &session->seq;
    uint32_t length, count = seq->count;
    const sequence *from = engine_find_prefix(engine, seq, seq->tokens, count, &length);
    if (!from || length < seq->computed + ENGINE_WORTH_A_COPY) return ZS_OK;
    engine->stats.cached_tokens += length - seq->computed;
    session_forget(session);
    return engine_share_prefix(engine, from, length, seq, error);
}

/// Rows that `session` need not compute if it waits for `leader`; 0 where they are not worth a copy.
static uint32_t rows_in_common(const zs_session *session, const zs_session *leader) {
    const sequence *a = &session->seq, *b = &leader->seq;
    uint32_t common = 0, limit = a->count - 1 < b->count ? a->count - 1 : b->count;
    if (a->expert_serial != b->expert_serial) return 0;
    while (common < limit && a->tokens[common] == b->tokens[common]) common++;
    return common >= a->computed + ENGINE_WORTH_A_COPY ? common - a->computed : 0;
}

/// Marks the sessions that sit a step out because an earlier one is computing what they share; none where that spares too little.
static void choose_waiting(const zs_engine *engine, bool *waits) {
    uint32_t leaders[MAX_SESSIONS], leader_count = 0, spared = 0;
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        const zs_session *session = engine->sessions[i];
        uint32_t common = 0;
        waits[i] = false;
        if (!needs_prefill(session)) continue;
        for (uint32_t j = 0; j < leader_count && !common; j++) common = rows_in_common(session, engine->sessions[leaders[j]]);
        waits[i] = common > 0;
        spared += common;
        if (!common) leaders[leader_count++] = i;
    }
    if (spared < WORTH_A_STEP) memset(waits, 0, engine->params.max_sessions * sizeof *waits);
}

static zs_status share_prompts(zs_engine *engine, bool *waits, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < engine->params.max_sessions && !status; i++)
        if (needs_prefill(engine->sessions[i])) status = catch_up(engine, engine->sessions[i], error);
    choose_waiting(engine, waits);
    return status;
}

/// One step: as many rows of waiting sessions as fit. sampled[i] tells which sessions finished their prompt, in logit order.
static zs_status record_step(zs_engine *engine, session_ref *sampled, uint32_t *sampled_count, uint32_t *row_count, zs_error *error) {
    step_arrays *a = &engine->prefill;
    model_step step = {.step = a->step_address,
                       .features = engine->images.features.address,
                       .feature_rows = engine->images.capacity,
                       .logit_rows = a->logit_rows_address};
    bool waits[MAX_SESSIONS];
    zs_status status = share_prompts(engine, waits, error);
    if (status) return status;
    for (uint32_t i = 0; i < engine->params.max_sessions && step.rows < engine->params.max_rows; i++) {
        zs_session *session = engine->sessions[i];
        if (!needs_prefill(session) || waits[i]) continue;
        sequence *seq = &session->seq;
        status = session_check_expert(session, error);
        if (!status) status = engine_reserve(engine, seq, seq->count, error);
        if (status) return status;
        engine_write_pages(engine, i, seq, 0);
        prefill_run run = {.seq = seq, .table_row = i, .expert = session->params.expert, .end = seq->count};
        uint32_t rows = prefill_fill_rows(engine, &run, step.rows, engine->params.max_rows - step.rows, &step.spans);
        seq->computed += rows;
        seq->prefilled = seq->prefilled + rows == seq->computed ? seq->computed : seq->prefilled;
        step.rows += rows;
        if (seq->computed > step.longest) step.longest = seq->computed;
        if (seq->computed == seq->count) {
            a->logit_rows[step.logit_count++] = step.rows - 1;
            engine_write_sampler(session);
            sampled[(*sampled_count)++] = session_refer(session);
        }
    }
    *row_count = step.rows;
    if (step.rows == 0) return ZS_OK;
    gpu_command_set_profiling(engine->prefill_command, engine->profiling);
    status = gpu_command_begin(engine->prefill_command, error);
    if (status) return status;
    model_record(engine->running, engine->workspace, engine->prefill_command, &step);
    if (step.logit_count)
        model_record_sample(engine->running, engine->workspace, engine->prefill_command, &step, engine->samplers.address,
                            engine->results.address, false);
    return gpu_command_end(engine->prefill_command, error);
}

/// A failed step leaves nothing computed that may be reused.
static void forget(zs_engine *engine) {
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        if (engine->sessions[i] && !engine->sessions[i]->done) session_forget(engine->sessions[i]);
    }
}

zs_status engine_prefill(zs_engine *engine, zs_token_callback on_token, void *user, bool *worked, zs_error *error) {
    session_ref sampled[MAX_SESSIONS];
    *worked = false;
    for (;;) {
        uint32_t sampled_count = 0, rows = 0;
        double start = engine_now_ms();
        zs_status status = engine_check_cancelled(engine, error);
        if (!status) status = engine_drain(engine, error); // the arrays are about to be rewritten
        if (!status) status = record_step(engine, sampled, &sampled_count, &rows, error);
        if (!status && rows == 0) return ZS_OK;
        if (!status) status = engine_submit(engine, engine->prefill_command, error);
        if (!status) status = engine_drain(engine, error);
        if (status) {
            forget(engine);
            return status;
        }
        *worked = true;
        engine->stats.steps++;
        engine->stats.prefill_tokens += rows;
        engine->stats.prefill_ms += engine_now_ms() - start;
        for (uint32_t i = 0; i < sampled_count && !status; i++) {
            zs_session *session = session_find(engine, sampled[i]);
            if (session && !session->done) status = engine_take_token(session, on_token, user, error);
        }
        if (status) {
            forget(engine); // the tokens that were not taken are sampled again
            return status;
        }
    }
}
