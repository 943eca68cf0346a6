// Plans: what fits decides first, then what pays; and what a plan says is what loading takes.
#include "engine/engine.h"
#include "support/tiny_runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/plan.gguf", factored_path[] = TEST_OUTPUT "/plan-factored.gguf";

static const zs_random_model_params arch = {.arch = "smollm2-360m", .factored = true};
static const zs_random_model_params arch_q8 = {.arch = "smollm2-360m", .type = "q8_0", .factored = true};

static zs_device *device_with(uint64_t memory_limit) {
    zs_device *device = NULL;
    zs_error error;
    tiny_need(zs_device_create(&(zs_device_params){.skip_self_test = true, .memory_limit = memory_limit}, &device, &error), &error);
    return device;
}

/// A plan on a device of so many bytes (0: of what there is).
static zs_plan plan_on(uint64_t bytes, const zs_random_model_params *random, zs_plan_params params) {
    zs_plan plan;
    zs_error error;
    zs_device *device = device_with(bytes);
    params.engine.context = 512;
    tiny_need(zs_plan_random(device, random, &params, &plan, &error), &error);
    assert_true(plan.reason_count > 0);
    assert_int_equal(plan.device_bytes, plan.weight_bytes + plan.factor_bytes + plan.composed_bytes + plan.expert_bytes + plan.kv_bytes +
                                            plan.workspace_bytes);
    assert_int_equal(plan.image_bytes, 0);
    assert_int_equal(plan.fits, plan.device_bytes <= plan.free_bytes);
    zs_device_destroy(&device);
    return plan;
}

/// What a choice needs.
static uint64_t bytes_of(const zs_random_model_params *random, zs_mode mode, zs_composed_type type, zs_place factors) {
    return plan_on(0, random, (zs_plan_params){.engine = {.mode = mode, .composed = type}, .factors = factors}).device_bytes;
}

static void expect_plan(size_t row, const zs_plan *plan, const char *mode, zs_place factors, bool fits) {
    if (strcmp(plan->mode_name, mode) != 0 || plan->factors != factors || plan->fits != fits)
        fail_msg("row %zu: %s, factors in place %u, %s", row, plan->mode_name, (unsigned)plan->factors,
                 plan->fits ? "fits" : "does not fit");
}

/// Just enough memory for a choice, and a byte less: then it is the next one. What is asked for is kept to, whatever fits. On these
/// drivers device memory is the host's, so that no plan moves factors to host memory by itself.
static void test_memory_decides(void **state) {
    (void)state;
    const uint64_t factored = bytes_of(&arch, ZS_MODE_FACTORED, 0, ZS_PLACE_DEVICE),
                   both = bytes_of(&arch, ZS_MODE_COMPOSED, ZS_COMPOSED_F16, ZS_PLACE_DEVICE),
                   f16 = bytes_of(&arch, ZS_MODE_COMPOSED, ZS_COMPOSED_F16, ZS_PLACE_FILE),
                   q8 = bytes_of(&arch, ZS_MODE_COMPOSED, ZS_COMPOSED_Q8_0, ZS_PLACE_FILE),
                   q4 = bytes_of(&arch, ZS_MODE_COMPOSED, ZS_COMPOSED_Q4_0, ZS_PLACE_FILE);
    assert_true(both > factored && factored > f16 && f16 > q8 && q8 > q4);
    const zs_plan_params any = {.tokens = 1}, endless = {.tokens = UINT32_MAX}, composed = {.engine = {.mode = ZS_MODE_COMPOSED}},
                         in_file = {.engine = {.mode = ZS_MODE_COMPOSED}, .factors = ZS_PLACE_FILE},
                         in_host = {.engine = {.mode = ZS_MODE_COMPOSED}, .factors = ZS_PLACE_HOST},
                         as_f16 = {.engine = {.mode = ZS_MODE_COMPOSED, .composed = ZS_COMPOSED_F16}},
                         as_q4 = {.engine = {.mode = ZS_MODE_COMPOSED, .composed = ZS_COMPOSED_Q4_0}},
                         as_factors = {.engine = {.mode = ZS_MODE_FACTORED}};
    const struct {
        uint64_t bytes;
        const zs_plan_params *params;
        const char *mode;
        zs_place factors;
        bool fits;
    } table[] = {
        {both, &any, "factored", ZS_PLACE_DEVICE, true},           {both, &endless, "composed:f16", ZS_PLACE_DEVICE, true},
        {both - 1, &endless, "factored", ZS_PLACE_DEVICE, true},   {factored, &any, "factored", ZS_PLACE_DEVICE, true},
        {factored - 1, &any, "composed:f16", ZS_PLACE_FILE, true}, {f16, &any, "composed:f16", ZS_PLACE_FILE, true},
        {f16 - 1, &any, "composed:q8_0", ZS_PLACE_FILE, true},     {q8 - 1, &any, "composed:q4_0", ZS_PLACE_FILE, true},
        {q4, &any, "composed:q4_0", ZS_PLACE_FILE, true},          {q4 - 1, &any, "composed:q4_0", ZS_PLACE_FILE, false},
        {both, &composed, "composed:f16", ZS_PLACE_DEVICE, true},  {both - 1, &composed, "composed:f16", ZS_PLACE_FILE, true},
        {both, &in_file, "composed:f16", ZS_PLACE_FILE, true},     {q8, &in_file, "composed:q8_0", ZS_PLACE_FILE, true},
        {f16, &in_host, "composed:f16", ZS_PLACE_HOST, true},      {both, &as_q4, "composed:q4_0", ZS_PLACE_DEVICE, true},
        {q4, &as_q4, "composed:q4_0", ZS_PLACE_FILE, true},        {q8, &as_f16, "composed:f16", ZS_PLACE_FILE, false},
        {f16, &as_factors, "factored", ZS_PLACE_DEVICE, false},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        zs_plan plan = plan_on(table[i].bytes, &arch, *table[i].params);
        assert_int_equal(plan.free_bytes, table[i].bytes);
        expect_plan(i, &plan, table[i].mode, table[i].factors, table[i].fits);
    }
}

/// Factors of 8 bits lose nothing in composed weights of 8 bits.
static void test_types(void **state) {
    (void)state;
    zs_plan plan = plan_on(0, &arch_q8, (zs_plan_params){.engine = {.mode = ZS_MODE_COMPOSED}});
    expect_plan(0, &plan, "composed:q8_0", ZS_PLACE_DEVICE, true);
    plan = plan_on(0, &arch_q8, (zs_plan_params){.engine = {.mode = ZS_MODE_COMPOSED, .composed = ZS_COMPOSED_F16}});
    expect_plan(1, &plan, "composed:f16", ZS_PLACE_DEVICE, true);
    assert_true(plan.break_even_tokens == 0); // more bytes than the factors have
    zs_random_model_params dense = arch;
    dense.factored = false;
    plan = plan_on(0, &dense, (zs_plan_params){0});
    assert_string_equal(plan.mode_name, "dense");
    assert_int_equal(plan.factor_bytes + plan.composed_bytes + plan.expert_bytes + plan.host_bytes + plan.file_bytes, 0);
}

/// Where it breaks even, the choice turns.
static void test_tokens_decide(void **state) {
    (void)state;
    zs_plan plan = plan_on(0, &arch, (zs_plan_params){.tokens = 1});
    assert_true(plan.break_even_tokens > 1 && plan.compose_flops > 1e11);
    uint32_t turn = (uint32_t)(2 * plan.break_even_tokens); // two passes
    plan = plan_on(0, &arch, (zs_plan_params){.tokens = turn - 1});
    expect_plan(0, &plan, "factored", ZS_PLACE_DEVICE, true);
    plan = plan_on(0, &arch, (zs_plan_params){.tokens = turn + 1});
    expect_plan(1, &plan, "composed:f16", ZS_PLACE_DEVICE, true);
}

/// What a plan promises, loading takes; under a limit of just that, it loads and answers.
static void test_plans_are_kept(void **state) {
    (void)state;
    static const zs_place places[] = {ZS_PLACE_DEVICE, ZS_PLACE_HOST, ZS_PLACE_FILE};
    zs_error error;
    for (size_t i = 0; i < 6; i++) {
        zs_plan_params params = {.factors = places[i % 3]};
        params.engine = (zs_engine_params){.mode = i == 0 ? ZS_MODE_FACTORED : ZS_MODE_COMPOSED,
                                           .composed = i < 3 ? ZS_COMPOSED_F16 : ZS_COMPOSED_Q4_0,
                                           .precision = ZS_PRECISION_EXACT};
        zs_device *device = device_with(0);
        zs_plan plan;
        zs_model *model = NULL;
        zs_engine *engine = NULL;
        tiny_need(zs_plan_file(device, factored_path, &params, &plan, &error), &error);
        tiny_need(zs_model_load(device, factored_path, &(zs_model_params){.factors = plan.factors}, &model, &error), &error);
        params.engine.mode = plan.mode;
        params.engine.composed = plan.composed;
        tiny_need(zs_engine_create(model, &params.engine, &engine, &error), &error);
        const zs_engine_info *info = zs_engine_get_info(engine);
        assert_string_equal(info->mode, plan.mode_name);
        assert_int_equal(info->kv_bytes, plan.kv_bytes);
        assert_int_equal(info->workspace_bytes + info->composed_bytes, plan.workspace_bytes + plan.composed_bytes);
        assert_int_equal(zs_model_get_info(model)->weight_bytes, plan.weight_bytes + plan.factor_bytes);
        // Buffers are aligned, and some tables are too small to be planned.
        uint64_t used = gpu_device_memory_used(device);
        assert_true(used >= plan.device_bytes && used < plan.device_bytes + (plan.device_bytes >> 3) + (1 << 20));
        uint32_t ids[20];
        float logprobs[20];
        tiny_ids(ids, 20, 1);
        tiny_score(engine, 0, ids, 1, 20, logprobs);
        zs_engine_destroy(&engine);
        zs_model_destroy(&model);
        zs_device_destroy(&device);
    }
}

static void test_refused(void **state) {
    (void)state;
    zs_device *device = device_with(0);
    zs_plan plan;
    zs_error error;
    zs_plan_params params = {.engine = {.mode = ZS_MODE_COMPOSED}};
    assert_int_equal(zs_plan_file(device, dense_path, &params, &plan, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "dense model"));
    params = (zs_plan_params){.engine = {.mode = ZS_MODE_FACTORED}, .factors = ZS_PLACE_FILE};
    assert_int_equal(zs_plan_file(device, factored_path, &params, &plan, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(zs_plan_file(device, TEST_OUTPUT "/no such file", NULL, &plan, &error), ZS_ERROR_IO);
    assert_int_equal(zs_plan_random(device, &(zs_random_model_params){.arch = "gpt5"}, NULL, &plan, &error), ZS_ERROR_ARGUMENT);
    zs_device_destroy(&device);
}

static int set_up(void **state) {
    (void)state;
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_decides), cmocka_unit_test(test_types),   cmocka_unit_test(test_tokens_decide),
        cmocka_unit_test(test_plans_are_kept), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
