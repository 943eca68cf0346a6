// What sessions share and what is theirs: cached prefixes, pages, slots, the context's end, experts that change, callbacks
// that interfere, cancellation.
#include "support/session_check.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char path[] = TEST_OUTPUT "/sessions.gguf", factored_path[] = TEST_OUTPUT "/sessions-factored.gguf";
static zs_device *device;
static zs_model *model;
static reference_model *reference;

static const float bound = 4e-5f; // test_engine.c derives it
enum { VOCAB = TINY_VOCAB };

static zs_engine *open_engine(zs_engine_params params) { return tiny_engine(model, params); }

static uint64_t cached_tokens(const zs_engine *engine) { return zs_engine_get_stats(engine)->cached_tokens; }

static void expect_reference(const zs_session *session, const expert_file *expert) {
    session_check_reference(session, reference, expert, bound);
}
static void expect_equal(const zs_session *a, const zs_session *b, bool bits) { session_check_equal(a, b, bits ? 0 : bound); }

// ---- prefixes ------------------------------------------------------------------------------------------------------

static void check_prefix(bool deterministic) {
    enum { PROMPT = 75, MORE = 12 };
    uint32_t ids[PROMPT + MORE];
    zs_engine *engine = open_engine((zs_engine_params){.deterministic = deterministic}),
              *fresh = open_engine((zs_engine_params){.deterministic = deterministic});
    tiny_ids(ids, PROMPT, 1);
    zs_session *first = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE);
    tiny_run(engine);
    assert_int_equal(cached_tokens(engine), 0);
    // The same prompt again, from the living session and, when that is gone, from the cache; then others that part mid-page, in a later
    // one, in the first, and so early that it is not worth a copy.
    static const uint32_t common[] = {PROMPT - 1, PROMPT - 1, PROMPT - 20, ENGINE_WORTH_A_COPY, ENGINE_WORTH_A_COPY - 1};
    for (uint32_t round = 0; round < sizeof common / sizeof common[0]; round++) {
        const uint32_t cached = common[round] < ENGINE_WORTH_A_COPY ? 0 : common[round];
        if (round == 1) zs_session_destroy(&first);
        if (round > 1) ids[common[round]] = (ids[common[round]] + 1) % VOCAB;
        zs_engine_reset_stats(engine);
        zs_session *again = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE),
                   *cold = tiny_session(fresh, (zs_session_params){0}, ids, PROMPT, MORE);
        assert_int_equal(cached_tokens(engine), cached);
        tiny_run(engine);
        tiny_run(fresh);
        assert_int_equal(zs_engine_get_stats(engine)->prefill_tokens, PROMPT - cached);
        expect_equal(again, cold, deterministic);
        expect_reference(again, NULL);
        zs_session_destroy(&again);
        zs_engine_destroy(&fresh);
        fresh = open_engine((zs_engine_params){.deterministic = deterministic});
    }
    // A prefix that was decoded, not read: its bits may be others, so it serves only where bits do not matter.
    size_t count;
    zs_session *made = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE);
    tiny_run(engine);
    memcpy(ids, zs_session_tokens(made, &count), sizeof ids);
    zs_engine_reset_stats(engine);
    zs_session *again = tiny_session(engine, (zs_session_params){0}, ids, PROMPT + MORE, MORE),
               *cold = tiny_session(fresh, (zs_session_params){0}, ids, PROMPT + MORE, MORE);
    assert_int_equal(cached_tokens(engine), deterministic ? PROMPT : PROMPT + MORE - 1);
    tiny_run(engine);
    tiny_run(fresh);
    expect_equal(again, cold, deterministic);
    zs_session_destroy(&made);
    zs_session_destroy(&again);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
    zs_engine_destroy(&fresh);
}

static void test_prefix(void **state) {
    (void)state;
    check_prefix(false);
    check_prefix(true);
}

/// Keys and values under another expert are never taken: not from the cache, not from a living session, not when an expert
/// takes over the table row of one that went.
static void test_prefix_is_of_one_expert(void **state) {
    (void)state;
    uint32_t ids[70];
    zs_engine *engine = open_engine((zs_engine_params){.max_experts = 1});
    tiny_ids(ids, 70, 2);
    zs_session *base = tiny_session(engine, (zs_session_params){0}, ids, 70, 5);
    tiny_run(engine);
    uint32_t before = 0;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        const tiny_expert_params params = {.seed = seed};
        expert_file file;
        tiny_expert_make(&params, &file);
        uint32_t id = tiny_attach(engine, &params);
        if (before) assert_int_equal(id, before);
        before = id;
        for (int again = 0; again < 2; again++) {
            zs_engine_reset_stats(engine);
            zs_session *session = tiny_session(engine, (zs_session_params){.expert = id}, ids, 70, 5);
            assert_int_equal(cached_tokens(engine), again ? 69 : 0);
            tiny_run(engine);
            expect_reference(session, &file);
            zs_session_destroy(&session);
        }
        zs_engine_detach_expert(engine, id);
        expert_file_free(&file);
    }
    expect_reference(base, NULL);
    // The first expert again: its row was taken, so what was cached under it must not come back either.
    zs_engine_reset_stats(engine);
    uint32_t id = tiny_attach(engine, &(tiny_expert_params){.seed = 1});
    zs_session *session = tiny_session(engine, (zs_session_params){.expert = id}, ids, 70, 5);
    assert_int_equal(cached_tokens(engine), 0);
    zs_session_destroy(&session);
    zs_session_destroy(&base);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// Prompts set at once are computed once where they agree, and only then: one prompt's rollouts, and what two prompts share beyond what all
/// do; not what another expert sees. What few rows would be spared of is not waited for.
static void test_prompts_in_common(void **state) {
    (void)state;
    enum { COMMON = 53, PAIR = 150, SESSIONS = 5 };
    static const uint32_t pair[SESSIONS] = {0, PAIR, PAIR, 0, 0}, own[SESSIONS] = {9, 7, 5, 9, 11};
    for (uint32_t deterministic = 0; deterministic < 2; deterministic++) {
        zs_engine *engine = open_engine((zs_engine_params){.deterministic = deterministic}), *alone = open_engine((zs_engine_params){0});
        const tiny_expert_params other = {.seed = 1};
        expert_file file;
        tiny_expert_make(&other, &file);
        uint32_t expert = tiny_attach(engine, &other), ids[COMMON + PAIR + 11];
        zs_session *sessions[SESSIONS];
        for (uint32_t i = 0; i < SESSIONS; i++) {
            tiny_ids(ids, COMMON, 1);
            tiny_ids(ids + COMMON, pair[i], 2);
            tiny_ids(ids + COMMON + pair[i], own[i], i == 3 ? 10 : 10 + i); // the fourth is the first
            sessions[i] = tiny_session(engine, (zs_session_params){.expert = i == 4 ? expert : 0}, ids, COMMON + pair[i] + own[i], 6);
        }
        tiny_run(engine);
        const uint32_t firsts = 2 * COMMON + own[0] + own[4]; // of either expert; the others take what they can
        assert_int_equal(zs_engine_get_stats(engine)->prefill_tokens, firsts + PAIR + own[1] + own[2] + 1);
        for (uint32_t i = 0; i < SESSIONS; i++) expect_reference(sessions[i], i == 4 ? &file : NULL);
        expect_equal(sessions[0], sessions[3], deterministic);
        for (uint32_t i = 0; i < SESSIONS; i++) zs_session_destroy(&sessions[i]);
        session_check_pages(engine);
        zs_engine_reset_stats(alone);
        for (uint32_t i = 0; i < 2; i++) sessions[i] = tiny_session(alone, (zs_session_params){0}, ids, COMMON + 1 + i, 6);
        tiny_run(alone);
        assert_int_equal(zs_engine_get_stats(alone)->prefill_tokens, 2 * COMMON + 3);
        for (uint32_t i = 0; i < 2; i++) zs_session_destroy(&sessions[i]);
        expert_file_free(&file);
        zs_engine_destroy(&engine);
        zs_engine_destroy(&alone);
    }
}

/// Scoring takes prefixes from sessions and leaves its own for them.
static void test_prefix_between_scores_and_sessions(void **state) {
    (void)state;
    uint32_t ids[90];
    float a[20], b[20];
    zs_engine *engine = open_engine((zs_engine_params){0}), *fresh = open_engine((zs_engine_params){0});
    tiny_ids(ids, 90, 3);
    tiny_score(engine, 0, ids, 70, 90, a);
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, 80, 10);
    assert_int_equal(cached_tokens(engine), 79); // of the continuation too, which went along with its prefix
    tiny_run(engine);
    expect_reference(session, NULL);
    zs_engine_reset_stats(engine);
    tiny_score(engine, 0, ids, 75, 90, b);
    assert_int_equal(cached_tokens(engine), 74);
    tiny_score(fresh, 0, ids, 70, 90, b);
    for (size_t i = 0; i < 20; i++) assert_true(fabsf(a[i] - b[i]) <= bound);
    zs_session_destroy(&session);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
    zs_engine_destroy(&fresh);
}

/// A new prompt that begins like a session's last one, and more like another's: it takes the longer beginning, and that counts once.
static void test_longer_prefix_of_others(void **state) {
    (void)state;
    enum { OWN = 20, OTHERS = 60, PROMPT = 75 };
    uint32_t ids[PROMPT];
    zs_error error;
    zs_engine *engine = open_engine((zs_engine_params){0});
    tiny_ids(ids, PROMPT, 1);
    zs_session *other = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, 4);
    ids[OWN] = (ids[OWN] + 1) % VOCAB;
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, 4);
    tiny_run(engine);
    ids[OWN] = (ids[OWN] + VOCAB - 1) % VOCAB;
    ids[OTHERS] = (ids[OTHERS] + 1) % VOCAB;
    zs_engine_reset_stats(engine);
    tiny_need(zs_session_set_prompt(session, ids, PROMPT, &error), &error);
    tiny_need(zs_session_generate(session, 4, &error), &error);
    tiny_run(engine);
    assert_int_equal(cached_tokens(engine), OTHERS);
    assert_int_equal(zs_engine_get_stats(engine)->prefill_tokens, PROMPT - OTHERS);
    expect_reference(session, NULL);
    zs_session_destroy(&other);
    zs_session_destroy(&session);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// A chat: each turn adds to the history, which is not computed again; going back to an earlier point is right as well.
static void test_history_grows(void **state) {
    (void)state;
    uint32_t ids[200];
    size_t count;
    zs_error error;
    zs_engine *engine = open_engine((zs_engine_params){0});
    tiny_ids(ids, 200, 4);
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, 40, 9);
    tiny_run(engine);
    for (int turn = 0; turn < 3; turn++) {
        const uint32_t *tokens = zs_session_tokens(session, &count);
        uint32_t history[200];
        memcpy(history, tokens, count * sizeof *history);
        tiny_ids(history + count, 11, 50 + (uint64_t)turn);
        zs_engine_reset_stats(engine);
        tiny_need(zs_session_set_prompt(session, history, count + 11, &error), &error);
        assert_int_equal(cached_tokens(engine), count - 1); // all but the token that was sampled last
        tiny_need(zs_session_generate(session, 9, &error), &error);
        tiny_run(engine);
        expect_reference(session, NULL);
    }
    tiny_need(zs_session_set_prompt(session, ids, 37, &error), &error);
    tiny_need(zs_session_generate(session, 30, &error), &error);
    tiny_run(engine);
    expect_reference(session, NULL);
    zs_session_destroy(&session);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// Going back must not write into pages that another session took over.
static void test_shared_pages_stay(void **state) {
    (void)state;
    uint32_t ids[100], other[100];
    zs_error error;
    zs_engine *engine = open_engine((zs_engine_params){0});
    tiny_ids(ids, 100, 5);
    memcpy(other, ids, sizeof ids);
    other[40] = ids[40] + 1 < VOCAB ? ids[40] + 1 : ids[40] - 1;
    zs_session *a = tiny_session(engine, (zs_session_params){0}, ids, 100, 4);
    tiny_run(engine);
    zs_session *b = tiny_session(engine, (zs_session_params){0}, ids, 100, 30);
    tiny_need(zs_session_set_prompt(a, other, 100, &error), &error);
    tiny_need(zs_session_generate(a, 30, &error), &error);
    tiny_run(engine);
    expect_reference(a, NULL);
    expect_reference(b, NULL);
    zs_session_destroy(&a);
    zs_session_destroy(&b);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// A prefix whose owner has to be evicted to make room for the copy of its last page; without any room nothing is taken.
static void test_prefix_outlives_its_owner(void **state) {
    (void)state;
    uint32_t ids[100];
    zs_error error;
    sequence seq;
    zs_engine *engine = open_engine((zs_engine_params){.deterministic = true});
    tiny_need(sequence_create(TINY_CONTEXT, &seq, &error), &error);
    seq.expert_serial = expert_table_serial(&engine->experts, 0);
    tiny_ids(ids, 100, 6);
    for (int round = 0; round < 2; round++) {
        size_t length = round ? 50 : 100; // pages behind the prefix: two, or none
        zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, length, 1);
        tiny_run(engine);
        zs_session_destroy(&session);
        assert_int_equal(engine->cache_count, 1);
        uint32_t taken = engine->pool.free_count, *pages = malloc(taken * sizeof *pages);
        for (uint32_t i = 0; i < taken; i++) pages[i] = kv_pool_take(&engine->pool);
        zs_status status = engine_take_prefix(engine, &seq, ids, 48 + 1, &error);
        assert_int_equal(status, round ? ZS_ERROR_CONTEXT : ZS_OK);
        assert_int_equal(engine->cache_count, 0);
        assert_int_equal(seq.computed, round ? 0 : 48);
        assert_int_equal(seq.prefilled, round ? 0 : 48);
        assert_int_equal(seq.page_count, round ? 0 : 2);
        engine_drain(engine, NULL);
        sequence_truncate(&seq, &engine->pool, 0);
        for (uint32_t i = 0; i < taken; i++) kv_pool_release(&engine->pool, pages[i]);
        free(pages);
        session_check_pages(engine);
    }
    sequence_destroy(&seq, &engine->pool);
    zs_engine_destroy(&engine);
}

// ---- limits --------------------------------------------------------------------------------------------------------

static void expect_refused(zs_status status, zs_status expected, const zs_error *error, const char *a, const char *b) {
    if (status != expected || !strstr(error->message, a) || !strstr(error->message, b)) fail_msg("%d: %s", status, error->message);
}

static void test_context(void **state) {
    (void)state;
    uint32_t ids[TINY_CONTEXT + 1];
    float logprobs[2];
    zs_error error;
    zs_engine *engine = NULL;
    expect_refused(zs_engine_create(model, &(zs_engine_params){.context = TINY_CONTEXT + 1}, &engine, &error), ZS_ERROR_ARGUMENT, &error,
                   "257", "256");
    engine = open_engine((zs_engine_params){.context = 64});
    tiny_ids(ids, TINY_CONTEXT + 1, 8);
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, 63, 100);
    expect_refused(zs_session_set_prompt(session, ids, 64, &error), ZS_ERROR_CONTEXT, &error, "64 tokens", "256");
    expect_refused(zs_session_set_prompt(session, ids, 70, &error), ZS_ERROR_CONTEXT, &error, "70 tokens", "holds 64");
    expect_refused(zs_session_set_prompt(session, ids, 0, &error), ZS_ERROR_ARGUMENT, &error, "empty", "");
    const uint32_t outside[] = {5, VOCAB};
    expect_refused(zs_session_set_prompt(session, outside, 2, &error), ZS_ERROR_ARGUMENT, &error, "300 at 1", "vocabulary of 300");
    // One token still fits behind the longest prompt; refused prompts changed nothing.
    tiny_run(engine);
    size_t count;
    zs_session_tokens(session, &count);
    assert_int_equal(count, 64);
    assert_true(zs_session_is_done(session));
    expect_reference(session, NULL);
    tiny_need(zs_session_generate(session, 1, &error), &error); // full: nothing more
    tiny_run(engine);
    zs_session_tokens(session, &count);
    assert_int_equal(count, 64);
    tiny_need(zs_session_set_prompt(session, ids, 20, &error), &error);
    tiny_need(zs_session_generate(session, 1000, &error), &error);
    tiny_run(engine);
    zs_session_tokens(session, &count);
    assert_int_equal(count, 64);
    expect_reference(session, NULL);
    zs_session_destroy(&session);

    zs_score_item item = {0, ids, 63, ids + 63, 2, logprobs};
    expect_refused(zs_engine_score(engine, &item, 1, NULL, 0, &error), ZS_ERROR_CONTEXT, &error, "65 tokens", "holds 64");
    item.continuation_count = 1;
    tiny_need(zs_engine_score(engine, &item, 1, NULL, 0, &error), &error);
    item.continuation_count = 0;
    expect_refused(zs_engine_score(engine, &item, 1, NULL, 0, &error), ZS_ERROR_ARGUMENT, &error, "at least one", "");
    item = (zs_score_item){3, ids, 2, ids, 1, logprobs};
    expect_refused(zs_engine_score(engine, &item, 1, NULL, 0, &error), ZS_ERROR_ARGUMENT, &error, "no expert with id 3", "");
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

static void test_absurd_params(void **state) {
    (void)state;
    static const zs_engine_params absurd[] = {
        {.max_sessions = UINT32_MAX}, {.max_experts = UINT32_MAX}, {.max_rows = UINT32_MAX}, {.context = UINT32_MAX}, {.kv_tokens = 1},
        {.max_sessions = 5000},       {.max_experts = 1 << 20},
    };
    zs_engine *engine = NULL;
    zs_error error;
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++)
        assert_int_equal(zs_engine_create(model, &absurd[i], &engine, &error), ZS_ERROR_ARGUMENT);
    expect_refused(zs_engine_create(model, &(zs_engine_params){.kv_tokens = UINT32_MAX}, &engine, &error), ZS_ERROR_DEVICE_MEMORY, &error,
                   "MB", "would fit");
    assert_null(engine);
}

static void test_slots(void **state) {
    (void)state;
    uint32_t ids[100];
    zs_error error;
    zs_session *sessions[3], *more = NULL;
    zs_engine *engine = open_engine((zs_engine_params){.max_sessions = 3, .context = 128, .kv_tokens = 128});
    tiny_ids(ids, 100, 9);
    for (size_t i = 0; i < 3; i++) sessions[i] = tiny_session(engine, (zs_session_params){0}, ids + i, 40, 5);
    expect_refused(zs_session_create(engine, NULL, &more, &error), ZS_ERROR_ARGUMENT, &error, "3 sessions", "max_sessions");
    assert_null(more);
    tiny_run(engine);
    zs_session_destroy(&sessions[1]);
    sessions[1] = tiny_session(engine, (zs_session_params){0}, ids, 40, 5);
    tiny_run(engine);
    expect_reference(sessions[1], NULL);
    for (size_t i = 0; i < 3; i++) zs_session_destroy(&sessions[i]);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// Sessions whose tokens exceed the pool: an error with the number; when one goes, the others go on, unharmed.
static void test_pages_run_out(void **state) {
    (void)state;
    enum { SESSIONS = 8 };
    uint32_t ids[SESSIONS][120];
    zs_error error;
    zs_session *sessions[SESSIONS];
    zs_engine *engine = open_engine((zs_engine_params){.max_sessions = SESSIONS, .context = 128, .kv_tokens = 128});
    for (size_t i = 0; i < SESSIONS; i++) {
        tiny_ids(ids[i], 120, 60 + i);
        sessions[i] = tiny_session(engine, (zs_session_params){0}, ids[i], 60, 60);
    }
    expect_refused(zs_engine_run(engine, NULL, NULL, &error), ZS_ERROR_CONTEXT, &error, "128 tokens", "kv_tokens");
    for (size_t i = 3; i < SESSIONS; i++) zs_session_destroy(&sessions[i]);
    tiny_run(engine);
    for (size_t i = 0; i < 3; i++) {
        size_t count;
        zs_session_tokens(sessions[i], &count);
        assert_int_equal(count, 120);
        expect_reference(sessions[i], NULL);
        zs_session_destroy(&sessions[i]);
    }
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// More continuations than there are pages for at once.
static void test_score_in_few_pages(void **state) {
    (void)state;
    enum { ITEMS = 60, PREFIX = 90, LENGTH = 6 };
    uint32_t ids[PREFIX], continuations[ITEMS][LENGTH];
    float logprobs[ITEMS][LENGTH];
    zs_score_item items[ITEMS];
    zs_error error;
    zs_engine *engine = open_engine((zs_engine_params){.max_sessions = 1, .context = 128, .kv_tokens = 128});
    tiny_ids(ids, PREFIX, 10);
    for (size_t i = 0; i < ITEMS; i++) {
        tiny_ids(continuations[i], LENGTH, 70 + i);
        items[i] = (zs_score_item){0, ids, PREFIX, continuations[i], LENGTH, logprobs[i]};
    }
    assert_true(engine->pool.page_count < ITEMS);
    tiny_need(zs_engine_score(engine, items, ITEMS, NULL, 0, &error), &error);
    for (size_t i = 0; i < ITEMS; i += 7) {
        uint32_t all[PREFIX + LENGTH];
        double *expected = malloc(sizeof *expected * (PREFIX + LENGTH) * VOCAB);
        memcpy(all, ids, sizeof ids);
        memcpy(all + PREFIX, continuations[i], sizeof continuations[i]);
        reference_model_run(reference, NULL, all, PREFIX + LENGTH, expected);
        for (size_t k = 0; k < LENGTH; k++)
            assert_true(fabs(expected[(PREFIX + k - 1) * VOCAB + all[PREFIX + k]] - (double)logprobs[i][k]) <= (double)bound);
        free(expected);
    }
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

enum { GROUPS = 30, GROUP_COMMON = 2 * KV_PAGE_TOKENS, GROUP_PREFIX = GROUP_COMMON + 10, GROUP_MORE = 4 };

/// Scores `each` continuations, at most 2, after each of many prefixes that begin alike; returns the engine, for what it took.
static zs_engine *score_groups(zs_engine_params params, const uint32_t texts[][GROUP_PREFIX + GROUP_MORE], size_t each) {
    zs_score_item items[2 * GROUPS];
    float logprobs[2 * GROUPS][GROUP_MORE];
    zs_error error;
    zs_engine *engine = open_engine(params);
    for (size_t i = 0; i < each * GROUPS; i++) {
        const uint32_t *continuation = texts[(i / each + i % each) % GROUPS] + GROUP_PREFIX;
        items[i] = (zs_score_item){0, texts[i / each], GROUP_PREFIX, continuation, GROUP_MORE, logprobs[i]};
    }
    tiny_need(zs_engine_score(engine, items, each * GROUPS, NULL, 0, &error), &error);
    double *expected = malloc(sizeof *expected * (GROUP_PREFIX + GROUP_MORE) * VOCAB);
    for (size_t i = 0; i < each * GROUPS; i++) {
        uint32_t all[GROUP_PREFIX + GROUP_MORE];
        memcpy(all, items[i].prefix, GROUP_PREFIX * sizeof *all);
        memcpy(all + GROUP_PREFIX, items[i].continuation, GROUP_MORE * sizeof *all);
        reference_model_run(reference, NULL, all, GROUP_PREFIX + GROUP_MORE, expected);
        for (size_t k = 0; k < GROUP_MORE; k++)
            assert_true(fabs(expected[(GROUP_PREFIX + k - 1) * VOCAB + all[GROUP_PREFIX + k]] - (double)logprobs[i][k]) <= (double)bound);
    }
    free(expected);
    session_check_pages(engine);
    return engine;
}

/// Prefixes go through a step together, with their continuations where each has one, and what they have in common is computed once; with
/// few pages they take turns.
static void test_score_many_prefixes(void **state) {
    (void)state;
    enum { OWN = GROUP_PREFIX - GROUP_COMMON };
    uint32_t texts[GROUPS][GROUP_PREFIX + GROUP_MORE];
    for (size_t i = 0; i < GROUPS; i++) {
        tiny_ids(texts[i], GROUP_COMMON, 20);
        tiny_ids(texts[i] + GROUP_COMMON, OWN + GROUP_MORE, 200 + i);
    }
    for (uint32_t each = 1; each <= 2; each++) {
        const uint32_t branch_rows = each * GROUPS * (GROUP_MORE - 1), in_branches = each > 1 ? branch_rows : 0;
        zs_engine *engine = score_groups((zs_engine_params){.max_rows = 512, .kv_tokens = 6 * GROUPS * KV_PAGE_TOKENS}, texts, each);
        const zs_engine_stats *stats = zs_engine_get_stats(engine);
        assert_int_equal(stats->prefill_tokens, GROUP_COMMON + GROUPS * OWN + branch_rows);
        assert_int_equal(stats->steps, 1 + (in_branches + ENGINE_LOGIT_ROWS - 1) / ENGINE_LOGIT_ROWS);
        zs_engine_destroy(&engine);
        engine = score_groups((zs_engine_params){.max_sessions = 1, .context = 96, .kv_tokens = 5 * KV_PAGE_TOKENS}, texts, each);
        assert_true(engine->pool.page_count < GROUPS); // so that prefixes make room for branches
        zs_engine_destroy(&engine);
    }
}

// ---- changes on the way --------------------------------------------------------------------------------------------

static void test_expert_switch(void **state) {
    (void)state;
    const tiny_expert_params params = {.seed = 3};
    uint32_t ids[40];
    zs_error error;
    expert_file file;
    zs_engine *engine = open_engine((zs_engine_params){0});
    tiny_expert_make(&params, &file);
    uint32_t id = tiny_attach(engine, &params);
    tiny_ids(ids, 40, 11);
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, 40, 15);
    tiny_run(engine);
    expect_reference(session, NULL);
    // The history so far becomes the prompt of what is made under the other expert.
    uint32_t history[TINY_CONTEXT];
    size_t count;
    const uint32_t *tokens = zs_session_tokens(session, &count);
    memcpy(history, tokens, count * sizeof *history);
    tiny_need(zs_session_set_expert(session, id, &error), &error);
    zs_engine_reset_stats(engine);
    tiny_need(zs_session_generate(session, 15, &error), &error);
    tiny_run(engine);
    assert_int_equal(zs_engine_get_stats(engine)->prefill_tokens, count); // all of it read anew
    size_t after, made;
    tokens = zs_session_tokens(session, &after);
    assert_int_equal(after, count + 15);
    double *expected = malloc(sizeof *expected * after * VOCAB);
    reference_model_run(reference, &file, tokens, (uint32_t)after, expected);
    const float *logprobs = zs_session_logprobs(session, &made);
    for (size_t i = count; i < after; i++)
        assert_true(fabs(expected[(i - 1) * VOCAB + tokens[i]] - (double)logprobs[i - 40]) <= (double)bound);
    free(expected);
    expect_refused(zs_session_set_expert(session, id + 1, &error), ZS_ERROR_ARGUMENT, &error, "no expert with id", "");
    // An expert that is taken away under a session is noticed, not replaced in silence.
    tiny_need(zs_session_generate(session, 5, &error), &error);
    zs_engine_detach_expert(engine, id);
    expect_refused(zs_engine_run(engine, NULL, NULL, &error), ZS_ERROR_ARGUMENT, &error, "was detached", "");
    tiny_need(zs_session_set_expert(session, 0, &error), &error);
    tiny_run(engine);
    expert_file_free(&file);
    zs_session_destroy(&session);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

/// What a callback is to do, and when.
typedef struct interference {
    zs_engine *engine;
    zs_session *session, *other, *made;
    uint32_t countdown;
    enum { STOP, CANCEL, DESTROY_SELF, DESTROY_OTHER, NEW_PROMPT, NEW_SESSION, ASK_MORE } what;
    uint32_t ids[50];
    uint32_t calls;
} interference;

static bool interfere(void *user, zs_session *session, uint32_t token) {
    interference *in = user;
    zs_error error;
    (void)token;
    in->calls++;
    if (session != in->session || in->countdown == 0 || --in->countdown > 0) return true;
    switch (in->what) {
    case STOP: return false;
    case CANCEL: zs_engine_cancel(in->engine); break;
    case DESTROY_SELF: zs_session_destroy(&in->session); break;
    case DESTROY_OTHER: zs_session_destroy(&in->other); break;
    case NEW_PROMPT:
        tiny_need(zs_session_set_prompt(session, in->ids, 50, &error), &error);
        tiny_need(zs_session_generate(session, 20, &error), &error);
        break;
    case NEW_SESSION: in->made = tiny_session(in->engine, (zs_session_params){0}, in->ids, 50, 20); break;
    case ASK_MORE: tiny_need(zs_session_generate(session, 20, &error), &error); break;
    }
    return true;
}

/// Whatever a callback does, at the first token (prefill) or later (decode, with steps in flight), every session ends up
/// with the right numbers and no page is lost.
static void check_interference(int what, uint32_t at) {
    uint32_t ids[40];
    size_t count;
    zs_error error;
    interference in = {.engine = open_engine((zs_engine_params){0}), .countdown = at, .what = what};
    tiny_ids(ids, 40, 12);
    tiny_ids(in.ids, 50, 13);
    in.session = tiny_session(in.engine, (zs_session_params){0}, ids, 40, 12);
    in.other = tiny_session(in.engine, (zs_session_params){0}, ids + 5, 33, 40);
    zs_status status = zs_engine_run(in.engine, interfere, &in, &error);
    if (what == CANCEL) {
        assert_int_equal(status, ZS_ERROR_CANCELLED);
        assert_int_equal(zs_engine_run(in.engine, NULL, NULL, &error), ZS_ERROR_CANCELLED);
        zs_engine_resume(in.engine);
        tiny_run(in.engine);
    } else {
        tiny_need(status, &error);
    }
    zs_session *const sessions[] = {in.session, in.other, in.made};
    const size_t lengths[] = {what == STOP         ? 40 + at
                              : what == ASK_MORE   ? 40 + at + 20
                              : what == NEW_PROMPT ? 50 + 20
                                                   : 40 + 12,
                              33 + 40, 50 + 20};
    for (size_t i = 0; i < 3; i++) {
        if (!sessions[i]) continue;
        assert_true(zs_session_is_done(sessions[i]));
        expect_reference(sessions[i], NULL);
        zs_session_tokens(sessions[i], &count);
        assert_int_equal(count, lengths[i]);
    }
    assert_true((what == DESTROY_SELF) == !in.session && (what == DESTROY_OTHER) == !in.other && (what == NEW_SESSION) == !!in.made);
    zs_session_destroy(&in.session);
    zs_session_destroy(&in.other);
    zs_session_destroy(&in.made);
    session_check_pages(in.engine);
    zs_engine_destroy(&in.engine);
}

static void test_callbacks(void **state) {
    (void)state;
    static const uint32_t moments[] = {1, 4, 12}; // in prefill; in decode; at the session's end
    for (int what = STOP; what <= ASK_MORE; what++) {
        for (size_t i = 0; i < 3; i++) check_interference(what, moments[i]);
    }
}

/// A cancelled run goes on as if nothing had been: tokens that were sampled ahead but never taken leave no trace in the
/// penalty's memory either.
static void test_cancel_and_resume(void **state) {
    (void)state;
    const zs_session_params params = {.sampling = {.temperature = 1.5f, .repetition_penalty = 1.7f, .seed = 5}};
    uint32_t ids[30];
    zs_error error;
    tiny_ids(ids, 30, 14);
    zs_engine *plain = open_engine((zs_engine_params){.deterministic = true}),
              *engine = open_engine((zs_engine_params){.deterministic = true});
    zs_session *expected = tiny_session(plain, params, ids, 30, 60), *session = tiny_session(engine, params, ids, 30, 60);
    tiny_run(plain);
    for (uint32_t at = 3; at < 50; at += 5) {
        interference in = {.engine = engine, .session = session, .countdown = 3, .what = CANCEL};
        assert_int_equal(zs_engine_run(engine, interfere, &in, &error), ZS_ERROR_CANCELLED);
        zs_engine_resume(engine);
    }
    tiny_run(engine);
    expect_equal(session, expected, true);
    zs_engine_destroy(&plain);
    zs_engine_destroy(&engine);
}

/// Sessions that end in the middle of their work, many times over: the pool stays whole.
static void test_destroyed_midway(void **state) {
    (void)state;
    zs_engine *engine = open_engine((zs_engine_params){.context = 128, .kv_tokens = 128, .max_sessions = 2});
    zs_error error;
    for (uint64_t i = 0; i < 20; i++) {
        uint32_t ids[100];
        tiny_ids(ids, 100, 200 + i);
        interference in = {.engine = engine, .countdown = 1 + (uint32_t)i % 7, .what = CANCEL};
        in.session = tiny_session(engine, (zs_session_params){0}, ids, 60 + i, 40);
        assert_int_equal(zs_engine_run(engine, interfere, &in, &error), ZS_ERROR_CANCELLED);
        zs_engine_resume(engine);
        zs_session_destroy(&in.session);
        session_check_pages(engine);
    }
    zs_engine_destroy(&engine);
}

static int open_all(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    tiny_files(NULL, path, ZS_FACTOR_F32, factored_path);
    model = tiny_load(device, factored_path);
    reference = reference_model_open(factored_path);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    reference_model_close(&reference);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_longer_prefix_of_others),
        cmocka_unit_test(test_prefix_is_of_one_expert),
        cmocka_unit_test(test_prompts_in_common),
        cmocka_unit_test(test_prefix_between_scores_and_sessions),
        cmocka_unit_test(test_history_grows),
        cmocka_unit_test(test_shared_pages_stay),
        cmocka_unit_test(test_prefix_outlives_its_owner),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_absurd_params),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_pages_run_out),
        cmocka_unit_test(test_score_in_few_pages),
        cmocka_unit_test(test_score_many_prefixes),
        cmocka_unit_test(test_expert_switch),
        cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_cancel_and_resume),
        cmocka_unit_test(test_destroyed_midway),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
