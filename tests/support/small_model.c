#include "support/small_model.h"

#include <stdio.h>
#include <string.h>

static bool kept(const small_model_params *p, const char *name) { return !p->omit || strcmp(p->omit, name) != 0; }

static void add_u32(gguf_image *image, const small_model_params *p, const char *key, uint32_t value) {
    if (kept(p, key)) gguf_image_u32(image, key, value);
}

static void add_f32(gguf_image *image, const small_model_params *p, const char *key, float value) {
    if (kept(p, key)) gguf_image_f32(image, key, value);
}

static void add_string(gguf_image *image, const small_model_params *p, const char *key, const char *value) {
    if (kept(p, key)) gguf_image_string(image, key, value);
}

/// cols 0: a vector.
static void add_tensor(gguf_image *image, const small_model_params *p, const char *name, uint32_t type, uint64_t rows, uint64_t cols) {
    const uint64_t shape[] = {rows, cols};
    if (kept(p, name)) gguf_image_tensor(image, name, type, cols ? 2 : 1, shape, NULL);
}

void small_model_add_tokenizer(gguf_image *image, const small_model_params *p) {
    uint32_t count = p->vocab ? p->vocab : TINY_VOCAB;
    tiny_vocabulary vocab;
    tiny_vocabulary_make(&vocab);
    add_string(image, p, "tokenizer.ggml.model", "gpt2");
    add_string(image, p, "tokenizer.ggml.pre", p->pre ? p->pre : "smollm");
    if (kept(p, "tokenizer.ggml.tokens")) gguf_image_strings(image, "tokenizer.ggml.tokens", vocab.tokens, count);
    if (kept(p, "tokenizer.ggml.token_type"))
        gguf_image_array(image, "tokenizer.ggml.token_type", GGUF_I32, count, vocab.types, count * sizeof *vocab.types);
    if (kept(p, "tokenizer.ggml.merges"))
        gguf_image_strings(image, "tokenizer.ggml.merges", vocab.merges, count == TINY_VOCAB ? TINY_MERGES : 0);
    add_u32(image, p, "tokenizer.ggml.eos_token_id", TINY_IM_END);
    add_string(image, p, "tokenizer.chat_template", p->chat ? p->chat : tiny_chat_template);
}

static void add_keys(gguf_image *image, const small_model_params *p) {
    add_string(image, p, "general.architecture", p->factored ? "zsigma" : "llama");
    add_string(image, p, "general.name", "small");
    if (p->factored) {
        add_u32(image, p, "zsigma.version", 1);
        add_string(image, p, "zsigma.base_architecture", "llama");
    }
    add_u32(image, p, "llama.block_count", SMALL_LAYERS);
    add_u32(image, p, "llama.context_length", 64);
    add_u32(image, p, "llama.embedding_length", SMALL_HIDDEN);
    add_u32(image, p, "llama.feed_forward_length", SMALL_FFN);
    add_u32(image, p, "llama.attention.head_count", SMALL_HEADS);
    add_u32(image, p, "llama.attention.head_count_kv", SMALL_KV_HEADS);
    add_f32(image, p, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    add_f32(image, p, "llama.rope.freq_base", 50000);
}

/// [out, in] as it is, or as factors of full rank.
static void add_matrix(gguf_image *image, const small_model_params *p, uint32_t layer, const char *which, uint64_t out, uint64_t in,
                       bool factored) {
    char name[64];
    uint64_t rank = out < in ? out : in;
    if (!factored) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, which);
        add_tensor(image, p, name, TENSOR_F32, out, in);
        return;
    }
    snprintf(name, sizeof name, "blk.%u.%s.zs_u", layer, which);
    add_tensor(image, p, name, TENSOR_F16, out, rank);
    snprintf(name, sizeof name, "blk.%u.%s.zs_s", layer, which);
    add_tensor(image, p, name, TENSOR_F32, rank, 0);
    snprintf(name, sizeof name, "blk.%u.%s.zs_vt", layer, which);
    add_tensor(image, p, name, TENSOR_F16, rank, in);
    snprintf(name, sizeof name, "blk.%u.%s.zs_sketch", layer, which);
    add_tensor(image, p, name, TENSOR_F32, 8, 0);
}

static void add_layer(gguf_image *image, const small_model_params *p, uint32_t layer) {
    char name[64];
    const uint64_t q = SMALL_HEADS * SMALL_HEAD_DIM, kv = SMALL_KV_HEADS * SMALL_HEAD_DIM;
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", layer);
    add_tensor(image, p, name, TENSOR_F32, SMALL_HIDDEN, 0);
    add_matrix(image, p, layer, "attn_q", q, SMALL_HIDDEN, false);
    add_matrix(image, p, layer, "attn_k", kv, SMALL_HIDDEN, false);
    add_matrix(image, p, layer, "attn_v", kv, SMALL_HIDDEN, false);
    add_matrix(image, p, layer, "attn_output", SMALL_HIDDEN, q, false);
    snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", layer);
    add_tensor(image, p, name, TENSOR_F32, SMALL_HIDDEN, 0);
    add_matrix(image, p, layer, "ffn_gate", SMALL_FFN, SMALL_HIDDEN, p->factored);
    add_matrix(image, p, layer, "ffn_up", SMALL_FFN, SMALL_HIDDEN, p->factored);
    add_matrix(image, p, layer, "ffn_down", SMALL_HIDDEN, SMALL_FFN, p->factored);
}

gguf_image small_model_image(const small_model_params *p) {
    gguf_image image = {0};
    uint64_t vocab = p->vocab ? p->vocab : TINY_VOCAB;
    add_keys(&image, p);
    small_model_add_tokenizer(&image, p);
    add_tensor(&image, p, "token_embd.weight", TENSOR_BF16, vocab, SMALL_HIDDEN);
    for (uint32_t i = 0; i < SMALL_LAYERS; i++) add_layer(&image, p, i);
    add_tensor(&image, p, "output_norm.weight", TENSOR_F32, SMALL_HIDDEN, 0);
    if (p->untied) add_tensor(&image, p, "output.weight", TENSOR_F16, vocab, SMALL_HIDDEN);
    return image;
}
