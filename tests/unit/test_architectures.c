// Every architecture against transformers: tiny checkpoints of tests/golden/architectures.py, dense and factored, prefill and decode.
#include "support/tiny_runtime.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FOLDER TEST_DATA "/golden/architectures"

static const char factored_path[] = TEST_OUTPUT "/architectures-factored.gguf", merged_path[] = TEST_OUTPUT "/architectures-merged.gguf";
static zs_device *device;

// DESIGN.md §6: f32 weights of the same values, precision exact.
static const double bound = 1e-3;

enum { MOST = 128, CONTEXT = 128 };

typedef struct text {
    uint32_t ids[MOST];
    size_t count;
} text;

static json_t *load_expected(text *t) {
    json_error_t problem;
    json_t *root = json_load_file(FOLDER "/expected.json", 0, &problem);
    if (!root) fail_msg("%s", problem.text);
    json_t *ids = json_object_get(root, "ids");
    t->count = json_array_size(ids);
    assert_true(t->count > 1 && t->count <= MOST);
    for (size_t i = 0; i < t->count; i++) t->ids[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
    return root;
}

static zs_engine *open_engine(zs_model *model) { return tiny_engine(model, (zs_engine_params){.context = CONTEXT}); }

static void check_scores(zs_engine *engine, const char *name, const text *t, const json_t *logprobs) {
    float scored[MOST];
    double largest = 0;
    assert_int_equal(json_array_size(logprobs), t->count - 1);
    tiny_score(engine, 0, t->ids, 1, t->count, scored);
    for (size_t i = 0; i + 1 < t->count; i++)
        largest = fmax(largest, fabs((double)scored[i] - json_real_value(json_array_get(logprobs, i))));
    print_message("%s, %s: off by %.2g at most\n", name, zs_engine_get_info(engine)->mode, largest);
    if (!(largest <= bound)) fail_msg("%s, %s: off by %g", name, zs_engine_get_info(engine)->mode, largest);
}

/// What decoding finds for the tokens it chose, prefill finds for the same text. Both are close to what transformers says, so
/// twice the bound.
static void check_decode(zs_engine *engine, const char *name, const text *t) {
    enum { MORE = 20 };
    float scored[MOST];
    size_t count, logprob_count;
    zs_session *session = tiny_session(engine, (zs_session_params){0}, t->ids, t->count, MORE);
    tiny_run(engine);
    const uint32_t *tokens = zs_session_tokens(session, &count);
    const float *logprobs = zs_session_logprobs(session, &logprob_count);
    assert_true(logprob_count == MORE && count == t->count + MORE);
    tiny_score(engine, 0, tokens, t->count, count, scored);
    for (size_t i = 0; i < MORE; i++) {
        if (!(fabs((double)scored[i] - (double)logprobs[i]) <= 2 * bound))
            fail_msg("%s: token %zu is decoded at %g and scored at %g", name, i, (double)logprobs[i], (double)scored[i]);
    }
    zs_session_destroy(&session);
}

/// Returns the model's layers.
static uint32_t check_file(const char *path, const char *name, const text *t, const json_t *logprobs) {
    zs_model *model = tiny_load(device, path);
    uint32_t layers = zs_model_get_info(model)->layers;
    zs_engine *engine = open_engine(model);
    check_scores(engine, name, t, logprobs);
    check_decode(engine, name, t);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
    return layers;
}

/// Factored in all matrices or in part and put together again: rows of q, k and their biases are where GGUF files have them.
static void check_merged(const char *path, const char *name, uint32_t layers, const text *t, const json_t *logprobs) {
    static const uint32_t matrices[] = {ZS_MATRICES_ALL, ZS_MATRICES_MLP};
    static const uint32_t of_layer[] = {7, 3};
    zs_error error;
    for (size_t i = 0; i < 2; i++) {
        uint32_t count = 0;
        const zs_factor_params factors = {.type = ZS_FACTOR_F32, .matrices = matrices[i], .threads = 1, .force = true};
        tiny_need(zs_factor_file(path, factored_path, &factors, NULL, &error), &error);
        tiny_need(zs_merge_file(factored_path, NULL, merged_path, &(zs_merge_params){.type = ZS_MERGE_F32, .force = true}, &count, &error),
                  &error);
        assert_int_equal(count, layers * of_layer[i]);
        check_file(merged_path, name, t, logprobs);
    }
}

static void test_all(void **state) {
    (void)state;
    text t;
    zs_error error;
    json_t *root = load_expected(&t), *models = json_object_get(root, "logprobs"), *logprobs;
    const char *name;
    assert_int_equal(json_object_size(models), 7);
    json_object_foreach(models, name, logprobs) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "/%s", name);
        uint32_t layers = check_file(path, name, &t, logprobs);
        tiny_need(
            zs_factor_file(path, factored_path, &(zs_factor_params){.type = ZS_FACTOR_F32, .threads = 1, .force = true}, NULL, &error),
            &error);
        check_file(factored_path, name, &t, logprobs);
        check_merged(path, name, layers, &t, logprobs);
    }
    json_decref(root);
    remove(factored_path);
    remove(merged_path);
}

/// A gradient that leaves out what an architecture has would be wrong without a sign of it.
static void test_gradient_refused(void **state) {
    (void)state;
    const zs_factor_params params = {.type = ZS_FACTOR_F32, .threads = 1, .force = true};
    zs_gradient *gradient = NULL;
    zs_error error;
    tiny_need(zs_factor_file(FOLDER "/gemma3", factored_path, &params, NULL, &error), &error);
    zs_model *model = tiny_load(device, factored_path);
    assert_int_equal(zs_gradient_create(model, NULL, &gradient, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "of architecture gemma3: a gradient through norms of heads"));
    assert_null(gradient);
    zs_model_destroy(&model);
    remove(factored_path);
}

static int set_up(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all), cmocka_unit_test(test_gradient_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
