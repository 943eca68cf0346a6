#include "loader/model_features.h"
#include "loader/model_folder.h"
#include "loader/vision_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 64, LIMIT = 1 << 24 };

static const char *const gguf_names[MODEL_MATRICES] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
static const char *const canonical_names[MODEL_MATRICES] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                            "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

static const char *path_of(const model_file *file) { return file->gguf.map.path ? file->gguf.map.path : "model data"; }

static bool string_is(gguf_string s, const char *text) { return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0; }

static zs_status read_architecture(model_file *file, zs_error *error) {
    gguf_string name;
    if (!gguf_get_string(&file->gguf, "general.architecture", &name))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key general.architecture is missing", path_of(file));
    if (string_is(name, "zsigma")) {
        uint32_t version;
        file->config.factored = true;
        if (!gguf_get_u32(&file->gguf, "zsigma.version", &version) || version != 1)
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: a factored model of another version; factor it again with this program",
                                path_of(file));
        if (!gguf_get_string(&file->gguf, "zsigma.base_architecture", &name))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key zsigma.base_architecture is missing", path_of(file));
    }
    if (!string_is(name, "llama") && !string_is(name, "qwen2") && !string_is(name, "gemma3"))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: architecture %.*s is not supported; llama, qwen2 and gemma3 are",
                            path_of(file), (int)(name.size < 40 ? name.size : 40), name.data);
    snprintf(file->config.architecture, sizeof file->config.architecture, "%.*s", (int)name.size, name.data);
    if (gguf_get_string(&file->gguf, "general.name", &name))
        snprintf(file->config.name, sizeof file->config.name, "%.*s", (int)(name.size < 120 ? name.size : 120), name.data);
    return ZS_OK;
}

static zs_status read_count(const model_file *file, const char *key, uint32_t *value, zs_error *error) {
    char name[NAME_BYTES + 64];
    snprintf(name, sizeof name, "%s.%s", file->config.architecture, key);
    if (!gguf_get_u32(&file->gguf, name, value))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is missing or no count", path_of(file), name);
    if (*value == 0 || *value > LIMIT) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is %u", path_of(file), name, *value);
    return ZS_OK;
}

static zs_status read_row_order(model_file *file, zs_error *error) {
    gguf_string order;
    if (!gguf_find_value(&file->gguf, MODEL_ROWS_KEY)) {
        file->rows_in_halves = strcmp(file->config.architecture, "llama") != 0; // llama.cpp reorders those of llama only
        return ZS_OK;
    }
    file->rows_in_halves = gguf_get_string(&file->gguf, MODEL_ROWS_KEY, &order) && string_is(order, "halves");
    return file->rows_in_halves ? ZS_OK
                                : zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: key %s is not \"halves\", the only other order of rows",
                                               path_of(file), MODEL_ROWS_KEY);
}

static zs_status read_config(model_file *file, zs_error *error) {
    model_config *c = &file->config;
    zs_status status = read_count(file, "block_count", &c->layers, error);
    if (!status) status = read_count(file, "embedding_length", &c->hidden, error);
    if (!status) status = read_count(file, "feed_forward_length", &c->ffn, error);
    if (!status) status = read_count(file, "attention.head_count", &c->heads, error);
    if (!status) status = read_count(file, "context_length", &c->context, error);
    if (status) return status;
    char key[2 * NAME_BYTES];
    c->kv_heads = c->heads;
    snprintf(key, sizeof key, "%s.attention.head_count_kv", c->architecture);
    if (gguf_find_value(&file->gguf, key)) status = read_count(file, "attention.head_count_kv", &c->kv_heads, error);
    c->head_dim = c->hidden / c->heads;
    snprintf(key, sizeof key, "%s.attention.key_length", c->architecture);
    if (!status && gguf_find_value(&file->gguf, key)) status = read_count(file, "attention.key_length", &c->head_dim, error);
    if (status) return status;
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", c->architecture);
    if (!gguf_get_f32(&file->gguf, key, &c->norm_eps))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is missing or no number", path_of(file), key);
    c->rope_base = 10000;
    snprintf(key, sizeof key, "%s.rope.freq_base", c->architecture);
    if (gguf_find_value(&file->gguf, key) && !gguf_get_f32(&file->gguf, key, &c->rope_base))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is no number", path_of(file), key);
    if (c->layers > 1000 || c->heads % c->kv_heads || c->head_dim % 4 || c->head_dim > 256 || c->heads / c->kv_heads > 16 ||
        (uint64_t)c->heads * c->head_dim > LIMIT)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %u layers, %u heads over %u KV heads of %u are not supported", path_of(file),
                            c->layers, c->heads, c->kv_heads, c->head_dim);
    if (!(c->norm_eps >= 0 && c->norm_eps < 1) || !(c->rope_base > 1 && isfinite(c->rope_base)))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: norm epsilon %g or rope base %g makes no sense", path_of(file),
                            (double)c->norm_eps, (double)c->rope_base);
    return ZS_OK;
}

/// A tensor by name, which the model is known to use from then on; NULL when absent.
static const gguf_tensor *use(const model_file *file, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(&file->gguf, name);
    if (t && file->used) file->used[t - file->gguf.tensors] = true;
    return t;
}

/// A tensor of a shape; cols 0: a vector of rows. NULL and an error when missing (unless optional) or misshapen.
static zs_status find(const model_file *file, const char *name, uint32_t rows, uint32_t cols, bool optional, const gguf_tensor **tensor,
                      zs_error *error) {
    const gguf_tensor *t = use(file, name);
    *tensor = t;
    if (!t) return optional ? ZS_OK : zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is missing", path_of(file), name);
    bool fits = cols ? t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols : t->dims == 1 && t->shape[0] == rows;
    if (fits) return ZS_OK;
    *tensor = NULL;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s has shape [%llu, %llu] instead of [%u, %u]", path_of(file),
                        gguf_tensor_origin(t), (unsigned long long)t->shape[0], (unsigned long long)(t->dims > 1 ? t->shape[1] : 0), rows,
                        cols);
}

static zs_status find_factors(const model_file *file, const char *prefix, model_matrix *m, zs_error *error) {
    char name[NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s.zs_s", prefix);
    const gguf_tensor *s = use(file, name);
    uint32_t full = m->out < m->in ? m->out : m->in;
    if (!s || s->dims != 1 || s->type != TENSOR_F32 || s->shape[0] == 0 || s->shape[0] > full)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensors %s.weight and %s are missing or misshapen", path_of(file), prefix, name);
    m->s = s;
    m->rank = (uint32_t)s->shape[0];
    for (uint32_t i = 0; i < m->rank; i++) {
        float value;
        memcpy(&value, (const uint8_t *)s->data + sizeof value * i, sizeof value);
        if (!(value >= 0 && isfinite(value)))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s: singular value %u is %g", path_of(file), name, i, (double)value);
    }
    snprintf(name, sizeof name, "%s.zs_u", prefix);
    zs_status status = find(file, name, m->out, m->rank, false, &m->u, error);
    snprintf(name, sizeof name, "%s.zs_vt", prefix);
    if (!status) status = find(file, name, m->rank, m->in, false, &m->vt, error);
    return status;
}

static zs_status find_sketch(const model_file *file, const char *prefix, model_matrix *m, zs_error *error) {
    char name[NAME_BYTES + 16];
    const gguf_tensor *t;
    snprintf(name, sizeof name, "%s.zs_sketch", prefix);
    zs_status status = find(file, name, 8, 0, true, &t, error);
    if (status || !t) return status;
    if (t->type != TENSOR_F32) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is not of type F32", path_of(file), name);
    float *copy = malloc(8 * sizeof *copy);
    if (!copy) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    memcpy(copy, t->data, 8 * sizeof *copy);
    m->sketch = copy;
    return ZS_OK;
}

zs_status model_file_find_matrix(const model_file *file, const char *prefix, const char *canonical, model_matrix *m, zs_error *error) {
    char name[NAME_BYTES + 16];
    size_t size = strlen(canonical) + 1;
    snprintf(name, sizeof name, "%s.weight", prefix);
    char *copy = malloc(size);
    if (!copy) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    m->canonical = memcpy(copy, canonical, size);
    m->rank = m->out < m->in ? m->out : m->in;
    zs_status status = find(file, name, m->out, m->in, true, &m->dense, error);
    if (status || m->dense) return status;
    if (!file->config.factored) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is missing", path_of(file), name);
    status = find_factors(file, prefix, m, error);
    return status ? status : find_sketch(file, prefix, m, error);
}

void model_matrix_free(model_matrix *matrix) {
    free((void *)(uintptr_t)matrix->canonical);
    free((void *)(uintptr_t)matrix->sketch);
    *matrix = (model_matrix){0};
}

static zs_status find_matrix(const model_file *file, uint32_t layer, uint32_t which, model_matrix *m, zs_error *error) {
    char prefix[NAME_BYTES], canonical[NAME_BYTES];
    snprintf(prefix, sizeof prefix, "blk.%u.%s", layer, gguf_names[which]);
    snprintf(canonical, sizeof canonical, "model.layers.%u.%s", layer, canonical_names[which]);
    zs_status status = model_file_find_matrix(file, prefix, canonical, m, error);
    if (status || !m->dense || file->rows_in_halves) return status;
    if (which == MODEL_Q) m->permute_heads = file->config.heads;
    if (which == MODEL_K) m->permute_heads = file->config.kv_heads;
    return ZS_OK;
}

/// q, k and v have biases or none has.
static zs_status find_biases(model_file *file, uint32_t index, const uint32_t rows[3], zs_error *error) {
    char name[NAME_BYTES];
    zs_status status = ZS_OK;
    for (uint32_t m = 0; m < 3 && !status; m++) {
        snprintf(name, sizeof name, "blk.%u.%s.bias", index, gguf_names[m]);
        // Biases before norms of heads are a computation of their own: left unread, they are refused as tensors that no model uses.
        if (index == 0 && m == 0) file->config.qkv_bias = !file->config.head_norms && gguf_find_tensor(&file->gguf, name);
        if (file->config.qkv_bias) status = find(file, name, rows[m], 0, false, &file->layers[index].biases[m], error);
    }
    return status;
}

static zs_status find_layer(model_file *file, uint32_t index, zs_error *error) {
    const model_config *c = &file->config;
    model_layer_file *layer = &file->layers[index];
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const uint32_t shapes[MODEL_MATRICES][2] = {{q, c->hidden},      {kv, c->hidden},     {kv, c->hidden},    {c->hidden, q},
                                                {c->ffn, c->hidden}, {c->ffn, c->hidden}, {c->hidden, c->ffn}};
    zs_status status = ZS_OK;
    for (uint32_t m = 0; m < MODEL_MATRICES && !status; m++) {
        layer->matrices[m].out = shapes[m][0];
        layer->matrices[m].in = shapes[m][1];
        status = find_matrix(file, index, m, &layer->matrices[m], error);
    }
    const struct {
        const char *name;
        uint32_t width; // 0: the architecture has none
        const gguf_tensor **tensor;
    } norms[] = {
        {"attn_norm", c->hidden, &layer->attention_norm},
        {"ffn_norm", c->hidden, &layer->ffn_norm},
        {"attn_q_norm", c->head_norms ? c->head_dim : 0, &layer->q_norm},
        {"attn_k_norm", c->head_norms ? c->head_dim : 0, &layer->k_norm},
        {"post_attention_norm", c->post_norms ? c->hidden : 0, &layer->attention_post_norm},
        {"post_ffw_norm", c->post_norms ? c->hidden : 0, &layer->ffn_post_norm},
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms && !status; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "blk.%u.%s.weight", index, norms[i].name);
        if (norms[i].width) status = find(file, name, norms[i].width, 0, false, norms[i].tensor, error);
    }
    return status ? status : find_biases(file, index, (const uint32_t[]){q, kv, kv}, error);
}

/// Factors are numbers above zero: anything else turns positions into nothing.
static zs_status find_rope_factors(model_file *file, zs_error *error) {
    uint32_t count = file->config.head_dim / 2;
    zs_status status = find(file, "rope_freqs.weight", count, 0, true, &file->rope_factors, error);
    if (status || !file->rope_factors) return status;
    if (file->rope_factors->type != TENSOR_F32)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor rope_freqs.weight is not of type F32", path_of(file));
    for (uint32_t i = 0; i < count; i++) {
        float factor;
        memcpy(&factor, (const uint8_t *)file->rope_factors->data + sizeof factor * i, sizeof factor);
        if (!(factor > 0 && isfinite(factor)))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor rope_freqs.weight: factor %u is %g", path_of(file), i, (double)factor);
    }
    return ZS_OK;
}

static zs_status find_tensors(model_file *file, zs_error *error) {
    model_config *c = &file->config;
    const gguf_tensor *embedding = use(file, "token_embd.weight");
    if (!embedding || embedding->dims != 2 || embedding->shape[0] == 0 || embedding->shape[0] > LIMIT)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor token_embd.weight is missing or misshapen", path_of(file));
    c->vocab = (uint32_t)embedding->shape[0];
    zs_status status = find(file, "token_embd.weight", c->vocab, c->hidden, false, &file->embedding, error);
    if (!status) status = find(file, "output.weight", c->vocab, c->hidden, true, &file->head, error);
    if (!status) status = find(file, "output_norm.weight", c->hidden, 0, false, &file->output_norm, error);
    if (!status) status = find_rope_factors(file, error);
    if (status) return status;
    c->tied = file->head == NULL;
    if (c->tied) file->head = file->embedding;
    file->layers = calloc(c->layers, sizeof *file->layers);
    if (!file->layers) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    for (uint32_t i = 0; i < c->layers && !status; i++) status = find_layer(file, i, error);
    return status;
}

/// A tokenizer may know fewer tokens than the embedding has rows (padding), never more.
static zs_status check_vocabulary(const model_file *file, zs_error *error) {
    const gguf_value *tokens = gguf_find_value(&file->gguf, "tokenizer.ggml.tokens");
    if (!tokens || tokens->type != GGUF_ARRAY || tokens->count <= file->config.vocab) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT,
                        "%s: key tokenizer.ggml.tokens has %llu tokens and tensor token_embd.weight %u rows: they are of different models",
                        path_of(file), (unsigned long long)tokens->count, file->config.vocab);
}

static zs_status parse(model_file *file, zs_error *error) {
    zs_status status = read_architecture(file, error);
    if (!status) status = read_row_order(file, error);
    if (!status) status = read_config(file, error);
    if (!status) status = model_features_read_keys(file, error);
    file->used = calloc(file->gguf.tensor_count + 1, sizeof *file->used);
    if (!status && !file->used) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    if (!status) status = find_tensors(file, error);
    if (!status) status = check_vocabulary(file, error);
    if (!status) status = vision_file_read(file, file->config.hidden, &file->vision, error);
    if (!status) status = model_features_check_tensors(file, file->used, error);
    free(file->used);
    file->used = NULL;
    if (status) model_file_close(file);
    return status;
}

zs_status model_file_open(const char *path, model_file *file, zs_error *error) {
    *file = (model_file){0};
    zs_status status = model_folder_is(path) ? model_folder_open(path, &file->gguf, error) : gguf_open(path, &file->gguf, error);
    return status ? status : parse(file, error);
}

zs_status model_file_open_memory(const void *data, size_t size, model_file *file, zs_error *error) {
    *file = (model_file){0};
    zs_status status = gguf_open_memory(data, size, &file->gguf, error);
    return status ? status : parse(file, error);
}

static zs_status read_beside(model_file *beside, const char *path, const model_file *file, zs_error *error) {
    gguf_string architecture;
    zs_status status = gguf_open(path, &beside->gguf, error);
    if (status) return status;
    bool clip = gguf_get_string(&beside->gguf, "general.architecture", &architecture) && string_is(architecture, "clip");
    if (!clip || !gguf_find_value(&beside->gguf, "clip.vision.block_count"))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no file of an image tower (general.architecture clip, with clip.vision.… keys)",
                            path);
    return vision_file_read(beside, file->config.hidden, &beside->vision, error);
}

zs_status model_file_add_images(model_file *file, const char *path, zs_error *error) {
    if (file->vision) return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has an image tower of its own: leave %s out", path_of(file), path);
    model_file *beside = calloc(1, sizeof *beside);
    if (!beside) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path);
    zs_status status = read_beside(beside, path, file, error);
    if (status) {
        model_file_close(beside);
        free(beside);
        return status;
    }
    file->vision = beside->vision;
    beside->vision = NULL;
    file->beside = beside;
    return ZS_OK;
}

void model_file_close(model_file *file) {
    for (uint32_t i = 0; file->layers && i < file->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) model_matrix_free(&file->layers[i].matrices[m]);
    }
    free(file->layers);
    vision_file_close(&file->vision);
    if (file->beside) model_file_close(file->beside);
    free(file->beside);
    gguf_close(&file->gguf);
    *file = (model_file){0};
}

const model_matrix *model_file_find(const model_file *file, const char *canonical) {
    for (uint32_t i = 0; i < file->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            if (strcmp(file->layers[i].matrices[m].canonical, canonical) == 0) return &file->layers[i].matrices[m];
        }
    }
    return NULL;
}

uint32_t model_matrix_file_row(const model_matrix *matrix, uint32_t row) {
    if (matrix->permute_heads == 0) return row;
    uint32_t d = matrix->out / matrix->permute_heads, head = row / d, i = row % d;
    return head * d + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
}

uint32_t model_bias_file_row(const model_file *file, uint32_t matrix, uint32_t row) {
    const model_config *c = &file->config;
    if (file->rows_in_halves || matrix == MODEL_V) return row;
    uint32_t heads = matrix == MODEL_Q ? c->heads : c->kv_heads;
    return model_matrix_file_row(&(model_matrix){.out = heads * c->head_dim, .permute_heads = heads}, row);
}

const char *model_matrix_gguf_name(uint32_t matrix) { return gguf_names[matrix]; }

bool model_layer_has_window(const model_config *config, uint32_t layer) {
    return config->full_every ? (layer + 1) % config->full_every != 0 : config->window != 0;
}
