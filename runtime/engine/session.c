#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

zs_status zs_session_create(zs_engine *engine, const zs_session_params *params, zs_session **out, zs_error *error) {
    uint32_t index = 0, max = engine->params.max_sessions;
    while (index < max && engine->sessions[index]) index++;
    if (index == max)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "%u sessions are live already: destroy one or create the engine with a larger max_sessions", max);
    zs_session *session = calloc(1, sizeof *session);
    if (!session) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a session");
    session->engine = engine;
    session->index = index;
    session->version = ++engine->clock;
    session->done = true;
    if (params) session->params = *params;
    session->logprobs = malloc(engine->params.context * sizeof *session->logprobs);
    zs_status status = session->logprobs ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a session");
    if (!status) status = sequence_create(engine->params.context, &session->seq, error);
    if (!status) status = zs_session_set_expert(session, session->params.expert, error);
    if (status) {
        if (session->seq.tokens) sequence_destroy(&session->seq, &engine->pool);
        free(session->logprobs);
        free(session);
        return status;
    }
    engine->sessions[index] = session;
    *out = session;
    return ZS_OK;
}

void zs_session_destroy(zs_session **handle) {
    zs_session *session = *handle;
    if (!session) return;
    *handle = NULL;
    zs_engine *engine = session->engine;
    engine_drain(engine, NULL);
    engine->sessions[session->index] = NULL;
    engine_keep_prefix(engine, &session->seq);
    gpu_buffer_destroy(engine->model->device, &session->bits);
    free(session->logprobs);
    free(session);
}

session_ref session_refer(const zs_session *session) { return (session_ref){session->index, session->version}; }

zs_session *session_find(const zs_engine *engine, session_ref ref) {
    zs_session *session = engine->sessions[ref.index];
    return session && session->version == ref.version ? session : NULL;
}

/// What steps in flight bring for this session is not wanted any more, nor the rest of what came with a draft: of the newest token, which
/// the draft foresaw, the logits are needed again.
static void disown_steps(zs_session *session) {
    sequence *seq = &session->seq;
    session->version = ++session->engine->clock;
    session->draft_computed = 0;
    if (seq->count && seq->computed == seq->count) seq->computed--;
}

zs_status session_check_expert(const zs_session *session, zs_error *error) {
    if (expert_table_serial(&session->engine->experts, session->params.expert) == session->seq.expert_serial) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_ARGUMENT,
                        "expert %u was detached while a session uses it: give the session another one or destroy it",
                        session->params.expert);
}

bool session_decodes(const zs_session *session) {
    return session && !session->done && engine_serves(session->engine, session) && !session->draft_count &&
           session->seq.count > session->prompt_count && session->seq.computed + 1 == session->seq.count;
}

void session_forget(zs_session *session) {
    uint32_t count = session->seq.count;
    sequence_truncate(&session->seq, &session->engine->pool, 0);
    session->seq.count = count;
}

zs_status zs_session_set_expert(zs_session *session, uint32_t expert, zs_error *error) {
    uint64_t serial = expert_table_serial(&session->engine->experts, expert);
    if (!serial) return zs_error_set(error, ZS_ERROR_ARGUMENT, "no expert with id %u is attached", expert);
    session->params.expert = expert;
    if (serial == session->seq.expert_serial) return ZS_OK;
    zs_status status = engine_drain(session->engine, error);
    if (status) return status;
    // Keys and values depend on z: what there is belongs to the old expert.
    session_forget(session);
    session->seq.expert_serial = serial;
    disown_steps(session);
    return ZS_OK;
}

zs_status zs_session_set_prompt(zs_session *session, const uint32_t *ids, size_t count, zs_error *error) {
    zs_engine *engine = session->engine;
    if (count == 0) return zs_error_set(error, ZS_ERROR_ARGUMENT, "the prompt is empty");
    if (count >= engine->params.context)
        return zs_error_set(error, ZS_ERROR_CONTEXT,
                            "the prompt has %zu tokens and the context holds %u with at least one of the answer: shorten it or raise --ctx "
                            "(the model allows %u)",
                            count, engine->params.context, engine->model->config.context);
    for (size_t i = 0; i < count; i++) {
        if (!engine_knows_token(engine, ids[i]))
            return zs_error_set(error, ZS_ERROR_ARGUMENT,
                                "token id %u at %zu is outside the vocabulary of %u, and of no image that is still kept "
                                "(zs_engine_encode_prompt)",
                                ids[i], i, engine->model->config.vocab);
    }
    sequence *seq = &session->seq;
    // The session's own history first; what remains of it is the key to the shared cache otherwise.
    uint32_t own = sequence_common(seq, ids, (uint32_t)count - 1, engine->params.deterministic);
    // A page shared with others must not be written again.
    if (own % KV_PAGE_TOKENS && engine->pool.references[seq->pages[own / KV_PAGE_TOKENS]] > 1) own -= own % KV_PAGE_TOKENS;
    if (own < ENGINE_WORTH_A_COPY) own = 0;
    zs_status status = engine_drain(engine, error);
    if (status) return status;
    sequence_truncate(seq, &engine->pool, own);
    engine->stats.cached_tokens += own;
    if (own == 0) status = engine_take_prefix(engine, seq, ids, (uint32_t)count, error);
    memcpy(seq->tokens, ids, count * sizeof *ids);
    seq->count = (uint32_t)count;
    disown_steps(session);
    session->prompt_count = (uint32_t)count;
    session->remaining = session->draft_count = 0;
    session->done = true;
    return status;
}

static bool has_penalty(const zs_session *session) {
    float penalty = session->params.sampling.repetition_penalty;
    return penalty != 0 && penalty != 1;
}

/// what: " of …", or nothing.
static zs_status check_vocabulary(const zs_session *session, const uint32_t *ids, size_t count, const char *what, zs_error *error) {
    const uint32_t vocab = session->engine->model->config.vocab;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= vocab)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "token id %u%s is outside the vocabulary of %u", ids[i], what, vocab);
    }
    return ZS_OK;
}

zs_status zs_session_set_draft(zs_session *session, const uint32_t *ids, size_t count, zs_error *error) {
    zs_engine *engine = session->engine;
    sequence *seq = &session->seq;
    zs_status status = check_vocabulary(session, ids, count, " of the draft", error);
    if (!status) status = engine_drain(engine, error);
    if (status) return status;
    disown_steps(session);
    session->draft_count = 0;
    if (engine->params.deterministic || has_penalty(session)) return ZS_OK; // bits, or marks of tokens that were not drawn, would differ
    session->draft_count = count < seq->capacity - seq->count ? (uint32_t)count : seq->capacity - seq->count;
    if (session->draft_count) memcpy(seq->tokens + seq->count, ids, session->draft_count * sizeof *ids);
    return ZS_OK;
}

/// The session's allowed and seen masks: a bit per token each.
static zs_status make_bits(zs_session *session, zs_error *error) {
    if (session->bits.size) return ZS_OK;
    uint64_t words = (session->engine->model->config.vocab + 31) / 32;
    return gpu_buffer_create(session->engine->model->device, GPU_MEMORY_SHARED, 2 * words * 4, true, "token masks", &session->bits, error);
}

static uint32_t *mask_words(const zs_session *session, bool seen) {
    uint32_t words = (session->engine->model->config.vocab + 31) / 32;
    return (uint32_t *)session->bits.mapped + (seen ? words : 0);
}

zs_status zs_session_restrict(zs_session *session, const uint32_t *ids, size_t count, zs_error *error) {
    uint32_t vocab = session->engine->model->config.vocab;
    zs_status status = check_vocabulary(session, ids, count, "", error);
    if (!status && count) status = make_bits(session, error);
    if (!status) status = engine_drain(session->engine, error);
    if (status) return status;
    disown_steps(session);
    session->restricted = count > 0;
    if (!count) return ZS_OK;
    uint32_t *allowed = mask_words(session, false);
    memset(allowed, 0, (vocab + 31) / 32 * 4);
    for (size_t i = 0; i < count; i++) allowed[ids[i] / 32] |= 1u << ids[i] % 32;
    return ZS_OK;
}

zs_status zs_session_generate(zs_session *session, uint32_t count, zs_error *error) {
    sequence *seq = &session->seq;
    if (seq->count == 0) return zs_error_set(error, ZS_ERROR_ARGUMENT, "the session has no prompt");
    zs_status status = has_penalty(session) ? make_bits(session, error) : ZS_OK;
    if (status) return status;
    uint32_t room = seq->capacity - seq->count;
    session->remaining = count < room ? count : room;
    session->done = session->remaining == 0;
    disown_steps(session);
    return ZS_OK;
}

/// Marks the tokens so far: a step whose token was never taken may have marked others.
static void write_seen(zs_session *session) {
    const sequence *seq = &session->seq;
    uint32_t *seen = mask_words(session, true);
    memset(seen, 0, (session->engine->model->config.vocab + 31) / 32 * 4);
    for (uint32_t i = 0; i < seq->count; i++) {
        if (seq->tokens[i] < session->engine->model->config.vocab) seen[seq->tokens[i] / 32] |= 1u << seq->tokens[i] % 32;
    }
}

void engine_write_sampler(zs_session *session) {
    const zs_sampling *s = &session->params.sampling;
    if (has_penalty(session)) write_seen(session);
    uint64_t words = (session->engine->model->config.vocab + 31) / 32;
    ((Sampler *)session->engine->samplers.mapped)[session->index] = (Sampler){
        .allowed = session->restricted ? session->bits.address : 0,
        .seen = has_penalty(session) ? session->bits.address + 4 * words : 0,
        .temperature = s->temperature,
        .top_p = s->top_p > 0 ? s->top_p : 1,
        .min_p = s->min_p,
        .repetition_penalty = has_penalty(session) ? s->repetition_penalty : 1,
        .top_k = s->top_k,
        .seed_low = (uint32_t)s->seed,
        .seed_high = (uint32_t)(s->seed >> 32),
        .stream_low = (uint32_t)session->params.stream,
        .stream_high = (uint32_t)(session->params.stream >> 32),
    };
}

static void append(zs_session *session, uint32_t token, float logprob) {
    session->logprobs[session->seq.count] = logprob;
    session->seq.tokens[session->seq.count++] = token;
}

const uint32_t *zs_session_tokens(const zs_session *session, size_t *count) {
    *count = session->seq.count;
    return session->seq.tokens;
}

size_t zs_session_prompt_count(const zs_session *session) { return session->prompt_count; }

const float *zs_session_logprobs(const zs_session *session, size_t *count) {
    *count = session->seq.count - session->prompt_count;
    return session->logprobs + session->prompt_count;
}

bool zs_session_is_done(const zs_session *session) { return session->done; }

static zs_status check_sampled(const zs_engine *engine, const Sampled *sampled, uint32_t position, zs_error *error) {
    if (sampled->flags & SAMPLED_NAN)
        return zs_error_set(
            error, ZS_ERROR_NUMERIC,
            "the logits of position %u are not numbers: the weights, the expert or the driver is at fault (try --precision exact)",
            position);
    if (sampled->position != position || sampled->token >= engine->model->config.vocab)
        return zs_error_set(error, ZS_ERROR_NUMERIC, "no token could be drawn at position %u: every token is excluded", position);
    return ZS_OK;
}

/// The draft's first token turns out to be the next one, whose keys and values may be there already, or the draft is worth nothing.
static void take_draft(zs_session *session, uint32_t token) {
    sequence *seq = &session->seq;
    if (session->draft_count == 0 || seq->tokens[seq->count] != token) {
        session->draft_count = session->draft_computed = 0;
        return;
    }
    session->draft_count--;
    if (session->draft_computed == 0) return;
    session->draft_computed--;
    seq->computed++;
    session->engine->stats.accepted_tokens++;
}

zs_status engine_take_token(zs_session *session, zs_token_callback on_token, void *user, zs_error *error) {
    zs_engine *engine = session->engine;
    session_ref ref = session_refer(session);
    uint32_t position = session->seq.count;
    const Sampled *sampled = (const Sampled *)engine->results.mapped + (size_t)session->index * SAMPLED_RING + position % SAMPLED_RING;
    zs_status status = check_sampled(engine, sampled, position, error);
    if (status) {
        engine_drain(engine, NULL); // steps in flight still read the pages
        session_forget(session);
        session->done = true;
        return status;
    }
    take_draft(session, sampled->token);
    append(session, sampled->token, sampled->logprob);
    session->remaining--;
    const zs_tokenizer *tokenizer = engine->model->tokenizer; // NULL with random weights
    bool ended = !session->params.ignore_end && tokenizer && zs_tokenizer_is_end(tokenizer, sampled->token);
    bool stop = session->remaining == 0 || ended;
    session->done = stop; // before the callback, which may ask for more
    if (on_token && !on_token(user, session, sampled->token)) {
        session = session_find(engine, ref); // the callback may have destroyed it or given it new work
        if (session) session->done = true;
    }
    return ZS_OK;
}
