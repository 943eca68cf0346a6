// The tiny model that other tests stand on: it is read by the loader, its tokenizer works, its bytes do not change.
#include "loader/model_file.h"
#include "loader/tokenizer.h"
#include "support/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char path[] = TEST_OUTPUT "/tiny_model.gguf";

static void write_model(const tiny_model_params *params) {
    zs_error error = {0};
    if (tiny_model_write(path, params, &error)) fail_msg("%s", error.message);
}

static void test_every_kind(void **state) {
    (void)state;
    static const uint32_t types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        model_file file;
        zs_error error = {0};
        bool untied = i % 2;
        write_model(&(tiny_model_params){.weight_type = types[i], .untied = untied});
        if (model_file_open(path, &file, &error)) fail_msg("%s", error.message);
        assert_int_equal(file.config.layers, TINY_LAYERS);
        assert_int_equal(file.config.vocab, TINY_VOCAB);
        assert_int_equal(file.config.tied, !untied);
        assert_int_equal(file.layers[1].matrices[MODEL_DOWN].dense->type, types[i]);
        assert_int_equal(file.layers[1].ffn_norm->type, TENSOR_F32);
        model_file_close(&file);
    }
    assert_int_equal(tiny_model_write(path, &(tiny_model_params){.weight_type = TENSOR_Q6_K}, NULL), ZS_ERROR_ARGUMENT);
}

static void test_same_bytes(void **state) {
    (void)state;
    float first[2];
    for (int seed = 0; seed < 2; seed++) {
        gguf_file file;
        write_model(&(tiny_model_params){.seed = (uint64_t)seed});
        assert_int_equal(gguf_open(path, &file, NULL), ZS_OK);
        memcpy(&first[seed], gguf_find_tensor(&file, "blk.0.attn_q.weight")->data, sizeof first[seed]);
        gguf_close(&file);
    }
    assert_true(first[0] != first[1] && first[0] > -1 && first[0] < 1);
}

static void test_tokenizer(void **state) {
    (void)state;
    zs_tokenizer *tokenizer = NULL;
    zs_error error = {0};
    uint32_t *ids = NULL;
    size_t count = 0;
    write_model(NULL);
    if (zs_tokenizer_load(path, &tokenizer, &error)) fail_msg("%s", error.message);
    assert_int_equal(zs_tokenizer_vocab_size(tokenizer), TINY_VOCAB);
    assert_true(zs_tokenizer_is_end(tokenizer, TINY_IM_END));
    zs_message message = {"user", "hello"};
    assert_int_equal(zs_tokenizer_encode_chat(tokenizer, &message, 1, true, &ids, &count, &error), ZS_OK);
    assert_int_equal(ids[0], TINY_IM_START);
    char text[512] = "";
    for (size_t i = 0; i < count; i++) {
        const char *bytes;
        size_t size = zs_tokenizer_token_bytes(tokenizer, ids[i], true, &bytes);
        strncat(text, bytes, size);
    }
    assert_string_equal(text, "<|im_start|>system\n" TINY_SYSTEM "<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    free(ids);
    zs_tokenizer_destroy(&tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
