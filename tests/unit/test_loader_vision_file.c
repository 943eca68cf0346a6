/// Towers in files: folders of three families, llama.cpp's pair of files in its newer and older forms, and what is refused.
#include "loader/vision_file.h"
#include "support/tiny_model.h"
#include "support/vision_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN TEST_DATA "/golden/vision/"
#define TEXT TEST_OUTPUT "/vision-text.gguf"
#define MMPROJ TEST_OUTPUT "/vision-mmproj.gguf"

static const char *const families[] = {"llava-1.5", "llava-next", "smolvlm"};

static void expect_same_config(const vision_config *a, const vision_config *b) {
    assert_int_equal(a->image.family, b->image.family);
    assert_int_equal(a->activation, b->activation);
    assert_int_equal(a->image.tile, b->image.tile);
    assert_int_equal(a->image.patch, b->image.patch);
    assert_int_equal(a->image.shuffle, b->image.shuffle);
    assert_int_equal(a->image.pinpoint_count, b->image.pinpoint_count);
    assert_int_equal(a->hidden, b->hidden);
    assert_int_equal(a->ffn, b->ffn);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->layers, b->layers);
    assert_int_equal(a->text_hidden, b->text_hidden);
    assert_true(a->norm_eps == b->norm_eps);
    assert_int_equal(a->class_token, b->class_token);
    for (int c = 0; c < 3; c++) assert_true(a->image.mean[c] == b->image.mean[c] && a->image.std[c] == b->image.std[c]);
}

static void expect_same_weights(const vision_file *a, const vision_file *b) {
    const gguf_tensor *bias_a, *bias_b;
    for (uint32_t i = 0;; i++) {
        const model_matrix *x = vision_file_matrix(a, i, &bias_a), *y = vision_file_matrix(b, i, &bias_b);
        assert_int_equal(x == NULL, y == NULL);
        if (!x || !y) break;
        assert_string_equal(x->canonical, y->canonical);
        assert_int_equal(x->dense->size, y->dense->size);
        assert_memory_equal(x->dense->data, y->dense->data, x->dense->size);
        assert_int_equal(bias_a == NULL, bias_b == NULL);
        if (bias_a && bias_b) assert_memory_equal(bias_a->data, bias_b->data, bias_a->size);
    }
    assert_int_equal(a->newline == NULL, b->newline == NULL);
}

static void test_pairs(void **state) {
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        for (int old = 0; old < 2; old++) {
            char folder[256];
            zs_error error;
            model_file whole, pair;
            snprintf(folder, sizeof folder, GOLDEN "%s", families[f]);
            vision_pair_write(folder, TEXT, MMPROJ, &(vision_pair_options){.old = old});
            assert_int_equal(model_file_open(folder, &whole, &error), ZS_OK);
            assert_int_equal(model_file_open(TEXT, &pair, &error), ZS_OK);
            assert_non_null(whole.vision);
            assert_null(pair.vision);
            assert_int_equal(model_file_add_images(&pair, MMPROJ, &error), ZS_OK);
            expect_same_config(&whole.vision->config, &pair.vision->config);
            expect_same_weights(whole.vision, pair.vision);
            assert_int_equal(model_file_add_images(&pair, MMPROJ, &error), ZS_ERROR_ARGUMENT);
            assert_non_null(strstr(error.message, "of its own"));
            model_file_close(&whole);
            model_file_close(&pair);
        }
    }
}

static void expect_refused(const char *text, zs_status status, const char *part) {
    model_file model;
    zs_error error = {0};
    assert_int_equal(model_file_open(text, &model, &error), ZS_OK);
    zs_status got = model_file_add_images(&model, MMPROJ, &error);
    if (got != status || !strstr(error.message, part)) fail_msg("expected %d '%s', got %d '%s'", status, part, got, error.message);
    assert_null(model.vision);
    model_file_close(&model);
}

/// What each part of a tower's file is needed for is told by name.
static void test_missing(void **state) {
    (void)state;
    static const struct {
        const char *family, *without;
        zs_status status;
    } cases[] = {
        {"llava-1.5", "clip.vision.block_count", ZS_ERROR_FORMAT},
        {"llava-1.5", "clip.vision.image_size", ZS_ERROR_FORMAT},
        {"llava-1.5", "clip.vision.patch_size", ZS_ERROR_FORMAT},
        {"llava-1.5", "clip.vision.embedding_length", ZS_ERROR_FORMAT},
        {"llava-1.5", "clip.vision.feed_forward_length", ZS_ERROR_FORMAT},
        {"llava-1.5", "clip.vision.attention.head_count", ZS_ERROR_FORMAT},
        {"llava-1.5", "clip.vision.attention.layer_norm_epsilon", ZS_ERROR_FORMAT},
        {"smolvlm", "clip.vision.projector.scale_factor", ZS_ERROR_FORMAT},
        {"llava-1.5", "v.patch_embd.weight", ZS_ERROR_FORMAT},
        {"llava-1.5", "v.blk.2.attn_k.weight", ZS_ERROR_FORMAT},
        {"llava-1.5", "v.blk.0.attn_out.bias", ZS_ERROR_FORMAT},
        {"llava-1.5", "v.blk.1.ln2.weight", ZS_ERROR_FORMAT},
        {"llava-1.5", "mm.2.weight", ZS_ERROR_FORMAT},
        {"smolvlm", "v.post_ln.weight", ZS_ERROR_FORMAT},
        {"smolvlm", "v.position_embd.weight", ZS_ERROR_FORMAT},
        {"smolvlm", "mm.model.fc.weight", ZS_ERROR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[256];
        bool whole = strcmp(cases[i].without, "clip.vision.block_count") == 0; // without it no file is one of a tower
        snprintf(folder, sizeof folder, GOLDEN "%s", cases[i].family);
        vision_pair_write(folder, TEXT, MMPROJ, &(vision_pair_options){.without = cases[i].without});
        expect_refused(TEXT, cases[i].status, whole ? "no file of an image tower" : cases[i].without);
    }
}

static void test_other_models(void **state) {
    (void)state;
    vision_pair_write(GOLDEN "llava-1.5", TEXT, MMPROJ, NULL);
    zs_error error;
    assert_int_equal(tiny_model_write(TEST_OUTPUT "/vision-tiny.gguf", &(tiny_model_params){.hidden = 96}, &error), ZS_OK);
    expect_refused(TEST_OUTPUT "/vision-tiny.gguf", ZS_ERROR_MISMATCH, "they are of different models");
    vision_pair_write(GOLDEN "llava-1.5", MMPROJ, NULL, NULL); // a language model in its place
    expect_refused(TEXT, ZS_ERROR_FORMAT, "no file of an image tower");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pairs), cmocka_unit_test(test_missing), cmocka_unit_test(test_other_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
