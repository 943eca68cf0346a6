#include "loader/model_folder.h"

#include "loader/folder_config.h"
#include "loader/json_file.h"
#include "loader/model_file.h"
#include "loader/shards.h"
#include "loader/tokenizer_folder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME_BYTES = 128, LIST_BYTES = 800 };

/// What the tensors of the file point into.
typedef struct folder_parts {
    shards shards;
    float *rope_factors; // [head_dim / 2]
} folder_parts;

static void close_parts(void *parts) {
    folder_parts *p = parts;
    shards_close(&p->shards);
    free(p->rope_factors);
    free(p);
}

bool model_folder_is(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

// ---- names ---------------------------------------------------------------------------------------------------------

static const char *const outer_names[][2] = {
    {"model.embed_tokens.weight", "token_embd.weight"}, {"model.norm.weight", "output_norm.weight"}, {"lm_head.weight", "output.weight"}};
static const char *const layer_names[][2] = {
    {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};
enum { OUTER = sizeof outer_names / sizeof *outer_names, LAYER = sizeof layer_names / sizeof *layer_names };

/// "model.layers.N.PART.weight" or ".bias" as "blk.N.PART.weight"; a name that is none of these stays.
static void translate(const char *name, char out[65]) {
    unsigned layer;
    int used = 0;
    for (size_t i = 0; i < OUTER; i++) {
        if (strcmp(name, outer_names[i][0]) != 0) continue;
        snprintf(out, 65, "%s", outer_names[i][1]);
        return;
    }
    snprintf(out, 65, "%s", name);
    if (strncmp(name, "model.layers.", 13) != 0 || name[13] < '0' || name[13] > '9' ||
        sscanf(name, "model.layers.%5u.%n", &layer, &used) != 1 || used == 0)
        return;
    for (size_t i = 0; i < LAYER; i++) {
        size_t size = strlen(layer_names[i][0]);
        const char *end = name + used + size;
        if (strncmp(name + used, layer_names[i][0], size) != 0 || (strcmp(end, ".weight") != 0 && strcmp(end, ".bias") != 0)) continue;
        snprintf(out, 65, "blk.%u.%s%s", layer, layer_names[i][1], end);
        return;
    }
}

/// Tables that older files carry and every reader makes anew.
static bool is_left_out(const folder_config *c, const char *name) {
    static const char table[] = ".rotary_emb.inv_freq";
    size_t size = strlen(name), length = sizeof table - 1;
    if (size > length && strcmp(name + size - length, table) == 0) return true;
    return c->tied && strcmp(name, "lm_head.weight") == 0;
}

// ---- what must be there --------------------------------------------------------------------------------------------

typedef struct complaints {
    char text[LIST_BYTES];
    size_t count, left_out;
} complaints;

static void complain(complaints *list, const char *name, const char *what) {
    size_t used = strlen(list->text);
    list->count++;
    if (used + strlen(name) + strlen(what) + 4 > sizeof list->text)
        list->left_out++;
    else
        snprintf(list->text + used, sizeof list->text - used, "%s%s %s", used ? ", " : "", name, what);
}

/// cols 0: a vector.
static void check_tensor(const shards *all, const char *name, uint32_t rows, uint32_t cols, complaints *list) {
    const safetensors_tensor *t = NULL;
    char what[120];
    for (size_t i = 0; i < all->count && !t; i++) t = safetensors_find(&all->list[i].file, name);
    if (!t) {
        complain(list, name, "is missing");
        return;
    }
    if (cols ? t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols : t->dims == 1 && t->shape[0] == rows) return;
    if (cols)
        snprintf(what, sizeof what, "has shape [%llu, %llu] instead of [%u, %u]", (unsigned long long)(t->dims > 0 ? t->shape[0] : 0),
                 (unsigned long long)(t->dims > 1 ? t->shape[1] : 0), rows, cols);
    else
        snprintf(what, sizeof what, "has shape [%llu] instead of [%u]", (unsigned long long)(t->dims > 0 ? t->shape[0] : 0), rows);
    complain(list, name, what);
}

static void check_layer(const shards *all, const folder_config *c, uint32_t layer, complaints *list) {
    const uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const uint32_t shapes[LAYER][2] = {{c->hidden, 0}, {c->hidden, 0},      {q, c->hidden},      {kv, c->hidden},    {kv, c->hidden},
                                       {c->hidden, q}, {c->ffn, c->hidden}, {c->ffn, c->hidden}, {c->hidden, c->ffn}};
    const bool biases[LAYER] = {false, false, c->qkv_bias, c->qkv_bias, c->qkv_bias, c->o_bias, c->mlp_bias, c->mlp_bias, c->mlp_bias};
    for (size_t i = 0; i < LAYER; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", layer, layer_names[i][0]);
        check_tensor(all, name, shapes[i][0], shapes[i][1], list);
        snprintf(name, sizeof name, "model.layers.%u.%s.bias", layer, layer_names[i][0]);
        if (biases[i]) check_tensor(all, name, shapes[i][0], 0, list);
    }
}

static zs_status check_tensors(const char *path, const shards *all, const folder_config *c, zs_error *error) {
    complaints list = {0};
    char more[40] = "";
    if (c->layers > 1000 || (uint64_t)c->heads * c->head_dim > 1u << 24 || (uint64_t)c->kv_heads * c->head_dim > 1u << 24)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %u layers, %u heads over %u KV heads of %u are not supported", path,
                            c->layers, c->heads, c->kv_heads, c->head_dim);
    check_tensor(all, outer_names[0][0], c->vocab, c->hidden, &list);
    check_tensor(all, outer_names[1][0], c->hidden, 0, &list);
    if (!c->tied) check_tensor(all, outer_names[2][0], c->vocab, c->hidden, &list);
    for (uint32_t i = 0; i < c->layers; i++) check_layer(all, c, i, &list);
    if (list.count == 0) return ZS_OK;
    if (list.left_out) snprintf(more, sizeof more, " and %zu more", list.left_out);
    return zs_error_set(error, ZS_ERROR_FORMAT, "%.120s: by config.json, tensor %s%s", path, list.text, more);
}

// ---- tensors -------------------------------------------------------------------------------------------------------

static void put_tensor(const safetensors_tensor *from, gguf_tensor *to) {
    to->mapped = true; // shards are opened by their paths
    translate(from->name, to->name);
    to->origin = from->name;
    to->type = from->type;
    to->dims = from->dims;
    for (uint32_t i = 0; i < from->dims && i < 4; i++) to->shape[i] = from->shape[i];
    to->elements = from->elements;
    to->data = from->data;
    to->size = from->size;
}

/// Llama 3.1's scaled rotary positions as GGUF files have them, by factors [head_dim / 2] of the frequencies
/// (transformers' modeling_rope_utils.py, _compute_llama3_parameters).
static bool put_rope_factors(const folder_config *c, folder_parts *parts, gguf_tensor *to) {
    static const double pi = 3.14159265358979323846;
    uint32_t count = c->head_dim / 2;
    parts->rope_factors = malloc((count + 1) * sizeof *parts->rope_factors);
    if (!parts->rope_factors) return false;
    for (uint32_t i = 0; i < count; i++) {
        double wavelength = 2 * pi * pow(c->rope_theta, 2.0 * i / c->head_dim), original = c->llama3.original_context;
        double low = original / c->llama3.low_freq_factor, high = original / c->llama3.high_freq_factor, factor = c->llama3.factor;
        double smooth = (original / wavelength - c->llama3.low_freq_factor) / (c->llama3.high_freq_factor - c->llama3.low_freq_factor);
        double divisor = wavelength < high ? 1 : wavelength > low ? factor : 1 / ((1 - smooth) / factor + smooth);
        parts->rope_factors[i] = (float)divisor;
    }
    *to = (gguf_tensor){.name = "rope_freqs.weight",
                        .type = TENSOR_F32,
                        .dims = 1,
                        .shape = {count},
                        .elements = count,
                        .data = parts->rope_factors,
                        .size = 4ull * count};
    return true;
}

static zs_status add_tensors(const char *path, const folder_config *c, folder_parts *parts, gguf_file *file, zs_error *error) {
    size_t total = 1, count = 0;
    for (size_t i = 0; i < parts->shards.count; i++) total += parts->shards.list[i].file.tensor_count;
    gguf_tensor *tensors = calloc(total, sizeof *tensors);
    if (!tensors || (c->llama3.used && !put_rope_factors(c, parts, &tensors[count++]))) {
        free(tensors);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path);
    }
    for (size_t i = 0; i < parts->shards.count; i++) {
        const safetensors_file *from = &parts->shards.list[i].file;
        for (size_t t = 0; t < from->tensor_count; t++) {
            if (!is_left_out(c, from->tensors[t].name)) put_tensor(&from->tensors[t], &tensors[count++]);
        }
    }
    return gguf_adopt_tensors(file, tensors, count, parts, close_parts, error);
}

// ---- the folder ----------------------------------------------------------------------------------------------------

static zs_status read_keys(const char *path, folder_config *config, gguf_file *file, zs_error *error) {
    json_t *root;
    gguf_writer *keys = NULL;
    zs_error inner = {0};
    bool found;
    zs_status status = json_file_read(path, "config.json", false, &root, error);
    if (status) return status;
    status = gguf_writer_create_keys(&keys, error);
    if (!status && (status = folder_config_read(root, path, config, keys, &inner)) != ZS_OK)
        zs_error_set(error, status, "%s/%s", path, inner.message);
    json_decref(root);
    if (!status) gguf_writer_add_string(keys, MODEL_ROWS_KEY, "halves");
    if (!status) status = tokenizer_folder_read(path, keys, &found, error);
    if (!status) return gguf_writer_open(&keys, path, file, error);
    gguf_writer_discard(&keys);
    return status;
}

zs_status model_folder_open(const char *path, gguf_file *file, zs_error *error) {
    folder_config config;
    *file = (gguf_file){0};
    zs_status status = read_keys(path, &config, file, error);
    if (status) return status;
    folder_parts *parts = calloc(1, sizeof *parts);
    if (!parts) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path);
    if (!status) status = shards_open(path, &parts->shards, error);
    if (!status) status = check_tensors(path, &parts->shards, &config, error);
    if (!status) status = add_tensors(path, &config, parts, file, error);
    if (status) {
        if (parts && file->parts != parts) close_parts(parts);
        gguf_close(file);
    }
    return status;
}
