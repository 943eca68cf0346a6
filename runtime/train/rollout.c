#include "train/rollout.h"

#include "adapt/text_stream.h"
#include "loader/tokenizer.h"
#include "train/prompts.h"

#include <stdlib.h>
#include <string.h>

typedef struct slot {
    zs_session *session;
    size_t index; // of its rollout
} slot;

typedef struct rolling {
    const rollout_params *params;
    uint32_t expert;
    rollout *rollouts;
    size_t count, next, done;
    slot *slots; // [slot_count]
    size_t slot_count;
    zs_error failed; // what the callback met with
} rolling;

/// The next prompt goes into a slot, if there is one left.
static zs_status start_next(rolling *r, slot *s, zs_error *error) {
    const rollout_params *p = r->params;
    if (r->next == r->count) return ZS_OK;
    s->index = r->next++;
    const rollout *to = &r->rollouts[s->index];
    const zs_session_params session = {
        .expert = r->expert, .sampling = {.temperature = p->temperature, .seed = p->seed}, .stream = to->stream};
    train_prompt prompt = {0};
    zs_status status = zs_session_create(p->engine, &session, &s->session, error);
    if (!status) status = train_prompt_open(p->engine, to->item, r->expert, &prompt, error);
    if (!status) status = zs_session_set_prompt(s->session, prompt.ids, prompt.count, error);
    train_prompt_close(&prompt);
    return status ? status : zs_session_generate(s->session, p->max_tokens, error);
}

static zs_status take_answer(rolling *r, slot *s, zs_error *error) {
    rollout *to = &r->rollouts[s->index];
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(zs_engine_get_model(r->params->engine));
    size_t count, prompt = zs_session_prompt_count(s->session);
    const uint32_t *tokens = zs_session_tokens(s->session, &count);
    to->count = count - prompt;
    to->tokens = malloc((to->count + 1) * sizeof *to->tokens);
    if (!to->tokens) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an answer");
    memcpy(to->tokens, tokens + prompt, to->count * sizeof *tokens);
    to->ended = tokenizer && to->count > 0 && zs_tokenizer_is_end(tokenizer, tokens[count - 1]);
    zs_session_destroy(&s->session);
    r->done++;
    const zs_progress *progress = &r->params->progress;
    if (progress->report && !progress->report(progress->user, "answers", (double)r->done, (double)r->count))
        return zs_error_set(error, ZS_ERROR_CANCELLED, "the answers were cancelled");
    return ZS_OK;
}

/// After a failure every session ends at its next token.
static bool on_token(void *user, zs_session *session, uint32_t token) {
    rolling *r = user;
    (void)token;
    if (r->failed.status) return false;
    if (!zs_session_is_done(session)) return true;
    size_t i = 0;
    while (r->slots[i].session != session) i++;
    zs_status status = take_answer(r, &r->slots[i], &r->failed);
    if (!status) status = start_next(r, &r->slots[i], &r->failed);
    return status == ZS_OK;
}

static zs_status roll(rolling *r, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < r->slot_count && !status; i++) status = start_next(r, &r->slots[i], error);
    if (!status) status = zs_engine_run(r->params->engine, on_token, r, error);
    if (!status && r->failed.status) status = zs_error_set(error, r->failed.status, "%s", r->failed.message);
    for (size_t i = 0; i < r->slot_count; i++) zs_session_destroy(&r->slots[i].session);
    return status;
}

zs_status rollout_run(const rollout_params *params, rollout *rollouts, size_t count, zs_error *error) {
    uint32_t sessions = zs_engine_get_info(params->engine)->max_sessions;
    rolling r = {.params = params, .rollouts = rollouts, .count = count, .slot_count = count < sessions ? count : sessions};
    zs_status status = params->expert ? zs_engine_attach_expert(params->engine, params->expert, params->transfer, &r.expert, error) : ZS_OK;
    if (status) return status;
    r.slots = calloc(r.slot_count + 1, sizeof *r.slots);
    status = r.slots ? roll(&r, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for answers");
    free(r.slots);
    if (params->expert) zs_engine_detach_expert(params->engine, r.expert);
    return status;
}

zs_status rollout_text(const zs_tokenizer *tokenizer, const rollout *from, char **out, zs_error *error) {
    text_stream text = {0};
    zs_status status = ZS_OK;
    bool begun = false;
    for (size_t i = 0; i < from->count && !status; i++) {
        const char *bytes;
        size_t size = zs_tokenizer_token_bytes(tokenizer, from->tokens[i], false, &bytes);
        // Where the tokenizer puts a space in front of every text, an answer's first one is not the answer's.
        if (size && !begun && bytes[0] == ' ' && tokenizer_adds_space(tokenizer)) bytes++, size--, begun = true;
        begun = begun || size > 0;
        if (size) status = text_stream_write(&text, bytes, size, error);
    }
    if (!status) status = text_stream_finish(&text, error);
    if (!status && !text.text) text.text = calloc(1, 1); // nothing but an end token
    if (!status && !text.text) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an answer");
    if (status)
        free(text.text);
    else
        *out = text.text;
    return status;
}

void rollout_free(rollout *rollouts, size_t count) {
    for (size_t i = 0; rollouts && i < count; i++) free(rollouts[i].tokens);
    free(rollouts);
}
