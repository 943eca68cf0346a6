#include "engine/engine.h"

#include <string.h>

enum { WORTH_A_STEP = 128 }; // rows that take about as long as the weights take to be read: a step of fewer costs the same

uint32_t prefill_add_rows(zs_engine *engine, const prefill_run *run, uint32_t limit, model_step *step) {
    uint32_t left = run->end - run->seq->computed, count = left < limit ? left : limit, first_row = step->rows;
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
        engine->prefill.spans[step->spans++] = (Span){.first_row = first_row + i, .rows = rows};
    }
    step->rows += count;
    if (run->seq->computed + count > step->longest) step->longest = run->seq->computed + count;
    return count;
}

static bool needs_prefill(const zs_session *session) {
    // A decoded session lacks only its newest token, which the next decode step takes in, unless a draft goes along with it.
    return session && !session->done && engine_serves(session->engine, session) &&
           (session->seq.computed + 1 < session->seq.count || session->seq.count == session->prompt_count || session->draft_count);
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

// ---- a step ---------------------------------------------------------------------------------------------------------

/// Whose token a row's logits draw.
typedef struct drawing {
    session_ref session;
    uint32_t position; // of the row
} drawing;

/// A step in the making.
typedef struct prefill_step {
    model_step step;
    drawing drawn[MAX_SESSIONS];                   // [step.logit_count]
    uint32_t missing_pages;                        // of prompts that are not in it yet
    uint32_t prompt_rows, draft_rows, newest_rows; // the last: in front of drafts, of sessions that decode
} prefill_step;

static void add_logits(zs_engine *engine, prefill_step *s, const zs_session *session, uint32_t row, uint32_t position) {
    s->drawn[s->step.logit_count] = (drawing){session_refer(session), position};
    engine->prefill.logit_rows[s->step.logit_count++] = row;
}

/// The session's rows from its computed position to `end`, at most as many as there is room for; returns how many.
static uint32_t add_rows(zs_engine *engine, prefill_step *s, zs_session *session, uint32_t end) {
    sequence *seq = &session->seq;
    engine_write_pages(engine, session->index, seq, 0);
    const prefill_run run = {.seq = seq, .table_row = session->index, .expert = session->params.expert, .end = end};
    return prefill_add_rows(engine, &run, engine->params.max_rows - s->step.rows, &s->step);
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/// Pages that the session's tokens lack.
static uint32_t missing_pages(const zs_session *session) {
    const uint32_t pages = sequence_pages(session->seq.count);
    return pages > session->seq.page_count ? pages - session->seq.page_count : 0;
}

/// Whether a draft may have a page more: not where others' prompts would miss it, or next tokens. A cached prefix makes room for one at
/// least.
static bool has_spare_page(const zs_engine *engine, const prefill_step *s) {
    return engine->pool.free_count + engine->cache_count > s->missing_pages + engine->params.max_sessions;
}

/// Tokens of the draft that go along with the last row of a session, where the step and the session's pages have room for them.
static uint32_t tokens_ahead(zs_engine *engine, const prefill_step *s, zs_session *session) {
    sequence *seq = &session->seq;
    const uint32_t rows = engine->params.max_rows - s->step.rows - (seq->count - seq->computed);
    const uint32_t logits = engine->max_logit_rows - s->step.logit_count - 1, paged = seq->page_count * KV_PAGE_TOKENS - seq->count;
    uint32_t count = least(least(session->draft_count, session->remaining - 1), SAMPLED_RING - 1);
    count = least(count, least(rows, logits));
    if (count <= paged) return count;
    return has_spare_page(engine, s) && !engine_reserve(engine, seq, seq->count + count, NULL) ? count : paged;
}

/// What is left of a prompt, as far as there is room, and if that is all of it a row of logits for it and for each token of the draft.
static zs_status add_session(zs_engine *engine, prefill_step *s, zs_session *session, zs_error *error) {
    sequence *seq = &session->seq;
    const uint32_t left = seq->count - seq->computed;
    const bool whole = left <= engine->params.max_rows - s->step.rows, newest = left == 1 && seq->count > session->prompt_count;
    if (whole && s->step.logit_count == engine->max_logit_rows) return ZS_OK; // others' drafts took them
    s->missing_pages -= missing_pages(session);
    zs_status status = session_check_expert(session, error);
    if (!status) status = engine_reserve(engine, seq, seq->count, error);
    if (status) return status;
    const uint32_t ahead = whole ? tokens_ahead(engine, s, session) : 0;
    const uint32_t added = add_rows(engine, s, session, seq->count + ahead), rows = added - ahead;
    seq->prefilled = seq->prefilled == seq->computed ? seq->computed + rows : seq->prefilled;
    seq->computed += rows;
    session->draft_computed = ahead;
    *(newest ? &s->newest_rows : &s->prompt_rows) += rows;
    s->draft_rows += ahead;
    if (!whole) return ZS_OK;
    for (uint32_t i = 0; i <= ahead; i++) add_logits(engine, s, session, s->step.rows - 1 - ahead + i, seq->count - 1 + i);
    engine_write_sampler(session);
    return ZS_OK;
}

/// The newest tokens of sessions that decode: what reads the weights for prompts serves them too. Not where they would leave too little
/// room, nor where a row's bits must not depend on who else has work.
static zs_status add_decoding(zs_engine *engine, prefill_step *s, zs_error *error) {
    uint32_t count = 0;
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) count += session_decodes(engine->sessions[i]);
    if (engine->params.deterministic || count > engine->params.max_rows / 2) return ZS_OK;
    for (uint32_t i = 0; i < engine->params.max_sessions && !status; i++) {
        zs_session *session = engine->sessions[i];
        if (!session_decodes(session)) continue;
        status = session_check_expert(session, error);
        if (!status) status = engine_reserve(engine, &session->seq, session->seq.count, error);
        if (status) break;
        s->step.decode_rows += add_rows(engine, s, session, session->seq.count);
        add_logits(engine, s, session, s->step.rows - 1, session->seq.count - 1);
        engine_write_sampler(session);
    }
    engine->prefill.step[1].spans = engine->prefill.step->spans + s->step.decode_rows * sizeof(Span);
    return status;
}

/// As many rows of waiting sessions as fit, behind those of the ones that decode; none where nobody waits.
static zs_status fill_step(zs_engine *engine, prefill_step *s, zs_error *error) {
    bool waits[MAX_SESSIONS], wanted = false;
    zs_status status = share_prompts(engine, waits, error);
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        if (!needs_prefill(engine->sessions[i])) continue;
        wanted = true;
        s->missing_pages += missing_pages(engine->sessions[i]);
    }
    if (!status && wanted) status = add_decoding(engine, s, error);
    for (uint32_t i = 0; i < engine->params.max_sessions && s->step.rows < engine->params.max_rows && !status; i++) {
        if (needs_prefill(engine->sessions[i]) && !waits[i]) status = add_session(engine, s, engine->sessions[i], error);
    }
    return status;
}

static zs_status run_step(zs_engine *engine, const prefill_step *s, zs_error *error) {
    gpu_command *command = engine->prefill_command;
    gpu_command_set_profiling(command, engine->profiling);
    zs_status status = gpu_command_begin(command, error);
    if (status) return status;
    model_record(engine->running, engine->workspace, command, &s->step);
    if (s->step.logit_count)
        model_record_sample(engine->running, engine->workspace, command, &s->step, engine->samplers.address, engine->results.address,
                            false);
    status = gpu_command_end(command, error);
    if (!status) status = engine_submit(engine, command, error);
    return status ? status : engine_drain(engine, error);
}

/// Takes the tokens of a step's rows of logits, those behind a token that a draft did not foresee left out.
static zs_status take_tokens(zs_engine *engine, const prefill_step *s, zs_token_callback on_token, void *user, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < s->step.logit_count && !status; i++) {
        zs_session *session = session_find(engine, s->drawn[i].session);
        if (!session || session->done) continue;
        if (i < s->step.decode_rows) {
            session->seq.computed++;
            engine->stats.decode_tokens++;
        }
        if (session->seq.computed == s->drawn[i].position + 1) status = engine_take_token(session, on_token, user, error);
    }
    return status;
}

/// A failed step leaves nothing computed that may be reused.
static void forget(zs_engine *engine) {
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        if (engine->sessions[i] && !engine->sessions[i]->done) session_forget(engine->sessions[i]);
    }
}

zs_status engine_prefill(zs_engine *engine, zs_token_callback on_token, void *user, bool *worked, zs_error *error) {
    *worked = false;
    for (;;) {
        prefill_step s; // not zeroed as a whole: `drawn` is long
        s.step = (model_step){.step = engine->prefill.step_address,
                              .rest = engine->prefill.step_address + sizeof(Step),
                              .features = engine->images.features.address,
                              .feature_rows = engine->images.capacity,
                              .logit_rows = engine->prefill.logit_rows_address};
        s.missing_pages = s.prompt_rows = s.draft_rows = s.newest_rows = 0;
        double start = engine_now_ms();
        zs_status status = engine_check_cancelled(engine, error);
        if (!status) status = engine_drain(engine, error); // the arrays are about to be rewritten
        if (!status) status = fill_step(engine, &s, error);
        if (!status && s.step.rows == 0) return ZS_OK;
        if (!status) status = run_step(engine, &s, error);
        if (status) {
            forget(engine);
            return status;
        }
        *worked = true;
        engine->stats.steps++;
        engine->stats.prefill_tokens += s.prompt_rows;
        engine->stats.draft_tokens += s.draft_rows;
        engine->stats.decode_tokens += s.newest_rows;
        engine->stats.prefill_ms += engine_now_ms() - start;
        status = take_tokens(engine, &s, on_token, user, error);
        if (status) {
            forget(engine); // the tokens that were not taken are sampled again
            return status;
        }
    }
}
