// Model files: what a sound one holds, and that what is missing, misshapen or would be computed wrongly is refused by name.
#include "loader/model_file.h"
#include "support/small_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static zs_status open_image(gguf_image *image, byte_buffer *bytes, model_file *file, zs_error *error) {
    *bytes = gguf_image_finish(image);
    *error = (zs_error){0};
    return model_file_open_memory(bytes->data, bytes->size, file, error);
}

static void expect_refused(gguf_image *image, zs_status expected, const char *part) {
    model_file file;
    byte_buffer bytes;
    zs_error error;
    zs_status status = open_image(image, &bytes, &file, &error);
    if (status != expected || !strstr(error.message, part))
        fail_msg("expected %d '%s', got %d '%s'", expected, part, status, error.message);
    assert_null(file.layers);
    byte_buffer_free(&bytes);
}

static void expect_opened(gguf_image *image) {
    model_file file;
    byte_buffer bytes;
    zs_error error;
    if (open_image(image, &bytes, &file, &error)) fail_msg("%s", error.message);
    model_file_close(&file);
    byte_buffer_free(&bytes);
}

static void test_dense(void **state) {
    (void)state;
    gguf_image image = small_model_image(&(small_model_params){0});
    model_file file;
    byte_buffer bytes;
    zs_error error;
    if (open_image(&image, &bytes, &file, &error)) fail_msg("%s", error.message);
    const model_config *c = &file.config;
    assert_string_equal(c->architecture, "llama");
    assert_string_equal(c->name, "small");
    assert_true(c->layers == SMALL_LAYERS && c->hidden == SMALL_HIDDEN && c->ffn == SMALL_FFN && c->heads == SMALL_HEADS);
    assert_true(c->kv_heads == SMALL_KV_HEADS && c->head_dim == SMALL_HEAD_DIM && c->vocab == TINY_VOCAB && c->context == 64);
    assert_true(c->norm_eps == 1e-5f && c->rope_base == 50000 && c->tied && !c->factored);
    assert_ptr_equal(file.head, file.embedding);
    const model_matrix *k = &file.layers[1].matrices[MODEL_K], *down = &file.layers[1].matrices[MODEL_DOWN];
    assert_string_equal(k->canonical, "model.layers.1.self_attn.k_proj");
    assert_true(k->out == SMALL_HEAD_DIM && k->in == SMALL_HIDDEN && k->rank == SMALL_HEAD_DIM && k->permute_heads == SMALL_KV_HEADS);
    assert_string_equal(k->dense->name, "blk.1.attn_k.weight");
    assert_int_equal(file.layers[0].matrices[MODEL_Q].permute_heads, SMALL_HEADS);
    assert_true(down->out == SMALL_HIDDEN && down->in == SMALL_FFN && down->permute_heads == 0 && !down->u && !down->sketch);
    assert_string_equal(file.layers[1].ffn_norm->name, "blk.1.ffn_norm.weight");
    model_file_close(&file);
    byte_buffer_free(&bytes);
}

static void test_factored(void **state) {
    (void)state;
    gguf_image image = small_model_image(&(small_model_params){.factored = true, .untied = true});
    model_file file;
    byte_buffer bytes;
    zs_error error;
    if (open_image(&image, &bytes, &file, &error)) fail_msg("%s", error.message);
    const model_matrix *up = &file.layers[0].matrices[MODEL_UP];
    assert_true(file.config.factored && !file.config.tied && file.head != file.embedding);
    assert_string_equal(file.config.architecture, "llama");
    assert_true(up->dense == NULL && up->rank == SMALL_HIDDEN && up->u && up->s && up->vt && up->sketch);
    assert_non_null(file.layers[0].matrices[MODEL_O].dense);
    model_file_close(&file);
    byte_buffer_free(&bytes);
}

/// Interleaved rows back to halves, head by head.
static void test_rows(void **state) {
    (void)state;
    const model_matrix permuted = {.out = 12, .permute_heads = 2}, plain = {.out = 12};
    static const uint32_t rows[] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(model_matrix_file_row(&permuted, i), rows[i]);
        assert_int_equal(model_matrix_file_row(&plain, i), i);
    }
}

static void test_missing(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool factored;
    } cases[] = {
        {"general.architecture", false},
        {"llama.block_count", false},
        {"llama.embedding_length", false},
        {"llama.context_length", false},
        {"llama.feed_forward_length", false},
        {"llama.attention.head_count", false},
        {"llama.attention.layer_norm_rms_epsilon", false},
        {"zsigma.base_architecture", true},
        {"token_embd.weight", false},
        {"output_norm.weight", false},
        {"blk.0.attn_norm.weight", false},
        {"blk.1.ffn_norm.weight", false},
        {"blk.1.attn_q.weight", false},
        {"blk.1.ffn_down.weight", false},
        {"blk.0.ffn_up.zs_u", true},
        {"blk.1.ffn_up.zs_vt", true},
        {"blk.1.ffn_gate.zs_s", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = small_model_image(&(small_model_params){.factored = cases[i].factored, .omit = cases[i].name});
        expect_refused(&image, ZS_ERROR_FORMAT, cases[i].name);
    }
    gguf_image image = small_model_image(&(small_model_params){.factored = true, .omit = "zsigma.version"});
    expect_refused(&image, ZS_ERROR_UNSUPPORTED, "another version");
    static const char *const optional[] = {"general.name", "llama.rope.freq_base", "blk.0.ffn_up.zs_sketch"};
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        image = small_model_image(&(small_model_params){.factored = true, .omit = optional[i]});
        expect_opened(&image);
    }
}

static void test_misshapen(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t type, dims;
        uint64_t shape[2];
        bool factored;
    } cases[] = {
        {"token_embd.weight", TENSOR_F32, 2, {TINY_VOCAB, SMALL_HIDDEN + 1}, false},
        {"token_embd.weight", TENSOR_F32, 1, {TINY_VOCAB}, false},
        {"output_norm.weight", TENSOR_F32, 1, {SMALL_HIDDEN - 1}, false},
        {"output.weight", TENSOR_F32, 2, {TINY_VOCAB - 1, SMALL_HIDDEN}, false},
        {"blk.0.attn_q.weight", TENSOR_F32, 2, {SMALL_HIDDEN / 2, SMALL_HIDDEN}, false},
        {"blk.1.ffn_down.weight", TENSOR_F32, 2, {SMALL_FFN, SMALL_HIDDEN}, false}, // transposed
        {"blk.0.attn_norm.weight", TENSOR_F32, 2, {SMALL_HIDDEN, 1}, false},
        {"blk.0.ffn_up.zs_s", TENSOR_F16, 1, {SMALL_HIDDEN}, true},
        {"blk.0.ffn_up.zs_s", TENSOR_F32, 1, {SMALL_HIDDEN + 1}, true},
        {"blk.0.ffn_up.zs_u", TENSOR_F16, 2, {SMALL_FFN, SMALL_HIDDEN - 1}, true},
        {"blk.0.ffn_up.zs_vt", TENSOR_F16, 2, {SMALL_HIDDEN, SMALL_FFN}, true},
        {"blk.0.ffn_up.zs_sketch", TENSOR_F32, 1, {7}, true},
        {"blk.0.ffn_up.zs_sketch", TENSOR_F16, 1, {8}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = small_model_image(&(small_model_params){.factored = cases[i].factored, .omit = cases[i].name});
        gguf_image_tensor(&image, cases[i].name, cases[i].type, cases[i].dims, cases[i].shape, NULL);
        expect_refused(&image, ZS_ERROR_FORMAT, cases[i].name);
    }
}

static void test_singular_values(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -1};
    const uint64_t shape[] = {SMALL_HIDDEN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float sigma[SMALL_HIDDEN] = {3, 2, 1};
        sigma[SMALL_HIDDEN - 1] = bad[i];
        gguf_image image = small_model_image(&(small_model_params){.factored = true, .omit = "blk.1.ffn_down.zs_s"});
        gguf_image_tensor(&image, "blk.1.ffn_down.zs_s", TENSOR_F32, 1, shape, sigma);
        expect_refused(&image, ZS_ERROR_NUMERIC, "blk.1.ffn_down.zs_s: singular value 7");
    }
}

static void test_sizes(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        zs_status status;
        const char *part;
    } cases[] = {
        {"llama.block_count", 0, ZS_ERROR_FORMAT, "llama.block_count is 0"},
        {"llama.block_count", 1001, ZS_ERROR_UNSUPPORTED, "1001 layers"},
        {"llama.block_count", 3, ZS_ERROR_FORMAT, "tensor blk.2.attn_q.weight is missing"},
        {"llama.embedding_length", 1u << 25, ZS_ERROR_FORMAT, "llama.embedding_length is"},
        {"llama.attention.head_count_kv", 3, ZS_ERROR_UNSUPPORTED, "over 3 KV heads"},
        {"llama.attention.head_count_kv", 0, ZS_ERROR_FORMAT, "head_count_kv is 0"},
        {"llama.attention.head_count", 1, ZS_ERROR_FORMAT, "blk.0.attn_k.weight"}, // one head of 8
        {"llama.attention.head_count", 8, ZS_ERROR_UNSUPPORTED, "KV heads of 1"},
        {"llama.attention.key_length", 6, ZS_ERROR_UNSUPPORTED, "KV heads of 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = small_model_image(&(small_model_params){.omit = cases[i].key});
        gguf_image_u32(&image, cases[i].key, cases[i].value);
        expect_refused(&image, cases[i].status, cases[i].part);
    }
    static const char *const numbers[] = {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        gguf_image image = small_model_image(&(small_model_params){.omit = numbers[i]});
        gguf_image_string(&image, numbers[i], "1e-5");
        expect_refused(&image, ZS_ERROR_FORMAT, numbers[i]);
        image = small_model_image(&(small_model_params){.omit = numbers[i]});
        gguf_image_f32(&image, numbers[i], NAN);
        expect_refused(&image, ZS_ERROR_FORMAT, "makes no sense");
    }
}

static void test_architectures(void **state) {
    (void)state;
    gguf_image image = small_model_image(&(small_model_params){.omit = "general.architecture"});
    gguf_image_string(&image, "general.architecture", "gemma");
    expect_refused(&image, ZS_ERROR_UNSUPPORTED, "architecture gemma");
    image = small_model_image(&(small_model_params){.omit = "general.architecture"});
    gguf_image_string(&image, "general.architecture", "qwen2");
    expect_refused(&image, ZS_ERROR_FORMAT, "key qwen2.block_count");
    image = small_model_image(&(small_model_params){.factored = true, .omit = "zsigma.base_architecture"});
    gguf_image_string(&image, "zsigma.base_architecture", "gemma");
    expect_refused(&image, ZS_ERROR_UNSUPPORTED, "architecture gemma");
    image = small_model_image(&(small_model_params){.factored = true, .omit = "zsigma.version"});
    gguf_image_u32(&image, "zsigma.version", 2);
    expect_refused(&image, ZS_ERROR_UNSUPPORTED, "factor it again");
}

/// A tokenizer of another model would give ids behind the embedding's end.
static void test_more_tokens_than_rows(void **state) {
    (void)state;
    const uint64_t shape[] = {TINY_VOCAB - 1, SMALL_HIDDEN}, padded[] = {TINY_VOCAB + 4, SMALL_HIDDEN};
    gguf_image image = small_model_image(&(small_model_params){.omit = "token_embd.weight"});
    gguf_image_tensor(&image, "token_embd.weight", TENSOR_F32, 2, shape, NULL);
    expect_refused(&image, ZS_ERROR_FORMAT, "tokenizer.ggml.tokens has 300 tokens");
    image = small_model_image(&(small_model_params){.omit = "token_embd.weight"});
    gguf_image_tensor(&image, "token_embd.weight", TENSOR_F32, 2, padded, NULL);
    expect_opened(&image);
}

// ---- what changes the computation ----------------------------------------------------------------------------------

static void test_keys_refused(void **state) {
    (void)state;
    static const struct {
        const char *key;
        float value, neutral;
    } numbers[] = {
        {"llama.rope.scaling.factor", 8, 1},     {"llama.rope.scaling.attn_factor", 0.5f, 1}, {"llama.rope.dimension_count", 2, 4},
        {"llama.attention.value_length", 8, 4},  {"llama.attention.max_alibi_bias", 8, 0},    {"llama.attention.clamp_kqv", 8, 0},
        {"llama.attn_logit_softcapping", 50, 0}, {"llama.final_logit_softcapping", 30, 0},    {"llama.logit_scale", 0.0625f, 1},
        {"llama.embedding_scale", 12, 1},        {"llama.residual_scale", 0.5f, 1},           {"llama.expert_count", 8, 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        for (int whole = 0; whole < 2; whole++) {
            gguf_image image = small_model_image(&(small_model_params){0}), neutral = small_model_image(&(small_model_params){0});
            char part[64];
            snprintf(part, sizeof part, "key %s is", numbers[i].key);
            if (whole && numbers[i].value == (float)(uint32_t)numbers[i].value) {
                gguf_image_u32(&image, numbers[i].key, (uint32_t)numbers[i].value);
                gguf_image_u32(&neutral, numbers[i].key, (uint32_t)numbers[i].neutral);
            } else {
                gguf_image_f32(&image, numbers[i].key, numbers[i].value);
                gguf_image_f32(&neutral, numbers[i].key, numbers[i].neutral);
            }
            expect_refused(&image, ZS_ERROR_UNSUPPORTED, part);
            expect_opened(&neutral);
        }
    }
    static const struct {
        const char *key;
        bool value;
    } flags[] = {{"llama.attention.causal", false}, {"llama.use_parallel_residual", true}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        for (uint8_t value = 0; value < 2; value++) {
            gguf_image image = small_model_image(&(small_model_params){0});
            gguf_image_value(&image, flags[i].key, GGUF_BOOL, &value, 1);
            if (value == flags[i].value)
                expect_refused(&image, ZS_ERROR_UNSUPPORTED, flags[i].key);
            else
                expect_opened(&image);
        }
    }
}

static void test_rope_scaling_types(void **state) {
    (void)state;
    static const char *const types[] = {"yarn", "longrope", "", "nonesuch"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        gguf_image image = small_model_image(&(small_model_params){.factored = i % 2});
        gguf_image_string(&image, "llama.rope.scaling.type", types[i]);
        char part[80];
        snprintf(part, sizeof part, "llama.rope.scaling.type is \"%s\": support for rotary positions scaled this way", types[i]);
        expect_refused(&image, ZS_ERROR_UNSUPPORTED, part);
    }
    gguf_image image = small_model_image(&(small_model_params){0});
    gguf_image_string(&image, "llama.rope.scaling.type", "none");
    expect_opened(&image);
    image = small_model_image(&(small_model_params){0}); // a value that is no number at all
    gguf_image_string(&image, "llama.rope.scaling.factor", "8");
    expect_refused(&image, ZS_ERROR_UNSUPPORTED, "llama.rope.scaling.factor");
}

/// Keys of Gemma 3 that say nonsense; sound files of it are read in test_loader_model_folder.c and test_architectures.c.
static void test_gemma3_keys(void **state) {
    (void)state;
    static const struct {
        const char *key;
        float value;
    } cases[] = {
        {"gemma3.attention.sliding_window_pattern", 0},
        {"gemma3.attention.sliding_window_pattern", 2.5f},
        {"gemma3.rope.freq_base_swa", NAN},
        {"gemma3.rope.freq_base_swa", 1},
        {"gemma3.attention.scale", -1},
        {"gemma3.attention.scale", NAN},
        {"gemma3.attention.sliding_window", -5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = {0};
        gguf_image_string(&image, "general.architecture", "gemma3");
        gguf_image_u32(&image, "gemma3.block_count", SMALL_LAYERS);
        gguf_image_u32(&image, "gemma3.context_length", 64);
        gguf_image_u32(&image, "gemma3.embedding_length", SMALL_HIDDEN);
        gguf_image_u32(&image, "gemma3.feed_forward_length", SMALL_FFN);
        gguf_image_u32(&image, "gemma3.attention.head_count", SMALL_HEADS);
        gguf_image_f32(&image, "gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
        gguf_image_f32(&image, cases[i].key, cases[i].value);
        expect_refused(&image, ZS_ERROR_FORMAT, cases[i].key);
    }
}

/// What the image opens as; both are the caller's.
static model_file must_open(gguf_image *image, byte_buffer *bytes) {
    model_file file;
    zs_error error;
    if (open_image(image, bytes, &file, &error)) fail_msg("%s", error.message);
    return file;
}

static void test_rope_scaling(void **state) {
    (void)state;
    byte_buffer bytes;
    static const struct {
        const char *type, *key;
        float value;
        double divisor; // 0: refused as damaged
    } cases[] = {
        {"linear", "llama.rope.scaling.factor", 4, 4},  {NULL, "llama.rope.scale_linear", 2.5f, 2.5},
        {"linear", "llama.rope.scale_linear", 8, 8},    {"none", "llama.rope.scaling.factor", 4, 1},
        {"linear", "llama.rope.scaling.factor", 1, 1},  {NULL, "llama.rope.scaling.factor", 1, 1},
        {"linear", "llama.rope.scaling.factor", -2, 0}, {NULL, "llama.rope.scale_linear", INFINITY, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = small_model_image(&(small_model_params){0});
        if (cases[i].type) gguf_image_string(&image, "llama.rope.scaling.type", cases[i].type);
        gguf_image_f32(&image, cases[i].key, cases[i].value);
        if (cases[i].divisor == 0) {
            expect_refused(&image, ZS_ERROR_FORMAT, cases[i].key);
            continue;
        }
        model_file file = must_open(&image, &bytes);
        assert_true(file.config.rope_divisor == cases[i].divisor);
        model_file_close(&file);
        byte_buffer_free(&bytes);
    }
    const uint64_t shape[] = {SMALL_HEAD_DIM / 2};
    float factors[SMALL_HEAD_DIM / 2] = {1, 8};
    gguf_image image = small_model_image(&(small_model_params){0});
    gguf_image_tensor(&image, "rope_freqs.weight", TENSOR_F32, 1, shape, factors);
    model_file file = must_open(&image, &bytes);
    assert_non_null(file.rope_factors);
    model_file_close(&file);
    byte_buffer_free(&bytes);
    factors[1] = 0;
    image = small_model_image(&(small_model_params){0});
    gguf_image_tensor(&image, "rope_freqs.weight", TENSOR_F32, 1, shape, factors);
    expect_refused(&image, ZS_ERROR_NUMERIC, "factor 1 is 0");
    image = small_model_image(&(small_model_params){0});
    gguf_image_tensor(&image, "rope_freqs.weight", TENSOR_F32, 1, (const uint64_t[]){SMALL_HIDDEN}, NULL);
    expect_refused(&image, ZS_ERROR_FORMAT, "tensor rope_freqs.weight has shape");
}

static void test_window(void **state) {
    (void)state;
    byte_buffer bytes;
    static const struct { uint32_t key, window; } cases[] = {{32, 32}, {1, 1}, {64, 0}, {4096, 0}, {0, 0}}; // the context holds 64
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = small_model_image(&(small_model_params){0});
        gguf_image_u32(&image, "llama.attention.sliding_window", cases[i].key);
        model_file file = must_open(&image, &bytes);
        assert_int_equal(file.config.window, cases[i].window);
        model_file_close(&file);
        byte_buffer_free(&bytes);
    }
    gguf_image image = small_model_image(&(small_model_params){0});
    gguf_image_f32(&image, "llama.attention.sliding_window", -3);
    expect_refused(&image, ZS_ERROR_FORMAT, "llama.attention.sliding_window");
}

/// All biases of q, k and v or none.
static void test_biases(void **state) {
    (void)state;
    byte_buffer bytes;
    static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
    for (uint32_t missing = 0; missing < 7; missing++) { // 6: none
        gguf_image image = small_model_image(&(small_model_params){0});
        char name[64];
        for (uint32_t i = 0; i < 6; i++) {
            const uint64_t shape[] = {i % 3 ? SMALL_KV_HEADS * SMALL_HEAD_DIM : SMALL_HEADS * SMALL_HEAD_DIM};
            snprintf(name, sizeof name, "blk.%u.%s.bias", i / 3, names[i % 3]);
            if (i != missing) gguf_image_tensor(&image, name, TENSOR_F32, 1, shape, NULL);
        }
        if (missing < 6) {
            snprintf(name, sizeof name, missing ? "tensor blk.%u.%s.bias is missing" : "tensor blk.0.attn_k.bias is none", missing / 3,
                     names[missing % 3]);
            expect_refused(&image, missing ? ZS_ERROR_FORMAT : ZS_ERROR_UNSUPPORTED, name);
            continue;
        }
        model_file file = must_open(&image, &bytes);
        assert_true(file.config.qkv_bias && file.layers[1].biases[2]);
        assert_int_equal(model_bias_file_row(&file, MODEL_V, 1), 1);
        assert_int_equal(model_bias_file_row(&file, MODEL_Q, 1), 2); // interleaved in files of llama
        model_file_close(&file);
        byte_buffer_free(&bytes);
    }
}

static void test_tensors_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *part;
    } cases[] = {
        {"rope_factors_long.weight", "support for scaled rotary positions"},
        {"blk.0.attn_output.bias", "support for a bias"},
        {"blk.1.ffn_down.bias", "support for a bias"},
        {"output.bias", "support for a bias"},
        {"blk.0.ffn_gate_inp.weight", "support for a mixture of experts"},
        {"blk.0.ffn_up_exps.weight", "support for a mixture of experts"},
        {"blk.0.attn_q_norm.weight", "support for this tensor"},
        {"blk.2.attn_q.weight", "of this size"},               // a layer too many
        {"blk.0.attn_output.zs_s", "support for this tensor"}, // factors beside the dense matrix: which of them counts?
    };
    const uint64_t shape[] = {SMALL_HIDDEN};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char part[96];
        gguf_image image = small_model_image(&(small_model_params){.factored = i % 2});
        gguf_image_tensor(&image, cases[i].name, TENSOR_F32, 1, shape, NULL);
        snprintf(part, sizeof part, "tensor %s is none", cases[i].name);
        expect_refused(&image, ZS_ERROR_UNSUPPORTED, part);
        image = small_model_image(&(small_model_params){.factored = i % 2});
        gguf_image_tensor(&image, cases[i].name, TENSOR_F32, 1, shape, NULL);
        expect_refused(&image, ZS_ERROR_UNSUPPORTED, cases[i].part);
    }
    static const char *const beside[] = {"v.patch_embd.weight", "v.blk.0.attn_q.bias", "mm.0.bias", "model.image_newline"};
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        gguf_image image = small_model_image(&(small_model_params){0});
        gguf_image_tensor(&image, beside[i], TENSOR_F32, 1, shape, NULL);
        expect_opened(&image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),           cmocka_unit_test(test_factored),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_missing),         cmocka_unit_test(test_misshapen),     cmocka_unit_test(test_singular_values),
        cmocka_unit_test(test_rope_scaling),    cmocka_unit_test(test_window),        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_sizes),           cmocka_unit_test(test_architectures), cmocka_unit_test(test_more_tokens_than_rows),
        cmocka_unit_test(test_keys_refused),    cmocka_unit_test(test_gemma3_keys),   cmocka_unit_test(test_rope_scaling_types),
        cmocka_unit_test(test_tensors_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
