#include "support/tiny_model.h"

#include "loader/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// One tensor of the model. cols 0: a norm's vector [rows], F32.
typedef struct tensor_plan {
    char name[64];
    uint32_t rows, cols;
    float deviation; // of its values; norms: of their distance from 1
} tensor_plan;

enum { LAYER_TENSORS = 9, MAX_TENSORS = 3 + LAYER_TENSORS * TINY_LAYERS };

static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state += 0x9E3779B97F4A7C15u; // splitmix64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/// About normal, mean 0, variance 1: a sum of four uniform numbers, which needs no function that libraries round differently.
static float next_normal(uint64_t *state) {
    uint64_t bits = next_random(state);
    uint32_t sum = 0;
    for (int i = 0; i < 4; i++) sum += (uint32_t)(bits >> 16 * i & 0xffff);
    return ((float)sum - 131070.0f) * (1.7320508f / 65536.0f);
}

static tensor_plan *plan(tensor_plan *next, const char *name, uint32_t rows, uint32_t cols, float deviation) {
    *next = (tensor_plan){.rows = rows, .cols = cols, .deviation = deviation};
    snprintf(next->name, sizeof next->name, "%s", name);
    return next + 1;
}

/// Matrices of variance 1/in keep the activations' size; an embedding of deviation 1/4 gives logits of deviation 2.
static size_t plan_tensors(const tiny_model_params *params, tensor_plan *plans) {
    const uint32_t hidden = params->hidden, ffn = params->ffn;
    const struct {
        const char *name;
        uint32_t rows, cols;
    } layer[LAYER_TENSORS] = {
        {"attn_norm", hidden, 0},
        {"attn_q", TINY_HEADS * TINY_HEAD_DIM, hidden},
        {"attn_k", TINY_KV_HEADS * TINY_HEAD_DIM, hidden},
        {"attn_v", TINY_KV_HEADS * TINY_HEAD_DIM, hidden},
        {"attn_output", hidden, TINY_HEADS * TINY_HEAD_DIM},
        {"ffn_norm", hidden, 0},
        {"ffn_gate", ffn, hidden},
        {"ffn_up", ffn, hidden},
        {"ffn_down", hidden, ffn},
    };
    tensor_plan *next = plan(plans, "token_embd.weight", TINY_VOCAB, hidden, 0.25f);
    for (uint32_t i = 0; i < TINY_LAYERS; i++) {
        for (size_t k = 0; k < LAYER_TENSORS; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s.weight", i, layer[k].name);
            next = plan(next, name, layer[k].rows, layer[k].cols, layer[k].cols ? 1 / sqrtf((float)layer[k].cols) : 0.1f);
        }
    }
    next = plan(next, "output_norm.weight", hidden, 0, 0.1f);
    if (params->untied) next = plan(next, "output.weight", TINY_VOCAB, hidden, 0.25f);
    return (size_t)(next - plans);
}

static void add_f32(gguf_writer *writer, const char *key, float value) {
    gguf_writer_copy_value(
        writer,
        &(gguf_value){.key = {key, strlen(key)}, .type = GGUF_F32, .count = 1, .data = (const uint8_t *)&value, .size = sizeof value});
}

static void add_tokenizer(gguf_writer *writer) {
    static const char types_key[] = "tokenizer.ggml.token_type";
    tiny_vocabulary vocab;
    tiny_vocabulary_make(&vocab);
    gguf_writer_add_string(writer, "tokenizer.ggml.model", "gpt2");
    gguf_writer_add_string(writer, "tokenizer.ggml.pre", "smollm");
    gguf_writer_add_strings(writer, "tokenizer.ggml.tokens", vocab.tokens, TINY_VOCAB);
    gguf_writer_copy_value(writer, &(gguf_value){.key = {types_key, sizeof types_key - 1},
                                                 .type = GGUF_ARRAY,
                                                 .element_type = GGUF_U32,
                                                 .count = TINY_VOCAB,
                                                 .data = (const uint8_t *)vocab.types,
                                                 .size = sizeof vocab.types});
    gguf_writer_add_strings(writer, "tokenizer.ggml.merges", vocab.merges, TINY_MERGES);
    gguf_writer_add_u32(writer, "tokenizer.ggml.bos_token_id", TINY_IM_START);
    gguf_writer_add_u32(writer, "tokenizer.ggml.eos_token_id", TINY_IM_END);
    gguf_writer_add_string(writer, "tokenizer.chat_template", tiny_chat_template);
}

static void add_keys(gguf_writer *writer, const tiny_model_params *params) {
    gguf_writer_add_string(writer, "general.architecture", "llama");
    gguf_writer_add_string(writer, "general.name", "tiny");
    gguf_writer_add_u32(writer, "llama.block_count", TINY_LAYERS);
    gguf_writer_add_u32(writer, "llama.context_length", TINY_CONTEXT);
    gguf_writer_add_u32(writer, "llama.embedding_length", params->hidden);
    gguf_writer_add_u32(writer, "llama.feed_forward_length", params->ffn);
    gguf_writer_add_u32(writer, "llama.attention.head_count", TINY_HEADS);
    gguf_writer_add_u32(writer, "llama.attention.head_count_kv", TINY_KV_HEADS);
    gguf_writer_add_u32(writer, "llama.rope.dimension_count", TINY_HEAD_DIM);
    if (params->hidden != TINY_HIDDEN) gguf_writer_add_u32(writer, "llama.attention.key_length", TINY_HEAD_DIM);
    add_f32(writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    add_f32(writer, "llama.rope.freq_base", 10000);
    add_tokenizer(writer);
}

static zs_status write_tensor(gguf_writer *writer, const tensor_plan *p, uint32_t type, uint64_t *random, zs_error *error) {
    size_t elements = (size_t)p->rows * (p->cols ? p->cols : 1);
    size_t size = (size_t)tensor_type_bytes(type, elements);
    float *values = malloc(elements * sizeof *values);
    void *rounded = malloc(size);
    zs_status status = ZS_OK;
    if (!values || !rounded) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for tensor %s", p->name);
        goto done;
    }
    for (size_t i = 0; i < elements; i++) values[i] = (p->cols ? 0 : 1) + p->deviation * next_normal(random);
    if (!tensor_type_quantise(type, values, rounded, elements)) {
        status = zs_error_set(error, ZS_ERROR_ARGUMENT, "a tiny model cannot be made of type %u", type);
        goto done;
    }
    status = gguf_writer_write(writer, rounded, size, error);
done:
    free(values);
    free(rounded);
    return status;
}

zs_status tiny_model_write(const char *path, const tiny_model_params *given, zs_error *error) {
    tiny_model_params chosen = given ? *given : (tiny_model_params){0};
    const tiny_model_params *params = &chosen;
    tensor_plan plans[MAX_TENSORS];
    if (!chosen.hidden) chosen.hidden = TINY_HIDDEN;
    if (!chosen.ffn) chosen.ffn = TINY_FFN;
    size_t count = plan_tensors(params, plans);
    uint64_t random = params->seed;
    gguf_writer *writer = NULL;
    zs_status status = gguf_writer_create(path, true, &writer, error);
    if (status) return status;
    add_keys(writer, params);
    for (size_t i = 0; i < count; i++) {
        uint64_t shape[2] = {plans[i].rows, plans[i].cols};
        gguf_writer_add_tensor(writer, plans[i].name, plans[i].cols ? params->weight_type : TENSOR_F32, plans[i].cols ? 2 : 1, shape);
    }
    status = gguf_writer_start(writer, error);
    for (size_t i = 0; i < count && !status; i++)
        status = write_tensor(writer, &plans[i], plans[i].cols ? params->weight_type : TENSOR_F32, &random, error);
    if (status)
        gguf_writer_discard(&writer);
    else
        status = gguf_writer_finish(&writer, error);
    return status;
}
