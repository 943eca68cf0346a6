// Learning about images: gradients through a prompt with an image, and trainings whose images do not fit into the engine together.
#include "engine/engine.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PICTURES = 6, ANSWER = 2, CONTEXT = 160 }; // of two images and what is around them
static const char factored_path[] = TEST_OUTPUT "/train-images.gguf";
static const zs_message question = {"user", "What is in the picture?"};
static const uint32_t answers[2][ANSWER] = {{251, 7}, {33, 254}};
static zs_device *device;
static zs_model *model;
static zs_engine *engine;
static zs_image *images[PICTURES];
static const zs_image *shown[PICTURES];
static zs_train_item items[PICTURES];
static uint32_t *prompt;
static size_t prompt_count;

/// Every second picture is dark, and is answered differently.
static zs_image *picture(uint32_t number) {
    enum { WIDTH = 60, HEIGHT = 40 };
    static uint8_t pixels[3 * WIDTH * HEIGHT];
    zs_image *image = NULL;
    zs_error error;
    for (uint32_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)((number % 2 ? 0 : 200) + (i * (number + 3) + number * 37) % 50);
    tiny_need(zs_image_create(pixels, WIDTH, HEIGHT, &image, &error), &error);
    return image;
}

static int setup(void **state) {
    (void)state;
    zs_error error;
    const zs_factor_params factors = {.type = ZS_FACTOR_F32, .matrices = ZS_MATRICES_ALL, .force = true, .threads = 1};
    tiny_need(zs_factor_file(TEST_DATA "/golden/vision/llava-next", factored_path, &factors, NULL, &error), &error);
    device = tiny_device((zs_log){0});
    tiny_need(zs_model_load(device, factored_path, &(zs_model_params){.chat_template = "chatml"}, &model, &error), &error);
    engine = tiny_engine(model, (zs_engine_params){.context = CONTEXT, .kv_tokens = CONTEXT});
    tiny_need(zs_model_encode_chat(model, &question, 1, 1, &prompt, &prompt_count, &error), &error);
    for (uint32_t i = 0; i < PICTURES; i++) {
        shown[i] = images[i] = picture(i);
        items[i] = (zs_train_item){.prompt = prompt,
                                   .prompt_count = prompt_count,
                                   .answer = answers[i % 2],
                                   .answer_count = ANSWER,
                                   .images = &shown[i],
                                   .image_count = 1};
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (uint32_t i = 0; i < PICTURES; i++) zs_image_destroy(&images[i]);
    free(prompt);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return 0;
}

// ---- the gradient --------------------------------------------------------------------------------------------------

static double score(zs_gradient *gradient, const zs_gradient_item *item, const zs_expert *expert) {
    zs_error error;
    double sum = 0;
    tiny_need(zs_gradient_set_expert(gradient, expert, false, &error), &error);
    tiny_need(zs_gradient_score(gradient, item, 1, &error), &error);
    for (size_t i = 0; i < item->answer_count; i++) sum += (double)item->logprobs[i];
    return sum;
}

/// An expert whose values are 1 but along the signs of a matrix's gradient.
static zs_expert *step_along(const char *name, uint32_t rank, const float *values, float by) {
    static const char path[] = TEST_OUTPUT "/train-images.safetensors";
    expert_file file;
    zs_error error;
    zs_expert *expert = NULL;
    tiny_need(zs_expert_create_random(model, 1, &expert, &error), &error);
    tiny_need(zs_expert_save(expert, path, true, &error), &error);
    zs_expert_destroy(&expert);
    tiny_need(expert_file_load(path, &file, &error), &error);
    for (size_t m = 0; m < file.matrix_count; m++) {
        for (uint32_t r = 0; r < file.matrices[m].rank; r++) file.matrices[m].values[r] = 1;
        if (strcmp(file.matrices[m].name, name) != 0) continue;
        assert_int_equal(file.matrices[m].rank, rank);
        for (uint32_t r = 0; r < rank; r++) file.matrices[m].values[r] += values[r] < 0 ? -by : by;
    }
    tiny_need(expert_file_save(path, true, &file, &error), &error);
    tiny_need(zs_expert_load(path, &expert, &error), &error);
    expert_file_free(&file);
    return expert;
}

/// Log-probabilities are those that the engine scores; the gradient is that of differences of them, as f32 tells them.
static void test_gradient(void **state) {
    (void)state;
    const float step = 1.0f / 64;
    zs_error error;
    zs_gradient *gradient = NULL;
    uint32_t *ids = NULL;
    size_t count = 0;
    float logprobs[ANSWER], scored[ANSWER];
    const zs_prompt asked = {.ids = prompt, .id_count = prompt_count, .images = shown, .image_count = 1};
    tiny_need(zs_engine_encode_prompt(engine, &asked, &ids, &count, &error), &error);
    assert_true(count > prompt_count);
    const zs_gradient_item item = {
        .prompt = ids, .prompt_count = count, .answer = answers[0], .answer_count = ANSWER, .weight = 1, .logprobs = logprobs};
    tiny_need(zs_gradient_create(model, &(zs_gradient_params){.engine = engine}, &gradient, &error), &error);
    tiny_need(zs_gradient_add(gradient, &item, 1, &error), &error);
    const zs_score_item told = {
        .prefix = ids, .prefix_count = count, .continuation = answers[0], .continuation_count = ANSWER, .logprobs = scored};
    tiny_need(zs_engine_score(engine, &told, 1, NULL, 0, &error), &error);
    for (int i = 0; i < ANSWER; i++) assert_true(fabsf(scored[i] - logprobs[i]) <= 4e-5f); // as in test_engine.c

    const char *name;
    const float *values;
    uint32_t rank;
    for (uint32_t m = 0; zs_gradient_matrix(gradient, m, &name, &rank, &values); m++) {
        double along = 0;
        for (uint32_t r = 0; r < rank; r++) along += fabs((double)values[r]);
        assert_true(along > 0);
        zs_expert *up = step_along(name, rank, values, step), *down = step_along(name, rank, values, -step);
        double difference = (score(gradient, &item, up) - score(gradient, &item, down)) / (2 * (double)step);
        // By f32: log-probabilities err by some 1e-5, here over 2 · step; their curvature by less than a fiftieth.
        if (!(fabs(difference - along) <= 2e-2 * along + 1e-3)) fail_msg("%s: %g, and by differences %g", name, along, difference);
        zs_expert_destroy(&up);
        zs_expert_destroy(&down);
    }
    zs_gradient_destroy(&gradient);

    // Without the engine nobody knows the image's ids, and as an answer nobody may.
    tiny_need(zs_gradient_create(model, NULL, &gradient, &error), &error);
    assert_int_equal(zs_gradient_add(gradient, &item, 1, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "outside the vocabulary"));
    zs_gradient_destroy(&gradient);
    free(ids);
}

// ---- training ------------------------------------------------------------------------------------------------------

static zs_trainer_info train(const zs_trainer_params *params) {
    zs_error error;
    zs_trainer *trainer = NULL;
    tiny_need(zs_trainer_create(model, params, &trainer, &error), &error);
    tiny_need(zs_trainer_run(trainer, &error), &error);
    zs_trainer_info info = zs_trainer_get_info(trainer);
    zs_trainer_destroy(&trainer);
    return info;
}

static zs_trainer_info learn(const zs_train_item *from) {
    return train(&(zs_trainer_params){.items = from,
                                      .item_count = 4,
                                      .valid = from + 4,
                                      .valid_count = 2,
                                      .engine = engine,
                                      .batch = 2,
                                      .steps = 60,
                                      .learning_rate = 0.05,
                                      .clip = 1,
                                      .valid_every = 10,
                                      .seed = 1});
}

/// Dark pictures are told from light ones: what is learnt is more than where the same picture stands for all.
static void test_supervised(void **state) {
    (void)state;
    zs_train_item blind[PICTURES];
    memcpy(blind, items, sizeof blind);
    for (uint32_t i = 0; i < PICTURES; i++) blind[i].images = shown;
    zs_trainer_info seen = learn(items), not_seen = learn(blind);
    if (!(seen.best_valid > seen.first_valid + 3 && seen.best_valid > not_seen.best_valid + 0.3))
        fail_msg("from %g to %g, and blind from %g to %g", seen.first_valid, seen.best_valid, not_seen.first_valid, not_seen.best_valid);
    assert_true(zs_engine_get_stats(engine)->images > PICTURES); // some made room and came back
}

static zs_status reward(void *user, bool valid, size_t item, const char *answer, double *value, zs_error *error) {
    (void)valid;
    (void)item;
    (void)answer;
    (void)error;
    ++*(uint32_t *)user;
    *value = *(uint32_t *)user % 2;
    return ZS_OK;
}

static void test_reinforced(void **state) {
    (void)state;
    uint32_t answered = 0;
    const zs_trainer_params params = {.items = items,
                                      .item_count = PICTURES,
                                      .reward = reward,
                                      .reward_user = &answered,
                                      .engine = engine,
                                      .batch = 2,
                                      .rollouts = 2,
                                      .steps = 3,
                                      .max_tokens = 3,
                                      .kl = ZS_KL_POLICY_BASE,
                                      .kl_weight = 0.1};
    zs_trainer_info info = train(&params);
    assert_int_equal(info.step, 3);
    assert_int_equal(answered, 12);
}

static void test_refused(void **state) {
    (void)state;
    zs_error error;
    zs_trainer *trainer = NULL;
    zs_trainer_params params = {.items = items, .item_count = PICTURES, .batch = PICTURES, .steps = 1};
    assert_int_equal(zs_trainer_create(model, &params, &trainer, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "need an engine"));
    params.engine = engine;
    params.deterministic = true;
    assert_int_equal(zs_trainer_create(model, &params, &trainer, &error), ZS_ERROR_UNSUPPORTED);
    // All at once they do not fit.
    params.deterministic = false;
    tiny_need(zs_trainer_create(model, &params, &trainer, &error), &error);
    assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_CONTEXT);
    assert_non_null(strstr(error.message, "take fewer items in a step"));
    zs_trainer_destroy(&trainer);

    uint32_t *ids;
    size_t count;
    assert_int_equal(zs_model_encode_chat(model, &question, 0, 1, &ids, &count, &error), ZS_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_supervised),
        cmocka_unit_test(test_reinforced),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
