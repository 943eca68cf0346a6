/// The two passes: find out what is asked, then answer under the expert for it.
#include "adapt/ask.h"
#include "adapt/chat_prompt.h"
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

static size_t earlier_images(const zs_ask_params *p) {
    size_t count = 0;
    for (size_t i = 0; p->history_images && i < p->history_count; i++) count += p->history_images[i];
    return count;
}

/// The question's own, which are the last ones.
static size_t question_images(const zs_ask_params *p) { return p->image_count - earlier_images(p); }

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
    if (earlier_images(p) > p->image_count)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "the earlier turns have %zu images, and %zu are given", earlier_images(p),
                            p->image_count);
    zs_status status = check_text("the question", question, error);
    return status || !p->system ? status : check_text("the system message", p->system, error);
}

// ---- pass 1 --------------------------------------------------------------------------------------------------------

/// What pass 1 sees: a dispatcher, which may be trained for it, sees what the question is about, too.
static dispatch_question asked_question(const char *text, const zs_ask_params *p) {
    dispatch_question asked = {.text = text};
    if (p->strategy != ZS_STRATEGY_CLASSIFIER) return asked;
    asked.image_count = question_images(p);
    if (asked.image_count) asked.images = p->images + earlier_images(p);
    return asked;
}

/// Which expert each question [count] of params [count] belongs to; NULL for "other": the base. The params of all questions agree but for
/// history and images.
static zs_status run_pass1(zs_engine *engine, const char *const *questions, size_t count, const zs_ask_params *p, zs_answer *answers,
                           const zs_expert **experts, zs_error *error) {
    dispatch_params dispatch = {.experts = p->experts,
                                .trained = p->strategy == ZS_STRATEGY_CLASSIFIER,
                                .how = p->dispatch,
                                .current = p->current && *p->current ? p->current : NULL};
    dispatch_decision *decisions = calloc(count, sizeof *decisions);
    dispatch_question *asked = calloc(count, sizeof *asked);
    zs_status status = decisions && asked ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    for (size_t i = 0; i < count && !status; i++) asked[i] = asked_question(questions[i], &p[i]);
    if (!status && p->strategy == ZS_STRATEGY_CLASSIFIER)
        status = zs_engine_attach_expert(engine, zs_expert_set_dispatcher(p->experts), p->transfer, &dispatch.expert, error);
    else if (!status && engine_loaded_expert(engine, &dispatch.expert)) // composing the base only to ask it would cost more than the answer
        expert_table_retain(&engine->experts, dispatch.expert);
    if (!status) {
        status = dispatch_questions(engine, asked, count, &dispatch, decisions, error);
        zs_engine_detach_expert(engine, dispatch.expert);
    }
    for (size_t i = 0; i < count && !status; i++) {
        answers[i].categories = decisions[i].categories;
        answers[i].category_count = zs_expert_set_count(p->experts) + 1;
        experts[i] = zs_expert_set_get(p->experts, decisions[i].chosen);
    }
    free(decisions);
    free(asked);
    return status;
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

/// Puts the z of a question into the engine's table: of the expert that pass 1 chose, of the one that was asked for, of a mix.
static zs_status attach_expert(zs_engine *engine, const zs_ask_params *p, const zs_expert *chosen, zs_answer *answer, uint32_t *id,
                               zs_error *error) {
    const zs_expert *expert = p->strategy == ZS_STRATEGY_FIXED ? p->expert : chosen;
    zs_expert *mix = NULL;
    zs_status status = ZS_OK;
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
    return status;
}

zs_status ask_choose_experts(zs_engine *engine, const char *const *questions, size_t count, const zs_ask_params *params, zs_answer *answers,
                             uint32_t *ids, zs_error *error) {
    double start = engine_now_ms();
    const zs_expert **experts = calloc(count, sizeof *experts);
    zs_status status = experts ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu questions", count);
    if (!status && (params->strategy == ZS_STRATEGY_PROMPT || params->strategy == ZS_STRATEGY_CLASSIFIER))
        status = run_pass1(engine, questions, count, params, answers, experts, error);
    for (size_t i = 0; i < count && !status; i++) status = attach_expert(engine, &params[i], experts[i], &answers[i], &ids[i], error);
    for (size_t i = 0; i < count; i++) answers[i].pass1_ms = (engine_now_ms() - start) / (double)count;
    free(experts);
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

zs_status ask_encode(zs_engine *engine, const char *question, const zs_ask_params *p, uint32_t expert, uint32_t **ids, size_t *count,
                     zs_error *error) {
    zs_message *messages = malloc((p->history_count + 2) * sizeof *messages);
    chat_images *places = malloc((p->history_count + 1) * sizeof *places);
    size_t n = 0, place_count = 0;
    zs_status status = messages && places ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the question");
    if (!status && p->system) messages[n++] = (zs_message){"system", p->system};
    for (size_t i = 0; i < p->history_count && !status; i++) {
        messages[n++] = p->history[i];
        if (p->history_images && p->history_images[i]) places[place_count++] = (chat_images){p->history[i].content, p->history_images[i]};
    }
    if (!status) {
        messages[n++] = (zs_message){"user", question};
        if (question_images(p)) places[place_count++] = (chat_images){question, question_images(p)};
        const chat_prompt prompt = {messages, n, places, place_count, p->images, p->image_count, expert};
        status = chat_prompt_encode(engine, &prompt, ids, count, error);
    }
    free(messages);
    free(places);
    return status;
}

zs_status ask_begin(zs_engine *engine, const zs_question *question, const zs_ask_params *p, uint32_t expert, answering *a,
                    zs_error *error) {
    uint32_t *ids = NULL;
    size_t count = 0;
    *a = (answering){.params = p, .tokenizer = engine->model->tokenizer};
    const zs_session_params session = {.expert = expert, .sampling = p->sampling, .stream = question->stream};
    zs_status status = ask_encode(engine, question->text, p, expert, &ids, &count, error);
    if (!status) status = zs_session_create(engine, &session, &a->session, error);
    if (!status) status = zs_session_set_prompt(a->session, ids, count, error);
    if (!status) status = zs_session_set_draft(a->session, question->draft, question->draft_count, error);
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
    zs_status status = ask_begin(engine, &(zs_question){.text = question}, p, expert, &a, error);
    if (!status) status = zs_engine_run(engine, take_token, &a, error);
    if (!status) status = ask_finish(&a, answer, error);
    answer->prefill_ms = engine->stats.prefill_ms - before.prefill_ms;
    answer->compose_ms = engine->stats.compose_ms - before.compose_ms;
    answer->images = engine->stats.images - before.images;
    answer->image_ms = engine->stats.image_ms - before.image_ms;
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
    if (!status) status = ask_choose_experts(engine, &question, 1, p, answer, &expert, error);
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
