#include "loader/model_folder.h"

#include "loader/folder_config.h"
#include "loader/folder_vision.h"
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
    float *norms;        // one after another, where GGUF files store them another way
} folder_parts;

static void close_parts(void *parts) {
    folder_parts *p = parts;
    shards_close(&p->shards);
    free(p->rope_factors);
    free(p->norms);
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
    {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"}, {"self_attn.v_proj", "attn_v"}, {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},  {"mlp.up_proj", "ffn_up"},      {"mlp.down_proj", "ffn_down"},
};
static const char *const norm_names[][2] = {{"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"}};
static const char *const gemma_norm_names[][2] = {
    {"input_layernorm", "attn_norm"},          {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"}, {"post_feedforward_layernorm", "post_ffw_norm"},
    {"self_attn.q_norm", "attn_q_norm"},       {"self_attn.k_norm", "attn_k_norm"},
};
enum {
    OUTER = sizeof outer_names / sizeof *outer_names,
    LAYER = sizeof layer_names / sizeof *layer_names,
    NORMS = sizeof norm_names / sizeof *norm_names,
    GEMMA_NORMS = sizeof gemma_norm_names / sizeof *gemma_norm_names,
    GEMMA_HEAD_NORMS = 4, // from there on
};

/// A layer's i-th part: matrices first, then norms. NULL behind the last.
static const char *const *layer_name(const folder_config *c, size_t i) {
    if (i < LAYER) return layer_names[i];
    i -= LAYER;
    if (c->gemma_norms) return i < GEMMA_NORMS ? gemma_norm_names[i] : NULL;
    return i < NORMS ? norm_names[i] : NULL;
}

/// "model.layers.N.PART.weight" or ".bias" as "blk.N.PART.weight"; a name that is none of these stays.
static void translate(const folder_config *c, const char *name, char out[65]) {
    unsigned layer;
    int used = 0;
    for (size_t i = 0; i < OUTER; i++) {
        if (strcmp(name, outer_names[i][0]) != 0) continue;
        snprintf(out, 65, "%s", outer_names[i][1]);
        return;
    }
    snprintf(out, 65, "%.64s", name);
    if (strncmp(name, "model.layers.", 13) != 0 || name[13] < '0' || name[13] > '9' ||
        sscanf(name, "model.layers.%5u.%n", &layer, &used) != 1 || used == 0)
        return;
    const char *const *part;
    for (size_t i = 0; (part = layer_name(c, i)) != NULL; i++) {
        size_t size = strlen(part[0]);
        const char *end = name + used + size;
        if (strncmp(name + used, part[0], size) != 0 || (strcmp(end, ".weight") != 0 && strcmp(end, ".bias") != 0)) continue;
        snprintf(out, 65, "blk.%u.%s%s", layer, part[1], end);
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
static void check_tensor(const gguf_file *file, const folder_config *c, const char *name, uint32_t rows, uint32_t cols, complaints *list) {
    char what[120], told[65];
    translate(c, name, told);
    const gguf_tensor *t = gguf_find_tensor(file, told);
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

static void check_layer(const gguf_file *file, const folder_config *c, uint32_t layer, complaints *list) {
    const uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const uint32_t shapes[LAYER][2] = {{q, c->hidden},      {kv, c->hidden},     {kv, c->hidden},    {c->hidden, q},
                                       {c->ffn, c->hidden}, {c->ffn, c->hidden}, {c->hidden, c->ffn}};
    const bool biases[LAYER] = {c->qkv_bias, c->qkv_bias, c->qkv_bias, c->o_bias, c->mlp_bias, c->mlp_bias, c->mlp_bias};
    char name[NAME_BYTES];
    for (size_t i = LAYER; layer_name(c, i) != NULL; i++) {
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", layer, layer_name(c, i)[0]);
        check_tensor(file, c, name, c->gemma_norms && i - LAYER >= GEMMA_HEAD_NORMS ? c->head_dim : c->hidden, 0, list);
    }
    for (size_t i = 0; i < LAYER; i++) {
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", layer, layer_names[i][0]);
        check_tensor(file, c, name, shapes[i][0], shapes[i][1], list);
        snprintf(name, sizeof name, "model.layers.%u.%s.bias", layer, layer_names[i][0]);
        if (biases[i]) check_tensor(file, c, name, shapes[i][0], 0, list);
    }
}

static zs_status check_tensors(const char *path, const gguf_file *file, const folder_config *c, zs_error *error) {
    complaints list = {0};
    char more[40] = "";
    if (c->layers > 1000 || (uint64_t)c->heads * c->head_dim > 1u << 24 || (uint64_t)c->kv_heads * c->head_dim > 1u << 24)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %u layers, %u heads over %u KV heads of %u are not supported", path,
                            c->layers, c->heads, c->kv_heads, c->head_dim);
    check_tensor(file, c, outer_names[0][0], c->vocab, c->hidden, &list);
    check_tensor(file, c, outer_names[1][0], c->hidden, 0, &list);
    if (!c->tied) check_tensor(file, c, outer_names[2][0], c->vocab, c->hidden, &list);
    for (uint32_t i = 0; i < c->layers; i++) check_layer(file, c, i, &list);
    if (list.count == 0) return ZS_OK;
    if (list.left_out) snprintf(more, sizeof more, " and %zu more", list.left_out);
    return zs_error_set(error, ZS_ERROR_FORMAT, "%.120s: by config.json, tensor %s%s", path, list.text, more);
}

// ---- tensors -------------------------------------------------------------------------------------------------------

/// False: the tensor is left out.
static bool put_tensor(const folder_config *c, const safetensors_tensor *from, gguf_tensor *to) {
    char plain[256];
    bool decoders = true;
    if (c->family)
        decoders = folder_vision_translate(from->name, plain, sizeof plain);
    else
        snprintf(plain, sizeof plain, "%s", from->name);
    if (!plain[0] || is_left_out(c, plain)) return false;
    to->mapped = true; // shards are opened by their paths
    if (decoders)
        translate(c, plain, to->name);
    else
        snprintf(to->name, sizeof to->name, "%.64s", plain);
    to->origin = from->name;
    to->type = from->type;
    to->dims = from->dims;
    for (uint32_t i = 0; i < from->dims && i < 4; i++) to->shape[i] = from->shape[i];
    to->elements = from->elements;
    to->data = from->data;
    to->size = from->size;
    return true;
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

static bool is_norm(const gguf_tensor *t) {
    size_t size = strlen(t->name);
    return t->dims == 1 && size > 11 && strcmp(t->name + size - 11, "norm.weight") == 0;
}

/// Gemma's norms are stored as their distance from 1; GGUF files have the factors themselves.
static bool raise_norms(folder_parts *parts, gguf_tensor *tensors, size_t count) {
    size_t total = 1;
    for (size_t i = 0; i < count; i++) total += is_norm(&tensors[i]) ? (size_t)tensors[i].elements : 0;
    float *next = parts->norms = malloc(total * sizeof *next);
    for (size_t i = 0; i < count && next; i++) {
        gguf_tensor *t = &tensors[i];
        if (!is_norm(t)) continue;
        tensor_type_dequantise(t->type, t->data, next, (size_t)t->elements);
        for (size_t k = 0; k < t->elements; k++) next[k] += 1;
        t->type = TENSOR_F32;
        t->size = t->elements * sizeof *next;
        t->data = next;
        t->mapped = false;
        next += t->elements;
    }
    return parts->norms;
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
        for (size_t t = 0; t < from->tensor_count; t++) count += put_tensor(c, &from->tensors[t], &tensors[count]);
    }
    if (c->gemma_norms && !raise_norms(parts, tensors, count)) {
        free(tensors);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path);
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
    if (!status) status = add_tensors(path, &config, parts, file, error);
    if (!status) status = check_tensors(path, file, &config, error);
    if (status) {
        if (parts && file->parts != parts) close_parts(parts);
        gguf_close(file);
    }
    return status;
}
