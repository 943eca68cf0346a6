// What goes along in a step: tokens of drafts behind a row, sessions that decode beside others' prompts. `test_engine_steps gpu` has the
// kernels for GPUs serve, whatever the device is.
#include "support/gpu_kernels.h"
#include "support/session_check.h"
#include "support/tiny_runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { PROMPT = 21, MORE = 40 };

static const char path[] = TEST_OUTPUT "/steps.gguf", factored_path[] = TEST_OUTPUT "/steps-factored.gguf";
static bool gpu_kernels;
static zs_device *device;
static zs_model *model;
static reference_model *reference;

static const float bound = 4e-5f; // test_engine.c derives it

static zs_engine *open_engine(zs_engine_params params) { return tiny_engine(model, params); }

static void set_draft(zs_session *session, const uint32_t *ids, size_t count) {
    zs_error error;
    tiny_need(zs_session_set_draft(session, ids, count, &error), &error);
}

// ---- drafts --------------------------------------------------------------------------------------------------------

/// Of a draft's right tokens: a step computes so many less one of the ring ahead, and draws the next.
static size_t taken_ahead(size_t right) { return right - right / SAMPLED_RING; }

/// The answer is the one without a draft; of one whose first `good` tokens are right those are accepted, in so few steps.
static void check_draft(zs_engine *engine, const zs_session *plain, zs_session_params params, size_t good, size_t count, uint32_t more) {
    uint32_t ids[PROMPT + MORE], draft[MORE];
    size_t made;
    memcpy(ids, zs_session_tokens(plain, &made), sizeof ids);
    memcpy(draft, ids + PROMPT, sizeof draft);
    for (size_t i = good; i < count; i++) draft[i] = draft[i] == TINY_VOCAB - 1 ? TINY_CONTROLS : draft[i] + 1;
    zs_session *session = tiny_session(engine, params, ids, PROMPT, more);
    set_draft(session, draft, count);
    zs_engine_reset_stats(engine);
    tiny_run(engine);
    const zs_engine_stats *stats = zs_engine_get_stats(engine);
    const size_t accepted = taken_ahead(good < more ? good : more - 1); // the last token asked for is drawn and not computed
    const bool whole = engine->params.max_rows > PROMPT + SAMPLED_RING;
    if (whole) assert_int_equal(stats->accepted_tokens, accepted);
    assert_true(stats->accepted_tokens <= stats->draft_tokens);
    assert_true(!whole || stats->steps <= 2 + accepted / (SAMPLED_RING - 1) + (more - accepted));
    assert_memory_equal(zs_session_tokens(session, &made), ids, (PROMPT + more) * sizeof *ids);
    assert_int_equal(made, PROMPT + more);
    session_check_reference(session, reference, NULL, bound);
    zs_session_destroy(&session);
}

static void test_draft(void **state) {
    (void)state;
    static const zs_session_params how[] = {{0}, {.sampling = {.temperature = 1.3f, .top_k = 40, .seed = 3}, .stream = 2}};
    for (size_t i = 0; i < 2; i++) {
        uint32_t ids[PROMPT];
        tiny_ids(ids, PROMPT, 5);
        zs_engine *engine = open_engine((zs_engine_params){0}), *few_rows = open_engine((zs_engine_params){.max_rows = 9});
        zs_session *plain = tiny_session(engine, how[i], ids, PROMPT, MORE);
        tiny_run(engine);
        static const size_t good[] = {0, 1, 14, 15, 16, 30, MORE - 1};
        for (size_t k = 0; k < sizeof good / sizeof *good; k++) {
            check_draft(engine, plain, how[i], good[k], MORE, MORE);
            check_draft(engine, plain, how[i], good[k], good[k], MORE);
            check_draft(few_rows, plain, how[i], good[k], MORE, MORE);
        }
        check_draft(engine, plain, how[i], MORE, MORE, 7); // longer than what is asked for
        zs_session_destroy(&plain);
        session_check_pages(engine);
        session_check_pages(few_rows);
        zs_engine_destroy(&engine);
        zs_engine_destroy(&few_rows);
    }
}

/// Many sessions with drafts: more rows of logits than a step has, each answer its own.
static void test_many_drafts(void **state) {
    (void)state;
    enum { COUNT = 24 }; // sixteen of them want sixteen rows of logits each
    zs_engine *engine = open_engine((zs_engine_params){.max_sessions = COUNT, .kv_tokens = COUNT * 96});
    zs_session *plain[COUNT], *drafted[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t ids[PROMPT];
        tiny_ids(ids, PROMPT, 50 + i);
        plain[i] = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE);
    }
    tiny_run(engine);
    zs_engine *other = open_engine((zs_engine_params){.max_sessions = COUNT, .kv_tokens = COUNT * 96});
    for (uint32_t i = 0; i < COUNT; i++) {
        size_t count;
        const uint32_t *ids = zs_session_tokens(plain[i], &count);
        drafted[i] = tiny_session(other, (zs_session_params){0}, ids, PROMPT, MORE);
        set_draft(drafted[i], ids + PROMPT, i % 3 ? MORE : 0);
    }
    tiny_run(other);
    const zs_engine_stats *stats = zs_engine_get_stats(other);
    assert_int_equal(stats->accepted_tokens, stats->draft_tokens); // all are right; a full step leaves one or the other for the next
    assert_in_range(stats->accepted_tokens, COUNT * 2 / 3 * (taken_ahead(MORE - 1) - 1), COUNT * 2 / 3 * taken_ahead(MORE - 1));
    for (uint32_t i = 0; i < COUNT; i++) session_check_equal(drafted[i], plain[i], bound);
    zs_engine_destroy(&engine);
    zs_engine_destroy(&other);
}

/// Where a draft is not looked at, and ids that none can have.
static void test_draft_not_taken(void **state) {
    (void)state;
    uint32_t ids[PROMPT];
    size_t count;
    zs_error error;
    tiny_ids(ids, PROMPT, 6);
    for (int what = 0; what < 2; what++) {
        zs_engine *engine = open_engine((zs_engine_params){.deterministic = what == 0});
        const zs_session_params params = {.sampling = {.repetition_penalty = what ? 1.5f : 0}};
        zs_session *plain = tiny_session(engine, params, ids, PROMPT, MORE);
        tiny_run(engine);
        zs_session *session = tiny_session(engine, params, ids, PROMPT, MORE);
        set_draft(session, zs_session_tokens(plain, &count) + PROMPT, MORE);
        tiny_run(engine);
        assert_int_equal(zs_engine_get_stats(engine)->draft_tokens, 0);
        session_check_equal(session, plain, what == 0 ? 0 : bound);
        assert_int_equal(zs_session_set_draft(session, (const uint32_t[]){TINY_VOCAB}, 1, &error), ZS_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "draft"));
        zs_engine_destroy(&engine);
    }
}

/// A draft that is given in the middle, to a session that decodes, and one that a new prompt makes worthless.
static void test_draft_later(void **state) {
    (void)state;
    uint32_t ids[PROMPT];
    size_t count;
    zs_error error;
    tiny_ids(ids, PROMPT, 7);
    zs_engine *engine = open_engine((zs_engine_params){0});
    zs_session *plain = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE);
    tiny_run(engine);
    const uint32_t *made = zs_session_tokens(plain, &count);
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, 10);
    tiny_run(engine);
    zs_engine_reset_stats(engine);
    set_draft(session, made + PROMPT + 10, 12);
    tiny_need(zs_session_generate(session, MORE - 10, &error), &error);
    tiny_run(engine);
    assert_int_equal(zs_engine_get_stats(engine)->accepted_tokens, 12);
    session_check_equal(session, plain, bound);
    set_draft(session, made, 8);
    tiny_need(zs_session_set_prompt(session, ids, PROMPT - 3, &error), &error);
    tiny_need(zs_session_generate(session, 5, &error), &error);
    zs_engine_reset_stats(engine);
    tiny_run(engine);
    assert_int_equal(zs_engine_get_stats(engine)->draft_tokens, 0);
    session_check_reference(session, reference, NULL, bound);
    zs_engine_destroy(&engine);
}

/// What happens to a session at one of the tokens that its draft foresaw.
typedef enum meddling { RESTRICT, MORE_TOKENS, OTHER_DRAFT, STOP, MEDDLINGS } meddling;

typedef struct meddler {
    zs_session *session;
    const uint32_t *ids; // what it is to make, from the prompt on
    meddling what;
    uint32_t countdown;
} meddler;

static bool meddle(void *user, zs_session *session, uint32_t token) {
    meddler *m = user;
    zs_error error;
    size_t count;
    (void)token;
    if (session != m->session || --m->countdown) return true;
    zs_session_tokens(session, &count);
    if (m->what == RESTRICT) tiny_need(zs_session_restrict(session, &m->ids[0], 1, &error), &error);
    if (m->what == MORE_TOKENS) tiny_need(zs_session_generate(session, (uint32_t)(PROMPT + MORE - count), &error), &error);
    if (m->what == OTHER_DRAFT) set_draft(session, m->ids + count, PROMPT + MORE - count);
    return m->what != STOP;
}

/// A draft that is broken off at an accepted token: the session goes on from there, alone and behind another's rows.
static void test_draft_broken_off(void **state) {
    (void)state;
    uint32_t ids[PROMPT + MORE], other_ids[50];
    size_t count;
    zs_error error;
    tiny_ids(ids, PROMPT, 9);
    tiny_ids(other_ids, 50, 10);
    zs_engine *engine = open_engine((zs_engine_params){0});
    zs_session *plain = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE);
    tiny_run(engine);
    memcpy(ids, zs_session_tokens(plain, &count), sizeof ids);
    for (int what = 0; what < MEDDLINGS; what++) {
        for (uint32_t at = 1; at <= 18; at++) {
            zs_session *other = at % 2 ? tiny_session(engine, (zs_session_params){0}, other_ids, 50, 20) : NULL;
            meddler m = {tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE), ids, (meddling)what, at};
            set_draft(m.session, ids + PROMPT, at % 3 ? MORE : at); // the longer goes on where it was broken off
            tiny_need(zs_engine_run(engine, meddle, &m, &error), &error);
            if (what == STOP) {
                zs_session_tokens(m.session, &count);
                assert_int_equal(count, PROMPT + at);
                tiny_need(zs_session_generate(m.session, (uint32_t)(PROMPT + MORE - count), &error), &error);
                tiny_run(engine);
            }
            assert_true(zs_session_is_done(m.session));
            const uint32_t *made = zs_session_tokens(m.session, &count);
            for (size_t i = PROMPT + at; what == RESTRICT && i < count; i++) assert_int_equal(made[i], ids[0]);
            if (what != RESTRICT) session_check_equal(m.session, plain, bound);
            if (other) session_check_reference(other, reference, NULL, bound);
            zs_session_destroy(&m.session);
            zs_session_destroy(&other);
        }
    }
    zs_session_destroy(&plain);
    session_check_pages(engine);
    zs_engine_destroy(&engine);
}

static bool stop_at_once(void *user, zs_session *session, uint32_t token) {
    (void)user;
    (void)session;
    (void)token;
    return false;
}

/// Where pages are short drafts do without: no session runs out of them that would not have without drafts.
static void test_draft_in_few_pages(void **state) {
    (void)state;
    enum { COUNT = 4, LONG = 2 * KV_PAGE_TOKENS - 2, PAGES = 2 * COUNT };
    uint32_t ids[LONG];
    zs_engine *engine = open_engine((zs_engine_params){.max_sessions = COUNT, .context = 96, .kv_tokens = 96});
    zs_session *sessions[COUNT];
    zs_error error;
    const uint32_t taken = engine->pool.free_count - PAGES; // as many pages are left as the prompts take
    for (uint32_t i = 0; i < taken; i++) kv_pool_take(&engine->pool);
    for (uint32_t i = 0; i < COUNT; i++) {
        tiny_ids(ids, LONG, 70 + i);
        sessions[i] = tiny_session(engine, (zs_session_params){0}, ids, LONG, 20);
        set_draft(sessions[i], ids, 15);
    }
    tiny_need(zs_engine_run(engine, stop_at_once, NULL, &error), &error);
    for (uint32_t i = 0; i < COUNT; i++) session_check_reference(sessions[i], reference, NULL, bound);
    zs_engine_destroy(&engine);
}

// ---- beside prompts ------------------------------------------------------------------------------------------------

typedef struct arrivals {
    zs_engine *engine;
    zs_session *sessions[3];
    uint32_t taken;
} arrivals;

/// Others come while the first decodes.
static bool arrive(void *user, zs_session *session, uint32_t token) {
    arrivals *a = user;
    (void)token;
    if (session != a->sessions[0]) return true;
    a->taken++;
    for (uint32_t i = 1; i < 3; i++) {
        uint32_t ids[50];
        tiny_ids(ids, 50, 60 + i);
        if (a->taken == 5 * i) a->sessions[i] = tiny_session(a->engine, (zs_session_params){0}, ids, 50, 10);
    }
    return true;
}

/// Sessions that decode lose no step to the prompts of others, and nobody's numbers change; where bits count they wait.
static void check_arrivals(bool deterministic) {
    uint32_t ids[PROMPT];
    zs_error error;
    tiny_ids(ids, PROMPT, 8);
    arrivals a = {.engine = open_engine((zs_engine_params){.deterministic = deterministic, .max_rows = 32})};
    a.sessions[0] = tiny_session(a.engine, (zs_session_params){0}, ids, PROMPT, MORE);
    tiny_need(zs_engine_run(a.engine, arrive, &a, &error), &error);
    for (uint32_t i = 0; i < 3; i++) session_check_reference(a.sessions[i], reference, NULL, bound);
    const zs_engine_stats *stats = zs_engine_get_stats(a.engine);
    assert_int_equal(stats->prefill_tokens, PROMPT + 2 * 50);
    assert_int_equal(stats->decode_tokens, MORE - 1 + 2 * 9);
    // A step for the first prompt and one for each of its tokens; prompts of 50 take two of 32 rows each.
    assert_int_equal(stats->steps, MORE + (deterministic ? 4 : 0));
    zs_engine_destroy(&a.engine);
}

static void test_decode_beside_prompts(void **state) {
    (void)state;
    check_arrivals(false);
    check_arrivals(true);
}

static int open_all(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    tiny_files(NULL, path, ZS_FACTOR_F32, factored_path);
    if (gpu_kernels) {
        zs_error error;
        gpu_kernels_use(device);
        tiny_need(gpu_kernels_load(device, factored_path, NULL, &model, &error), &error);
    } else {
        model = tiny_load(device, factored_path);
    }
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

int main(int argc, char **argv) {
    gpu_kernels = argc > 1 && strcmp(argv[1], "gpu") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draft),
        cmocka_unit_test(test_many_drafts),
        cmocka_unit_test(test_draft_not_taken),
        cmocka_unit_test(test_draft_later),
        cmocka_unit_test(test_draft_broken_off),
        cmocka_unit_test(test_draft_in_few_pages),
        cmocka_unit_test(test_decode_beside_prompts),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
