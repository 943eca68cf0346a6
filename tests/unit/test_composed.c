// Composed mode: dense W' made of the factors for one expert at a time, against factored mode and against a merged file.
#include "engine/engine.h"
#include "loader/tensor_type.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/composed.gguf", factored_path[] = TEST_OUTPUT "/composed-factored.gguf",
                  merged_path[] = TEST_OUTPUT "/composed-merged.gguf", expert_path[] = TEST_OUTPUT "/composed-expert.safetensors";
static zs_device *device;

enum { COUNT = 120 };

static const tiny_expert_params experts[] = {{.seed = 1}, {.seed = 2, .mlp_only = true}, {.seed = 3, .sigmoid = true, .trace = true}};
enum { EXPERTS = sizeof experts / sizeof *experts };

/// What rounding W' costs a log-probability of the tiny model. A weight's relative error, root mean square: f16 2⁻¹¹/√3 · 0.7 = 2e-4;
/// q8_0 rounds to steps of max/127, max of 32 normal values being 2.1 deviations: 2.1/127/√12 = 0.0048; q4_0 to max/8: 0.076. Logits of
/// deviation 2 take it from 14 matrices, at random: rms 2 · √14 · 0.0048 = 0.036 for q8_0, 0.57 for q4_0; mean 0.8, max (119 tokens) 4 of
/// that, and a log-probability is the difference of a logit and their mean. f16 is held to DESIGN's bar for f16 factors.
static const struct {
    zs_composed_type type;
    zs_merge_type merged;
    const char *mode;
    double mean, max;
} types[] = {
    {ZS_COMPOSED_F16, ZS_MERGE_F16, "composed:f16", 0.004, 0.03},
    {ZS_COMPOSED_Q8_0, ZS_MERGE_Q8_0, "composed:q8_0", 0.036, 0.18},
    {ZS_COMPOSED_Q4_0, ZS_MERGE_Q4_0, "composed:q4_0", 0.57, 2.8},
};
enum { TYPES = sizeof types / sizeof *types };

static zs_model *load(zs_place place) {
    zs_model *model = NULL;
    zs_error error;
    tiny_need(zs_model_load(device, factored_path, &(zs_model_params){.factors = place}, &model, &error), &error);
    return model;
}

static zs_engine *compose(zs_model *model, zs_composed_type type) {
    return tiny_engine(model, (zs_engine_params){.mode = ZS_MODE_COMPOSED, .composed = type});
}

static void score(zs_engine *engine, uint32_t expert, float *logprobs) {
    uint32_t ids[COUNT];
    tiny_ids(ids, COUNT, 5);
    tiny_score(engine, expert, ids, 1, COUNT, logprobs);
}

typedef struct difference {
    double mean, max;
} difference;

static difference compare(const float *a, const float *b) {
    difference d = {0};
    for (size_t i = 0; i + 1 < COUNT; i++) {
        double off = fabs((double)a[i] - (double)b[i]);
        d.mean += off / (COUNT - 1);
        d.max = fmax(d.max, off);
    }
    return d;
}

static void test_like_factored(void **state) {
    (void)state;
    zs_model *model = load(ZS_PLACE_DEVICE);
    zs_engine *factored = tiny_engine(model, (zs_engine_params){0});
    assert_string_equal(zs_engine_get_info(factored)->mode, "factored");
    for (size_t t = 0; t < TYPES; t++) {
        zs_engine *engine = compose(model, types[t].type);
        assert_string_equal(zs_engine_get_info(engine)->mode, types[t].mode);
        for (size_t e = 0; e <= EXPERTS; e++) {
            float expected[COUNT], got[COUNT];
            score(factored, e ? tiny_attach(factored, &experts[e - 1]) : 0, expected);
            score(engine, e ? tiny_attach(engine, &experts[e - 1]) : 0, got);
            difference d = compare(expected, got);
            if (!(d.mean <= types[t].mean && d.max <= types[t].max))
                fail_msg("%s, expert %zu: mean %g, max %g", types[t].mode, e, d.mean, d.max);
            assert_true(d.mean > 0); // other kernels, other weights: equal bits would mean that nothing was composed
        }
        assert_int_equal(zs_engine_get_stats(engine)->composes, EXPERTS + 1);
        zs_engine_destroy(&engine);
    }
    zs_engine_destroy(&factored);
    zs_model_destroy(&model);
}

/// A merged file of the same type holds the same weights, rounded from double precision: a quant may fall to the other side now and then.
static void test_like_merged(void **state) {
    (void)state;
    zs_error error;
    tiny_need(tiny_expert_write(&experts[0], expert_path, &error), &error);
    zs_model *model = load(ZS_PLACE_DEVICE);
    for (size_t t = 0; t < TYPES; t++) {
        float expected[COUNT], got[COUNT];
        const zs_merge_params params = {.type = types[t].merged, .force = true};
        tiny_need(zs_merge_file(factored_path, expert_path, merged_path, &params, NULL, &error), &error);
        zs_model *merged = tiny_load(device, merged_path);
        zs_engine *dense = tiny_engine(merged, (zs_engine_params){0}), *engine = compose(model, types[t].type);
        score(dense, 0, expected);
        score(engine, tiny_attach(engine, &experts[0]), got);
        difference d = compare(expected, got);
        if (!(d.max <= types[t].max / 20)) fail_msg("%s: mean %g, max %g", types[t].mode, d.mean, d.max);
        zs_engine_destroy(&engine);
        zs_engine_destroy(&dense);
        zs_model_destroy(&merged);
    }
    zs_model_destroy(&model);
}

static void test_back_and_forth(void **state) {
    (void)state;
    zs_model *model = load(ZS_PLACE_DEVICE);
    for (size_t t = 0; t < TYPES; t++) {
        float first[EXPERTS + 1][COUNT], again[COUNT];
        uint32_t ids[EXPERTS + 1] = {0};
        zs_engine *engine = compose(model, types[t].type);
        for (size_t e = 0; e < EXPERTS; e++) ids[e + 1] = tiny_attach(engine, &experts[e]);
        for (size_t e = 0; e <= EXPERTS; e++) score(engine, ids[e], first[e]);
        for (size_t e = EXPERTS + 1; e-- > 0;) {
            score(engine, ids[e], again);
            assert_memory_equal(first[e], again, (COUNT - 1) * sizeof *again);
            if (e) assert_memory_not_equal(first[e], first[0], (COUNT - 1) * sizeof *again);
        }
        // The last one scored is loaded: nothing is made again.
        assert_int_equal(zs_engine_get_stats(engine)->composes, 2 * EXPERTS + 1);
        score(engine, ids[0], again);
        assert_int_equal(zs_engine_get_stats(engine)->composes, 2 * EXPERTS + 1);
        zs_engine_destroy(&engine);
    }
    zs_model_destroy(&model);
}

static void test_places(void **state) {
    (void)state;
    static const zs_factor_type factor_types[] = {ZS_FACTOR_F32, ZS_FACTOR_Q8_0, ZS_FACTOR_F16};
    for (size_t f = 0; f < 3; f++) {
        zs_error error;
        tiny_need(zs_factor_file(dense_path, factored_path, &(zs_factor_params){.type = factor_types[f], .force = true, .threads = 1}, NULL,
                                 &error),
                  &error);
        float expected[2][COUNT], got[COUNT];
        uint64_t bytes = 0;
        for (int p = ZS_PLACE_DEVICE; p <= ZS_PLACE_FILE; p++) {
            zs_model *model = load((zs_place)p);
            zs_engine *engine = compose(model, ZS_COMPOSED_Q8_0);
            const uint32_t ids[2] = {0, tiny_attach(engine, &experts[0])};
            for (size_t e = 0; e < 2; e++) {
                bool first = p == ZS_PLACE_DEVICE;
                score(engine, ids[e], first ? expected[e] : got);
                if (!first) assert_memory_equal(got, expected[e], (COUNT - 1) * sizeof *got);
            }
            if (p != ZS_PLACE_DEVICE)
                assert_true(zs_model_get_info(model)->weight_bytes < bytes);
            else
                bytes = zs_model_get_info(model)->weight_bytes;
            zs_engine_destroy(&engine);
            zs_model_destroy(&model);
        }
    }
}

/// Sessions under several experts in one run: each makes what it makes alone, and each expert's weights are made once.
static void test_sessions(void **state) {
    (void)state;
    enum { SESSIONS = 4, PROMPT = 40, MORE = 12 };
    uint32_t ids[PROMPT], expert[SESSIONS] = {0};
    zs_session *sessions[SESSIONS];
    zs_model *model = load(ZS_PLACE_DEVICE);
    zs_engine *engine = compose(model, ZS_COMPOSED_F16), *alone = compose(model, ZS_COMPOSED_F16);
    tiny_ids(ids, PROMPT, 9);
    expert[1] = expert[3] = tiny_attach(engine, &experts[0]);
    assert_int_equal(tiny_attach(alone, &experts[0]), expert[1]);
    for (size_t i = 0; i < SESSIONS; i++) {
        ids[PROMPT - 1] = TINY_CONTROLS + (uint32_t)i;
        sessions[i] = tiny_session(engine, (zs_session_params){.expert = expert[i]}, ids, PROMPT, MORE + (uint32_t)i);
    }
    tiny_run(engine);
    assert_int_equal(zs_engine_get_stats(engine)->composes, 2);
    for (size_t i = 0; i < SESSIONS; i++) {
        size_t count, expected_count;
        const uint32_t *tokens = zs_session_tokens(sessions[i], &count);
        ids[PROMPT - 1] = TINY_CONTROLS + (uint32_t)i;
        zs_session *one = tiny_session(alone, (zs_session_params){.expert = expert[i]}, ids, PROMPT, MORE + (uint32_t)i);
        tiny_run(alone);
        const uint32_t *expected = zs_session_tokens(one, &expected_count);
        assert_int_equal(count, PROMPT + MORE + i);
        assert_int_equal(expected_count, count);
        assert_memory_equal(tokens, expected, count * sizeof *tokens);
        zs_session_destroy(&one);
    }
    // A session that changes expert reads its history again, but for what another one has read under that expert.
    zs_engine_reset_stats(engine);
    zs_error error;
    tiny_need(zs_session_set_expert(sessions[0], expert[1], &error), &error);
    tiny_need(zs_session_generate(sessions[0], 1, &error), &error);
    tiny_run(engine);
    assert_int_equal(zs_engine_get_stats(engine)->prefill_tokens, 1 + MORE);
    assert_int_equal(zs_engine_get_stats(engine)->composes, 0); // it was the last one's turn
    for (size_t i = 0; i < SESSIONS; i++) zs_session_destroy(&sessions[i]);
    zs_engine_destroy(&engine);
    zs_engine_destroy(&alone);
    zs_model_destroy(&model);
}

static bool change_expert(void *user, zs_session *session, uint32_t token) {
    (void)token;
    zs_error error;
    uint32_t *expert = user;
    if (!*expert) return true;
    tiny_need(zs_session_set_expert(session, *expert, &error), &error);
    *expert = 0;
    return true;
}

/// In the middle of its answer, from a callback, while steps are in flight.
static void test_changed_under_way(void **state) {
    (void)state;
    enum { PROMPT = 10, MORE = 8 };
    uint32_t ids[PROMPT + MORE];
    zs_error error;
    zs_model *model = load(ZS_PLACE_DEVICE);
    zs_engine *engine = compose(model, ZS_COMPOSED_F16);
    uint32_t expert = tiny_attach(engine, &experts[0]), wanted = expert;
    tiny_ids(ids, PROMPT, 4);
    zs_session *session = tiny_session(engine, (zs_session_params){0}, ids, PROMPT, MORE);
    tiny_need(zs_engine_run(engine, change_expert, &wanted, &error), &error);
    size_t count, made;
    const uint32_t *tokens = zs_session_tokens(session, &count);
    const float *logprobs = zs_session_logprobs(session, &made);
    assert_int_equal(made, MORE);
    assert_int_equal(zs_engine_get_stats(engine)->composes, 2);
    float scored[MORE];
    tiny_score(engine, expert, tokens, PROMPT, count, scored);
    assert_true(fabsf(scored[0] - logprobs[0]) > 1e-4f); // the base's
    for (size_t i = 1; i < MORE; i++) assert_true(fabsf(scored[i] - logprobs[i]) <= 4e-5f);
    zs_session_destroy(&session);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

static void expect_refused(zs_model *model, zs_engine_params params, const char *words) {
    zs_engine *engine = NULL;
    zs_error error;
    assert_int_equal(zs_engine_create(model, &params, &engine, &error), ZS_ERROR_ARGUMENT);
    if (!strstr(error.message, words)) fail_msg("%s", error.message);
    assert_null(engine);
}

static void test_refused(void **state) {
    (void)state;
    zs_error error;
    zs_gradient *gradient = NULL;
    zs_model *dense = tiny_load(device, dense_path), *streamed = load(ZS_PLACE_FILE), *model = NULL;
    expect_refused(dense, (zs_engine_params){.mode = ZS_MODE_COMPOSED}, "dense model");
    expect_refused(dense, (zs_engine_params){.mode = ZS_MODE_FACTORED}, "dense model");
    expect_refused(streamed, (zs_engine_params){.mode = ZS_MODE_FACTORED}, "without them");
    expect_refused(streamed, (zs_engine_params){.mode = (zs_mode)9}, "mode 9");
    expect_refused(streamed, (zs_engine_params){.mode = ZS_MODE_COMPOSED, .composed = (zs_composed_type)7}, "type 7");
    assert_int_equal(zs_gradient_create(streamed, NULL, &gradient, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "on the device"));
    assert_int_equal(zs_model_load(device, factored_path, &(zs_model_params){.factors = (zs_place)5}, &model, &error), ZS_ERROR_ARGUMENT);
    // What has no factors on the device is composed without being asked.
    zs_engine *engine = tiny_engine(streamed, (zs_engine_params){0});
    assert_string_equal(zs_engine_get_info(engine)->mode, "composed:f16");
    assert_int_equal(zs_engine_load_expert(engine, 3, &error), ZS_ERROR_ARGUMENT);
    tiny_need(zs_engine_load_expert(engine, 0, &error), &error);
    assert_int_equal(zs_engine_get_stats(engine)->composes, 1);
    // Cancelled before it begins: the old weights stay.
    uint32_t expert = tiny_attach(engine, &experts[0]);
    zs_engine_cancel(engine);
    assert_int_equal(zs_engine_load_expert(engine, expert, &error), ZS_ERROR_CANCELLED);
    zs_engine_resume(engine);
    tiny_need(zs_engine_load_expert(engine, 0, &error), &error);
    assert_int_equal(zs_engine_get_stats(engine)->composes, 1);
    zs_engine_destroy(&engine);
    zs_model_destroy(&streamed);
    zs_model_destroy(&dense);
}

static int set_up(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    tiny_files(&(tiny_model_params){.seed = 3}, dense_path, ZS_FACTOR_F16, factored_path);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_factored), cmocka_unit_test(test_like_merged),       cmocka_unit_test(test_back_and_forth),
        cmocka_unit_test(test_sessions),      cmocka_unit_test(test_changed_under_way), cmocka_unit_test(test_places),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
