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

enum { PICTURES = 6, ANSWER = 2, CONTEXT = 160, TOWER_CONTEXT = 256 }; // contexts: of two images and what is around them
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
static zs_image *picture(uint32_t number, uint32_t height) {
    enum { WIDTH = 60, HEIGHT = 40 };
    static uint8_t pixels[3 * WIDTH * HEIGHT];
    zs_image *image = NULL;
    zs_error error;
    for (uint32_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)((number % 2 ? 0 : 200) + (i * (number + 3) + number * 37) % 50);
    tiny_need(zs_image_create(pixels, WIDTH, height, &image, &error), &error);
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
        shown[i] = images[i] = picture(i, 40);
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

/// What a gradient is taken of: a model, the engine that encodes for it, and one term.
typedef struct world {
    zs_model *model;
    zs_engine *engine;
    zs_gradient *gradient;
    uint32_t *ids; // the prompt with its images
    float logprobs[ANSWER], kl[ANSWER];
    zs_gradient_item item;
} world;

static double score(world *w, const zs_expert *expert) {
    zs_error error;
    double sum = 0;
    tiny_need(zs_gradient_set_expert(w->gradient, expert, false, &error), &error);
    tiny_need(zs_gradient_score(w->gradient, &w->item, 1, &error), &error);
    for (size_t i = 0; i < ANSWER; i++) sum += (double)w->logprobs[i];
    return sum;
}

/// An expert whose values are 1 but along the signs of a matrix's gradient.
static zs_expert *step_along(const zs_model *of, const char *name, uint32_t rank, const float *values, float by) {
    static const char path[] = TEST_OUTPUT "/train-images.safetensors";
    expert_file file;
    zs_error error;
    zs_expert *expert = NULL;
    tiny_need(zs_expert_create_random(of, 1, &expert, &error), &error);
    tiny_need(zs_expert_save(expert, path, true, &error), &error);
    zs_expert_destroy(&expert);
    tiny_need(expert_file_load(path, &file, &error), &error);
    bool found = false;
    for (size_t m = 0; m < file.matrix_count; m++) {
        for (uint32_t r = 0; r < file.matrices[m].rank; r++) file.matrices[m].values[r] = 1;
        if (strcmp(file.matrices[m].name, name) != 0) continue;
        found = true;
        assert_int_equal(file.matrices[m].rank, rank);
        for (uint32_t r = 0; r < rank; r++) file.matrices[m].values[r] += values[r] < 0 ? -by : by;
    }
    assert_true(found);
    tiny_need(expert_file_save(path, true, &file, &error), &error);
    tiny_need(zs_expert_load(path, &expert, &error), &error);
    expert_file_free(&file);
    return expert;
}

/// The gradient by every matrix whose name begins with `part`, beside that of differences of log-probabilities, as f32 tells them.
static uint32_t check_differences(world *w, const char *part) {
    const float step = 1.0f / 64;
    const char *name;
    const float *values;
    uint32_t rank, checked = 0;
    for (uint32_t m = 0; zs_gradient_matrix(w->gradient, m, &name, &rank, &values); m++) {
        double along = 0;
        if (strncmp(name, part, strlen(part)) != 0) continue;
        checked++;
        for (uint32_t r = 0; r < rank; r++) along += fabs((double)values[r]);
        assert_true(along > 0);
        zs_expert *up = step_along(w->model, name, rank, values, step), *down = step_along(w->model, name, rank, values, -step);
        double difference = (score(w, up) - score(w, down)) / (2 * (double)step);
        // By f32: log-probabilities err by some 1e-5, here over 2 · step; their curvature by less than a fiftieth.
        if (!(fabs(difference - along) <= 2e-2 * along + 1e-3)) fail_msg("%s: %g, and by differences %g", name, along, difference);
        zs_expert_destroy(&up);
        zs_expert_destroy(&down);
    }
    return checked;
}

/// Encodes the prompt with the first images; the gradient is at the base model.
static void open_world(world *w, const zs_prompt *asked, const zs_gradient_params *params) {
    zs_error error;
    size_t count = 0;
    zs_gradient_params with = *params;
    with.engine = w->engine;
    tiny_need(zs_engine_encode_prompt(w->engine, asked, &w->ids, &count, &error), &error);
    assert_true(count > asked->id_count);
    w->item = (zs_gradient_item){.prompt = w->ids,
                                 .prompt_count = count,
                                 .answer = answers[0],
                                 .answer_count = ANSWER,
                                 .weight = 1,
                                 .logprobs = w->logprobs,
                                 .kl = w->kl,
                                 .images = asked->images,
                                 .image_count = asked->image_count};
    tiny_need(zs_gradient_create(w->model, &with, &w->gradient, &error), &error);
    tiny_need(zs_gradient_add(w->gradient, &w->item, 1, &error), &error);
}

/// Log-probabilities are those that the engine scores under an expert. ids: as it encoded the prompt for it.
static void check_scores(const world *w, const uint32_t *ids, uint32_t expert) {
    uint32_t all[TOWER_CONTEXT];
    float scored[ANSWER];
    size_t count = w->item.prompt_count;
    assert_true(count + ANSWER <= TOWER_CONTEXT);
    memcpy(all, ids, count * sizeof *all);
    memcpy(all + count, answers[0], sizeof answers[0]);
    tiny_score(w->engine, expert, all, count, count + ANSWER, scored);
    for (int i = 0; i < ANSWER; i++) assert_true(fabsf(scored[i] - w->logprobs[i]) <= 4e-5f); // as in test_engine.c
}

/// Log-probabilities are those that the engine scores; the gradient is that of differences of them.
static void test_gradient(void **state) {
    (void)state;
    zs_error error;
    world w = {.model = model, .engine = engine};
    open_world(&w, &(zs_prompt){.ids = prompt, .id_count = prompt_count, .images = shown, .image_count = 1}, &(zs_gradient_params){0});
    check_scores(&w, w.ids, 0);
    check_differences(&w, "");
    zs_gradient_destroy(&w.gradient);

    // Without the engine nobody knows the image's ids, and as an answer nobody may.
    tiny_need(zs_gradient_create(model, NULL, &w.gradient, &error), &error);
    assert_int_equal(zs_gradient_add(w.gradient, &w.item, 1, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "outside the vocabulary"));
    zs_gradient_destroy(&w.gradient);
    free(w.ids);
}

static const char tower_path[] = TEST_OUTPUT "/train-tower.gguf";

/// A model whose tower and projector are factored too.
static void load_tower(const char *folder, zs_model **with, zs_engine **sees) {
    zs_error error;
    const zs_factor_params factors = {
        .type = ZS_FACTOR_F32, .matrices = ZS_MATRICES_ALL | ZS_MATRICES_TOWER | ZS_MATRICES_PROJECTOR, .force = true, .threads = 1};
    tiny_need(zs_factor_file(folder, tower_path, &factors, NULL, &error), &error);
    tiny_need(zs_model_load(device, tower_path, &(zs_model_params){.chat_template = "chatml"}, with, &error), &error);
    *sees = tiny_engine(*with, (zs_engine_params){.context = TOWER_CONTEXT, .kv_tokens = TOWER_CONTEXT});
}

/// Images go through the tower in several turns where `rows` are few. expected: factored matrices of tower and projector.
static void check_tower(const char *folder, uint32_t rows, uint32_t expected) {
    zs_error error;
    world w = {0};
    zs_image *image = picture(0, 12);
    const zs_image *thin = image;
    load_tower(folder, &w.model, &w.engine);
    uint32_t *marked, *again;
    size_t marked_count, again_count;
    tiny_need(zs_model_encode_chat(w.model, &question, 1, 1, &marked, &marked_count, &error), &error);
    zs_prompt asked = {.ids = marked, .id_count = marked_count, .images = &thin, .image_count = 1};
    open_world(&w, &asked, &(zs_gradient_params){.max_rows = rows, .kl = ZS_KL_POLICY_BASE});
    for (int i = 0; i < ANSWER; i++) assert_true(fabsf(w.kl[i]) < 1e-6f);
    check_scores(&w, w.ids, 0);
    assert_int_equal(check_differences(&w, "vision.") + check_differences(&w, "projector."), expected);
    assert_true(check_differences(&w, "model.layers.0.mlp.down") == 1);

    // Under an expert that only changes the projector; the base model sees without it.
    const char *name;
    const float *values;
    uint32_t rank, id, m = 0;
    while (zs_gradient_matrix(w.gradient, m++, &name, &rank, &values) && strncmp(name, "projector.", 10) != 0) {
    }
    zs_expert *expert = step_along(w.model, name, rank, values, 0.5f);
    tiny_need(zs_engine_attach_expert(w.engine, expert, false, &id, &error), &error);
    asked.expert = id;
    tiny_need(zs_gradient_set_expert(w.gradient, expert, false, &error), &error);
    tiny_need(zs_gradient_add(w.gradient, &w.item, 1, &error), &error);
    assert_true(w.kl[0] > 1e-5f);
    tiny_need(zs_engine_encode_prompt(w.engine, &asked, &again, &again_count, &error), &error);
    check_scores(&w, again, id);
    free(again);

    // All images, or none.
    w.item.image_count--;
    tiny_need(zs_engine_encode_prompt(w.engine, &(zs_prompt){.ids = marked, .id_count = marked_count, .images = &thin, .image_count = 1},
                                      &again, &again_count, &error),
              &error);
    w.item.prompt = again;
    assert_int_equal(zs_gradient_add(w.gradient, &w.item, 1, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "needs them all"));
    zs_expert_destroy(&expert);
    zs_image_destroy(&image);
    free(marked);
    free(again);
    free(w.ids);
    zs_gradient_destroy(&w.gradient);
    zs_engine_destroy(&w.engine);
    zs_model_destroy(&w.model);
}

/// A class token, and a projector of two matrices; newlines, and turns; patches side by side, and a norm behind the last layer.
static void test_tower(void **state) {
    (void)state;
    check_tower(TEST_DATA "/golden/vision/llava-1.5", 0, 3 * 6 + 2);
    check_tower(TEST_DATA "/golden/vision/llava-next", 72, 3 * 6 + 2);
    check_tower(TEST_DATA "/golden/vision/smolvlm", 140, 3 * 6 + 1);
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

/// What tower and projector learn moves their values alone; without images they cannot learn.
static void test_tower_trained(void **state) {
    (void)state;
    zs_error error;
    zs_trainer *trainer = NULL;
    zs_model *with = NULL;
    zs_engine *sees = NULL;
    load_tower(TEST_DATA "/golden/vision/smolvlm", &with, &sees);
    zs_train_item own[PICTURES];
    uint32_t *marked, answered = 0;
    size_t marked_count;
    tiny_need(zs_model_encode_chat(with, &question, 1, 1, &marked, &marked_count, &error), &error);
    memcpy(own, items, sizeof own);
    zs_image *thin[PICTURES];
    const zs_image *thin_shown[PICTURES];
    for (uint32_t i = 0; i < PICTURES; i++) {
        thin_shown[i] = thin[i] = picture(i, 12);
        own[i].prompt = marked;
        own[i].prompt_count = marked_count;
        own[i].images = &thin_shown[i];
    }
    zs_trainer_params params = {.items = own,
                                .item_count = PICTURES,
                                .valid = own,
                                .valid_count = PICTURES,
                                .engine = sees,
                                .matrices = ZS_MATRICES_TOWER | ZS_MATRICES_PROJECTOR,
                                .batch = 2,
                                .steps = 30,
                                .learning_rate = 0.05,
                                .clip = 1,
                                .seed = 1};
    tiny_need(zs_trainer_create(with, &params, &trainer, &error), &error);
    tiny_need(zs_trainer_run(trainer, &error), &error);
    zs_trainer_info info = zs_trainer_get_info(trainer);
    zs_trainer_destroy(&trainer);
    assert_int_equal(info.matrices, 3 * 6 + 1);
    if (!(info.best_valid > info.first_valid + 1)) fail_msg("from %g to %g", info.first_valid, info.best_valid);

    params.reward = reward;
    params.reward_user = &answered;
    params.rollouts = 2;
    params.steps = 2;
    params.max_tokens = 3;
    params.valid_count = 0;
    params.kl = ZS_KL_POLICY_BASE;
    params.kl_weight = 0.1;
    tiny_need(zs_trainer_create(with, &params, &trainer, &error), &error);
    tiny_need(zs_trainer_run(trainer, &error), &error);
    zs_trainer_destroy(&trainer);
    assert_int_equal(answered, 8);

    for (uint32_t i = 0; i < PICTURES; i++) own[i].image_count = 0, own[i].prompt = answers[0], own[i].prompt_count = ANSWER;
    assert_int_equal(zs_trainer_create(with, &params, &trainer, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "there are none"));
    params.matrices = 0;
    tiny_need(zs_trainer_create(with, &params, &trainer, &error), &error);
    assert_int_equal(zs_trainer_get_info(trainer).matrices, 3 * 7);
    zs_trainer_destroy(&trainer);
    for (uint32_t i = 0; i < PICTURES; i++) zs_image_destroy(&thin[i]);
    free(marked);
    zs_engine_destroy(&sees);
    zs_model_destroy(&with);
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
        cmocka_unit_test(test_gradient),   cmocka_unit_test(test_tower),         cmocka_unit_test(test_supervised),
        cmocka_unit_test(test_reinforced), cmocka_unit_test(test_tower_trained), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
