#include "adapt/dispatch.h"

#include "adapt/chat_prompt.h"
#include "adapt/expert.h"
#include "adapt/text_stream.h"
#include "engine/engine.h"
#include "zsigma/zsigma_lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { QUESTION_ENDS = 600, GENERATED = 48, TOGETHER = 64 };

/// A topic is kept while it is at least this likely against the best one: changing it re-reads the whole history.
static const double keep_ratio = 0.5;

// ---- the prompt ----------------------------------------------------------------------------------------------------

typedef struct prompt_text {
    char *text;
    size_t size, capacity;
} prompt_text;

static bool append(prompt_text *p, const char *text, size_t size) {
    if (p->capacity - p->size <= size) {
        size_t capacity = 2 * p->capacity + size + 256;
        char *grown = realloc(p->text, capacity);
        if (!grown) return false;
        p->text = grown;
        p->capacity = capacity;
    }
    memcpy(p->text + p->size, text, size);
    p->size += size;
    p->text[p->size] = 0;
    return true;
}

static bool append_string(prompt_text *p, const char *text) { return append(p, text, strlen(text)); }

/// A long question is told by its two ends, cut between characters: pass 1 must stay short.
static bool append_question(prompt_text *p, const char *question) {
    size_t length = strlen(question);
    if (length <= 2 * QUESTION_ENDS) return append(p, question, length);
    size_t head = QUESTION_ENDS, tail = length - QUESTION_ENDS;
    while (((uint8_t)question[head] & 0xC0) == 0x80) head--;
    while (((uint8_t)question[tail] & 0xC0) == 0x80) tail++;
    return append(p, question, head) && append_string(p, "\n…\n") && append(p, question + tail, length - tail);
}

/// The instructions come first, so that their keys and values are computed once and kept. *at: where the question begins.
static char *make_prompt(const zs_expert_set *experts, const char *question, size_t *at) {
    prompt_text p = {0};
    bool ok = append_string(&p, "Sort the question into one of these categories:\n");
    for (uint32_t i = 0; i < zs_expert_set_count(experts) && ok; i++) {
        const zs_expert_info *info = zs_expert_get_info(zs_expert_set_get(experts, i));
        ok = append_string(&p, "- ") && append_string(&p, info->name) && append_string(&p, *info->description ? ": " : "") &&
             append_string(&p, info->description) && append_string(&p, "\n");
    }
    ok = ok && append_string(&p, "- other: anything else\nAnswer with \\boxed{category}.\n\nQuestion: ");
    *at = p.size;
    ok = ok && append_question(&p, question);
    if (ok) return p.text;
    free(p.text);
    return NULL;
}

/// As ids, with the images in front of the question. engine: encodes the images; NULL: a mark stands for each.
static zs_status encode_prompt(zs_engine *engine, const zs_model *model, const dispatch_params *params, const dispatch_question *question,
                               uint32_t **ids, size_t *count, zs_error *error) {
    size_t at = 0;
    char *text = make_prompt(params->experts, question->text, &at);
    if (!text) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    const zs_message message = {"user", text};
    const chat_images place = {text + at, question->image_count};
    const chat_prompt prompt = {&message, 1, &place, 1, question->images, question->image_count, params->expert};
    zs_status status =
        engine ? chat_prompt_encode(engine, &prompt, ids, count, error) : chat_prompt_mark(model, &prompt, ids, count, error);
    free(text);
    return status;
}

// ---- scoring the labels --------------------------------------------------------------------------------------------

typedef struct label {
    uint32_t *ids; // \boxed{name}
    size_t count;
    double prior;
} label;

/// The chat with a question, up to where labels begin to differ.
typedef struct asked {
    uint32_t *ids;
    size_t count;
} asked;

typedef struct scoring {
    const zs_model *model;
    zs_engine *engine; // where labels are scored; NULL: they are not
    const dispatch_params *params;
    label *labels; // [count]
    uint32_t count;
    size_t common; // tokens that all labels begin with
} scoring;

static const char *category_name(const zs_expert_set *experts, uint32_t i) {
    return i < zs_expert_set_count(experts) ? zs_expert_get_info(zs_expert_set_get(experts, i))->name : "other";
}

static zs_status encode_labels(scoring *s, zs_error *error) {
    for (uint32_t i = 0; i < s->count; i++) {
        char text[96];
        int length = snprintf(text, sizeof text, "\\boxed{%s}", category_name(s->params->experts, i));
        zs_status status =
            zs_tokenizer_encode(s->model->tokenizer, text, (size_t)length, false, &s->labels[i].ids, &s->labels[i].count, error);
        if (status) return status;
    }
    s->common = s->labels[0].count - 1;
    for (uint32_t i = 1; i < s->count; i++) {
        const label *l = &s->labels[i];
        if (l->count - 1 < s->common) s->common = l->count - 1;
        for (size_t k = 0; k < s->common; k++) {
            if (l->ids[k] != s->labels[0].ids[k]) s->common = k;
        }
    }
    return ZS_OK;
}

static zs_status encode_asked(const scoring *s, const dispatch_question *question, asked *to, zs_error *error) {
    uint32_t *chat = NULL;
    size_t chat_count = 0;
    zs_status status = encode_prompt(s->engine, s->model, s->params, question, &chat, &chat_count, error);
    if (status) return status;
    uint32_t *all = realloc(chat, (chat_count + s->common + 1) * sizeof *all);
    if (!all) {
        free(chat);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    }
    memcpy(all + chat_count, s->labels[0].ids, s->common * sizeof *all);
    *to = (asked){all, chat_count + s->common};
    return ZS_OK;
}

/// scores [count, labels] = log p of each label, through its closing brace, after each of the chats.
static zs_status score_labels(const scoring *s, const asked *chats, size_t count, double *scores, zs_error *error) {
    size_t tokens = 0, total = count * s->count;
    for (uint32_t i = 0; i < s->count; i++) tokens += s->labels[i].count - s->common;
    zs_score_item *items = calloc(total, sizeof *items);
    float *logprobs = malloc(count * tokens * sizeof *logprobs), *next = logprobs;
    zs_status status = items && logprobs ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    for (size_t i = 0; i < total && !status; i++) {
        const label *l = &s->labels[i % s->count];
        const asked *chat = &chats[i / s->count];
        items[i] = (zs_score_item){s->params->expert, chat->ids, chat->count, l->ids + s->common, l->count - s->common, next};
        next += items[i].continuation_count;
    }
    if (!status) status = zs_engine_score(s->engine, items, total, NULL, 0, error);
    for (size_t i = 0; i < total && !status; i++) {
        scores[i] = 0;
        for (size_t k = 0; k < items[i].continuation_count; k++) scores[i] += (double)items[i].logprobs[k];
    }
    free(items);
    free(logprobs);
    return status;
}

static uint64_t hash_ids(uint64_t hash, const uint32_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++) hash = (hash ^ ids[i]) * 0x100000001b3u; // FNV-1a over words
    return hash;
}

/// The labels' scores without a question, computed once per engine and set of labels.
static zs_status find_priors(scoring *s, zs_error *error) {
    asked nothing = {0};
    zs_status status = encode_asked(s, &(dispatch_question){.text = ""}, &nothing, error);
    if (status) return status;
    double *scores = malloc(s->count * sizeof *scores);
    if (!scores) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    uint64_t base = hash_ids(0xcbf29ce484222325u ^ expert_table_serial(&s->engine->experts, s->params->expert), nothing.ids, nothing.count);
    bool known = true;
    for (uint32_t i = 0; i < s->count; i++)
        known = engine_find_memo(s->engine, hash_ids(base, s->labels[i].ids, s->labels[i].count), &s->labels[i].prior) && known;
    if (!known && !status) status = score_labels(s, &nothing, 1, scores, error);
    for (uint32_t i = 0; i < s->count && !known && !status; i++) {
        s->labels[i].prior = scores[i];
        engine_keep_memo(s->engine, hash_ids(base, s->labels[i].ids, s->labels[i].count), scores[i]);
    }
    free(scores);
    free(nothing.ids);
    return status;
}

/// Softmax over score − prior.
static void fill_probabilities(const scoring *s, const double *scores, zs_category *categories) {
    double best = -INFINITY, total = 0;
    for (uint32_t i = 0; i < s->count; i++) best = fmax(best, scores[i] - s->labels[i].prior);
    for (uint32_t i = 0; i < s->count; i++) total += categories[i].probability = exp(scores[i] - s->labels[i].prior - best);
    for (uint32_t i = 0; i < s->count; i++) categories[i].probability /= total;
}

/// Up to TOGETHER questions.
static zs_status score_questions(const scoring *s, const dispatch_question *questions, size_t count, dispatch_decision *decisions,
                                 zs_error *error) {
    asked chats[TOGETHER] = {{0}};
    double *scores = malloc(count * s->count * sizeof *scores);
    zs_status status = scores ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    for (size_t i = 0; i < count && !status; i++) status = encode_asked(s, &questions[i], &chats[i], error);
    if (!status) status = score_labels(s, chats, count, scores, error);
    for (size_t i = 0; i < count && !status; i++) fill_probabilities(s, scores + i * s->count, decisions[i].categories);
    for (size_t i = 0; i < count; i++) free(chats[i].ids);
    free(scores);
    return status;
}

/// One at a time where there are images: the engine may not hold the features of many.
static size_t questions_together(const dispatch_question *questions, size_t count) {
    size_t together = 0;
    while (together < count && together < TOGETHER && !questions[together].image_count) together++;
    return together ? together : 1;
}

static zs_status dispatch_by_score(zs_engine *engine, const dispatch_question *questions, size_t count, const dispatch_params *params,
                                   dispatch_decision *decisions, zs_error *error) {
    scoring s = {.model = engine->model, .engine = engine, .params = params, .count = zs_expert_set_count(params->experts) + 1};
    s.labels = calloc(s.count, sizeof *s.labels);
    if (!s.labels) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
    zs_status status = encode_labels(&s, error);
    if (!status && !params->trained) status = find_priors(&s, error);
    for (size_t i = 0, together; i < count && !status; i += together) {
        together = questions_together(questions + i, count - i);
        status = score_questions(&s, questions + i, together, decisions + i, error);
    }
    for (uint32_t i = 0; i < s.count; i++) free(s.labels[i].ids);
    free(s.labels);
    return status;
}

// ---- for training --------------------------------------------------------------------------------------------------

/// The labels' number of a category; those there are come into the error.
static zs_status find_category(const zs_expert_set *experts, const char *category, uint32_t *which, zs_error *error) {
    char known[512] = "";
    uint32_t count = zs_expert_set_count(experts) + 1;
    for (uint32_t i = 0; i < count; i++) {
        *which = i;
        if (strcasecmp(category_name(experts, i), category) == 0) return ZS_OK;
        size_t length = strlen(known);
        snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "", category_name(experts, i));
    }
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "'%.60s' is no category; %s are", category, known);
}

zs_status zs_dispatch_encode(const zs_model *model, const zs_expert_set *experts, const char *question, size_t image_count,
                             const char *category, zs_train_item *item, zs_error *error) {
    const dispatch_params params = {.experts = experts};
    scoring s = {.model = model, .params = &params, .count = zs_expert_set_count(experts) + 1};
    asked chat = {0};
    uint32_t which = 0, *answer = NULL;
    size_t answer_count = 0;
    zs_status status = find_category(experts, category, &which, error);
    if (status) return status;
    s.labels = calloc(s.count, sizeof *s.labels);
    if (!s.labels) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a question");
    status = encode_labels(&s, error);
    if (!status) status = encode_asked(&s, &(dispatch_question){.text = question, .image_count = image_count}, &chat, error);
    if (!status) {
        answer_count = s.labels[which].count - s.common;
        answer = malloc(answer_count * sizeof *answer);
        if (!answer) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a question");
    }
    if (!status) {
        memcpy(answer, s.labels[which].ids + s.common, answer_count * sizeof *answer);
        *item = (zs_train_item){.prompt = chat.ids, .prompt_count = chat.count, .answer = answer, .answer_count = answer_count};
        chat.ids = NULL;
    }
    for (uint32_t i = 0; i < s.count; i++) free(s.labels[i].ids);
    free(s.labels);
    free(chat.ids);
    return status;
}

// ---- generating the category ---------------------------------------------------------------------------------------

/// The category in the last \boxed{…}; "other" (the last one) when there is none that is known.
static uint32_t find_boxed(const char *text, const zs_category *categories, uint32_t count) {
    static const char opening[] = "boxed{";
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, opening)); at++) last = at;
    if (!last) return count - 1;
    last += sizeof opening - 1;
    size_t length = strcspn(last, "}");
    for (uint32_t i = 0; i < count; i++) {
        if (strlen(categories[i].name) == length && strncasecmp(categories[i].name, last, length) == 0) return i;
    }
    return count - 1;
}

static zs_status dispatch_by_text(zs_engine *engine, const dispatch_question *question, const dispatch_params *params,
                                  zs_category *categories, zs_error *error) {
    uint32_t count = zs_expert_set_count(params->experts) + 1;
    const zs_tokenizer *tokenizer = engine->model->tokenizer;
    zs_session *session = NULL;
    uint32_t *ids = NULL;
    size_t id_count = 0;
    text_stream text = {0};
    zs_status status = encode_prompt(engine, engine->model, params, question, &ids, &id_count, error);
    if (!status) status = zs_session_create(engine, &(zs_session_params){.expert = params->expert}, &session, error);
    if (!status) status = zs_session_set_prompt(session, ids, id_count, error);
    if (!status) status = zs_session_generate(session, GENERATED, error);
    if (!status) status = zs_engine_run(engine, NULL, NULL, error);
    if (!status) {
        size_t total;
        const uint32_t *tokens = zs_session_tokens(session, &total);
        for (size_t i = zs_session_prompt_count(session); i < total && !status; i++) {
            const char *bytes;
            size_t size = zs_tokenizer_token_bytes(tokenizer, tokens[i], false, &bytes);
            if (size) status = text_stream_write(&text, bytes, size, error);
        }
    }
    if (!status) status = text_stream_finish(&text, error);
    if (!status) categories[find_boxed(text.text, categories, count)].probability = 1;
    zs_session_destroy(&session);
    free(text.text);
    free(ids);
    return status;
}

// ---- deciding ------------------------------------------------------------------------------------------------------

static uint32_t decide(const zs_category *categories, uint32_t count, const char *current) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) best = categories[i].probability > categories[best].probability ? i : best;
    for (uint32_t i = 0; current && i + 1 < count; i++) {
        if (strcmp(categories[i].name, current) == 0 && categories[i].probability >= keep_ratio * categories[best].probability) return i;
    }
    return best;
}

static zs_status create_decisions(const zs_expert_set *experts, dispatch_decision *decisions, size_t count, zs_error *error) {
    uint32_t labels = zs_expert_set_count(experts) + 1;
    for (size_t i = 0; i < count; i++) decisions[i] = (dispatch_decision){0};
    for (size_t i = 0; i < count; i++) {
        zs_category *categories = calloc(labels, sizeof *categories);
        if (!categories) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for pass 1");
        for (uint32_t k = 0; k < labels; k++) snprintf(categories[k].name, sizeof categories[k].name, "%s", category_name(experts, k));
        decisions[i].categories = categories;
    }
    return ZS_OK;
}

zs_status dispatch_questions(zs_engine *engine, const dispatch_question *questions, size_t count, const dispatch_params *params,
                             dispatch_decision *decisions, zs_error *error) {
    bool writes = params->how == ZS_DISPATCH_GENERATE;
    zs_status status = create_decisions(params->experts, decisions, count, error);
    if (!status && !writes) status = dispatch_by_score(engine, questions, count, params, decisions, error);
    for (size_t i = 0; i < count && writes && !status; i++)
        status = dispatch_by_text(engine, &questions[i], params, decisions[i].categories, error);
    for (size_t i = 0; i < count; i++) {
        dispatch_decision *d = &decisions[i];
        if (!status) d->chosen = decide(d->categories, zs_expert_set_count(params->experts) + 1, params->current);
        if (status) free(d->categories), d->categories = NULL;
    }
    return status;
}
