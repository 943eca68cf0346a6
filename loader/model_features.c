#include "loader/model_features.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *path_of(const model_file *file) { return file->gguf.map.path ? file->gguf.map.path : "model data"; }

// ---- keys ----------------------------------------------------------------------------------------------------------

/// A key that is harmless at some values only.
typedef struct feature_key {
    const char *key; // after "llama."
    const char *what;
    double neutral[2];
} feature_key;

static const feature_key keys[] = {
    {"rope.scaling.factor", "scaled rotary positions", {1, 0}},
    {"rope.scaling.attn_factor", "scaled rotary positions", {1, 0}},
    {"rope.scale_linear", "scaled rotary positions", {1, 0}},
    {"attention.causal", "attention to later tokens", {1, 1}},
    {"attention.max_alibi_bias", "ALiBi attention biases", {0, 0}},
    {"attention.clamp_kqv", "clamped queries, keys and values", {0, 0}},
    {"attention.scale", "attention scores of another scale", {0, 0}},
    {"attn_logit_softcapping", "soft-capped attention scores", {0, 0}},
    {"final_logit_softcapping", "soft-capped logits", {0, 0}},
    {"logit_scale", "scaled logits", {1, 0}},
    {"embedding_scale", "scaled embeddings", {1, 0}},
    {"residual_scale", "scaled residuals", {1, 0}},
    {"use_parallel_residual", "attention and feed-forward side by side", {0, 0}},
    {"expert_count", "a mixture of experts in each layer", {0, 0}},
};

/// A number or truth value of any type; false when the key is absent. NaN: of another type.
static bool read_number(const model_file *file, const char *key, char *name, size_t size, double *number) {
    uint64_t whole;
    float real;
    bool truth;
    snprintf(name, size, "%s.%s", file->config.architecture, key);
    if (!gguf_find_value(&file->gguf, name)) return false;
    if (gguf_get_u64(&file->gguf, name, &whole))
        *number = (double)whole;
    else if (gguf_get_f32(&file->gguf, name, &real))
        *number = (double)real;
    else if (gguf_get_bool(&file->gguf, name, &truth))
        *number = truth;
    else
        *number = NAN;
    return true;
}

static zs_status refuse_key(const model_file *file, const char *name, double number, const char *what, zs_error *error) {
    return zs_error_set(
        error, ZS_ERROR_UNSUPPORTED,
        "%s: key %s is %g: %s not implemented, and without it the answers would be wrong; use a model that does not need it", path_of(file),
        name, number, what);
}

/// Sizes of attention heads in part: what the file says twice must agree, or heads rotate in part only or differ in width.
static zs_status check_head_sizes(const model_file *file, zs_error *error) {
    static const char *const sizes[] = {"rope.dimension_count", "attention.value_length"};
    static const char *const what[] = {"heads that rotate in part are", "values of another width than keys are"};
    char name[128];
    double number;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (read_number(file, sizes[i], name, sizeof name, &number) && number != (double)file->config.head_dim)
            return refuse_key(file, name, number, what[i], error);
    }
    return ZS_OK;
}

zs_status model_features_check_keys(const model_file *file, zs_error *error) {
    char name[128];
    double number;
    gguf_string scaling;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!read_number(file, keys[i].key, name, sizeof name, &number)) continue;
        if (number != keys[i].neutral[0] && number != keys[i].neutral[1]) {
            char what[80];
            snprintf(what, sizeof what, "support for %s is", keys[i].what);
            return refuse_key(file, name, number, what, error);
        }
    }
    if (read_number(file, "attention.sliding_window", name, sizeof name, &number) && number != 0 && !(number >= file->config.context)) {
        return refuse_key(file, name, number, "attention in a window shorter than the context is", error);
    }
    snprintf(name, sizeof name, "%s.rope.scaling.type", file->config.architecture);
    if (gguf_find_value(&file->gguf, name) &&
        !(gguf_get_string(&file->gguf, name, &scaling) && scaling.size == 4 && memcmp(scaling.data, "none", 4) == 0)) {
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s: key %s is not \"none\": support for scaled rotary positions is not implemented, and without it the "
                            "answers would be wrong; use a model that does not need it",
                            path_of(file), name);
    }
    return check_head_sizes(file, error);
}

// ---- tensors -------------------------------------------------------------------------------------------------------

/// Towers and projectors lie beside the language model and do not touch it.
static bool belongs_to_images(const char *name) {
    return strncmp(name, "v.", 2) == 0 || strncmp(name, "mm.", 3) == 0 || strcmp(name, "model.image_newline") == 0;
}

static const char *what_tensor_means(const char *name) {
    size_t length = strlen(name);
    if (strncmp(name, "rope_", 5) == 0) return "scaled rotary positions";
    if (length > 5 && strcmp(name + length - 5, ".bias") == 0) return "a bias";
    if (strstr(name, "_exps.") || strstr(name, "ffn_gate_inp")) return "a mixture of experts in each layer";
    return "this tensor";
}

zs_status model_features_check_tensors(const model_file *file, const bool *used, zs_error *error) {
    for (size_t i = 0; i < file->gguf.tensor_count; i++) {
        const char *name = file->gguf.tensors[i].name;
        if (used[i] || belongs_to_images(name)) continue;
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s: tensor %s is none that a llama model of this size uses: support for %s is not implemented, and without it "
                            "the answers would be wrong; use a model that does not need it",
                            path_of(file), gguf_tensor_origin(&file->gguf.tensors[i]), what_tensor_means(name));
    }
    return ZS_OK;
}
