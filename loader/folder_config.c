#include "loader/folder_config.h"

#include "loader/folder_vision.h"
#include "loader/json_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 1 << 30, NAME_BYTES = 96 };

/// What a text_config inside another model's file leaves out has its class's defaults; a model's own file tells all of it.
typedef struct class_defaults {
    uint32_t layers, hidden, ffn, heads, kv_heads, vocab, context; // kv_heads 0: as many as heads
} class_defaults;

static const struct {
    const char *name, *architecture;
    const char *model_type; // as a text_config names it; NULL: not supported there
    bool needs_kv_heads;    // the class has a default of its own that depends on nothing
    class_defaults defaults;
} classes[] = {{"LlamaForCausalLM", "llama", "llama", false, {32, 4096, 11008, 32, 0, 32000, 2048}},
               {"MistralForCausalLM", "llama", "mistral", true, {32, 4096, 14336, 32, 8, 32000, 131072}},
               {"Qwen2ForCausalLM", "qwen2", "qwen2", true, {32, 4096, 22016, 32, 32, 151936, 32768}},
               {"Gemma3ForCausalLM", "gemma3", NULL, true, {0}}};
enum { CLASSES = sizeof classes / sizeof *classes, MISTRAL = 1, QWEN2 = 2, GEMMA3 = 3 };

static bool is_true(const json_t *root, const char *key) { return json_is_true(json_object_get(root, key)); }

/// The class of the model, or, with a tower, of the decoder in it: *text is the part of the file that tells of the decoder.
static zs_status read_class(const json_t *root, size_t *which, const char **family, const json_t **text, zs_error *error) {
    const json_t *list = json_object_get(root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    bool one = json_array_size(list) == 1;
    *text = root;
    *family = NULL;
    for (*which = 0; name && *which < CLASSES; ++*which) {
        if (one && strcmp(classes[*which].name, name) == 0) return ZS_OK;
    }
    if (!name) return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key architectures is missing or no list of names");
    if (!one || !(*family = folder_vision_family(name)))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "config.json: architecture %.60s is not supported; LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, "
                            "Gemma3ForCausalLM and, with images, LlavaForConditionalGeneration, LlavaNextForConditionalGeneration, "
                            "Idefics3ForConditionalGeneration and SmolVLMForConditionalGeneration are",
                            name);
    *text = json_file_get(root, "text_config");
    if (!json_is_object(*text)) return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key text_config is missing");
    const json_t *type = json_file_get(*text, "model_type");
    const char *type_name = type ? json_string_value(type) : "llama";
    for (*which = 0; type_name && *which < CLASSES; ++*which) {
        if (classes[*which].model_type && strcmp(classes[*which].model_type, type_name) == 0) return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "config.json: text_config: model_type %.60s is not supported; llama, mistral and qwen2 are",
                        type_name ? type_name : "of another kind");
}

static zs_status read_sizes(const json_t *root, size_t which, folder_config *c, zs_error *error) {
    static const class_defaults none = {0};
    const class_defaults *d = c->family ? &classes[which].defaults : &none;
    zs_status status = json_file_count(root, "num_hidden_layers", d->layers, &c->layers, error);
    if (!status) status = json_file_count(root, "hidden_size", d->hidden, &c->hidden, error);
    if (!status) status = json_file_count(root, "intermediate_size", d->ffn, &c->ffn, error);
    if (!status) status = json_file_count(root, "num_attention_heads", d->heads, &c->heads, error);
    uint32_t kv_heads = d->kv_heads ? d->kv_heads : classes[which].needs_kv_heads ? 0 : c->heads;
    if (!status) status = json_file_count(root, "num_key_value_heads", kv_heads, &c->kv_heads, error);
    uint32_t head_dim = which == GEMMA3 ? 256 : c->heads && c->hidden / c->heads ? c->hidden / c->heads : 1;
    if (!status) status = json_file_count(root, "head_dim", head_dim, &c->head_dim, error);
    if (!status) status = json_file_count(root, "vocab_size", d->vocab, &c->vocab, error);
    if (!status) status = json_file_count(root, "max_position_embeddings", d->context, &c->context, error);
    c->gemma_norms = which == GEMMA3;
    c->qkv_bias = which == QWEN2 || (which != MISTRAL && is_true(root, "attention_bias"));
    c->o_bias = which != QWEN2 && c->qkv_bias;
    c->mlp_bias = which != QWEN2 && which != MISTRAL && is_true(root, "mlp_bias");
    return status;
}

// ---- keys ----------------------------------------------------------------------------------------------------------

static void add_u32(gguf_writer *keys, const folder_config *c, const char *key, uint32_t value) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", c->architecture, key);
    gguf_writer_add_u32(keys, name, value);
}

static void add_f32(gguf_writer *keys, const folder_config *c, const char *key, double value) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", c->architecture, key);
    gguf_writer_add_f32(keys, name, (float)value);
}

static void add_string(gguf_writer *keys, const folder_config *c, const char *key, const char *value) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", c->architecture, key);
    gguf_writer_add_string(keys, name, value);
}

static void add_sizes(gguf_writer *keys, const folder_config *c) {
    add_u32(keys, c, "block_count", c->layers);
    add_u32(keys, c, "context_length", c->context);
    add_u32(keys, c, "embedding_length", c->hidden);
    add_u32(keys, c, "feed_forward_length", c->ffn);
    add_u32(keys, c, "attention.head_count", c->heads);
    add_u32(keys, c, "attention.head_count_kv", c->kv_heads);
    add_u32(keys, c, "attention.key_length", c->head_dim);
    add_u32(keys, c, "attention.value_length", c->head_dim);
    add_u32(keys, c, "vocab_size", c->vocab);
}

/// Scaled rotary positions: rope_scaling, in transformers 5 part of rope_parameters.
static zs_status read_scaling(const json_t *scaling, folder_config *c, gguf_writer *keys, zs_error *error) {
    const json_t *name = json_file_get(scaling, "rope_type") ? json_file_get(scaling, "rope_type") : json_file_get(scaling, "type");
    double factor, original;
    if (!name) return ZS_OK;
    if (!json_is_string(name)) return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: the type of rope_scaling is no text");
    const char *type = json_string_value(name);
    zs_status status = json_file_number(scaling, "factor", 1, &factor, error);
    if (!status) status = json_file_number(scaling, "original_max_position_embeddings", c->context, &original, error);
    if (status || strcmp(type, "default") == 0) return status;
    if (strcmp(type, "llama3") == 0) {
        c->llama3.used = true;
        c->llama3.factor = factor;
        c->llama3.original_context = original;
        status = json_file_number(scaling, "low_freq_factor", 1, &c->llama3.low_freq_factor, error);
        return status ? status : json_file_number(scaling, "high_freq_factor", 4, &c->llama3.high_freq_factor, error);
    }
    add_string(keys, c, "rope.scaling.type", type);
    add_f32(keys, c, "rope.scaling.factor", factor);
    if (original > 0 && original <= MOST) add_u32(keys, c, "rope.scaling.original_context_length", (uint32_t)original);
    return ZS_OK;
}

/// Gemma 3's layers with a window rotate by a base of their own; in transformers 5 each kind of layer has its parameters.
static zs_status read_window_rope(const json_t *root, const folder_config *c, gguf_writer *keys, zs_error *error) {
    const json_t *parameters = json_file_get(json_file_get(root, "rope_parameters"), "sliding_attention");
    const char *type = json_string_value(json_file_get(parameters, "rope_type"));
    double base;
    zs_status status = parameters ? json_file_number(parameters, "rope_theta", 10000, &base, error)
                                  : json_file_number(root, "rope_local_base_freq", 10000, &base, error);
    if (!status && type && strcmp(type, "default") != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "config.json: rope_parameters.sliding_attention is of type %.40s: support for windows whose rotary positions "
                            "are scaled is not implemented",
                            type);
    if (!status) add_f32(keys, c, "rope.freq_base_swa", base);
    return status;
}

static zs_status read_rope(const json_t *root, size_t which, folder_config *c, gguf_writer *keys, zs_error *error) {
    const json_t *parameters = json_file_get(root, "rope_parameters"), *scaling = json_file_get(root, "rope_scaling");
    double part, base = which == GEMMA3 ? 1e6 : 10000;
    zs_status status = which == GEMMA3 ? read_window_rope(root, c, keys, error) : ZS_OK;
    if (status) return status;
    if (json_file_get(parameters, "full_attention")) parameters = json_file_get(parameters, "full_attention");
    status = json_file_number(json_file_get(parameters, "rope_theta") ? parameters : root, "rope_theta", base, &c->rope_theta, error);
    if (!status)
        status = json_file_number(json_file_get(parameters, "partial_rotary_factor") ? parameters : root, "partial_rotary_factor", 1, &part,
                                  error);
    if (!status && !(part > 0 && part <= 1))
        status = zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key partial_rotary_factor is %g", part);
    if (status) return status;
    add_f32(keys, c, "rope.freq_base", c->rope_theta);
    add_u32(keys, c, "rope.dimension_count", (uint32_t)(part * c->head_dim));
    return read_scaling(scaling ? scaling : parameters, c, keys, error);
}

/// Every how many layers one has no window. A list of layers that follows no such rule has no key.
static zs_status read_pattern(const json_t *root, const folder_config *c, uint32_t *pattern, zs_error *error) {
    const json_t *types = json_file_get(root, "layer_types");
    zs_status status = json_file_count(root, "sliding_window_pattern", 6, pattern, error);
    if (status || !types) return status;
    *pattern = c->layers + 1; // none
    for (uint32_t i = 0; i < c->layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool full = type && strcmp(type, "full_attention") == 0;
        if (full && *pattern > c->layers) *pattern = i + 1;
        if (type && full == ((i + 1) % *pattern == 0) && (full || strcmp(type, "sliding_attention") == 0)) continue;
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "config.json: layer_types: layer %u is %.40s: only full_attention in every so many-th layer and "
                            "sliding_attention in the others are supported",
                            i, type ? type : "missing");
    }
    return ZS_OK;
}

/// What Gemma 3 has beside llama: windows by layers, a scale of scores of its own, and what its relatives have and it has not.
static zs_status read_gemma3(const json_t *root, const folder_config *c, gguf_writer *keys, zs_error *error) {
    static const char *const caps[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    uint32_t window, pattern = 0;
    double scalar, cap;
    zs_status status = json_file_count(root, "sliding_window", 4096, &window, error);
    if (!status) status = read_pattern(root, c, &pattern, error);
    if (!status) status = json_file_number(root, "query_pre_attn_scalar", 256, &scalar, error);
    if (!status && !(scalar > 0)) status = zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key query_pre_attn_scalar is %g", scalar);
    for (size_t i = 0; i < sizeof caps / sizeof *caps && !status; i++) {
        status = json_file_number(root, caps[i], 0, &cap, error);
        if (!status && cap != 0) add_f32(keys, c, caps[i], cap);
    }
    if (status) return status;
    add_u32(keys, c, "attention.sliding_window", window);
    if (pattern != 6) add_u32(keys, c, "attention.sliding_window_pattern", pattern);
    if (scalar != c->head_dim) add_f32(keys, c, "attention.scale", 1 / sqrt(scalar));
    if (is_true(root, "use_bidirectional_attention")) add_f32(keys, c, "attention.causal", 0);
    return ZS_OK;
}

static zs_status read_window(const json_t *root, size_t which, const folder_config *c, gguf_writer *keys, zs_error *error) {
    uint32_t window;
    if (which == GEMMA3) return read_gemma3(root, c, keys, error);
    if (which == QWEN2 && !is_true(root, "use_sliding_window")) return ZS_OK;
    if (which != QWEN2 && which != MISTRAL) return ZS_OK;
    if (!json_file_get(root, "sliding_window")) return ZS_OK;
    zs_status status = json_file_count(root, "sliding_window", 0, &window, error);
    if (!status) add_u32(keys, c, "attention.sliding_window", window);
    return status;
}

static void add_name(const json_t *root, const char *folder, gguf_writer *keys) {
    const char *path = json_string_value(json_file_get(root, "_name_or_path"));
    char name[120];
    if (!path || !*path) path = folder;
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    snprintf(name, sizeof name, "%.*s", (int)(end - start < 100 ? end - start : 100), path + start);
    gguf_writer_add_string(keys, "general.name", name);
}

/// Tied embeddings are the whole model's where that says so, else the decoder's.
static bool is_tied(const json_t *root, const json_t *text, size_t which) {
    const json_t *says = json_file_get(root, "tie_word_embeddings") ? root : text;
    return is_true(says, "tie_word_embeddings") || (which == GEMMA3 && !json_file_get(says, "tie_word_embeddings"));
}

static zs_status check_rest(const json_t *root, const json_t *text, size_t which, zs_error *error) {
    const char *key = which == GEMMA3 ? "hidden_activation" : "hidden_act", *known = which == GEMMA3 ? "gelu_pytorch_tanh" : "silu";
    const json_t *act = json_file_get(text, key);
    if (act && (!json_is_string(act) || strcmp(json_string_value(act), known) != 0))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "config.json: %s is not %s, which is the only one supported", key, known);
    if (json_file_get(root, "quantization_config") || json_file_get(text, "quantization_config"))
        return zs_error_set(
            error, ZS_ERROR_UNSUPPORTED,
            "config.json: quantization_config: weights quantised this way are not supported; use the F32, F16 or BF16 model");
    return ZS_OK;
}

zs_status folder_config_read(const json_t *root, const char *folder, folder_config *c, gguf_writer *keys, zs_error *error) {
    size_t which;
    double epsilon;
    const json_t *text;
    *c = (folder_config){0};
    zs_status status = read_class(root, &which, &c->family, &text, error);
    if (!status) status = check_rest(root, text, which, error);
    if (status) return status;
    c->architecture = classes[which].architecture;
    c->tied = is_tied(root, text, which);
    status = read_sizes(text, which, c, error);
    if (!status) status = json_file_number(text, "rms_norm_eps", 1e-6, &epsilon, error);
    if (status) return status;
    gguf_writer_add_string(keys, "general.architecture", c->architecture);
    add_name(root, folder, keys);
    add_sizes(keys, c);
    add_f32(keys, c, "attention.layer_norm_rms_epsilon", epsilon);
    status = read_rope(text, which, c, keys, error);
    if (!status) status = read_window(text, which, c, keys, error);
    return status || !c->family ? status : folder_vision_read(root, folder, c->family, keys, error);
}
