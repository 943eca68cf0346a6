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
    {"rope.scaling.attn_factor", "scaled rotary positions", {1, 0}},
    {"attention.causal", "attention to later tokens", {1, 1}},
    {"attention.max_alibi_bias", "ALiBi attention biases", {0, 0}},
    {"attention.clamp_kqv", "clamped queries, keys and values", {0, 0}},
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

/// Qwen2's windows are of its upper layers only, which no key tells.
static zs_status read_window(model_file *file, zs_error *error) {
    char name[128];
    double number;
    if (!read_number(file, "attention.sliding_window", name, sizeof name, &number) || number == 0 || number >= file->config.context)
        return ZS_OK;
    if (!(number >= 1)) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is %g", path_of(file), name, number);
    if (strcmp(file->config.architecture, "qwen2") == 0)
        return refuse_key(file, name, number, "attention in a window shorter than the context is", error);
    file->config.window = (uint32_t)number;
    return ZS_OK;
}

/// Linear scaling divides positions; by what, two keys tell (rope.scale_linear in older files).
static zs_status read_scaling(model_file *file, zs_error *error) {
    char name[128], old[128], type[128];
    double factor = 1, older = 1;
    gguf_string scaling = {0};
    snprintf(type, sizeof type, "%s.rope.scaling.type", file->config.architecture);
    bool typed = gguf_find_value(&file->gguf, type) != NULL;
    if (typed && !gguf_get_string(&file->gguf, type, &scaling))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is no text", path_of(file), type);
    bool linear = typed && scaling.size == 6 && memcmp(scaling.data, "linear", 6) == 0;
    if (typed && !linear && !(scaling.size == 4 && memcmp(scaling.data, "none", 4) == 0)) {
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s: key %s is \"%.*s\": support for rotary positions scaled this way is not implemented, and without it the "
                            "answers would be wrong; use a model that does not need it",
                            path_of(file), type, (int)(scaling.size < 40 ? scaling.size : 40), scaling.data);
    }
    bool new_key = read_number(file, "rope.scaling.factor", name, sizeof name, &factor),
         old_key = read_number(file, "rope.scale_linear", old, sizeof old, &older);
    if (typed && !linear) return ZS_OK;
    if (!typed && new_key && factor != 1 && factor != 0)
        return refuse_key(file, name, factor, "scaling of rotary positions without a type is", error);
    file->config.rope_divisor = new_key ? factor : old_key ? older : 1;
    if (file->config.rope_divisor == 0) file->config.rope_divisor = 1;
    if (file->config.rope_divisor > 0 && isfinite(file->config.rope_divisor)) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is %g", path_of(file), new_key ? name : old, file->config.rope_divisor);
}

static zs_status read_score_scale(model_file *file, zs_error *error) {
    char name[128];
    double number;
    if (!read_number(file, "attention.scale", name, sizeof name, &number) || number == 0) return ZS_OK;
    if (!(number > 0 && number < 1e6)) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is %g", path_of(file), name, number);
    file->config.score_scale = (float)number;
    return ZS_OK;
}

/// What every Gemma 3 has and no key tells, and two keys that files of usual sizes leave out.
static zs_status read_gemma3(model_file *file, zs_error *error) {
    model_config *c = &file->config;
    char name[128];
    double number;
    c->embedding_scale = sqrtf((float)c->hidden);
    c->gelu = c->head_norms = c->post_norms = true;
    c->full_every = 6;
    c->window_rope_base = 10000;
    if (c->score_scale == 0 && c->layers == 62) c->score_scale = 1 / sqrtf((float)c->hidden / (float)c->heads); // 27B
    if (read_number(file, "attention.sliding_window_pattern", name, sizeof name, &number)) {
        if (!(number >= 1 && number <= 1e6 && number == floor(number)))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is %g", path_of(file), name, number);
        c->full_every = (uint32_t)number;
    }
    if (read_number(file, "rope.freq_base_swa", name, sizeof name, &number)) {
        if (!(number > 1 && isfinite(number))) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is %g", path_of(file), name, number);
        c->window_rope_base = (float)number;
    }
    return ZS_OK;
}

zs_status model_features_read_keys(model_file *file, zs_error *error) {
    file->config.rope_divisor = 1;
    char name[128];
    double number;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!read_number(file, keys[i].key, name, sizeof name, &number)) continue;
        if (number != keys[i].neutral[0] && number != keys[i].neutral[1]) {
            char what[80];
            snprintf(what, sizeof what, "support for %s is", keys[i].what);
            return refuse_key(file, name, number, what, error);
        }
    }
    zs_status status = read_window(file, error);
    if (!status) status = read_scaling(file, error);
    if (!status) status = read_score_scale(file, error);
    if (!status && strcmp(file->config.architecture, "gemma3") == 0) status = read_gemma3(file, error);
    return status ? status : check_head_sizes(file, error);
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
                            "%s: tensor %s is none that a %s model of this size uses: support for %s is not implemented, and without it "
                            "the answers would be wrong; use a model that does not need it",
                            path_of(file), gguf_tensor_origin(&file->gguf.tensors[i]), file->config.architecture, what_tensor_means(name));
    }
    return ZS_OK;
}
