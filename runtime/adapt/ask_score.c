/// A question with given answers: pass 1 as ever, then their likelihoods in place of an answer that is made.
#include "adapt/ask.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

/// Ids and log-probabilities of the given answers.
typedef struct scoring {
    zs_score_item *items; // [count]
    uint32_t **ids;       // [count]
    size_t count;
} scoring;

static void close_scoring(scoring *s) {
    for (size_t i = 0; i < s->count; i++) {
        if (s->ids) free(s->ids[i]);
        if (s->items) free(s->items[i].logprobs);
    }
    free(s->items);
    free(s->ids);
}

static zs_status open_scoring(zs_engine *engine, const zs_scored_text *texts, size_t count, const zs_score_item *prompt, scoring *s,
                              zs_error *error) {
    *s = (scoring){.items = calloc(count, sizeof *s->items), .ids = calloc(count, sizeof *s->ids), .count = count};
    if (!s->items || !s->ids) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu answers", count);
    for (size_t i = 0; i < count; i++) {
        zs_score_item *item = &s->items[i];
        *item = *prompt;
        zs_status status = zs_tokenizer_encode(engine->model->tokenizer, texts[i].text, strlen(texts[i].text), false, &s->ids[i],
                                               &item->continuation_count, error);
        if (status) return status;
        item->continuation = s->ids[i];
        item->logprobs = malloc((item->continuation_count + 1) * sizeof *item->logprobs);
        if (!item->logprobs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %zu answers", count);
    }
    return ZS_OK;
}

static zs_status score_texts(zs_engine *engine, const zs_score_item *prompt, zs_scored_text *texts, size_t count, zs_error *error) {
    scoring s;
    zs_status status = open_scoring(engine, texts, count, prompt, &s, error);
    if (!status) status = zs_engine_score(engine, s.items, count, NULL, 0, error);
    for (size_t i = 0; i < count && !status; i++) {
        texts[i].tokens = s.items[i].continuation_count;
        texts[i].logprob = 0;
        for (size_t t = 0; t < texts[i].tokens; t++) texts[i].logprob += (double)s.items[i].logprobs[t];
    }
    close_scoring(&s);
    return status;
}

zs_status zs_ask_score(zs_engine *engine, const zs_question *question, const zs_ask_params *params, zs_scored_text *texts, size_t count,
                       zs_answer *answer, zs_error *error) {
    static const zs_ask_params defaults;
    zs_ask_params p = params ? *params : defaults;
    p.history = question->history;
    p.history_count = question->history_count;
    p.history_images = question->history_images;
    p.images = question->images;
    p.image_count = question->image_count;
    if (question->expert) p.expert = question->expert;
    uint32_t expert = 0, *ids = NULL;
    size_t id_count = 0;
    *answer = (zs_answer){0};
    zs_status status = ask_check(engine->model, question->text, &p, error);
    if (!status) status = ask_choose_experts(engine, &question->text, 1, &p, answer, &expert, error);
    zs_engine_stats before = engine->stats;
    if (!status) status = ask_encode(engine, question->text, &p, expert, &ids, &id_count, error);
    const zs_score_item prompt = {.expert = expert, .prefix = ids, .prefix_count = id_count};
    if (!status) status = score_texts(engine, &prompt, texts, count, error);
    answer->prompt_tokens = id_count;
    answer->prefill_ms = engine->stats.prefill_ms - before.prefill_ms;
    free(ids);
    zs_engine_detach_expert(engine, expert);
    if (status) zs_answer_free(answer);
    return status;
}
