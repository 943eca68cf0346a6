// Preprocessing and prompts of images against transformers: the tiny checkpoints of tests/golden/vision.
#include "vision/image_prompt.h"

#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#define FOLDER TEST_DATA "/golden/vision/"

static json_t *read_golden(const char *family) {
    char path[512];
    json_error_t problem;
    snprintf(path, sizeof path, FOLDER "%s-golden.json", family);
    json_t *root = json_load_file(path, 0, &problem);
    if (!root) fail_msg("%s: %s", path, problem.text);
    return root;
}

static double number(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }
static size_t count(const json_t *row, const char *key) { return (size_t)json_integer_value(json_object_get(row, key)); }

static void load_image(const char *name, zs_image **image) {
    char path[512];
    zs_error error = {0};
    snprintf(path, sizeof path, FOLDER "images/%s.png", name);
    tiny_need(zs_image_load(path, image, &error), &error);
}

/// transformers' two back ends differ by up to 2.3e-5 of the absolute sum (tests/golden/vision/README.md).
static void check_pixels(const json_t *row, const char *family, const image_tiles *tiles) {
    const double bar = 1e-4;
    size_t values = (size_t)tiles->count * 3 * tiles->side * tiles->side, expected = 1;
    size_t index;
    json_t *side;
    json_array_foreach(json_object_get(row, "pixel_shape"), index, side) expected *= (size_t)json_integer_value(side);
    assert_int_equal(values, expected);
    double sum = 0, absolute = 0, weighted = 0;
    for (size_t i = 0; i < values; i++) {
        double p = tiles->pixels[i];
        sum += p;
        absolute += fabs(p);
        weighted += p * fmod((double)i * 0.6180339887498949, 1.0);
    }
    const char *image = json_string_value(json_object_get(row, "image"));
    double whole = number(row, "pixel_abs_sum"), off = fabs(weighted - number(row, "pixel_weighted_sum")) / whole;
    print_message("%-10s %-8s weighted sum off by %.1e of the absolute sum\n", family, image, off);
    if (off > bar) fail_msg("%s %s: weighted sum of pixels %g is not %g", family, image, weighted, number(row, "pixel_weighted_sum"));
    assert_true(fabs(sum - number(row, "pixel_sum")) <= bar * whole);
    assert_true(fabs(absolute - whole) <= bar * whole);
}

static uint32_t image_token(const zs_tokenizer *tokenizer) {
    uint32_t *ids = NULL;
    size_t ids_count = 0;
    zs_error error = {0};
    tiny_need(zs_tokenizer_encode(tokenizer, IMAGE_MARK, strlen(IMAGE_MARK), true, &ids, &ids_count, &error), &error);
    assert_int_equal(ids_count, 1);
    uint32_t id = ids[0];
    free(ids);
    return id;
}

/// The prompt's ids with and without the image tokens, and slots that count up over them.
static void check_prompt(const json_t *row, const image_config *config, const zs_tokenizer *tokenizer, const image_tiles *tiles) {
    zs_error error = {0};
    image_prompt prompt;
    const char *text = json_string_value(json_object_get(row, "prompt"));
    const json_t *compact = json_object_get(row, "prompt_ids_compact");
    uint32_t token = image_token(tokenizer), next = 0;
    size_t plain = 0;
    tiny_need(image_prompt_encode(tokenizer, config->family, token, text, strlen(text), tiles, 1, &prompt, &error), &error);
    assert_int_equal(prompt.count, count(row, "n_prompt_tokens"));
    assert_int_equal(prompt.image_tokens, count(row, "n_image_tokens"));
    assert_int_equal(prompt.image_tokens, tiles->token_count);
    for (uint32_t i = 0; i < prompt.count; i++) {
        if (prompt.ids[i] == token) {
            assert_int_equal(prompt.slots[i], next++);
        } else {
            assert_int_equal(prompt.slots[i], IMAGE_PROMPT_TEXT);
            assert_int_equal(prompt.ids[i], json_integer_value(json_array_get(compact, plain++)));
        }
    }
    assert_int_equal(next, prompt.image_tokens);
    assert_int_equal(plain, json_array_size(compact));
    image_prompt_free(&prompt);
}

static void check_family(const char *family) {
    char folder[512];
    zs_error error = {0};
    image_config config;
    zs_tokenizer *tokenizer = NULL;
    snprintf(folder, sizeof folder, FOLDER "%s", family);
    tiny_need(image_config_read_folder(folder, &config, &error), &error);
    tiny_need(zs_tokenizer_load(folder, &tokenizer, &error), &error);
    json_t *rows = read_golden(family), *row;
    assert_int_equal(json_array_size(rows), 8);
    size_t index;
    json_array_foreach(rows, index, row) {
        zs_image *image = NULL;
        image_tiles tiles;
        load_image(json_string_value(json_object_get(row, "image")), &image);
        tiny_need(image_tiles_make(&config, image, &tiles, &error), &error);
        check_pixels(row, family, &tiles);
        check_prompt(row, &config, tokenizer, &tiles);
        image_tiles_free(&tiles);
        zs_image_destroy(&image);
    }
    json_decref(rows);
    zs_tokenizer_destroy(&tokenizer);
}

static void test_llava(void **state) {
    (void)state;
    check_family("llava-1.5");
}

static void test_llava_next(void **state) {
    (void)state;
    check_family("llava-next");
}

static void test_smolvlm(void **state) {
    (void)state;
    check_family("smolvlm");
}

/// Nothing of a flat image is left after unpadding: the whole image's 16 tokens remain.
static void test_no_rows(void **state) {
    (void)state;
    zs_error error = {0};
    image_config config;
    image_tiles tiles;
    tiny_need(image_config_read_folder(FOLDER "llava-next", &config, &error), &error);
    tiny_need(image_tiles_plan(&config, 2, 800, &tiles, &error), &error);
    assert_int_equal(tiles.token_count, 16);
    assert_int_equal(tiles.count, 3);
    for (uint32_t i = 0; i < 16; i++) assert_int_equal(tiles.tokens[i], i);
    image_tiles_free(&tiles);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llava),
        cmocka_unit_test(test_llava_next),
        cmocka_unit_test(test_smolvlm),
        cmocka_unit_test(test_no_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
