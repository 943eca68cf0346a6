/// The two passes: find out what is asked, then answer under the expert for it.
#include "adapt/ask.h"
#include "adapt/dispatch.h"
#include "adapt/expert.h"
#include "engine/engine.h"
#include "loader/tokenizer.h"
#include "loader/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- checks --------------------------------------------------------------------------------------------------------

static zs_status check_text(const char *what, const char *text, zs_error *error) {
    size_t size = strlen(text);
    for (size_t at = 0; at < size;) {
        uint32_t point;
        size_t length = utf8_decode(text + at, size - at, &point);
        if (!length)
            return zs_error_set(error, ZS_ERROR_ARGUMENT,
                                "%s is not valid UTF-8 at byte %zu (0x%02x); convert it first, for example with iconv -t UTF-8", what, at,
                                (unsigned)(unsigned char)text[at]);
        at += length;
    }
    return ZS_OK;
}

zs_status ask_check(const zs_model *model, const char *question, const zs_ask_params *p, zs_error *error) {
    bool needs_set = p->strategy == ZS_STRATEGY_PROMPT || p->strategy == ZS_STRATEGY_CLASSIFIER || p->strategy == ZS_STRATEGY_MIX;
    if (!model->tokenizer)
        return zs_error_set(
            error, ZS_ERROR_ARGUMENT,
            "%s has no tokenizer, so it cannot be asked in words; load a model file that has one, or give token ids to a session",
            model->info.name);
    if (!question || !question[strspn(question, " \t\r\n")]) return zs_error_set(error, ZS_ERROR_ARGUMENT, "the question is empty");
    if (needs_set && !p->experts) return zs_error_set(error, ZS_ERROR_ARGUMENT, "this strategy needs a folder of experts");
    if (p->strategy == ZS_STRATEGY_FIXED && !p->expert) return zs_error_set(error, ZS_ERROR_ARGUMENT, "strategy fixed needs an expert");
    if (p->strategy == ZS_STRATEGY_MIX && !p->alpha)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "strategy mix needs a weight per expert");
    if (p->strategy == ZS_STRATEGY_CLASSIFIER && !zs_expert_set_dispatcher(p->experts))
        return zs_error_set(
            error, ZS_ERROR_ARGUMENT,
            "strategy classifier needs an expert with role=dispatcher in the experts' folder; without one, strategy prompt works");
    zs_status status = check_text("the question", question, error);
    return status || !p->system ? status : check_text("the system message", p->system, error);
}

// ---- pass 1 --------------------------------------------------------------------------------------------------------

static zs_status run_pass1(zs_engine *engine, const char *question, const zs_ask_params *p, zs_answer *answer, const zs_expert **expert,
                           zs_error *error) {
    dispatch_params dispatch = {.experts = p->experts, .how = p->dispatch, .current = p->current && *p->current ? p->current : NULL};
    uint32_t chosen = 0;
    zs_status status = ZS_OK;
    if (p->strategy == ZS_STRATEGY_CLASSIFIER)
        status = zs_engine_attach_expert(engine, zs_expert_set_dispatcher(p->experts), p->transfer, &dispatch.expert, error);
    else if (engine_loaded_expert(engine, &dispatch.expert)) // composing the base only to ask it would cost more than the answer
        expert_table_retain(&engine->experts, dispatch.expert);
    if (status) return status;
    status = dispatch_question(engine, question, &dispatch, &answer->categories, &chosen, error);
    zs_engine_detach_expert(engine, dispatch.expert);
    if (status) return status;
    answer->category_count = zs_expert_set_count(p->experts) + 1;
    *expert = zs_expert_set_get(p->experts, chosen); // NULL for "other": the base
    return ZS_OK;
}

static zs_status make_mix(zs_engine *engine, const zs_ask_params *p, zs_answer *answer, zs_expert **mix, zs_error *error) {
    uint32_t count = zs_expert_set_count(p->experts);
    const zs_expert **list = malloc(count * sizeof *list);
    answer->alpha = malloc(count * sizeof *answer->alpha);
    zs_status status = list && answer->alpha ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a mix");
    for (uint32_t i = 0; i < count && !status; i++) {
        list[i] = zs_expert_set_get(p->experts, i);
        answer->alpha[i] = p->alpha[i];
    }
    if (!status) status = zs_expert_mix(engine->model, list, count, p->alpha, false, mix, error);
    free(list);
    return status;
}

zs_status ask_choose_expert(zs_engine *engine, const char *question, const zs_ask_params *p, zs_answer *answer, uint32_t *id,
                            zs_error *error) {
    double start = engine_now_ms();
    const zs_expert *expert = p->strategy == ZS_STRATEGY_FIXED ? p->expert : NULL;
    zs_expert *mix = NULL;
    zs_status status = ZS_OK;
    if (p->strategy == ZS_STRATEGY_PROMPT || p->strategy == ZS_STRATEGY_CLASSIFIER)
        status = run_pass1(engine, question, p, answer, &expert, error);
    if (p->strategy == ZS_STRATEGY_MIX) {
        status = make_mix(engine, p, answer, &mix, error);
        expert = mix;
    }
    *id = 0;
    if (!status && expert) {
        status = zs_engine_attach_expert(engine, expert, p->transfer, id, error);
        snprintf(answer->expert, sizeof answer->expert, "%s", zs_expert_get_info(expert)->name);
    }
    zs_expert_destroy(&mix);
    answer->pass1_ms = engine_now_ms() - start;
    return status;
}

// ---- pass 2 --------------------------------------------------------------------------------------------------------

static bool tell(answering *a, size_t from) {
    if (a->status) return false;
    if (a->text.size == from || !a->params->on_text) return true;
    return a->params->on_text(a->params->user, a->text.text + from, a->text.size - from);
}

/// Ends the answer before params->stop, if that is in text[from …] or begins shortly before.
static bool reached_stop(answering *a, size_t from) {
    const char *stop = a->params->stop;
    size_t length = stop ? strlen(stop) : 0, back = from < length ? from : length;
    const char *found = length && a->text.size ? strstr(a->text.text + from - back, stop) : NULL;
    if (!found) return false;
    a->stopped = true;
    a->text.size = (size_t)(found - a->text.text);
    a->text.text[a->text.size] = 0;
    return true;
}

bool ask_take_token(answering *a, uint32_t token) {
    const char *bytes;
    size_t from = a->text.size, size = zs_tokenizer_token_bytes(a->tokenizer, token, false, &bytes);
    // Where the tokenizer puts a space in front of every text, an answer's first one is not the answer's.
    if (size && !a->begun && bytes[0] == ' ' && tokenizer_adds_space(a->tokenizer)) bytes++, size--, a->begun = true;
    a->begun = a->begun || size > 0;
    if (size) a->status = text_stream_write(&a->text, bytes, size, &a->error);
    if (!a->status && reached_stop(a, from)) {
        if (a->text.size > from) tell(a, from);
        return false;
    }
    return tell(a, from);
}

static bool take_token(void *user, zs_session *session, uint32_t token) {
    answering *a = user;
    return session != a->session || ask_take_token(a, token);
}

/// Marks in the ids of a chat become the features of images, as the tower sees them under the expert.
static zs_status encode_images(zs_engine *engine, const zs_message *messages, size_t n, const zs_ask_params *p, uint32_t expert,
                               uint32_t **ids, size_t *count, zs_error *error) {
    const chat_images marks = {messages[n - 1].content, engine_image_mark(engine), p->image_count, engine_image_seam(engine)};
    zs_prompt prompt = {.images = p->images, .image_count = p->image_count, .expert = expert};
    uint32_t *marked = NULL;
    zs_status status = tokenizer_encode_chat(engine->model->tokenizer, messages, n, true, &marks, &marked, &prompt.id_count, error);
    prompt.ids = marked;
    if (!status) status = zs_engine_encode_prompt(engine, &prompt, ids, count, error);
    free(marked);
    return status;
}

zs_status ask_encode(zs_engine *engine, const char *question, const zs_ask_params *p, uint32_t expert, uint32_t **ids, size_t *count,
                     zs_error *error) {
    zs_message *messages = malloc((p->history_count + 2) * sizeof *messages);
    if (!messages) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the question");
    size_t n = 0;
    if (p->system) messages[n++] = (zs_message){"system", p->system};
    for (size_t i = 0; i < p->history_count; i++) messages[n++] = p->history[i];
    messages[n++] = (zs_message){"user", question};
    zs_status status = p->image_count ? encode_images(engine, messages, n, p, expert, ids, count, error)
                                      : zs_tokenizer_encode_chat(engine->model->tokenizer, messages, n, true, ids, count, error);
    free(messages);
    return status;
}

zs_status ask_begin(zs_engine *engine, const char *question, const zs_ask_params *p, uint32_t expert, uint64_t stream, answering *a,
                    zs_error *error) {
    uint32_t *ids = NULL;
    size_t count = 0;
    *a = (answering){.params = p, .tokenizer = engine->model->tokenizer};
    const zs_session_params session = {.expert = expert, .sampling = p->sampling, .stream = stream};
    zs_status status = ask_encode(engine, question, p, expert, &ids, &count, error);
    if (!status) status = zs_session_create(engine, &session, &a->session, error);
    if (!status) status = zs_session_set_prompt(a->session, ids, count, error);
    if (!status) status = zs_session_generate(a->session, p->max_tokens ? p->max_tokens : 512, error);
    free(ids);
    return status;
}

zs_status ask_finish(answering *a, zs_answer *answer, zs_error *error) {
    if (a->status) {
        if (error) *error = a->error;
        return a->status;
    }
    size_t count, prompt = zs_session_prompt_count(a->session), from = a->text.size;
    const uint32_t *tokens = zs_session_tokens(a->session, &count);
    if (a->stopped) a->text.pending_size = 0; // behind the end
    zs_status status = text_stream_finish(&a->text, error);
    if (status) return status;
    tell(a, from);
    answer->tokens = malloc((count - prompt + 1) * sizeof *tokens);
    if (!answer->tokens) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an answer");
    memcpy(answer->tokens, tokens + prompt, (count - prompt) * sizeof *tokens);
    answer->token_count = count - prompt;
    answer->prompt_tokens = prompt;
    answer->ended = a->stopped || (count > prompt && zs_tokenizer_is_end(a->tokenizer, tokens[count - 1]));
    answer->text = a->text.text;
    a->text = (text_stream){0};
    return ZS_OK;
}

void ask_end(answering *a) {
    zs_session_destroy(&a->session);
    free(a->text.text);
    a->text = (text_stream){0};
}

static zs_status run_pass2(zs_engine *engine, const char *question, const zs_ask_params *p, uint32_t expert, zs_answer *answer,
                           zs_error *error) {
    answering a;
    zs_engine_stats before = engine->stats;
    zs_status status = ask_begin(engine, question, p, expert, 0, &a, error);
    if (!status) status = zs_engine_run(engine, take_token, &a, error);
    if (!status) status = ask_finish(&a, answer, error);
    answer->prefill_ms = engine->stats.prefill_ms - before.prefill_ms;
    answer->compose_ms = engine->stats.compose_ms - before.compose_ms;
    answer->decode_ms = engine->stats.decode_ms - before.decode_ms;
    if (answer->decode_ms > 0)
        answer->decode_tokens_per_s = 1e3 * (double)(engine->stats.decode_tokens - before.decode_tokens) / answer->decode_ms;
    ask_end(&a);
    return status;
}

zs_status zs_ask(zs_engine *engine, const char *question, const zs_ask_params *params, zs_answer *answer, zs_error *error) {
    static const zs_ask_params defaults;
    const zs_ask_params *p = params ? params : &defaults;
    uint32_t expert = 0;
    *answer = (zs_answer){0};
    zs_status status = ask_check(engine->model, question, p, error);
    if (!status) status = ask_choose_expert(engine, question, p, answer, &expert, error);
    if (!status) status = run_pass2(engine, question, p, expert, answer, error);
    zs_engine_detach_expert(engine, expert);
    if (status) zs_answer_free(answer);
    return status;
}

void zs_answer_free(zs_answer *answer) {
    free(answer->text);
    free(answer->tokens);
    free(answer->categories);
    free(answer->alpha);
    *answer = (zs_answer){0};
}
