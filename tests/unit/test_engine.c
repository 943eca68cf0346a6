// The engine's numbers: log-probabilities of prefill, scoring and decode against the plain reference, for every weight type,
// dense and factored, under experts, alone and together, in both precisions. `test_engine gpu` has the kernels for GPUs serve, whatever
// the device is, and its matrix units where it has some.
#include "gpu/device.h"
#include "loader/model_file.h"
#include "model/model.h"
#include "support/gpu_kernels.h"
#include "support/reference_model.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/engine.gguf", factored_path[] = TEST_OUTPUT "/engine-factored.gguf";
static zs_device *device;
static bool gpu_kernels;

// Exact precision: f32 sums of at most 96 products, whose roundings walk at random: √96 · 2⁻²⁴. A row passes through 17 such
// sums (8 a layer, and the head), logits reach 8, and a log-probability is the difference of two: 2 · 8 · √(17 · 96) · 2⁻²⁴.
static const double exact_bound = 4e-5;

enum { VOCAB = TINY_VOCAB };

static zs_model *load(const char *path) {
    if (!gpu_kernels) return tiny_load(device, path);
    zs_model *model = NULL;
    zs_error error;
    tiny_need(gpu_kernels_load(device, path, NULL, &model, &error), &error);
    for (uint32_t i = 0; i < MATRIX_TYPES * OP_MATVEC_CLASSES; i++)
        model->policy.integers[i / OP_MATVEC_CLASSES][i % OP_MATVEC_CLASSES] = (op_matvec){2, 1, 2}; // which only tuning chooses
    return model;
}

/// One model to be measured: an engine and the reference of the same file.
typedef struct subject {
    zs_model *model;
    zs_engine *engine;
    reference_model *reference;
} subject;

static subject open_subject(const char *path, zs_engine_params params) {
    subject s = {.model = load(path), .reference = reference_model_open(path)};
    s.engine = tiny_engine(s.model, params);
    return s;
}

static void close_subject(subject *s) {
    reference_model_close(&s->reference);
    zs_engine_destroy(&s->engine);
    zs_model_destroy(&s->model);
}

static double largest_difference(const double *reference, const uint32_t *ids, size_t first, size_t count, const float *logprobs) {
    double largest = 0;
    for (size_t i = first; i < count; i++) largest = fmax(largest, fabs(reference[(i - 1) * VOCAB + ids[i]] - (double)logprobs[i - first]));
    return largest;
}

/// Generates greedily under an expert and scores the text: both give the reference's log-probabilities, and each token is
/// one that the reference finds likeliest.
static void check_text(const subject *s, uint32_t id, const expert_file *expert, size_t prompt, uint32_t more, double bound) {
    uint32_t ids[TINY_CONTEXT];
    float scored[TINY_CONTEXT];
    double *reference = malloc(sizeof *reference * TINY_CONTEXT * VOCAB);
    size_t count, logprob_count;
    tiny_ids(ids, prompt, prompt + more);
    zs_session *session = tiny_session(s->engine, (zs_session_params){.expert = id}, ids, prompt, more);
    tiny_run(s->engine);
    const uint32_t *tokens = zs_session_tokens(session, &count);
    const float *logprobs = zs_session_logprobs(session, &logprob_count);
    assert_int_equal(count, prompt + more);
    assert_int_equal(logprob_count, more);
    reference_model_run(s->reference, expert, tokens, (uint32_t)count, reference);
    double difference = largest_difference(reference, tokens, prompt, count, logprobs);
    if (!(difference <= bound)) fail_msg("generated after %zu: off by %g", prompt, difference);
    for (size_t i = prompt; i < count; i++) {
        const double *row = reference + (i - 1) * VOCAB;
        double best = -INFINITY;
        for (uint32_t t = 0; t < VOCAB; t++) best = fmax(best, row[t]);
        assert_true(row[tokens[i]] >= best - 2 * bound);
    }
    tiny_score(s->engine, id, tokens, 1, count, scored);
    difference = largest_difference(reference, tokens, 1, count, scored);
    if (!(difference <= bound)) fail_msg("scored: off by %g", difference);
    zs_session_destroy(&session);
    free(reference);
}

static void test_dense(void **state) {
    (void)state;
    static const uint32_t types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        tiny_files(&(tiny_model_params){.seed = i, .weight_type = types[i], .untied = i % 2}, dense_path, 0, NULL);
        subject s = open_subject(dense_path, (zs_engine_params){0});
        assert_string_equal(zs_engine_get_info(s.engine)->mode, "dense");
        check_text(&s, 0, NULL, 5, 20, exact_bound);
        close_subject(&s);
    }
}

/// The text runs through seven page boundaries, alone, and to the end of the context.
static void test_factored_to_the_end(void **state) {
    (void)state;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    subject s = open_subject(factored_path, (zs_engine_params){0});
    assert_string_equal(zs_engine_get_info(s.engine)->mode, "factored");
    check_text(&s, 0, NULL, 3, TINY_CONTEXT - 3, exact_bound);
    // f32 factors recompose W to about 1e-7 of it: the dense reference holds too.
    reference_model_close(&s.reference);
    s.reference = reference_model_open(dense_path);
    check_text(&s, 0, NULL, 3, 60, exact_bound);
    close_subject(&s);
}

static void test_experts(void **state) {
    (void)state;
    static const zs_factor_type types[] = {ZS_FACTOR_F32, ZS_FACTOR_F16, ZS_FACTOR_Q8_0};
    static const tiny_expert_params experts[] = {
        {.seed = 1},
        {.seed = 2, .mlp_only = true},
        {.seed = 3, .sigmoid = true, .max_mult = 2},
        {.seed = 4, .trace = true},
        {.seed = 5, .sigmoid = true, .trace = true, .spread = 2},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        tiny_files(&(tiny_model_params){.seed = i}, dense_path, types[i], factored_path);
        subject s = open_subject(factored_path, (zs_engine_params){0});
        check_text(&s, 0, NULL, 5, 20, exact_bound);
        for (size_t k = 0; k < sizeof experts / sizeof *experts; k++) {
            expert_file file;
            tiny_expert_make(&experts[k], &file);
            check_text(&s, tiny_attach(s.engine, &experts[k]), &file, 5 + k, 20, exact_bound);
            expert_file_free(&file);
        }
        close_subject(&s);
    }
}

/// Long prompts in steps of few rows.
static void test_prompt_in_chunks(void **state) {
    (void)state;
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    subject s = open_subject(factored_path, (zs_engine_params){.max_rows = 16});
    check_text(&s, 0, NULL, 150, 20, exact_bound);
    close_subject(&s);
}

// ---- together ------------------------------------------------------------------------------------------------------

enum { TOGETHER = 6, MORE = 40 };

/// The sessions of a batch: different prompts of different lengths, every other under its own expert.
static zs_session *batch_session(zs_engine *engine, const uint32_t *experts, size_t i) {
    uint32_t ids[64];
    size_t length = 3 + 9 * i;
    tiny_ids(ids, length, 100 + i);
    return tiny_session(engine, (zs_session_params){.expert = experts[i]}, ids, length, MORE);
}

static void check_together(bool deterministic) {
    zs_model *model = load(factored_path);
    zs_engine *together = tiny_engine(model, (zs_engine_params){.deterministic = deterministic});
    zs_engine *alone = tiny_engine(model, (zs_engine_params){.deterministic = deterministic});
    zs_session *sessions[TOGETHER];
    uint32_t experts[2][TOGETHER] = {{0}};
    for (size_t i = 0; i < TOGETHER; i++) {
        const tiny_expert_params params = {.seed = i};
        experts[0][i] = i % 2 ? tiny_attach(together, &params) : 0;
        experts[1][i] = i % 2 ? tiny_attach(alone, &params) : 0;
        sessions[i] = batch_session(together, experts[0], i);
    }
    tiny_run(together);
    for (size_t i = 0; i < TOGETHER; i++) {
        size_t count[2], logprobs[2];
        zs_session *single = batch_session(alone, experts[1], i);
        tiny_run(alone);
        const uint32_t *a = zs_session_tokens(sessions[i], &count[0]), *b = zs_session_tokens(single, &count[1]);
        const float *p = zs_session_logprobs(sessions[i], &logprobs[0]), *q = zs_session_logprobs(single, &logprobs[1]);
        assert_int_equal(count[0], count[1]);
        assert_memory_equal(a, b, count[0] * sizeof *a);
        if (deterministic) assert_memory_equal(p, q, logprobs[0] * sizeof *p);
        for (size_t k = 0; k < logprobs[0]; k++) assert_true(fabsf(p[k] - q[k]) <= (float)exact_bound);
        zs_session_destroy(&single);
    }
    // What the rows were computed under is theirs: without experts, other numbers come out.
    zs_session *base = batch_session(alone, (uint32_t[TOGETHER]){0}, 1);
    size_t count;
    tiny_run(alone);
    assert_true(fabsf(zs_session_logprobs(base, &count)[0] - zs_session_logprobs(sessions[1], &count)[0]) > 10 * (float)exact_bound);
    zs_engine_destroy(&together);
    zs_engine_destroy(&alone);
    zs_model_destroy(&model);
}

static void test_together(void **state) {
    (void)state;
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    check_together(false);
    check_together(true);
}

/// Items of one call, with prefixes and experts in common or not, give what each gives alone.
static void test_score_items(void **state) {
    (void)state;
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    zs_model *model = load(factored_path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0}), *other = tiny_engine(model, (zs_engine_params){0});
    const tiny_expert_params params = {.seed = 9};
    uint32_t expert = tiny_attach(engine, &params), ids[2][80];
    assert_int_equal(tiny_attach(other, &params), expert);
    enum { ITEMS = 90 }; // more than branches of one step
    zs_score_item items[ITEMS];
    float together[ITEMS][8], alone[8];
    zs_token_logprob top[3];
    zs_error error;
    tiny_ids(ids[0], 80, 1);
    tiny_ids(ids[1], 80, 2);
    for (size_t i = 0; i < ITEMS; i++)
        items[i] = (zs_score_item){i % 3 ? 0 : expert, ids[i % 2], 37, ids[1 - i % 2] + i % 60, 1 + i % 8, together[i]};
    tiny_need(zs_engine_score(engine, items, ITEMS, top, 3, &error), &error);
    for (size_t i = 0; i < ITEMS; i++) {
        zs_score_item item = items[i];
        item.logprobs = alone;
        tiny_need(zs_engine_score(other, &item, 1, NULL, 0, &error), &error);
        for (size_t k = 0; k < item.continuation_count; k++) assert_true(fabsf(alone[k] - together[i][k]) <= (float)exact_bound);
    }
    for (uint32_t id = 0; id < VOCAB; id++) { // top: after items[0]'s prefix
        const zs_score_item item = {items[0].expert, items[0].prefix, items[0].prefix_count, &id, 1, alone};
        tiny_need(zs_engine_score(other, &item, 1, NULL, 0, &error), &error);
        if (id == top[0].id) assert_true(fabsf(alone[0] - top[0].logprob) <= (float)exact_bound);
        if (id != top[0].id && id != top[1].id && id != top[2].id) assert_true(alone[0] <= top[2].logprob + (float)exact_bound);
    }
    assert_true(top[0].logprob >= top[1].logprob && top[1].logprob >= top[2].logprob);
    zs_engine_destroy(&engine);
    zs_engine_destroy(&other);
    zs_model_destroy(&model);
}

// ---- precision fast (DESIGN.md §6) ---------------------------------------------------------------------------------

static void check_fast(const char *path, zs_mode mode) {
    enum { PROMPTS = 4, LENGTH = 100 };
    zs_model *model = load(path);
    const zs_engine_params params = {.mode = mode, .composed = ZS_COMPOSED_F16};
    zs_engine_params faster = params;
    faster.precision = ZS_PRECISION_FAST;
    zs_engine *exact = tiny_engine(model, params), *fast = tiny_engine(model, faster);
    assert_int_equal(zs_engine_get_info(fast)->kv, ZS_KV_F16);
    assert_true(zs_engine_get_info(fast)->kv_bytes * 2 == zs_engine_get_info(exact)->kv_bytes);
    double total = 0, largest = 0;
    uint32_t same = 0;
    zs_error error;
    for (uint64_t p = 0; p < PROMPTS; p++) {
        uint32_t ids[LENGTH];
        float a[LENGTH], b[LENGTH], unused;
        tiny_ids(ids, LENGTH, 40 + p);
        tiny_score(exact, 0, ids, 1, LENGTH, a);
        tiny_score(fast, 0, ids, 1, LENGTH, b);
        for (size_t i = 0; i + 1 < LENGTH; i++) {
            zs_token_logprob top[2];
            total += fabs((double)a[i] - (double)b[i]);
            largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
            const zs_score_item item = {0, ids, i + 1, ids + i + 1, 1, &unused};
            tiny_need(zs_engine_score(exact, &item, 1, &top[0], 1, &error), &error);
            tiny_need(zs_engine_score(fast, &item, 1, &top[1], 1, &error), &error);
            same += top[0].id == top[1].id;
        }
    }
    double count = PROMPTS * (LENGTH - 1);
    if (total / count > 0.01 || largest > 0.1 || same < 0.99 * count)
        fail_msg("%s, %s: mean %g, max %g, same top token %u of %g", path, zs_engine_get_info(fast)->mode, total / count, largest, same,
                 count);
    assert_true(largest > 0); // f16 keys and values show
    zs_engine_destroy(&exact);
    zs_engine_destroy(&fast);
    zs_model_destroy(&model);
}

static void test_fast(void **state) {
    (void)state;
    tiny_files(&(tiny_model_params){.weight_type = TENSOR_Q8_0}, dense_path, ZS_FACTOR_F16, factored_path);
    check_fast(dense_path, ZS_MODE_DEFAULT);
    check_fast(factored_path, ZS_MODE_DEFAULT);
    check_fast(factored_path, ZS_MODE_COMPOSED);
}

/// Heads of 16 are refused, by name.
static void test_kv_refused(void **state) {
    (void)state;
    tiny_files(&(tiny_model_params){.weight_type = TENSOR_Q8_0}, dense_path, ZS_FACTOR_F16, factored_path);
    zs_model *model = load(dense_path);
    zs_engine *engine = NULL;
    zs_error error;
    assert_int_equal(zs_engine_create(model, &(zs_engine_params){.kv = ZS_KV_Q8_0}, &engine, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "multiple of 32"));
    assert_int_equal(zs_engine_create(model, &(zs_engine_params){.kv = (zs_kv_type)17}, &engine, &error), ZS_ERROR_ARGUMENT);
    assert_null(engine);
    zs_plan plan;
    assert_int_equal(zs_plan_file(device, dense_path, &(zs_plan_params){.engine = {.kv = ZS_KV_Q8_0}}, &plan, &error),
                     ZS_ERROR_UNSUPPORTED);
    zs_model_destroy(&model);
}

static int open_device(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    if (gpu_kernels) gpu_kernels_use(device);
    return 0;
}

static int close_device(void **state) {
    (void)state;
    zs_device_destroy(&device);
    return 0;
}

int main(int argc, char **argv) {
    gpu_kernels = argc > 1 && strcmp(argv[1], "gpu") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),    cmocka_unit_test(test_factored_to_the_end),
        cmocka_unit_test(test_experts),  cmocka_unit_test(test_prompt_in_chunks),
        cmocka_unit_test(test_together), cmocka_unit_test(test_score_items),
        cmocka_unit_test(test_fast),     cmocka_unit_test(test_kv_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
