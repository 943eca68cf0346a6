/// Many questions: pass 1 of all of them, then answers side by side, a new one begun whenever one is done.
#include "adapt/ask.h"
#include "adapt/expert.h"
#include "engine/engine.h"

#include <stdlib.h>

typedef struct batch {
    zs_engine *engine;
    const zs_question *questions;
    size_t count;
    zs_ask_params *params; // [count]: the caller's, with the question's history and images
    zs_answer *answers;    // [count]
    uint32_t *experts;     // [count]: table ids
    answering *slots;      // [slot_count]; without a session: free
    size_t *places;        // [slot_count]: the slot's question
    size_t slot_count, next;
    zs_answer_callback on_answer;
    void *user;
    zs_status status;
    zs_error error;
} batch;

static zs_status choose_experts(batch *b, zs_error *error) {
    const char **texts = malloc(b->count * sizeof *texts);
    if (!texts) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu questions", b->count);
    for (size_t i = 0; i < b->count; i++) texts[i] = b->questions[i].text;
    zs_status status = ask_choose_experts(b->engine, texts, b->count, b->params, b->answers, b->experts, error);
    free(texts);
    return status;
}

/// Begins the next question in a slot, if there is one.
static zs_status begin_next(batch *b, size_t slot, zs_error *error) {
    if (b->next == b->count) return ZS_OK;
    size_t i = b->next++;
    b->places[slot] = i;
    zs_status status = ask_begin(b->engine, &b->questions[i], &b->params[i], b->experts[i], &b->slots[slot], error);
    if (status) ask_end(&b->slots[slot]);
    return status;
}

/// Hands the slot's answer over and begins another.
static zs_status finish_slot(batch *b, size_t slot, zs_error *error) {
    zs_answer *answer = &b->answers[b->places[slot]];
    zs_status status = ask_finish(&b->slots[slot], answer, error);
    ask_end(&b->slots[slot]);
    if (!status && !b->on_answer(b->user, b->places[slot], answer))
        status = zs_error_set(error, ZS_ERROR_CANCELLED, "cancelled by the caller");
    zs_answer_free(answer);
    return status ? status : begin_next(b, slot, error);
}

static bool take_token(void *user, zs_session *session, uint32_t token) {
    batch *b = user;
    size_t slot = 0;
    while (slot < b->slot_count && b->slots[slot].session != session) slot++;
    if (slot == b->slot_count) return true; // another's
    if (b->status) return false;
    bool more = ask_take_token(&b->slots[slot], token);
    if (!more || zs_session_is_done(session)) b->status = finish_slot(b, slot, &b->error);
    return more;
}

static zs_status run_answers(batch *b, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t slot = 0; slot < b->slot_count && !status; slot++) status = begin_next(b, slot, error);
    if (!status) status = zs_engine_run(b->engine, take_token, b, error);
    if (status || !b->status) return status;
    if (error) *error = b->error;
    return b->status;
}

static uint32_t free_sessions(const zs_engine *engine) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) count += !engine->sessions[i];
    return count;
}

static zs_status open_batch(batch *b, const zs_ask_params *params, zs_error *error) {
    b->params = malloc(b->count * sizeof *b->params);
    b->answers = calloc(b->count, sizeof *b->answers);
    b->experts = calloc(b->count, sizeof *b->experts);
    b->slots = calloc(b->slot_count, sizeof *b->slots);
    b->places = calloc(b->slot_count, sizeof *b->places);
    if (!b->params || !b->answers || !b->experts || !b->slots || !b->places)
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu questions", b->count);
    zs_status status = ZS_OK;
    for (size_t i = 0; i < b->count && !status; i++) {
        b->params[i] = *params;
        b->params[i].history = b->questions[i].history;
        b->params[i].history_count = b->questions[i].history_count;
        b->params[i].images = b->questions[i].images;
        b->params[i].image_count = b->questions[i].image_count;
        b->params[i].history_images = b->questions[i].history_images;
        if (b->questions[i].expert) b->params[i].expert = b->questions[i].expert;
        b->params[i].on_text = NULL;
        b->params[i].current = NULL;
        status = ask_check(b->engine->model, b->questions[i].text, &b->params[i], error);
    }
    return status;
}

static void close_batch(batch *b) {
    for (size_t i = 0; b->slots && i < b->slot_count; i++) ask_end(&b->slots[i]);
    for (size_t i = 0; i < b->count; i++) {
        if (b->answers) zs_answer_free(&b->answers[i]);
        if (b->experts) zs_engine_detach_expert(b->engine, b->experts[i]);
    }
    free(b->params);
    free(b->answers);
    free(b->experts);
    free(b->slots);
    free(b->places);
}

zs_status zs_ask_batch(zs_engine *engine, const zs_question *questions, size_t count, const zs_ask_params *params,
                       zs_answer_callback on_answer, void *user, zs_error *error) {
    static const zs_ask_params defaults;
    uint32_t free_count = free_sessions(engine);
    if (count == 0) return ZS_OK;
    if (free_count == 0)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "all %u sessions of the engine are live: destroy one", engine->params.max_sessions);
    batch b = {.engine = engine, .questions = questions, .count = count, .on_answer = on_answer, .user = user};
    b.slot_count = free_count < count ? free_count : count;
    zs_status status = open_batch(&b, params ? params : &defaults, error);
    if (!status) status = choose_experts(&b, error);
    if (!status) status = run_answers(&b, error);
    close_batch(&b);
    return status;
}
