/// Images in an engine: encoded once, found again by the prefix cache, dropped when room is needed; and what is refused.
#include "engine/engine.h"
#include "support/tiny_model.h"
#include "vision/encoder_private.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FOLDER TEST_DATA "/golden/vision/llava-next"
#define TEXT "<|im_start|>user\n<image>What is in the picture?<|im_end|>\n<|im_start|>assistant\n"

typedef struct stack {
    zs_device *device;
    zs_model *model;
    zs_engine *engine;
} stack;

static void need(zs_status status, const zs_error *error) {
    if (status) fail_msg("%s", error->message);
}

static stack open_stack(const char *path, uint32_t context) {
    stack s = {0};
    zs_error error;
    need(zs_device_create(NULL, &s.device, &error), &error);
    need(zs_model_load(s.device, path, NULL, &s.model, &error), &error);
    const zs_engine_params params = {.precision = ZS_PRECISION_EXACT, .context = context, .kv_tokens = context};
    need(zs_engine_create(s.model, &params, &s.engine, &error), &error);
    return s;
}

/// The buffers of an encoder, which are what vision_encoder_bytes says.
static uint64_t encoder_size(const vision_encoder *e) {
    uint64_t bytes = e->stats.size + e->operands.size + e->pages.size + e->arrays.buffer.size;
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) bytes += e->activations[i].buffer.size;
    for (uint32_t l = 0; e->inputs && l <= e->tower->config.layers; l++) bytes += e->inputs[l].size;
    assert_int_equal(bytes, vision_encoder_bytes(e->tower, &e->params));
    return bytes;
}

static void close_stack(stack *s) {
    zs_engine_destroy(&s->engine);
    zs_model_destroy(&s->model);
    zs_device_destroy(&s->device);
}

/// A picture of one colour's shades; other numbers, other pictures.
static zs_image *picture(uint32_t number, uint32_t width, uint32_t height) {
    zs_image *image = NULL;
    zs_error error;
    uint8_t *pixels = malloc(3 * (size_t)width * height);
    for (uint32_t i = 0; i < 3 * width * height; i++) pixels[i] = (uint8_t)(i * (number + 3) + number * 37);
    need(zs_image_create(pixels, width, height, &image, &error), &error);
    free(pixels);
    return image;
}

static zs_status encode(const stack *s, const char *text, const zs_image *const *images, size_t image_count, uint32_t **ids, size_t *count,
                        zs_error *error) {
    const zs_prompt prompt = {.text = text, .length = strlen(text), .images = images, .image_count = image_count};
    return zs_engine_encode_prompt(s->engine, &prompt, ids, count, error);
}

static float score(const stack *s, const uint32_t *ids, size_t count) {
    const uint32_t answer = 253;
    float logprob;
    zs_error error;
    const zs_score_item item = {
        .prefix = ids, .prefix_count = count, .continuation = &answer, .continuation_count = 1, .logprobs = &logprob};
    need(zs_engine_score(s->engine, &item, 1, NULL, 0, &error), &error);
    return logprob;
}

static void test_kept(void **state) {
    (void)state;
    stack s = open_stack(FOLDER, 1024);
    zs_image *a = picture(1, 60, 40), *b = picture(2, 60, 40), *again = picture(1, 60, 40);
    const zs_engine_stats *stats = zs_engine_get_stats(s.engine);
    uint32_t *ids[3];
    size_t count[3];
    zs_error error;
    need(encode(&s, TEXT, (const zs_image *const[]){a}, 1, &ids[0], &count[0], &error), &error);
    need(encode(&s, TEXT, (const zs_image *const[]){b}, 1, &ids[1], &count[1], &error), &error);
    assert_int_equal(stats->images, 2);
    need(encode(&s, TEXT, (const zs_image *const[]){again}, 1, &ids[2], &count[2], &error), &error);
    assert_int_equal(stats->images, 2); // the first one's pixels
    assert_int_equal(count[0], count[1]);
    assert_int_equal(count[0], count[2]);
    assert_memory_equal(ids[0], ids[2], count[0] * sizeof **ids);
    assert_memory_not_equal(ids[0], ids[1], count[0] * sizeof **ids);
    zs_plan plan;
    const zs_plan_params planned = {.engine = {.context = 1024, .kv_tokens = 1024}};
    need(zs_plan_file(s.device, FOLDER, &planned, &plan, &error), &error);
    const image_store *store = &s.engine->images;
    uint64_t least = store->features.size + store->projected.size + encoder_size(store->encoder);
    assert_true(plan.image_bytes >= least); // for a prompt full of tiles

    float first = score(&s, ids[0], count[0]), second = score(&s, ids[1], count[1]);
    assert_true(fabsf(first - second) > 1e-3f);
    uint64_t cached = stats->cached_tokens;
    assert_true(score(&s, ids[2], count[2]) == first); // from the pages of the first
    assert_true(stats->cached_tokens > cached + KV_PAGE_TOKENS);
    zs_engine_reset_stats(s.engine);
    for (int i = 0; i < 3; i++) free(ids[i]);

    // Both in one prompt, one of them twice.
    need(encode(&s, "<image><image>b<image>", (const zs_image *const[]){a, b, again}, 3, &ids[0], &count[0], &error), &error);
    assert_int_equal(stats->images, 0);
    free(ids[0]);
    zs_image_destroy(&a);
    zs_image_destroy(&b);
    zs_image_destroy(&again);
    close_stack(&s);
}

/// What an image takes in a prompt, by its size alone.
static void test_counted(void **state) {
    (void)state;
    static const char *const folders[] = {TEST_DATA "/golden/vision/llava-1.5", FOLDER, TEST_DATA "/golden/vision/smolvlm"};
    static const uint32_t sizes[][2] = {{60, 40}, {1, 1}, {30, 200}};
    for (size_t f = 0; f < 3; f++) {
        stack s = open_stack(folders[f], 1024);
        for (uint32_t i = 0; i < 3; i++) {
            zs_image *image = picture(i, sizes[i][0], sizes[i][1]);
            uint32_t *ids, tokens = 0;
            size_t with, without;
            zs_error error;
            need(encode(&s, "<image>b", (const zs_image *const[]){image}, 1, &ids, &with, &error), &error);
            free(ids);
            need(encode(&s, "b", NULL, 0, &ids, &without, &error), &error);
            free(ids);
            need(zs_model_count_image_tokens(s.model, sizes[i][0], sizes[i][1], &tokens, &error), &error);
            assert_int_equal(tokens, with - without);
            zs_image_destroy(&image);
        }
        close_stack(&s);
    }
}

/// More pictures than there is room for: the oldest go, but not those of a live session.
static void test_dropped(void **state) {
    (void)state;
    enum { PICTURES = 6 };
    stack s = open_stack(FOLDER, 160); // two of them
    zs_image *images[PICTURES];
    uint32_t *first_ids, *ids;
    size_t first_count, count;
    zs_session *session = NULL;
    zs_error error;
    for (uint32_t i = 0; i < PICTURES; i++) images[i] = picture(i, 60, 40);
    need(encode(&s, TEXT, (const zs_image *const[]){images[0]}, 1, &first_ids, &first_count, &error), &error);
    need(zs_session_create(s.engine, NULL, &session, &error), &error);
    need(zs_session_set_prompt(session, first_ids, first_count, &error), &error);
    for (uint32_t i = 1; i < PICTURES; i++) {
        need(encode(&s, TEXT, (const zs_image *const[]){images[i]}, 1, &ids, &count, &error), &error);
        if (i < PICTURES - 1) free(ids);
    }
    assert_true(engine_knows_token(s.engine, first_ids[6]) || engine_knows_token(s.engine, first_ids[12]));
    need(zs_session_generate(session, 1, &error), &error);
    need(zs_engine_run(s.engine, NULL, NULL, &error), &error);
    zs_session_destroy(&session);

    // Without the session its picture goes too, and its ids are none any more.
    uint32_t *rest;
    free(ids);
    for (uint32_t i = 1; i < PICTURES; i++) {
        need(encode(&s, TEXT, (const zs_image *const[]){images[i]}, 1, &rest, &count, &error), &error);
        free(rest);
    }
    need(zs_session_create(s.engine, NULL, &session, &error), &error);
    assert_int_equal(zs_session_set_prompt(session, first_ids, first_count, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "of no image that is still kept"));
    zs_session_destroy(&session);
    free(first_ids);
    for (uint32_t i = 0; i < PICTURES; i++) zs_image_destroy(&images[i]);
    close_stack(&s);
}

static void test_refused(void **state) {
    (void)state;
    stack s = open_stack(FOLDER, 48);
    zs_image *image = picture(1, 60, 40);
    const zs_image *const images[] = {image};
    uint32_t *ids = NULL;
    size_t count;
    zs_error error;
    assert_int_equal(encode(&s, "no mark", images, 1, &ids, &count, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "0 image marks (<image>) for 1 image"));
    assert_int_equal(encode(&s, "<image><image>", images, 1, &ids, &count, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(encode(&s, TEXT, images, 0, &ids, &count, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(encode(&s, TEXT, images, 1, &ids, &count, &error), ZS_ERROR_CONTEXT);
    assert_non_null(strstr(error.message, "for its images, and the context holds 48"));
    assert_int_equal(zs_engine_get_stats(s.engine)->images, 0); // refused before the work
    close_stack(&s);

    need(tiny_model_write(TEST_OUTPUT "/engine-images-text.gguf", NULL, &error), &error);
    s = open_stack(TEST_OUTPUT "/engine-images-text.gguf", 64);
    assert_int_equal(encode(&s, "<image>", images, 1, &ids, &count, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "reads text alone"));
    uint32_t tokens;
    assert_int_equal(zs_model_count_image_tokens(s.model, 8, 8, &tokens, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "image tower"));
    need(encode(&s, "hello", NULL, 0, &ids, &count, &error), &error);
    assert_true(count > 0);
    free(ids);
    zs_image_destroy(&image);
    close_stack(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept), cmocka_unit_test(test_counted), cmocka_unit_test(test_dropped),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
