#include "support/tiny_folder.h"

#include "loader/model_file.h"
#include "loader/safetensors.h"
#include "support/tiny_vocabulary.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_TENSORS = 64 };

void tiny_folder_put(const char *folder, const char *name, const void *data, size_t size) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) abort();
}

static void put_json(const char *folder, const char *name, json_t *root) {
    char *text = json_dumps(root, JSON_COMPACT);
    if (!text) abort();
    tiny_folder_put(folder, name, text, strlen(text));
    free(text);
    json_decref(root);
}

static void put_config(const char *folder, const model_config *c) {
    put_json(folder, "config.json",
             json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:n, s:{s:f, s:s}}", "architectures", "LlamaForCausalLM",
                       "hidden_act", "silu", "num_hidden_layers", (int)c->layers, "hidden_size", (int)c->hidden, "intermediate_size",
                       (int)c->ffn, "num_attention_heads", (int)c->heads, "num_key_value_heads", (int)c->kv_heads, "vocab_size",
                       (int)c->vocab, "max_position_embeddings", (int)c->context, "rms_norm_eps", 1e-5, "tie_word_embeddings", c->tied,
                       "rope_scaling", "rope_parameters", "rope_theta", (double)c->rope_base, "rope_type", "default"));
}

static void put_tokenizer(const char *folder) {
    tiny_vocabulary vocab;
    tiny_vocabulary_make(&vocab);
    json_t *tokens = json_object(), *merges = json_array(), *added = json_array();
    for (int i = 0; i < TINY_VOCAB; i++) json_object_set_new(tokens, vocab.tokens[i], json_integer(i));
    for (int i = 0; i < TINY_MERGES; i++) json_array_append_new(merges, json_string(vocab.merges[i]));
    for (int i = 0; i < TINY_CONTROLS; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", i, "content", vocab.tokens[i], "single_word", 0,
                                               "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    put_json(folder, "tokenizer.json",
             json_pack("{s:s, s:o, s:n, s:{s:s, s:[{s:s, s:b}, {s:s, s:b, s:b, s:b}]}, s:{s:s, s:o, s:o}}", "version", "1.0",
                       "added_tokens", added, "normalizer", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type", "Digits",
                       "individual_digits", 1, "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1, "model",
                       "type", "BPE", "vocab", tokens, "merges", merges));
    put_json(folder, "tokenizer_config.json",
             json_pack("{s:s, s:{s:s}}", "bos_token", "<|im_start|>", "eos_token", "content", "<|im_end|>"));
    put_json(folder, "generation_config.json", json_pack("{s:[i]}", "eos_token_id", TINY_IM_END));
    tiny_folder_put(folder, "chat_template.jinja", tiny_chat_template, strlen(tiny_chat_template));
}

/// Rows in Hugging Face order, F32.
static float *read_matrix(const gguf_tensor *t, const model_matrix *order) {
    uint32_t rows = (uint32_t)t->shape[0];
    size_t cols = (size_t)(t->elements / rows), row_bytes = (size_t)(t->size / rows);
    float *values = malloc((size_t)t->elements * sizeof *values);
    if (!values) abort();
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t from = order ? model_matrix_file_row(order, i) : i;
        tensor_type_dequantise(t->type, (const uint8_t *)t->data + from * row_bytes, values + i * cols, cols);
    }
    return values;
}

typedef struct tensor_list {
    safetensors_entry entries[MOST_TENSORS];
    char names[MOST_TENSORS][96];
    size_t count;
} tensor_list;

static void add_tensor(tensor_list *list, const char *name, const gguf_tensor *t, const model_matrix *order) {
    if (list->count == MOST_TENSORS) abort();
    snprintf(list->names[list->count], sizeof list->names[0], "%s.weight", name);
    list->entries[list->count] = (safetensors_entry){
        .name = list->names[list->count], .dims = t->dims, .shape = {t->shape[0], t->shape[1]}, .data = read_matrix(t, order)};
    list->count++;
}

static void list_tensors(const model_file *file, tensor_list *list) {
    add_tensor(list, "model.embed_tokens", file->embedding, NULL);
    for (uint32_t i = 0; i < file->config.layers; i++) {
        char name[80];
        const model_layer_file *layer = &file->layers[i];
        for (int m = 0; m < MODEL_MATRICES; m++)
            add_tensor(list, layer->matrices[m].canonical, layer->matrices[m].dense, &layer->matrices[m]);
        snprintf(name, sizeof name, "model.layers.%u.input_layernorm", i);
        add_tensor(list, name, layer->attention_norm, NULL);
        snprintf(name, sizeof name, "model.layers.%u.post_attention_layernorm", i);
        add_tensor(list, name, layer->ffn_norm, NULL);
    }
    add_tensor(list, "model.norm", file->output_norm, NULL);
    if (!file->config.tied) add_tensor(list, "lm_head", file->head, NULL);
}

static zs_status put_shards(const char *folder, const tensor_list *list, uint32_t shards, zs_error *error) {
    zs_status status = ZS_OK;
    json_t *map = json_object();
    const safetensors_meta meta = {(char *)"format", (char *)"pt"};
    if (shards < 1) shards = 1;
    for (uint32_t i = 0; i < shards && !status; i++) {
        char name[64], path[1024];
        size_t first = list->count * i / shards, end = list->count * (i + 1) / shards;
        if (shards > 1)
            snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", i + 1, shards);
        else
            snprintf(name, sizeof name, "model.safetensors");
        snprintf(path, sizeof path, "%s/%s", folder, name);
        status = safetensors_save(path, true, list->entries + first, end - first, &meta, 1, error);
        for (size_t t = first; t < end; t++) json_object_set_new(map, list->names[t], json_string(name));
    }
    if (!status && shards > 1)
        put_json(folder, "model.safetensors.index.json", json_pack("{s:{s:i}, s:O}", "metadata", "total_size", 0, "weight_map", map));
    json_decref(map);
    return status;
}

zs_status tiny_folder_write(const char *gguf_path, const char *folder, const tiny_folder_params *params, zs_error *error) {
    model_file file;
    zs_status status = model_file_open(gguf_path, &file, error);
    if (status) return status;
    (void)mkdir(folder, 0777);
    tensor_list *list = calloc(1, sizeof *list);
    if (!list) abort();
    list_tensors(&file, list);
    put_config(folder, &file.config);
    put_tokenizer(folder);
    status = put_shards(folder, list, params ? params->shards : 0, error);
    for (size_t i = 0; i < list->count; i++) free((void *)(uintptr_t)list->entries[i].data);
    free(list);
    model_file_close(&file);
    return status;
}
