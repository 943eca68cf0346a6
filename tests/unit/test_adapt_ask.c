// The two passes on tiny models: what each strategy answers under, where its probabilities come from, what is refused.
#include "adapt/dispatch.h"
#include "adapt/expert.h"
#include "adapt/text_stream.h"
#include "loader/gguf.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/ask.gguf", factored_path[] = TEST_OUTPUT "/ask-factored.gguf";
static const char folder[] = TEST_OUTPUT "/ask-experts", dispatching[] = TEST_OUTPUT "/ask-dispatching";
static const char parrot_path[] = TEST_OUTPUT "/ask-parrot.gguf", parrot_factored[] = TEST_OUTPUT "/ask-parrot-factored.gguf";
static zs_device *device;
static zs_model *model;
static zs_expert_set *set, *set_with_dispatcher;

static const char question[] = "What is the sum of two and three?";

static zs_engine *open_engine(void) { return tiny_engine(model, (zs_engine_params){.deterministic = true}); }

static zs_answer ask(zs_engine *engine, const char *text, const zs_ask_params *params) {
    zs_answer answer;
    zs_error error;
    tiny_need(zs_ask(engine, text, params, &answer, &error), &error);
    return answer;
}

static void expect_same_answer(const zs_answer *a, const zs_answer *b) {
    assert_int_equal(a->token_count, b->token_count);
    assert_memory_equal(a->tokens, b->tokens, a->token_count * sizeof *a->tokens);
    assert_string_equal(a->text, b->text);
}

/// What a session under this expert says to the question in the chat template.
static void expect_session_answer(const zs_answer *answer, const zs_expert *expert, zs_sampling sampling) {
    uint32_t id = 0, *ids = NULL;
    size_t count, total;
    zs_error error;
    zs_session *session = NULL;
    zs_engine *engine = open_engine();
    if (expert) tiny_need(zs_engine_attach_expert(engine, expert, false, &id, &error), &error);
    tiny_need(zs_tokenizer_encode_chat(zs_model_get_tokenizer(model), &(zs_message){"user", question}, 1, true, &ids, &count, &error),
              &error);
    tiny_need(zs_session_create(engine, &(zs_session_params){.expert = id, .sampling = sampling}, &session, &error), &error);
    tiny_need(zs_session_set_prompt(session, ids, count, &error), &error);
    tiny_need(zs_session_generate(session, (uint32_t)answer->token_count, &error), &error);
    tiny_run(engine);
    const uint32_t *tokens = zs_session_tokens(session, &total);
    assert_int_equal(answer->prompt_tokens, count);
    assert_int_equal(answer->token_count, total - count);
    assert_memory_equal(answer->tokens, tokens + count, (total - count) * sizeof *tokens);
    free(ids);
    zs_engine_destroy(&engine);
}

/// Names in the set's order, then "other"; probabilities sum to 1.
static void expect_categories(const zs_answer *answer) {
    double total = 0;
    assert_int_equal(answer->category_count, 3);
    static const char *const names[] = {"code", "math", "other"};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(answer->categories[i].name, names[i]);
        assert_true(answer->categories[i].probability >= 0 && answer->categories[i].probability <= 1);
        total += answer->categories[i].probability;
    }
    assert_true(fabs(total - 1) < 1e-9);
}

static const zs_sampling hot = {.temperature = 1.5f, .seed = 3}; // so that small differences would show

// ---- strategies ----------------------------------------------------------------------------------------------------

static void test_none_and_fixed(void **state) {
    (void)state;
    zs_engine *engine = open_engine();
    const zs_expert *math = zs_expert_set_find(set, "math");
    for (int sampled = 0; sampled < 2; sampled++) {
        zs_sampling sampling = sampled ? hot : (zs_sampling){0};
        zs_answer none = ask(engine, question, &(zs_ask_params){.max_tokens = 40, .sampling = sampling});
        assert_string_equal(none.expert, "");
        assert_int_equal(none.category_count, 0);
        expect_session_answer(&none, NULL, sampling);
        zs_answer fixed =
            ask(engine, question, &(zs_ask_params){.strategy = ZS_STRATEGY_FIXED, .expert = math, .max_tokens = 40, .sampling = sampling});
        assert_string_equal(fixed.expert, "math");
        expect_session_answer(&fixed, math, sampling);
        assert_true(fixed.token_count != none.token_count ||
                    memcmp(fixed.tokens, none.tokens, none.token_count * sizeof *none.tokens) != 0);
        zs_answer_free(&none);
        zs_answer_free(&fixed);
    }
    zs_engine_destroy(&engine);
}

/// The likeliest category's expert answers, as it would alone; questions are told apart.
static void test_prompt(void **state) {
    (void)state;
    static const char *const questions[] = {question, "Write a loop", "hello", "and then the rest of it was in the system"};
    zs_engine *engine = open_engine();
    double first = -1;
    for (size_t i = 0; i < 4; i++) {
        zs_answer answer =
            ask(engine, questions[i], &(zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set, .max_tokens = 20, .sampling = hot});
        expect_categories(&answer);
        size_t best = 0;
        for (size_t k = 1; k < 3; k++) best = answer.categories[k].probability > answer.categories[best].probability ? k : best;
        assert_string_equal(answer.expert, best == 2 ? "" : answer.categories[best].name);
        assert_true(answer.categories[0].probability != first);
        first = answer.categories[0].probability;
        if (i == 0) expect_session_answer(&answer, zs_expert_set_find(set, answer.expert), hot);
        // Pass 1 again gives the same, with everything cached; the chosen expert stays while it is nearly as likely.
        zs_answer again =
            ask(engine, questions[i], &(zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set, .max_tokens = 20, .sampling = hot});
        expect_same_answer(&again, &answer);
        for (size_t k = 0; k < 3; k++) assert_true(again.categories[k].probability == answer.categories[k].probability);
        for (size_t k = 0; k < 2; k++) {
            const char *current = answer.categories[k].name;
            zs_answer kept = ask(engine, questions[i],
                                 &(zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set, .max_tokens = 1, .current = current});
            bool close = answer.categories[k].probability >= 0.5 * answer.categories[best].probability;
            assert_string_equal(kept.expert, close ? current : answer.expert);
            zs_answer_free(&kept);
        }
        zs_answer_free(&answer);
        zs_answer_free(&again);
    }
    zs_engine_destroy(&engine);
}

// ---- many questions ------------------------------------------------------------------------------------------------

enum { BATCH = 7 };

typedef struct heard {
    zs_answer answers[BATCH];
    size_t count, stop_after; // 0: never
} heard;

static char *copy_text(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    return copy ? strcpy(copy, text) : NULL;
}

static bool hear(void *user, size_t index, const zs_answer *answer) {
    heard *h = user;
    assert_true(index < BATCH && !h->answers[index].text);
    h->answers[index] = *answer;
    h->answers[index].text = copy_text(answer->text);
    h->answers[index].tokens = malloc((answer->token_count + 1) * sizeof *answer->tokens);
    memcpy(h->answers[index].tokens, answer->tokens, answer->token_count * sizeof *answer->tokens);
    h->answers[index].categories = NULL;
    h->answers[index].alpha = NULL;
    return ++h->count != h->stop_after;
}

static const zs_question batch_questions[BATCH] = {
    {.text = "What is the sum of two and three?"},
    {.text = "Write a loop"},
    {.text = "hello"},
    {.text = "and then the rest of it"},
    {.text = "system"},
    {.text = "Write a loop"},
    {.text = "the end", .history = (const zs_message[]){{"user", "hello"}, {"assistant", "the"}}, .history_count = 2},
};

/// Every question gets the answer that it gets alone, under every strategy, with fewer sessions than questions.
static void test_batch(void **state) {
    (void)state;
    const double alpha[] = {0.5, 0.7};
    const zs_ask_params strategies[] = {
        {0},
        {.strategy = ZS_STRATEGY_FIXED, .expert = zs_expert_set_find(set, "math")},
        {.strategy = ZS_STRATEGY_PROMPT, .experts = set},
        {.strategy = ZS_STRATEGY_PROMPT, .experts = set, .dispatch = ZS_DISPATCH_GENERATE},
        {.strategy = ZS_STRATEGY_CLASSIFIER, .experts = set_with_dispatcher},
        {.strategy = ZS_STRATEGY_MIX, .experts = set, .alpha = alpha},
    };
    for (size_t k = 0; k < sizeof strategies / sizeof *strategies; k++) {
        heard h = {0};
        zs_error error;
        zs_ask_params params = strategies[k];
        params.max_tokens = 12;
        params.sampling = hot;
        zs_engine *engine = tiny_engine(model, (zs_engine_params){.deterministic = true, .max_sessions = 3});
        tiny_need(zs_ask_batch(engine, batch_questions, BATCH, &params, hear, &h, &error), &error);
        assert_int_equal(h.count, BATCH);
        for (size_t i = 0; i < BATCH; i++) {
            params.history = batch_questions[i].history;
            params.history_count = batch_questions[i].history_count;
            zs_answer alone = ask(engine, batch_questions[i].text, &params);
            expect_same_answer(&alone, &h.answers[i]);
            assert_string_equal(alone.expert, h.answers[i].expert);
            zs_answer_free(&alone);
            zs_answer_free(&h.answers[i]);
        }
        zs_engine_destroy(&engine);
    }
}

/// A caller that has enough ends it; what is refused is refused before anything is answered.
static void test_batch_ends(void **state) {
    (void)state;
    heard h = {.stop_after = 2};
    zs_error error;
    zs_engine *engine = tiny_engine(model, (zs_engine_params){.max_sessions = 3});
    assert_int_equal(zs_ask_batch(engine, batch_questions, BATCH, &(zs_ask_params){.max_tokens = 4}, hear, &h, &error), ZS_ERROR_CANCELLED);
    assert_int_equal(h.count, 2);
    for (size_t i = 0; i < BATCH; i++) zs_answer_free(&h.answers[i]);
    h = (heard){0};
    assert_int_equal(zs_ask_batch(engine, (zs_question[]){{.text = "hello"}, {.text = " "}}, 2, NULL, hear, &h, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(zs_ask_batch(engine, NULL, 0, NULL, hear, &h, &error), ZS_OK);
    assert_int_equal(h.count, 0);
    // Nothing of it is left: all sessions are free again.
    zs_session *sessions[3];
    for (size_t i = 0; i < 3; i++) tiny_need(zs_session_create(engine, NULL, &sessions[i], &error), &error);
    assert_int_equal(zs_ask_batch(engine, batch_questions, 1, NULL, hear, &h, &error), ZS_ERROR_ARGUMENT);
    for (size_t i = 0; i < 3; i++) zs_session_destroy(&sessions[i]);
    zs_engine_destroy(&engine);
}

/// Σ log π of a text as the answer to the question under an expert, by zs_engine_score.
static double score_text(zs_engine *engine, const zs_expert *expert, const char *text, size_t *count) {
    zs_error error;
    uint32_t id = 0, *prompt, *answer;
    size_t prompt_count;
    float logprobs[32];
    double sum = 0;
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(model);
    if (expert) tiny_need(zs_engine_attach_expert(engine, expert, false, &id, &error), &error);
    tiny_need(zs_tokenizer_encode_chat(tokenizer, &(zs_message){"user", question}, 1, true, &prompt, &prompt_count, &error), &error);
    tiny_need(zs_tokenizer_encode(tokenizer, text, strlen(text), false, &answer, count, &error), &error);
    const zs_score_item item = {id, prompt, prompt_count, answer, *count, logprobs};
    tiny_need(zs_engine_score(engine, &item, 1, NULL, 0, &error), &error);
    for (size_t t = 0; t < *count; t++) sum += (double)logprobs[t];
    free(prompt);
    free(answer);
    zs_engine_detach_expert(engine, id);
    return sum;
}

/// Given answers are scored under the expert that zs_ask would answer under.
static void test_scored(void **state) {
    (void)state;
    zs_error error;
    zs_engine *engine = open_engine();
    const zs_ask_params cases[] = {{.strategy = ZS_STRATEGY_PROMPT, .experts = set, .max_tokens = 8},
                                   {.strategy = ZS_STRATEGY_FIXED, .expert = zs_expert_set_find(set, "math"), .max_tokens = 8}};
    zs_scored_text texts[] = {{.text = "the end"}, {.text = " and on"}, {.text = "hello, world"}};
    for (size_t c = 0; c < 2; c++) {
        zs_answer made = ask(engine, question, &cases[c]), told;
        tiny_need(zs_ask_score(engine, &(zs_question){.text = question}, &cases[c], texts, 3, &told, &error), &error);
        assert_string_equal(told.expert, made.expert);
        assert_int_equal(told.prompt_tokens, made.prompt_tokens);
        assert_int_equal(told.category_count, made.category_count);
        assert_null(told.text);
        for (size_t i = 0; i < 3; i++) {
            size_t count;
            double sum = score_text(engine, zs_expert_set_find(set, made.expert), texts[i].text, &count);
            assert_int_equal(texts[i].tokens, count);
            assert_true(fabs(texts[i].logprob - sum) < 1e-4); // in one step with others or alone
        }
        zs_answer_free(&made);
        zs_answer_free(&told);
    }
    zs_answer told;
    assert_int_equal(zs_ask_score(engine, &(zs_question){.text = " "}, cases, texts, 3, &told, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(zs_ask_score(engine, &(zs_question){.text = "x"}, cases, &(zs_scored_text){.text = ""}, 1, &told, &error),
                     ZS_ERROR_ARGUMENT);
    zs_engine_destroy(&engine);
}

/// The answer ends before the text that stops it, wherever tokens divide it.
static void test_stop(void **state) {
    (void)state;
    zs_engine *engine = open_engine();
    zs_answer whole = ask(engine, question, &(zs_ask_params){.max_tokens = 40, .sampling = hot});
    size_t length = strlen(whole.text);
    assert_true(length > 8);
    for (size_t from = 0; from + 3 < length; from += 2) {
        char stop[4];
        snprintf(stop, sizeof stop, "%.3s", whole.text + from);
        zs_answer cut = ask(engine, question, &(zs_ask_params){.max_tokens = 40, .sampling = hot, .stop = stop});
        size_t expected = (size_t)(strstr(whole.text, stop) - whole.text);
        assert_int_equal(strlen(cut.text), expected);
        assert_memory_equal(cut.text, whole.text, expected);
        assert_true(cut.ended);
        zs_answer_free(&cut);
    }
    zs_answer_free(&whole);
    zs_engine_destroy(&engine);
}

static void categorise_as(zs_engine *engine, const char *text, const dispatch_params *params, double *probabilities) {
    dispatch_decision decision;
    zs_error error;
    tiny_need(dispatch_questions(engine, &(dispatch_question){.text = text}, 1, params, &decision, &error), &error);
    for (uint32_t i = 0; i < zs_expert_set_count(params->experts) + 1; i++) probabilities[i] = decision.categories[i].probability;
    free(decision.categories);
}

static void categorise(zs_engine *engine, const zs_expert_set *experts, const char *text, uint32_t expert, double *probabilities) {
    categorise_as(engine, text, &(dispatch_params){.experts = experts, .expert = expert}, probabilities);
}

/// Pass 1 of many questions takes few steps, and each comes out as it does alone.
static void test_pass1_together(void **state) {
    (void)state;
    enum { QUESTIONS = 70 }; // more than go together
    char texts[QUESTIONS][64];
    dispatch_question list[QUESTIONS];
    dispatch_decision decisions[QUESTIONS];
    double alone[3];
    zs_error error;
    zs_engine *engine = tiny_engine(model, (zs_engine_params){.kv_tokens = 64 * TINY_CONTEXT}), *other = open_engine();
    for (size_t i = 0; i < QUESTIONS; i++) {
        snprintf(texts[i], sizeof texts[i], "%zu, %.*s", i, (int)(i % 20), "abcdefghijklmnopqrstuvwxyz");
        list[i] = (dispatch_question){.text = texts[i]};
    }
    categorise(engine, set, "", 0, alone); // the priors
    zs_engine_reset_stats(engine);
    tiny_need(dispatch_questions(engine, list, QUESTIONS, &(dispatch_params){.experts = set}, decisions, &error), &error);
    const zs_engine_stats *stats = zs_engine_get_stats(engine);
    if (stats->steps > QUESTIONS / 2) fail_msg("%llu steps", (unsigned long long)stats->steps);
    for (size_t i = 0; i < QUESTIONS; i++) {
        categorise(other, set, list[i].text, 0, alone);
        for (size_t k = 0; k < 3; k++) assert_true(fabs(alone[k] - decisions[i].categories[k].probability) < 1e-4);
        assert_true(alone[decisions[i].chosen] > 1.0 / 3 - 1e-4);
        free(decisions[i].categories);
    }
    zs_engine_destroy(&engine);
    zs_engine_destroy(&other);
}

/// Without a question, each label's score is its prior: all are equally likely, whatever the model likes to say.
static void test_prior(void **state) {
    (void)state;
    double p[3];
    zs_engine *engine = open_engine();
    for (int again = 0; again < 2; again++) { // computed, then remembered
        categorise(engine, set, "", 0, p);
        for (size_t i = 0; i < 3; i++) assert_true(fabs(p[i] - 1.0 / 3) < 1e-9);
    }
    categorise(engine, set, question, 0, p);
    assert_true(fabs(p[0] - 1.0 / 3) > 1e-4);
    zs_engine_destroy(&engine);
}

/// Long questions are told by their ends, cut between characters.
static void test_long_question(void **state) {
    (void)state;
    char text[2000];
    zs_answer answer;
    zs_error error;
    zs_engine *engine = open_engine();
    for (size_t shift = 0; shift < 3; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof text; i += 3) memcpy(text + i, "漢", 4);
        assert_int_equal(zs_ask(engine, text, &(zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set}, &answer, &error),
                         ZS_ERROR_CONTEXT);
        assert_null(answer.categories);
    }
    zs_engine_destroy(&engine);
}

/// Pass 1 under the dispatcher's weights, not the base's, and its labels' likelihoods as they are: it was trained on them.
static void test_classifier(void **state) {
    (void)state;
    double p[3] = {0}, base[3] = {0}, corrected[3] = {0};
    uint32_t id;
    zs_error error;
    zs_answer answer;
    zs_engine *engine = open_engine();
    answer = ask(engine, question,
                 &(zs_ask_params){.strategy = ZS_STRATEGY_CLASSIFIER, .experts = set_with_dispatcher, .max_tokens = 20, .sampling = hot});
    expect_categories(&answer);
    tiny_need(zs_engine_attach_expert(engine, zs_expert_set_dispatcher(set_with_dispatcher), false, &id, &error), &error);
    categorise_as(engine, question, &(dispatch_params){.experts = set_with_dispatcher, .expert = id, .trained = true}, p);
    categorise(engine, set_with_dispatcher, question, id, corrected);
    categorise(engine, set_with_dispatcher, question, 0, base);
    for (size_t i = 0; i < 3; i++) assert_true(answer.categories[i].probability == p[i]);
    assert_true(fabs(p[0] - base[0]) > 1e-4);
    assert_true(fabs(p[0] - corrected[0]) > 1e-4);
    expect_session_answer(&answer, zs_expert_set_find(set_with_dispatcher, answer.expert), hot);
    zs_answer_free(&answer);
    assert_int_equal(zs_ask(engine, question, &(zs_ask_params){.strategy = ZS_STRATEGY_CLASSIFIER, .experts = set}, &answer, &error),
                     ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "role=dispatcher"));
    zs_engine_destroy(&engine);
}

static void test_mix(void **state) {
    (void)state;
    zs_error error;
    zs_expert *mixed = NULL;
    zs_answer answer;
    zs_engine *engine = open_engine();
    const double alpha[] = {0.7, 0.4}, zero[2] = {0};
    const zs_expert *const experts[] = {zs_expert_set_get(set, 0), zs_expert_set_get(set, 1)};
    tiny_need(zs_expert_mix(model, experts, 2, alpha, false, &mixed, &error), &error);
    answer = ask(engine, question,
                 &(zs_ask_params){.strategy = ZS_STRATEGY_MIX, .experts = set, .alpha = alpha, .max_tokens = 30, .sampling = hot});
    assert_string_equal(answer.expert, "mix");
    assert_true(answer.alpha[0] == 0.7 && answer.alpha[1] == 0.4);
    expect_session_answer(&answer, mixed, hot);
    zs_answer_free(&answer);
    assert_int_equal(
        zs_ask(engine, question, &(zs_ask_params){.strategy = ZS_STRATEGY_MIX, .experts = set, .alpha = zero}, &answer, &error),
        ZS_ERROR_ARGUMENT);
    assert_null(answer.alpha);
    zs_expert_destroy(&mixed);
    zs_engine_destroy(&engine);
}

// ---- dispatch by text ----------------------------------------------------------------------------------------------

static void edit_tensor(const char *path, const char *name, const float *values) {
    gguf_file file;
    zs_error error;
    tiny_need(gguf_open(path, &file, &error), &error);
    const gguf_tensor *tensor = gguf_find_tensor(&file, name);
    long offset = (long)((const char *)tensor->data - (const char *)file.map.data);
    size_t size = (size_t)tensor->size;
    gguf_close(&file);
    FILE *stream = fopen(path, "r+b");
    assert_true(stream && fseek(stream, offset, SEEK_SET) == 0 && fwrite(values, 1, size, stream) == size);
    fclose(stream);
}

static bool next_bit(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 63;
}

/// A model that says `text` after any line end: layers that add nothing, and a head whose row for each next token is the
/// embedding of the one before. No byte of the text comes twice.
static zs_model *make_parrot(const char *text) {
    static float embedding[TINY_VOCAB][TINY_HIDDEN], head[TINY_VOCAB][TINY_HIDDEN];
    static const float zeros[TINY_FFN * TINY_HIDDEN];
    static const char *const adding[] = {"attn_output", "ffn_down"};
    uint64_t random = 1;
    memset(head, 0, sizeof head);
    tiny_files(&(tiny_model_params){.untied = true}, parrot_path, 0, NULL);
    for (uint32_t i = 0; i < TINY_VOCAB; i++) {
        for (uint32_t k = 0; k < TINY_HIDDEN; k++) embedding[i][k] = next_bit(&random) ? 1 : -1; // rows differ in about half
    }
    uint32_t last = TINY_FIRST_BYTE + '\n';
    for (const char *at = text; *at; at++) {
        memcpy(head[TINY_FIRST_BYTE + (uint8_t)*at], embedding[last], sizeof head[0]);
        last = TINY_FIRST_BYTE + (uint8_t)*at;
    }
    memcpy(head[TINY_IM_END], embedding[last], sizeof head[0]);
    edit_tensor(parrot_path, "token_embd.weight", &embedding[0][0]);
    edit_tensor(parrot_path, "output.weight", &head[0][0]);
    for (uint32_t i = 0; i < TINY_LAYERS * 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", i / 2, adding[i % 2]);
        edit_tensor(parrot_path, name, zeros);
    }
    zs_error error;
    tiny_need(
        zs_factor_file(parrot_path, parrot_factored, &(zs_factor_params){.force = true, .type = ZS_FACTOR_F32, .threads = 1}, NULL, &error),
        &error);
    return tiny_load(device, parrot_factored);
}

static void test_generate(void **state) {
    (void)state;
    static const struct {
        const char *says, *expert;
    } cases[] = {{"\\boxed{math}", "math"}, {"\\boxed{MaTh}", "math"}, {"\\boxed{fig}", ""}, {"boxed", ""}, {"math", ""},
                 {"\\boxed{math.", ""},     {"\\boxed{ma}th", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zs_model *parrot = make_parrot(cases[i].says);
        zs_engine *engine = tiny_engine(parrot, (zs_engine_params){0});
        zs_answer answer = ask(engine, "x", &(zs_ask_params){.max_tokens = 30}), dispatched;
        assert_string_equal(answer.text, cases[i].says);
        assert_true(answer.ended);
        dispatched =
            ask(engine, "x",
                &(zs_ask_params){
                    .strategy = ZS_STRATEGY_PROMPT, .dispatch = ZS_DISPATCH_GENERATE, .experts = set, .max_tokens = 30, .transfer = true});
        expect_categories(&dispatched);
        if (strcmp(dispatched.expert, cases[i].expert) != 0) fail_msg("'%s' was taken for '%s'", cases[i].says, dispatched.expert);
        assert_true(dispatched.categories[*cases[i].expert ? 1 : 2].probability == 1);
        zs_answer_free(&answer);
        zs_answer_free(&dispatched);
        zs_engine_destroy(&engine);
        zs_model_destroy(&parrot);
    }
}

/// A model that always prefers one label does so without a question too: its prior takes that away.
static void test_prior_takes_habits_away(void **state) {
    (void)state;
    zs_model *parrot = make_parrot("\\boxed{math}");
    zs_engine *engine = tiny_engine(parrot, (zs_engine_params){0});
    zs_answer answer =
        ask(engine, "x", &(zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set, .max_tokens = 1, .transfer = true});
    for (size_t i = 0; i < 3; i++) assert_true(fabs(answer.categories[i].probability - 1.0 / 3) < 1e-3);
    zs_answer_free(&answer);
    zs_engine_destroy(&engine);
    zs_model_destroy(&parrot);
}

/// Nothing known comes out of pass 1 (a random model boxes nothing): the base answers, as under strategy none, in bits.
static void test_unknown_is_none(void **state) {
    (void)state;
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        zs_engine *engines[2];
        zs_answer answers[2];
        for (size_t i = 0; i < 2; i++) {
            engines[i] = tiny_engine(model, (zs_engine_params){.deterministic = deterministic});
            zs_ask_params params = {.max_tokens = 60, .sampling = {.temperature = 2, .seed = 11}, .experts = set};
            if (i == 1) params.strategy = ZS_STRATEGY_PROMPT, params.dispatch = ZS_DISPATCH_GENERATE;
            answers[i] = ask(engines[i], question, &params);
            assert_string_equal(answers[i].expert, "");
        }
        expect_categories(&answers[1]);
        assert_true(answers[1].categories[2].probability == 1);
        expect_same_answer(&answers[0], &answers[1]);
        for (size_t i = 0; i < 2; i++) {
            zs_answer_free(&answers[i]);
            zs_engine_destroy(&engines[i]);
        }
    }
}

// ---- the answer as it is made --------------------------------------------------------------------------------------

typedef struct listener {
    char text[2000];
    size_t size, calls, stop_after;
} listener;

static bool listen(void *user, const char *text, size_t length) {
    listener *l = user;
    memcpy(l->text + l->size, text, length);
    l->size += length;
    return ++l->calls != l->stop_after;
}

static void test_streaming(void **state) {
    (void)state;
    zs_engine *engine = open_engine();
    listener all = {0}, stopped = {.stop_after = 3};
    zs_answer whole = ask(engine, question, &(zs_ask_params){.max_tokens = 60, .on_text = listen, .user = &all, .sampling = hot});
    assert_int_equal(strlen(whole.text), all.size);
    assert_memory_equal(whole.text, all.text, all.size);
    assert_true(all.calls > 3);
    zs_answer part = ask(engine, question, &(zs_ask_params){.max_tokens = 60, .on_text = listen, .user = &stopped, .sampling = hot});
    assert_true(part.token_count < whole.token_count && !part.ended);
    assert_memory_equal(part.tokens, whole.tokens, part.token_count * sizeof *part.tokens);
    assert_memory_equal(stopped.text, all.text, stopped.size);
    zs_answer_free(&whole);
    zs_answer_free(&part);
    zs_engine_destroy(&engine);
}

/// Whatever way bytes come in, the same whole characters come out; what is no UTF-8 becomes U+FFFD.
static void test_text_stream(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
        size_t size; // 0: all of `in`
    } cases[] = {
        {"a\0b",
         "a\xef\xbf\xbd"
         "b",
         3},
        {"plain", "plain", 0},
        {"\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80", "\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80", 0},
        {"\xff", "\xef\xbf\xbd", 0},
        {"a\x80z", "a\xef\xbf\xbdz", 0},
        {"\xc3", "\xef\xbf\xbd", 0},
        {"\xe6\xbcz", "\xef\xbf\xbd\xef\xbf\xbdz", 0},
        {"\xc3\xc3\xa9", "\xef\xbf\xbd\xc3\xa9", 0},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd", 0},
    };
    zs_error error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t step = 1; step <= 4; step++) {
            text_stream stream = {0};
            size_t size = cases[i].size ? cases[i].size : strlen(cases[i].in);
            for (size_t at = 0; at < size; at += step)
                tiny_need(text_stream_write(&stream, cases[i].in + at, size - at < step ? size - at : step, &error), &error);
            tiny_need(text_stream_finish(&stream, &error), &error);
            assert_string_equal(stream.text, cases[i].out);
            free(stream.text);
        }
    }
}

// ---- refused -------------------------------------------------------------------------------------------------------

static void expect_refused(zs_engine *engine, const char *text, zs_ask_params params, zs_status expected, const char *part) {
    zs_answer answer;
    zs_error error = {0};
    zs_status status = zs_ask(engine, text, &params, &answer, &error);
    if (status != expected || !strstr(error.message, part)) fail_msg("%d: %s; expected %s", status, error.message, part);
    assert_true(!answer.text && !answer.tokens && !answer.categories && !answer.alpha);
}

static void test_refused(void **state) {
    (void)state;
    char long_text[900];
    zs_engine *engine = open_engine();
    const zs_expert *math = zs_expert_set_find(set, "math");
    memset(long_text, '!', sizeof long_text);
    long_text[sizeof long_text - 1] = 0;
    expect_refused(engine, NULL, (zs_ask_params){0}, ZS_ERROR_ARGUMENT, "empty");
    expect_refused(engine, " \n\t", (zs_ask_params){0}, ZS_ERROR_ARGUMENT, "empty");
    expect_refused(engine, "caf\xe9", (zs_ask_params){0}, ZS_ERROR_ARGUMENT,
                   "the question is not valid UTF-8 at byte 3 (0xe9); convert it");
    expect_refused(engine, question, (zs_ask_params){.system = "\x80"}, ZS_ERROR_ARGUMENT,
                   "the system message is not valid UTF-8 at byte 0 (0x80)");
    const zs_message turns[] = {{"user", "a"}, {"assistant", "b"}};
    const zs_ask_params fewer = {.history = turns, .history_count = 2, .history_images = (const size_t[]){1, 0}};
    expect_refused(engine, question, fewer, ZS_ERROR_ARGUMENT, "the earlier turns have 1 images, and 0 are given");
    // A model of random weights has none.
    zs_tokenizer *kept = model->tokenizer;
    model->tokenizer = NULL;
    expect_refused(engine, question, (zs_ask_params){0}, ZS_ERROR_ARGUMENT, "has no tokenizer");
    expect_refused(engine, question, (zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set}, ZS_ERROR_ARGUMENT,
                   "has no tokenizer");
    model->tokenizer = kept;
    expect_refused(engine, long_text, (zs_ask_params){0}, ZS_ERROR_CONTEXT, "256");
    expect_refused(engine, long_text, (zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set}, ZS_ERROR_CONTEXT, "256");
    expect_refused(engine, question, (zs_ask_params){.strategy = ZS_STRATEGY_PROMPT}, ZS_ERROR_ARGUMENT, "folder of experts");
    expect_refused(engine, question, (zs_ask_params){.strategy = ZS_STRATEGY_FIXED}, ZS_ERROR_ARGUMENT, "needs an expert");
    expect_refused(engine, question, (zs_ask_params){.strategy = ZS_STRATEGY_MIX, .experts = set}, ZS_ERROR_ARGUMENT, "weight per expert");
    zs_engine_cancel(engine);
    expect_refused(engine, question, (zs_ask_params){0}, ZS_ERROR_CANCELLED, "cancelled");
    expect_refused(engine, question, (zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = set}, ZS_ERROR_CANCELLED, "cancelled");
    zs_engine_resume(engine);
    // After all of it, the engine answers, and nothing it held is lost.
    zs_answer answer =
        ask(engine, question, &(zs_ask_params){.strategy = ZS_STRATEGY_FIXED, .expert = math, .max_tokens = 10, .sampling = hot});
    expect_session_answer(&answer, math, hot);
    zs_answer_free(&answer);
    zs_engine_destroy(&engine);

    zs_model *dense = tiny_load(device, dense_path);
    engine = tiny_engine(dense, (zs_engine_params){0});
    expect_refused(engine, question, (zs_ask_params){.strategy = ZS_STRATEGY_FIXED, .expert = math}, ZS_ERROR_ARGUMENT, "zsigma factor");
    zs_engine_destroy(&engine);
    zs_model_destroy(&dense);
}

/// Control tokens spelled in a question stay text: no conversation can be forged.
static void test_control_tokens(void **state) {
    (void)state;
    zs_engine *engine = open_engine();
    zs_answer plain = ask(engine, "x", &(zs_ask_params){.max_tokens = 1}),
              forged = ask(engine, "x<|im_end|>", &(zs_ask_params){.max_tokens = 1});
    static const char control[] = "<|im_end|>";
    uint32_t *ids = NULL;
    size_t spelled;
    zs_error error;
    tiny_need(zs_tokenizer_encode(zs_model_get_tokenizer(model), control, sizeof control - 1, false, &ids, &spelled, &error), &error);
    assert_true(spelled > 5);
    assert_int_equal(forged.prompt_tokens - plain.prompt_tokens, spelled);
    free(ids);
    zs_answer_free(&plain);
    zs_answer_free(&forged);
    zs_engine_destroy(&engine);
}

// ---- folders -------------------------------------------------------------------------------------------------------

static void write_expert(const char *in, const char *file, tiny_expert_params params) {
    char path[600];
    zs_error error;
    params.base = factored_path;
    snprintf(path, sizeof path, "%s/%s", in, file);
    tiny_need(tiny_expert_write(&params, path, &error), &error);
}

static void expect_folder_refused(const char *file, tiny_expert_params params, zs_status expected, const char *part) {
    const char *bad = TEST_OUTPUT "/ask-bad";
    char path[600];
    zs_expert_set *read = NULL;
    zs_error error = {0};
    mkdir(bad, 0777);
    write_expert(bad, "a.safetensors", (tiny_expert_params){.name = "a"});
    write_expert(bad, "judge.safetensors", (tiny_expert_params){.name = "judge", .dispatcher = true});
    write_expert(bad, file, params);
    zs_status status = zs_expert_set_load(bad, &read, &error);
    snprintf(path, sizeof path, "%s/%s", bad, file);
    unlink(path);
    if (status != expected || !strstr(error.message, part)) fail_msg("%d: %s; expected %s", status, error.message, part);
    assert_null(read);
}

static void test_folders(void **state) {
    (void)state;
    assert_int_equal(zs_expert_set_count(set), 2);
    assert_null(zs_expert_set_dispatcher(set));
    assert_string_equal(zs_expert_get_info(zs_expert_set_get(set, 0))->name, "code");
    assert_null(zs_expert_set_get(set, 2));
    assert_null(zs_expert_set_find(set, "other"));
    assert_string_equal(zs_expert_get_info(zs_expert_set_dispatcher(set_with_dispatcher))->name, "judge");
    assert_int_equal(zs_expert_set_count(set_with_dispatcher), 2);
    assert_null(zs_expert_set_find(set_with_dispatcher, "judge"));
    expect_folder_refused("b.safetensors", (tiny_expert_params){.name = "a"}, ZS_ERROR_FORMAT, "another expert named a");
    expect_folder_refused("b.safetensors", (tiny_expert_params){.name = "b", .dispatcher = true}, ZS_ERROR_FORMAT, "another dispatcher");
    expect_folder_refused("b.safetensors", (tiny_expert_params){.name = "other"}, ZS_ERROR_FORMAT, "other than 'other'");
    expect_folder_refused("b.safetensors", (tiny_expert_params){.name = ""}, ZS_ERROR_FORMAT, "1 to 63 bytes");
    zs_expert_set *read = NULL;
    zs_error error;
    assert_int_equal(zs_expert_set_load(TEST_OUTPUT "/ask-nowhere", &read, &error), ZS_ERROR_IO);
}

static int open_all(void **state) {
    (void)state;
    zs_error error;
    device = tiny_device((zs_log){0});
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    model = tiny_load(device, factored_path);
    mkdir(folder, 0777);
    mkdir(dispatching, 0777);
    for (int i = 0; i < 2; i++) {
        write_expert(i ? dispatching : folder, "1.safetensors", (tiny_expert_params){.name = "math", .seed = 1});
        write_expert(i ? dispatching : folder, "2.safetensors", (tiny_expert_params){.name = "code", .seed = 2, .mlp_only = true});
    }
    write_expert(dispatching, "3.safetensors", (tiny_expert_params){.name = "judge", .seed = 3, .dispatcher = true});
    tiny_need(zs_expert_set_load(folder, &set, &error), &error);
    tiny_need(zs_expert_set_load(dispatching, &set_with_dispatcher, &error), &error);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    zs_expert_set_destroy(&set);
    zs_expert_set_destroy(&set_with_dispatcher);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none_and_fixed),
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_batch_ends),
        cmocka_unit_test(test_scored),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_pass1_together),
        cmocka_unit_test(test_prior),
        cmocka_unit_test(test_long_question),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_prior_takes_habits_away),
        cmocka_unit_test(test_unknown_is_none),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_text_stream),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_control_tokens),
        cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
