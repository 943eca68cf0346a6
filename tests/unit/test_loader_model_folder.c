// Hugging Face folders: the same model as from a GGUF file; every damaged, missing or unsupported part refused by name.
#include "loader/model_file.h"
#include "loader/safetensors.h"
#include "loader/tokenizer.h"
#include "support/safetensors_image.h"
#include "support/tiny_folder.h"
#include "support/tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FOLDER TEST_OUTPUT "/tiny-folder"
#define GGUF TEST_OUTPUT "/tiny-folder.gguf"
#define INDEX "model.safetensors.index.json"

static void make(uint32_t shards, bool untied) {
    zs_error error = {0};
    static const char *const old[] = {FOLDER "/model.safetensors", FOLDER "/" INDEX, FOLDER "/tokenizer.model",
                                      FOLDER "/added_tokens.json"};
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) (void)unlink(old[i]);
    if (tiny_model_write(GGUF, &(tiny_model_params){.untied = untied}, &error) ||
        tiny_folder_write(GGUF, FOLDER, &(tiny_folder_params){.shards = shards}, &error))
        fail_msg("%s", error.message);
}

/// Text with single quotes for double ones, where they are easier to read.
static void put(const char *name, const char *text) {
    char *copy = malloc(strlen(text) + 1);
    assert_non_null(copy);
    strcpy(copy, text);
    for (char *c = copy; *c; c++)
        if (*c == '\'') *c = '"';
    tiny_folder_put(FOLDER, name, copy, strlen(copy));
    free(copy);
}

static void expect_refused(zs_status expected, const char *part) {
    model_file file;
    zs_error error = {0};
    zs_status status = model_file_open(FOLDER, &file, &error);
    if (status != expected || !strstr(error.message, part))
        fail_msg("expected %d '%s', got %d '%s'", expected, part, status, error.message);
    assert_null(file.layers);
}

static void expect_opened(void) {
    model_file file;
    zs_error error = {0};
    if (model_file_open(FOLDER, &file, &error)) fail_msg("%s", error.message);
    model_file_close(&file);
}

// ---- sound folders -------------------------------------------------------------------------------------------------

static void expect_same_rows(const model_matrix *a, const model_matrix *b) {
    float x[TINY_FFN], y[TINY_FFN];
    assert_true(a->out == b->out && a->in == b->in && strcmp(a->canonical, b->canonical) == 0);
    for (uint32_t row = 0; row < a->out; row++) {
        tensor_type_dequantise(a->dense->type, (const uint8_t *)a->dense->data + model_matrix_file_row(a, row) * (a->dense->size / a->out),
                               x, a->in);
        tensor_type_dequantise(b->dense->type, (const uint8_t *)b->dense->data + model_matrix_file_row(b, row) * (b->dense->size / b->out),
                               y, b->in);
        assert_memory_equal(x, y, a->in * sizeof *x);
    }
}

static void test_same_model(void **state) {
    (void)state;
    for (uint32_t shards = 1; shards <= 5; shards += 2) {
        model_file gguf = {0}, folder = {0};
        zs_error error = {0};
        make(shards, shards == 3);
        if (model_file_open(GGUF, &gguf, &error) || model_file_open(FOLDER, &folder, &error)) {
            fail_msg("%s", error.message);
            return;
        }
        const model_config *a = &gguf.config, *b = &folder.config;
        assert_true(a->layers == b->layers && a->hidden == b->hidden && a->ffn == b->ffn && a->heads == b->heads &&
                    a->kv_heads == b->kv_heads);
        assert_true(a->head_dim == b->head_dim && a->vocab == b->vocab && a->context == b->context && a->tied == b->tied &&
                    a->tied == (shards != 3));
        assert_true(a->norm_eps == b->norm_eps && a->rope_base == b->rope_base);
        assert_string_equal(b->architecture, "llama");
        assert_string_equal(b->name, "tiny-folder");
        assert_memory_equal(gguf.head->data, folder.head->data, gguf.head->size);
        assert_memory_equal(gguf.output_norm->data, folder.output_norm->data, gguf.output_norm->size);
        for (uint32_t i = 0; i < a->layers; i++) {
            for (int m = 0; m < MODEL_MATRICES; m++) expect_same_rows(&gguf.layers[i].matrices[m], &folder.layers[i].matrices[m]);
            assert_memory_equal(gguf.layers[i].ffn_norm->data, folder.layers[i].ffn_norm->data, gguf.layers[i].ffn_norm->size);
            assert_int_equal(folder.layers[i].matrices[MODEL_Q].permute_heads, 0);
        }
        model_file_close(&gguf);
        model_file_close(&folder);
    }
}

static void expect_same_ids(const zs_tokenizer *a, const zs_tokenizer *b) {
    static const zs_message messages[] = {{"user", "the end of it 12\n"}};
    uint32_t *x, *y;
    size_t m, n;
    assert_int_equal(zs_tokenizer_encode_chat(a, messages, 1, true, &x, &m, NULL), ZS_OK);
    assert_int_equal(zs_tokenizer_encode_chat(b, messages, 1, true, &y, &n, NULL), ZS_OK);
    assert_int_equal(m, n);
    assert_memory_equal(x, y, n * sizeof *x);
    free(x);
    free(y);
    for (uint32_t id = 0; id < TINY_VOCAB; id++) assert_int_equal(zs_tokenizer_is_end(a, id), zs_tokenizer_is_end(b, id));
}

static void test_same_tokenizer(void **state) {
    (void)state;
    zs_tokenizer *gguf = NULL, *folder = NULL, *bare = NULL;
    zs_error error = {0};
    make(1, false);
    if (zs_tokenizer_load(GGUF, &gguf, &error) || zs_tokenizer_load(FOLDER, &folder, &error) ||
        zs_tokenizer_load(FOLDER "/tokenizer.json", &bare, &error))
        fail_msg("%s", error.message);
    expect_same_ids(gguf, folder);
    assert_int_equal(zs_tokenizer_vocab_size(bare), TINY_VOCAB);
    zs_tokenizer_destroy(&gguf);
    zs_tokenizer_destroy(&folder);
    zs_tokenizer_destroy(&bare);
    // The older places: the template in tokenizer_config.json, alone or one of several; the last token in config.json.
    (void)unlink(FOLDER "/chat_template.jinja");
    put("tokenizer_config.json", "{'chat_template': [{'name': 'tool_use', 'template': 'x'}, {'name': 'default', 'template': "
                                 "'<|im_start|>'}], 'eos_token': '<|im_end|>'}");
    put("generation_config.json", "{'eos_token_id': [2, 100]}");
    if (zs_tokenizer_load(FOLDER, &folder, &error)) fail_msg("%s", error.message);
    uint32_t *ids;
    size_t count;
    assert_int_equal(zs_tokenizer_encode_chat(folder, &(zs_message){"user", ""}, 1, false, &ids, &count, &error), ZS_OK);
    assert_int_equal(ids[0], TINY_IM_START);
    assert_true(zs_tokenizer_is_end(folder, 2) && zs_tokenizer_is_end(folder, 100) && !zs_tokenizer_is_end(folder, 101));
    free(ids);
    zs_tokenizer_destroy(&folder);
}

static void test_types(void **state) {
    (void)state;
    static const char *const types[] = {"F16", "BF16"};
    for (size_t i = 0; i < 2; i++) {
        char header[200];
        uint8_t data[2 * TINY_HIDDEN] = {0};
        make(3, false);
        (void)snprintf(header, sizeof header, "{'model.norm.weight': {'dtype': '%s', 'shape': [%d], 'data_offsets': [0, %d]}} ", types[i],
                       TINY_HIDDEN, 2 * TINY_HIDDEN);
        byte_buffer image = safetensors_image(header, data, sizeof data);
        tiny_folder_put(FOLDER, "model.safetensors", image.data, image.size);
        byte_buffer_free(&image);
        (void)unlink(FOLDER "/" INDEX);
        model_file file; // the only complaints are of what is not there
        zs_error error = {0};
        assert_int_equal(model_file_open(FOLDER, &file, &error), ZS_ERROR_FORMAT);
        assert_non_null(
            strstr(error.message, "tensor model.embed_tokens.weight is missing, model.layers.0.input_layernorm.weight is missing"));
        assert_null(strstr(error.message, "model.norm"));
        assert_non_null(strstr(error.message, " more"));
    }
}

// ---- config.json ---------------------------------------------------------------------------------------------------

#define SIZES                                                                                                                              \
    "'num_hidden_layers': 2, 'hidden_size': 64, 'intermediate_size': 96, 'num_attention_heads': 4, 'vocab_size': 300, "                    \
    "'max_position_embeddings': 256"
#define REST "'num_key_value_heads': 2, 'tie_word_embeddings': true"

static void test_config(void **state) {
    (void)state;
    static const struct {
        const char *text;
        zs_status status;
        const char *part;
    } cases[] = {
        {"", ZS_ERROR_FORMAT, "config.json: "},
        {"[]", ZS_ERROR_FORMAT, "config.json: no JSON object"},
        {"{'architectures': ['LlamaForCausalLM'], 'a': 1, 'a': 2}", ZS_ERROR_FORMAT, "config.json: duplicate object key"},
        {"{" SIZES "}", ZS_ERROR_FORMAT, "key architectures is missing"},
        {"{'architectures': 'LlamaForCausalLM', " SIZES "}", ZS_ERROR_FORMAT, "key architectures is missing"},
        {"{'architectures': ['GemmaForCausalLM'], " SIZES "}", ZS_ERROR_UNSUPPORTED, "architecture GemmaForCausalLM"},
        {"{'architectures': ['Gemma3ForConditionalGeneration']}", ZS_ERROR_UNSUPPORTED, "architecture Gemma3ForConditionalGeneration"},
        {"{'architectures': ['LlamaForCausalLM'], " REST "}", ZS_ERROR_FORMAT, "key num_hidden_layers is missing or no count"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", 'num_key_value_heads': -2}", ZS_ERROR_FORMAT, "key num_key_value_heads"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", 'num_key_value_heads': 2.5}", ZS_ERROR_FORMAT, "key num_key_value_heads"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", 'num_key_value_heads': 99999999999}", ZS_ERROR_FORMAT,
         "key num_key_value_heads"},
        {"{'architectures': ['MistralForCausalLM'], " SIZES "}", ZS_ERROR_FORMAT, "key num_key_value_heads is missing"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'head_dim': 0}", ZS_ERROR_FORMAT, "key head_dim"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'head_dim': 1073741824}", ZS_ERROR_UNSUPPORTED,
         "KV heads of 1073741824"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'rms_norm_eps': '1e-5'}", ZS_ERROR_FORMAT,
         "key rms_norm_eps is no number"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'rope_theta': 0}", ZS_ERROR_FORMAT, "rope base 0 makes no sense"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'hidden_act': 'gelu'}", ZS_ERROR_UNSUPPORTED, "hidden_act"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'quantization_config': {}}", ZS_ERROR_UNSUPPORTED,
         "quantization_config"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'partial_rotary_factor': 0.5}", ZS_ERROR_UNSUPPORTED,
         "rope.dimension_count is 8"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'partial_rotary_factor': 2}", ZS_ERROR_FORMAT,
         "partial_rotary_factor"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'rope_scaling': {'type': 3}}", ZS_ERROR_FORMAT,
         "the type of rope_scaling"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", 'tie_word_embeddings': true}", ZS_ERROR_FORMAT,
         "self_attn.k_proj.weight has shape [32, 64] instead of [64, 64]"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", 'num_key_value_heads': 2}", ZS_ERROR_FORMAT, "lm_head.weight is missing"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'attention_bias': true}", ZS_ERROR_FORMAT,
         "model.layers.0.self_attn.q_proj.bias is missing"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'mlp_bias': true}", ZS_ERROR_FORMAT,
         "model.layers.0.mlp.gate_proj.bias is missing"},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST "}", ZS_OK, ""},
        {"{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'rope_scaling': {'rope_type': 'default'}, 'sliding_window': 7}",
         ZS_OK, ""}, // which a Llama does not read
        {"{'architectures': ['MistralForCausalLM'], " SIZES ", " REST ", 'sliding_window': null}", ZS_OK, ""},
        {"{'architectures': ['MistralForCausalLM'], " SIZES ", " REST ", 'sliding_window': 4096}", ZS_OK, ""}, // longer than the context
    };
    make(3, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("config.json", cases[i].text);
        if (cases[i].status)
            expect_refused(cases[i].status, cases[i].part);
        else
            expect_opened();
    }
    (void)unlink(FOLDER "/config.json");
    expect_refused(ZS_ERROR_IO, "config.json");
}

/// What the runtime does not compute is read as a GGUF file would tell it; nothing is refused before the model file's own checks.
static void test_told(void **state) {
    (void)state;
    make(1, false);
    put("config.json", "{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST ", 'rope_scaling': {'type': 'dynamic', 'factor': 4.0}}");
    expect_refused(ZS_ERROR_UNSUPPORTED, "key llama.rope.scaling.type is \"dynamic\"");
    put("config.json", "{'architectures': ['LlamaForCausalLM'], " SIZES ", " REST
                       ", 'rope_parameters': {'rope_type': 'yarn', 'factor': 1, 'rope_theta': 1e6}}");
    expect_refused(ZS_ERROR_UNSUPPORTED, "key llama.rope.scaling.type is \"yarn\"");
    put("config.json", "{'architectures': ['Qwen2ForCausalLM'], " SIZES ", " REST "}");
    expect_refused(ZS_ERROR_FORMAT, "model.layers.0.self_attn.q_proj.bias is missing, model.layers.0.self_attn.k_proj.bias is missing");
    put("config.json", "{'architectures': ['MistralForCausalLM'], " SIZES ", " REST ", 'head_dim': 16, 'partial_rotary_factor': 0.25}");
    expect_refused(ZS_ERROR_UNSUPPORTED, "key llama.rope.dimension_count is 4");
}

// ---- Gemma 3 -------------------------------------------------------------------------------------------------------

#define GOLDEN TEST_DATA "/golden/architectures/gemma3"
#define GEMMA                                                                                                                              \
    "'architectures': ['Gemma3ForCausalLM'], 'num_hidden_layers': 4, 'hidden_size': 48, 'intermediate_size': 80, "                         \
    "'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 20, 'vocab_size': 160, 'max_position_embeddings': 128"

static void copy_golden(const char *name) {
    static uint8_t bytes[1 << 18];
    char path[512];
    (void)snprintf(path, sizeof path, GOLDEN "/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_true(size > 0 && size < sizeof bytes);
    tiny_folder_put(FOLDER, name, bytes, size);
}

static void test_gemma3(void **state) {
    (void)state;
    model_file file = {0};
    safetensors_file raw = {0};
    zs_error error = {0};
    if (model_file_open(GOLDEN, &file, &error) || safetensors_open(GOLDEN "/model.safetensors", &raw, &error))
        fail_msg("%s", error.message);
    const model_config *c = &file.config;
    assert_string_equal(c->architecture, "gemma3");
    assert_true(c->tied && c->gelu && c->head_norms && c->post_norms && !c->qkv_bias);
    assert_true(c->embedding_scale == sqrtf(48) && c->score_scale == 0.25f && c->window == 24 && c->full_every == 3);
    assert_true(c->rope_base == 1e6f && c->rope_divisor == 4 && c->window_rope_base == 10000);
    for (uint32_t i = 0; i < 4; i++) {
        const model_layer_file *layer = &file.layers[i];
        const char *const names[] = {"input_layernorm",           "post_attention_layernorm",
                                     "pre_feedforward_layernorm", "post_feedforward_layernorm",
                                     "self_attn.q_norm",          "self_attn.k_norm"};
        const gguf_tensor *norms[] = {
            layer->attention_norm, layer->attention_post_norm, layer->ffn_norm, layer->ffn_post_norm, layer->q_norm, layer->k_norm};
        assert_int_equal(model_layer_has_window(c, i), i != 2);
        for (size_t n = 0; n < 6; n++) {
            char name[80];
            float values[48];
            (void)snprintf(name, sizeof name, "model.layers.%u.%s.weight", i, names[n]);
            const safetensors_tensor *from = safetensors_find(&raw, name);
            assert_non_null(from);
            assert_non_null(norms[n]);
            if (!norms[n]) continue; // the analyser does not know that the line before ends the test
            assert_true(norms[n]->type == TENSOR_F32 && norms[n]->elements == from->elements);
            assert_string_equal(gguf_tensor_origin(norms[n]), name);
            tensor_type_dequantise(from->type, from->data, values, (size_t)from->elements);
            for (size_t k = 0; k < from->elements; k++) assert_true(((const float *)norms[n]->data)[k] == 1 + values[k]);
        }
    }
    safetensors_close(&raw);
    model_file_close(&file);
}

/// Older and newer names of the same, what files leave out, and what is not supported.
static void test_gemma3_config(void **state) {
    (void)state;
    static const struct {
        const char *text, *part; // part NULL: accepted, with …
        uint32_t window, full_every;
        float score_scale, window_rope_base, rope_base;
    } cases[] = {
        {"", NULL, 0, 6, 1.0f / 16, 10000, 1e6f},
        {", 'sliding_window': 24, 'sliding_window_pattern': 2, 'query_pre_attn_scalar': 20", NULL, 24, 2, 0, 10000, 1e6f},
        {", 'rope_theta': 5e5, 'rope_local_base_freq': 7000, 'layer_types': ['sliding_attention', 'sliding_attention', "
         "'sliding_attention', "
         "'sliding_attention']",
         NULL, 0, 5, 1.0f / 16, 7000, 5e5f},
        {", 'layer_types': ['sliding_attention', 'full_attention', 'full_attention', 'sliding_attention']", "layer_types: layer 2 is full",
         0, 0, 0, 0, 0},
        {", 'layer_types': ['sliding_attention', 'full_attention', 'chunked', 'full_attention']", "layer_types: layer 2 is chunked", 0, 0,
         0, 0, 0},
        {", 'layer_types': ['sliding_attention']", "layer_types: layer 1 is missing", 0, 0, 0, 0, 0},
        {", 'layer_types': 3", "layer_types: layer 0 is missing", 0, 0, 0, 0, 0},
        {", 'sliding_window_pattern': 0", "key sliding_window_pattern", 0, 0, 0, 0, 0},
        {", 'sliding_window': 'long'", "key sliding_window", 0, 0, 0, 0, 0},
        {", 'query_pre_attn_scalar': 0", "query_pre_attn_scalar is 0", 0, 0, 0, 0, 0},
        {", 'hidden_activation': 'silu'", "hidden_activation is not gelu_pytorch_tanh", 0, 0, 0, 0, 0},
        {", 'final_logit_softcapping': 30.0", "key gemma3.final_logit_softcapping", 0, 0, 0, 0, 0},
        {", 'attn_logit_softcapping': 50.0", "key gemma3.attn_logit_softcapping", 0, 0, 0, 0, 0},
        {", 'use_bidirectional_attention': true", "key gemma3.attention.causal", 0, 0, 0, 0, 0},
        {", 'rope_local_base_freq': 0", "key gemma3.rope.freq_base_swa is 0", 0, 0, 0, 0, 0},
        {", 'rope_parameters': {'full_attention': {}, 'sliding_attention': {'rope_type': 'yarn'}}", "sliding_attention is of type yarn", 0,
         0, 0, 0, 0},
        {", 'tie_word_embeddings': false", "lm_head.weight is missing", 0, 0, 0, 0, 0},
        {", 'attention_bias': true", "self_attn.q_proj.bias is missing", 0, 0, 0, 0, 0},
    };
    make(1, false);
    copy_golden("model.safetensors");
    (void)unlink(FOLDER "/tokenizer.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        model_file file;
        zs_error error = {0};
        (void)snprintf(text, sizeof text, "{" GEMMA "%s}", cases[i].text);
        put("config.json", text);
        zs_status status = model_file_open(FOLDER, &file, &error);
        if (cases[i].part) {
            if (!status || !strstr(error.message, cases[i].part))
                fail_msg("%s: expected '%s', got '%s'", text, cases[i].part, error.message);
            continue;
        }
        if (status) fail_msg("%s: %s", text, error.message);
        const model_config *c = &file.config;
        assert_true(c->window == cases[i].window && c->full_every == cases[i].full_every && c->tied);
        assert_true(c->score_scale == cases[i].score_scale && c->window_rope_base == cases[i].window_rope_base &&
                    c->rope_base == cases[i].rope_base);
        assert_int_equal(model_layer_has_window(c, 1), cases[i].full_every != 2); // its rope base goes by that, window or not
        model_file_close(&file);
    }
}

// ---- shards --------------------------------------------------------------------------------------------------------

#define A "model-00001-of-00002.safetensors"
#define B "model-00002-of-00002.safetensors"

static void put_image(const char *name, const char *header, size_t size) {
    static const uint8_t data[64];
    byte_buffer image = safetensors_image(header, data, size);
    tiny_folder_put(FOLDER, name, image.data, image.size);
    byte_buffer_free(&image);
}

static void test_shards(void **state) {
    (void)state;
    static const char
        x[] = "{'x': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}",
        y[] = "{'y': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}",
        xy[] = "{'x': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}, 'y': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]}}",
        whole[] = "{'x': {'dtype': 'I64', 'shape': [1], 'data_offsets': [0, 8]}}";
    static const struct {
        const char *index, *a, *b; // headers of the files; NULL: no file
        zs_status status;
        const char *part;
    } cases[] = {
        {"", x, y, ZS_ERROR_FORMAT, INDEX ": "},
        {"[1]", x, y, ZS_ERROR_FORMAT, INDEX ": no JSON object"},
        {"{}", x, y, ZS_ERROR_FORMAT, "has no weight_map"},
        {"{'weight_map': []}", x, y, ZS_ERROR_FORMAT, "has no weight_map"},
        {"{'weight_map': {'x': 3}}", x, y, ZS_ERROR_FORMAT, "the place of tensor x"},
        {"{'weight_map': {'x': '../" A "'}}", x, y, ZS_ERROR_FORMAT, "the place of tensor x"},
        {"{'weight_map': {'x': '/etc/passwd'}}", x, y, ZS_ERROR_FORMAT, "the place of tensor x"},
        {"{'weight_map': {'x': ''}}", x, y, ZS_ERROR_FORMAT, "the place of tensor x"},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", NULL, NULL, ZS_ERROR_IO, "files that the index names are missing: " A ", " B},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", x, NULL, ZS_ERROR_IO, "files that the index names are missing: " B},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", x, whole, ZS_ERROR_UNSUPPORTED, B ": tensor x has a dtype other than"},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", "{", "[", ZS_ERROR_FORMAT, "files that cannot be read: "},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", y, x, ZS_ERROR_FORMAT,
         "tensors that are not in the file where the index has them: x (" A "), y (" B ")"},
        {"{'weight_map': {'x': '" A "', 'y': '" B "', 'z': '" B "'}}", x, y, ZS_ERROR_FORMAT, "where the index has them: z (" B ")"},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", x, xy, ZS_ERROR_FORMAT, "tensors that are in two files: x (" B " and " A ")"},
        {"{'weight_map': {'y': '" B "'}}", x, xy, ZS_ERROR_FORMAT, "tensors that the index does not list: x (" B ")"},
        {"{'weight_map': {'x': '" A "', 'y': '" B "'}}", x, y, ZS_ERROR_FORMAT, "tensor model.embed_tokens.weight is missing"},
    };
    make(1, false);
    (void)unlink(FOLDER "/model.safetensors");
    expect_refused(ZS_ERROR_IO, "has neither model.safetensors nor " INDEX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        (void)unlink(FOLDER "/" A);
        (void)unlink(FOLDER "/" B);
        if (cases[i].a) put_image(A, cases[i].a, cases[i].a == xy ? 8 : 4);
        if (cases[i].b) put_image(B, cases[i].b, cases[i].b == xy || cases[i].b == whole ? 8 : 4);
        put(INDEX, cases[i].index);
        expect_refused(cases[i].status, cases[i].part);
    }
    put_image(A, x, 3); // a file cut short
    put(INDEX, "{'weight_map': {'x': '" A "'}}");
    expect_refused(ZS_ERROR_FORMAT, A ": tensor x (bytes 0 to 4 of 3)");
    make(3, false);
    expect_opened();
}

// ---- the files beside them -----------------------------------------------------------------------------------------

static void test_beside(void **state) {
    (void)state;
    static const struct {
        const char *name, *text;
        zs_status status;
        const char *part;
    } cases[] = {
        {"tokenizer_config.json", "[", ZS_ERROR_FORMAT, "tokenizer_config.json: "},
        {"tokenizer_config.json", "{'bos_token': 3}", ZS_ERROR_FORMAT, "tokenizer_config.json: key bos_token"},
        {"tokenizer_config.json", "{'eos_token': {}}", ZS_ERROR_FORMAT, "tokenizer_config.json: key eos_token"},
        {"tokenizer_config.json", "{'bos_token': null, 'eos_token': null}", ZS_OK, ""},
        {"generation_config.json", "{'eos_token_id': 'x'}", ZS_ERROR_FORMAT, "generation_config.json: key eos_token_id"},
        {"generation_config.json", "{'eos_token_id': [1, -1]}", ZS_ERROR_FORMAT, "generation_config.json: key eos_token_id"},
        {"generation_config.json", "{'eos_token_id': null}", ZS_OK, ""},
        {"tokenizer.json", "{}", ZS_ERROR_UNSUPPORTED, "tokenizer.json: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(1, false);
        put(cases[i].name, cases[i].text);
        if (cases[i].status)
            expect_refused(cases[i].status, cases[i].part);
        else
            expect_opened();
    }
    // Told in the files, but not of this vocabulary.
    zs_tokenizer *tokenizer = NULL;
    zs_error error = {0};
    make(1, false);
    put("tokenizer_config.json", "{'bos_token': '<none>'}");
    assert_int_equal(zs_tokenizer_load(FOLDER, &tokenizer, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "<none>, which the vocabulary lacks"));
    make(1, false);
    put("generation_config.json", "{'eos_token_id': [2, 300]}");
    assert_int_equal(zs_tokenizer_load(FOLDER, &tokenizer, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "entry 1 is outside the vocabulary of 300"));
    make(1, false);
    (void)unlink(FOLDER "/tokenizer.json");
    assert_int_equal(zs_tokenizer_load(FOLDER, &tokenizer, &error), ZS_ERROR_IO);
    assert_non_null(strstr(error.message, "neither tokenizer.json nor tokenizer.model"));
    put("tokenizer.model", "YQ== 0\n");
    put("added_tokens.json", "{}");
    assert_int_equal(zs_tokenizer_load(FOLDER, &tokenizer, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "added_tokens.json"));
    assert_null(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_model), cmocka_unit_test(test_same_tokenizer), cmocka_unit_test(test_types),
        cmocka_unit_test(test_config),     cmocka_unit_test(test_told),           cmocka_unit_test(test_shards),
        cmocka_unit_test(test_gemma3),     cmocka_unit_test(test_gemma3_config),  cmocka_unit_test(test_beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
