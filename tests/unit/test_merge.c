// Merging: the dense file says what the factored model says under the expert; what does not fit is refused and leaves nothing behind.
#include "loader/gguf.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/merge.gguf", factored_path[] = TEST_OUTPUT "/merge-factored.gguf";
static const char merged_path[] = TEST_OUTPUT "/merge-merged.gguf", expert_path[] = TEST_OUTPUT "/merge-expert.safetensors";
static zs_device *device;

enum { COUNT = 40 };

/// log π of a fixed text, under an expert of an engine's own or none.
static void score(const char *path, const tiny_expert_params *expert, float *logprobs) {
    uint32_t ids[COUNT];
    tiny_ids(ids, COUNT, 11);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){.max_experts = 1});
    tiny_score(engine, expert ? tiny_attach(engine, expert) : 0, ids, 1, COUNT, logprobs);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

static double largest_difference(const float *a, const float *b) {
    double largest = 0;
    for (size_t i = 0; i + 1 < COUNT; i++) largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

static void merge(const char *expert, zs_merge_type type) {
    zs_error error;
    uint32_t matrices = 0;
    tiny_need(zs_merge_file(factored_path, expert, merged_path, &(zs_merge_params){.type = type, .force = true}, &matrices, &error),
              &error);
    assert_int_equal(matrices, 7 * TINY_LAYERS);
}

/// Recomposing in f32 rounds as the engine's own products do: test_engine.c's bound for one of them, twice.
static void test_experts(void **state) {
    (void)state;
    static const tiny_expert_params experts[] = {
        {.seed = 1},
        {.seed = 2, .mlp_only = true},
        {.seed = 3, .sigmoid = true, .max_mult = 2},
        {.seed = 4, .trace = true},
        {.seed = 5, .sigmoid = true, .trace = true, .spread = 2},
    };
    zs_error error;
    float base[COUNT], expected[COUNT], merged[COUNT];
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    score(factored_path, NULL, base);
    merge(NULL, ZS_MERGE_F32);
    score(merged_path, NULL, merged);
    assert_true(largest_difference(base, merged) <= 8e-5);
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        tiny_need(tiny_expert_write(&experts[i], expert_path, &error), &error);
        score(factored_path, &experts[i], expected);
        merge(expert_path, ZS_MERGE_F32);
        score(merged_path, NULL, merged);
        double difference = largest_difference(expected, merged);
        if (!(difference <= 8e-5)) fail_msg("expert %zu: off by %g", i, difference);
        assert_true(largest_difference(base, merged) > 1e-2); // the expert does something
    }
}

/// Types of four and eight bits and halves: files that load, nearer to the exact ones the more bits they have.
static void test_types(void **state) {
    (void)state;
    static const zs_merge_type types[] = {ZS_MERGE_F16, ZS_MERGE_Q8_0, ZS_MERGE_Q4_0};
    static const uint32_t stored[] = {TENSOR_F16, TENSOR_Q8_0, TENSOR_Q4_0};
    zs_error error;
    float expected[COUNT], merged[COUNT];
    double last = 0;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    tiny_need(tiny_expert_write(&(tiny_expert_params){.seed = 1}, expert_path, &error), &error);
    score(factored_path, &(tiny_expert_params){.seed = 1}, expected);
    for (size_t i = 0; i < 3; i++) {
        gguf_file file;
        uint32_t type;
        gguf_string architecture;
        merge(expert_path, types[i]);
        tiny_need(gguf_open(merged_path, &file, &error), &error);
        assert_int_equal(gguf_find_tensor(&file, "blk.1.ffn_up.weight")->type, stored[i]);
        assert_int_equal(gguf_find_tensor(&file, "blk.0.attn_norm.weight")->type, TENSOR_F32);
        assert_null(gguf_find_tensor(&file, "blk.0.ffn_up.zs_u"));
        assert_true(gguf_get_string(&file, "general.architecture", &architecture) && architecture.size == 5);
        assert_true(gguf_get_u32(&file, "general.file_type", &type) && type > 0);
        assert_null(gguf_find_value(&file, "zsigma.version"));
        gguf_close(&file);
        score(merged_path, NULL, merged);
        double difference = largest_difference(expected, merged);
        if (!(difference > last && difference < 4)) fail_msg("type %zu: off by %g after %g", i, difference, last);
        last = difference;
    }
}

static void expect_refused(const char *model, const char *expert, zs_merge_params params, zs_status expected, const char *part) {
    zs_error error = {0};
    zs_status status = zs_merge_file(model, expert, merged_path, &params, NULL, &error);
    if (status != expected || !strstr(error.message, part))
        fail_msg("expected %d '%s', got %d '%s'", expected, part, status, error.message);
}

static bool cancel(void *user, const char *what, double done, double total) {
    (void)user;
    assert_string_equal(what, "merge");
    assert_true(done > 0 && done <= total);
    return false;
}

static void test_refused(void **state) {
    (void)state;
    zs_error error;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    remove(merged_path);
    tiny_need(tiny_expert_write(&(tiny_expert_params){.seed = 1}, expert_path, &error), &error);
    expect_refused(dense_path, expert_path, (zs_merge_params){0}, ZS_ERROR_ARGUMENT, "is dense");
    expect_refused(factored_path, TEST_OUTPUT "/no-such-expert", (zs_merge_params){0}, ZS_ERROR_IO, "no-such-expert");
    expect_refused(factored_path, expert_path, (zs_merge_params){.progress = {cancel, NULL}}, ZS_ERROR_CANCELLED, "was cancelled");
    expect_refused(factored_path, expert_path, (zs_merge_params){.force = true, .progress = {cancel, NULL}}, ZS_ERROR_CANCELLED,
                   "was cancelled");
    assert_int_equal(access(merged_path, F_OK), -1);
    merge(expert_path, ZS_MERGE_F16);
    expect_refused(factored_path, expert_path, (zs_merge_params){0}, ZS_ERROR_EXISTS, "exists");

    // An expert of another model, by its sketches.
    static const char other_dense[] = TEST_OUTPUT "/merge-other.gguf", other[] = TEST_OUTPUT "/merge-other-factored.gguf";
    tiny_files(&(tiny_model_params){.seed = 5}, other_dense, ZS_FACTOR_F32, other);
    tiny_need(tiny_expert_write(&(tiny_expert_params){.seed = 1, .base = other}, expert_path, &error), &error);
    expect_refused(factored_path, expert_path, (zs_merge_params){.force = true}, ZS_ERROR_MISMATCH, "made for another model");
    tiny_need(zs_merge_file(factored_path, expert_path, merged_path, &(zs_merge_params){.force = true, .transfer = true}, NULL, &error),
              &error);

    // Matrices that are not factored.
    tiny_need(zs_factor_file(dense_path, factored_path, &(zs_factor_params){.matrices = ZS_MATRICES_MLP, .threads = 1, .force = true}, NULL,
                             &error),
              &error);
    tiny_need(tiny_expert_write(&(tiny_expert_params){.seed = 1}, expert_path, &error), &error);
    expect_refused(factored_path, expert_path, (zs_merge_params){.force = true}, ZS_ERROR_MISMATCH, "does not have in factored form");
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_experts), cmocka_unit_test(test_types), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
