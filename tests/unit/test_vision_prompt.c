// Prompts with images: marks and images one to one, with and without a token for the mark, tags of Idefics3.
#include "vision/image_prompt.h"

#include "loader/tokenizer.h"
#include "support/tiny_runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FOLDER TEST_DATA "/golden/vision/"

static zs_tokenizer *load_tokenizer(const char *path) {
    zs_tokenizer *tokenizer = NULL;
    zs_error error = {0};
    tiny_need(zs_tokenizer_load(path, &tokenizer, &error), &error);
    return tokenizer;
}

static image_tiles plan(const char *family, uint32_t height, uint32_t width, image_config *config) {
    char folder[256];
    image_tiles tiles;
    zs_error error = {0};
    snprintf(folder, sizeof folder, FOLDER "%s", family);
    tiny_need(image_config_read_folder(folder, config, &error), &error);
    tiny_need(image_tiles_plan(config, height, width, &tiles, &error), &error);
    return tiles;
}

/// The ids of parts of a text, one behind the other; 'I' stands for the image token, as often as the following number says.
static void expect_parts(const zs_tokenizer *tokenizer, const image_prompt *prompt, uint32_t image_token, const char *const *parts) {
    size_t at = 0;
    uint32_t slot = 0;
    zs_error error = {0};
    for (; *parts; parts++) {
        if (strncmp(*parts, "I ", 2) == 0) {
            for (int i = atoi(*parts + 2); i > 0; i--, at++) {
                assert_true(at < prompt->count);
                assert_int_equal(prompt->ids[at], image_token);
                assert_int_equal(prompt->slots[at], slot++);
            }
            continue;
        }
        uint32_t *ids = NULL;
        size_t count = 0;
        tiny_need(zs_tokenizer_encode(tokenizer, *parts, strlen(*parts), true, &ids, &count, &error), &error);
        for (size_t i = 0; i < count; i++, at++) {
            assert_true(at < prompt->count);
            assert_int_equal(prompt->ids[at], ids[i]);
            assert_int_equal(prompt->slots[at], IMAGE_PROMPT_TEXT);
        }
        free(ids);
    }
    assert_int_equal(at, prompt->count);
    assert_int_equal(slot, prompt->image_tokens);
}

static void test_two_images(void **state) {
    (void)state;
    static const char text[] = "<|im_start|>one <image> and<image><image>, three<|im_end|>";
    static const char *const parts[] = {"<|im_start|>one ", "I 36", " and", "I 16", "I 56", ", three<|im_end|>", NULL};
    zs_tokenizer *tokenizer = load_tokenizer(FOLDER "llava-next");
    image_config config;
    image_tiles images[3] = {plan("llava-next", 56, 56, &config), plan("llava-next", 2, 800, &config), plan("llava-next", 97, 41, &config)};
    image_prompt prompt;
    zs_error error = {0};
    uint32_t token;
    assert_true(tokenizer_find_special(tokenizer, IMAGE_MARK, &token));
    tiny_need(image_prompt_encode(tokenizer, config.family, token, text, strlen(text), images, 3, &prompt, &error), &error);
    expect_parts(tokenizer, &prompt, token, parts);
    image_prompt_free(&prompt);
    for (int i = 0; i < 3; i++) image_tiles_free(&images[i]);
    zs_tokenizer_destroy(&tokenizer);
}

/// An image that is not split is one view; the golden prompts have those that are.
static void test_one_view(void **state) {
    (void)state;
    static const char text[] = "See <image>";
    static const char *const parts[] = {"See <fake_token_around_image><global-img>", "I 16", "<fake_token_around_image>", NULL};
    zs_tokenizer *tokenizer = load_tokenizer(FOLDER "smolvlm");
    image_config config;
    image_tiles tiles = plan("smolvlm", 20, 20, &config);
    image_prompt prompt;
    zs_error error = {0};
    uint32_t token;
    image_tiles_free(&tiles);
    config.split = false;
    tiny_need(image_tiles_plan(&config, 20, 20, &tiles, &error), &error);
    assert_true(tokenizer_find_special(tokenizer, IMAGE_MARK, &token));
    tiny_need(image_prompt_encode(tokenizer, config.family, token, text, strlen(text), &tiles, 1, &prompt, &error), &error);
    expect_parts(tokenizer, &prompt, token, parts);
    image_prompt_free(&prompt);
    image_tiles_free(&tiles);
    zs_tokenizer_destroy(&tokenizer);
}

/// A vocabulary without the mark: texts on both sides of it are tokenised by themselves.
static void test_unknown_mark(void **state) {
    (void)state;
    static const char model[] = TEST_OUTPUT "/vision_prompt.gguf";
    static const char text[] = "<image>the image <image>";
    static const char *const parts[] = {"I 16", "the image ", "I 16", NULL};
    zs_error error = {0};
    tiny_need(tiny_model_write(model, NULL, &error), &error);
    zs_tokenizer *tokenizer = load_tokenizer(model);
    image_config config;
    image_tiles images[2] = {plan("llava-1.5", 9, 5, &config), plan("llava-1.5", 5, 5, &config)};
    image_prompt prompt;
    tiny_need(image_prompt_encode(tokenizer, config.family, TINY_ENDOFTEXT, text, strlen(text), images, 2, &prompt, &error), &error);
    expect_parts(tokenizer, &prompt, TINY_ENDOFTEXT, parts);
    image_prompt_free(&prompt);
    assert_int_equal(image_prompt_encode(tokenizer, config.family, TINY_ENDOFTEXT, "<image", 6, images, 1, &prompt, &error),
                     ZS_ERROR_ARGUMENT);
    for (int i = 0; i < 2; i++) image_tiles_free(&images[i]);
    zs_tokenizer_destroy(&tokenizer);
}

static void test_counts(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t images;
        const char *message;
    } cases[] = {
        {"no mark", 1, "0 image marks (<image>) for 1 image"}, {"<image><image>", 1, "2 image marks (<image>) for 1 image"},
        {"<image>", 2, "1 image mark (<image>) for 2 images"}, {"<image>", 0, "1 image mark (<image>) for 0 images"},
        {"", 2, "0 image marks (<image>) for 2 images"},
    };
    zs_tokenizer *tokenizer = load_tokenizer(FOLDER "llava-1.5");
    image_config config;
    image_tiles tiles = plan("llava-1.5", 9, 5, &config);
    const image_tiles images[2] = {tiles, tiles};
    uint32_t token;
    assert_true(tokenizer_find_special(tokenizer, IMAGE_MARK, &token));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint32_t tokens[] = {token, token, 7, 8}; // of which the first 0, 1 or 2 are marks
        uint32_t mark = TINY_IM_START, marks = (uint32_t)cases[i].message[0] - '0';
        for (int k = 0; k < 2; k++) { // the image token, and one whose spelling is another
            zs_error error = {0};
            image_prompt prompt;
            zs_status status = image_prompt_encode(tokenizer, config.family, k ? mark : token, cases[i].text, strlen(cases[i].text), images,
                                                   cases[i].images, &prompt, &error);
            if (status != ZS_ERROR_ARGUMENT || !strstr(error.message, cases[i].message))
                fail_msg("\"%s\": %s", cases[i].text, error.message);
            assert_true(!prompt.ids && !prompt.slots && !prompt.count);
        }
        zs_error error = {0};
        image_prompt prompt;
        assert_int_equal(
            image_prompt_expand(tokenizer, config.family, token, tokens + 2 - marks, 2, images, cases[i].images, &prompt, &error),
            ZS_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, cases[i].message));
    }
    image_tiles_free(&tiles);
    zs_tokenizer_destroy(&tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_images),
        cmocka_unit_test(test_one_view),
        cmocka_unit_test(test_unknown_mark),
        cmocka_unit_test(test_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
