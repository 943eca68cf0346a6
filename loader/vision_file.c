#include "loader/vision_file.h"

#include "loader/image_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 64, MOST = 1 << 20, MOST_PATCHES = 1 << 14 };

static const char *path_of(const model_file *file) { return file->gguf.map.path ? file->gguf.map.path : "model data"; }

static bool string_is(gguf_string s, const char *text) { return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0; }

uint32_t vision_config_side(const vision_config *config) { return config->image.tile / config->image.patch; }

uint32_t vision_config_features(const vision_config *config) {
    uint32_t side = vision_config_side(config) / config->image.shuffle;
    return side * side;
}

// ---- keys ----------------------------------------------------------------------------------------------------------

static zs_status read_count(const model_file *file, const char *key, uint32_t *value, zs_error *error) {
    if (gguf_get_u32(&file->gguf, key, value) && *value > 0 && *value <= MOST) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is missing or no count", path_of(file), key);
}

/// llama.cpp's newer files have another name for it.
static const char *newline_name(const model_file *file) {
    static const char *const names[] = {VISION_NEWLINE_TENSOR, "v.image_newline"};
    for (size_t i = 0; i < 2; i++) {
        if (gguf_find_tensor(&file->gguf, names[i])) return names[i];
    }
    return NULL;
}

static zs_status read_family(const model_file *file, vision_config *c, zs_error *error) {
    static const char *const names[] = {[IMAGE_LLAVA] = "llava", [IMAGE_LLAVA_NEXT] = "llava_next", [IMAGE_IDEFICS3] = "idefics3"};
    gguf_string name = {0};
    if (gguf_get_string(&file->gguf, VISION_FAMILY_KEY, &name)) {
        for (uint32_t i = 0; i < 3; i++) {
            c->image.family = (image_family)i;
            if (string_is(name, names[i])) return ZS_OK;
        }
    } else if (gguf_get_string(&file->gguf, "clip.projector_type", &name) ||
               gguf_get_string(&file->gguf, "clip.vision.projector_type", &name)) {
        c->image.family = string_is(name, "idefics3") ? IMAGE_IDEFICS3 : newline_name(file) ? IMAGE_LLAVA_NEXT : IMAGE_LLAVA;
        if (string_is(name, "idefics3") || string_is(name, "mlp")) return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "%s: an image projector of type \"%.*s\" is not supported; mlp (LLaVA) and idefics3 are", path_of(file),
                        (int)(name.size < 40 ? name.size : 40), name.data ? name.data : "");
}

/// llama.cpp's files tell quick_gelu from others only; its gelu is the one by a tanh.
static zs_status read_activation(const model_file *file, vision_config *c, zs_error *error) {
    static const char *const names[] = {
        [VISION_QUICK_GELU] = "quick_gelu", [VISION_GELU] = "gelu", [VISION_GELU_TANH] = "gelu_pytorch_tanh"};
    gguf_string name;
    bool gelu = c->image.family == IMAGE_IDEFICS3;
    if (!gguf_get_string(&file->gguf, VISION_ACTIVATION_KEY, &name)) {
        gguf_get_bool(&file->gguf, "clip.use_gelu", &gelu);
        c->activation = gelu ? VISION_GELU_TANH : VISION_QUICK_GELU;
        return ZS_OK;
    }
    for (uint32_t i = 0; i < 3; i++) {
        c->activation = (vision_activation)i;
        if (string_is(name, names[i])) return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: a tower with activation %.*s is not supported", path_of(file),
                        (int)(name.size < 40 ? name.size : 40), name.data);
}

/// LLaVA leaves the last layers out. Files that do not say how many were made by converters that left out one; the older of them
/// dropped it from the file, and CLIP's towers have an even number.
static zs_status read_layers(const model_file *file, vision_config *c, zs_error *error) {
    const gguf_value *list = gguf_find_value(&file->gguf, "clip.vision.feature_layer");
    uint32_t count;
    uint64_t layer = 0;
    zs_status status = read_count(file, "clip.vision.block_count", &count, error);
    if (status) return status;
    c->layers = c->image.family == IMAGE_IDEFICS3 || count % 2 ? count : count - 1;
    if (list && c->image.family != IMAGE_IDEFICS3) {
        if (list->type != GGUF_ARRAY || list->count != 1 || !gguf_array_u64(list, 0, &layer) || layer == 0 || layer > count)
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: key clip.vision.feature_layer is not one of the %u layers", path_of(file),
                                count);
        c->layers = (uint32_t)layer;
    }
    return c->layers > 0 && c->layers <= 1000
               ? ZS_OK
               : zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: a tower of %u layers is not supported", path_of(file), c->layers);
}

static zs_status check_sizes(const model_file *file, const vision_config *c, zs_error *error) {
    uint32_t head_dim = c->hidden / c->heads, side = vision_config_side(c);
    bool fits = c->hidden % c->heads == 0 && head_dim % 4 == 0 && head_dim <= 256 && c->ffn > 0 && side > 0 &&
                side % c->image.shuffle == 0 && (uint64_t)side * side <= MOST_PATCHES && c->image.patch <= 256;
    if (fits && c->norm_eps >= 0 && c->norm_eps < 1) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "%s: a tower of %u heads over %u columns, for images of %u in patches of %u, %u × %u of which are one feature, is "
                        "not supported",
                        path_of(file), c->heads, c->hidden, c->image.tile, c->image.patch, c->image.shuffle, c->image.shuffle);
}

static zs_status read_config(const model_file *file, vision_config *c, zs_error *error) {
    zs_status status = read_family(file, c, error);
    if (!status) status = read_activation(file, c, error);
    if (!status) status = read_layers(file, c, error);
    if (!status) status = read_count(file, "clip.vision.image_size", &c->image.tile, error);
    if (!status) status = read_count(file, "clip.vision.patch_size", &c->image.patch, error);
    if (!status) status = read_count(file, "clip.vision.embedding_length", &c->hidden, error);
    if (!status) status = read_count(file, "clip.vision.feed_forward_length", &c->ffn, error);
    if (!status) status = read_count(file, "clip.vision.attention.head_count", &c->heads, error);
    c->image.shuffle = 1;
    if (!status && c->image.family == IMAGE_IDEFICS3)
        status = read_count(file, "clip.vision.projector.scale_factor", &c->image.shuffle, error);
    if (status) return status;
    if (!gguf_get_f32(&file->gguf, "clip.vision.attention.layer_norm_epsilon", &c->norm_eps))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key clip.vision.attention.layer_norm_epsilon is missing", path_of(file));
    gguf_get_u32(&file->gguf, VISION_TOKEN_KEY, &c->image_token);
    status = check_sizes(file, c, error);
    return status ? status : image_keys_read(&file->gguf, &c->image, error);
}

// ---- tensors -------------------------------------------------------------------------------------------------------

/// A vector, or with columns a matrix of that shape.
static zs_status find(const model_file *file, const char *name, uint32_t rows, uint32_t cols, bool optional, const gguf_tensor **tensor,
                      zs_error *error) {
    const gguf_tensor *t = *tensor = gguf_find_tensor(&file->gguf, name);
    if (!t) return optional ? ZS_OK : zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is missing", path_of(file), name);
    if (cols ? t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols : t->dims == 1 && t->shape[0] == rows) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s has shape [%llu, %llu] instead of [%u, %u]", path_of(file),
                        gguf_tensor_origin(t), (unsigned long long)t->shape[0], (unsigned long long)(t->dims > 1 ? t->shape[1] : 0), rows,
                        cols);
}

static zs_status find_norm(const model_file *file, const char *prefix, uint32_t width, bool optional, vision_norm_file *norm,
                           zs_error *error) {
    char name[NAME_BYTES + 8];
    snprintf(name, sizeof name, "%s.weight", prefix);
    zs_status status = find(file, name, width, 0, optional, &norm->weight, error);
    snprintf(name, sizeof name, "%s.bias", prefix);
    return status || !norm->weight ? status : find(file, name, width, 0, false, &norm->bias, error);
}

/// The convolution's weights [hidden, 3, patch, patch] as a matrix; its inner order is that of a patch's pixels.
static zs_status find_patch(const model_file *file, vision_file *v, zs_error *error) {
    const vision_config *c = &v->config;
    const gguf_tensor *t = gguf_find_tensor(&file->gguf, "v.patch_embd.weight");
    uint32_t p = c->image.patch;
    if (!t) return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor v.patch_embd.weight is missing", path_of(file));
    if (t->dims != 4 || t->shape[0] != c->hidden || t->shape[1] != 3 || t->shape[2] != p || t->shape[3] != p)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s has not the shape [%u, 3, %u, %u]", path_of(file), gguf_tensor_origin(t),
                            c->hidden, p, p);
    v->patch = *t;
    v->patch.dims = 2;
    v->patch.shape[1] = 3ull * p * p;
    v->patch.shape[2] = v->patch.shape[3] = 0;
    zs_status status = find(file, "v.patch_embd.bias", c->hidden, 0, true, &v->patch_bias, error);
    if (!status) status = find(file, "v.class_embd", c->hidden, 0, true, &v->class_vector, error);
    v->config.class_token = v->class_vector != NULL;
    uint32_t side = vision_config_side(c);
    if (!status) status = find(file, "v.position_embd.weight", side * side + c->class_token, c->hidden, false, &v->positions, error);
    return status;
}

/// Older files have fc1 and fc2 the other way round: their shapes tell.
static bool is_swapped(const model_file *file, const vision_config *c, uint32_t layer) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "v.blk.%u.ffn_up.bias", layer);
    const gguf_tensor *t = gguf_find_tensor(&file->gguf, name);
    return t && t->dims == 1 && t->shape[0] == c->hidden && c->hidden != c->ffn;
}

static zs_status find_layer(const model_file *file, vision_file *v, uint32_t index, zs_error *error) {
    static const char *const names[VISION_MATRICES] = {"attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"};
    static const char *const canonical[VISION_MATRICES] = {"self_attn.q_proj",   "self_attn.k_proj", "self_attn.v_proj",
                                                           "self_attn.out_proj", "mlp.fc1",          "mlp.fc2"};
    const vision_config *c = &v->config;
    vision_layer_file *layer = &v->layers[index];
    char prefix[NAME_BYTES], bias[NAME_BYTES + 8], whole[NAME_BYTES];
    bool swapped = is_swapped(file, c, index);
    zs_status status = ZS_OK;
    for (uint32_t m = 0; m < VISION_MATRICES && !status; m++) {
        uint32_t at = swapped && m >= VISION_FC1 ? VISION_FC1 + VISION_FC2 - m : m;
        model_matrix *matrix = &layer->matrices[m];
        matrix->out = m == VISION_FC1 ? c->ffn : c->hidden;
        matrix->in = m == VISION_FC2 ? c->ffn : c->hidden;
        snprintf(prefix, sizeof prefix, "v.blk.%u.%s", index, names[at]);
        snprintf(bias, sizeof bias, "%s.bias", prefix);
        snprintf(whole, sizeof whole, "vision.layers.%u.%s", index, canonical[m]);
        status = model_file_find_matrix(file, prefix, whole, matrix, error);
        if (!status) status = find(file, bias, matrix->out, 0, false, &layer->biases[m], error);
    }
    for (uint32_t n = 0; n < 2 && !status; n++) {
        snprintf(prefix, sizeof prefix, "v.blk.%u.ln%u", index, n + 1);
        status = find_norm(file, prefix, c->hidden, false, &layer->norms[n], error);
    }
    return status;
}

/// Its output is what the decoder takes: another width is another model's.
static zs_status find_projector(const model_file *file, vision_file *v, zs_error *error) {
    static const char *const mlp[2] = {"mm.0", "mm.2"}, *const fc = "mm.model.fc";
    const vision_config *c = &v->config;
    bool idefics3 = c->image.family == IMAGE_IDEFICS3;
    char name[NAME_BYTES];
    const uint32_t count = v->projector_count = idefics3 ? 1 : 2;
    snprintf(name, sizeof name, "%s.weight", idefics3 ? fc : mlp[1]);
    const gguf_tensor *last = gguf_find_tensor(&file->gguf, name);
    if (last && last->dims == 2 && last->shape[0] != c->text_hidden)
        return zs_error_set(
            error, ZS_ERROR_MISMATCH,
            "%s: tensor %s makes features of %llu columns and the language model's embeddings have %u: they are of different "
            "models",
            path_of(file), gguf_tensor_origin(last), (unsigned long long)last->shape[0], c->text_hidden);
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        model_matrix *matrix = &v->projector[i];
        const char *stem = idefics3 ? fc : mlp[i];
        char canonical[NAME_BYTES];
        matrix->out = c->text_hidden;
        matrix->in = i ? c->text_hidden : c->hidden * c->image.shuffle * c->image.shuffle;
        snprintf(canonical, sizeof canonical, "projector.%u", i);
        status = model_file_find_matrix(file, stem, canonical, matrix, error);
        snprintf(name, sizeof name, "%s.bias", stem);
        if (!status) status = find(file, name, matrix->out, 0, true, &v->projector_bias[i], error);
    }
    if (!status && c->image.family == IMAGE_LLAVA_NEXT)
        status = find(file, newline_name(file) ? newline_name(file) : VISION_NEWLINE_TENSOR, c->text_hidden, 0, false, &v->newline, error);
    return status;
}

static zs_status read_all(const model_file *file, vision_file *v, zs_error *error) {
    zs_status status = read_config(file, &v->config, error);
    if (!status) status = find_patch(file, v, error);
    if (!status) status = find_norm(file, "v.pre_ln", v->config.hidden, true, &v->pre_norm, error);
    // LLaVA takes a layer's output as it is.
    if (!status && v->config.image.family == IMAGE_IDEFICS3)
        status = find_norm(file, "v.post_ln", v->config.hidden, false, &v->post_norm, error);
    if (!status && !(v->layers = calloc(v->config.layers, sizeof *v->layers)))
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    for (uint32_t i = 0; i < v->config.layers && !status; i++) status = find_layer(file, v, i, error);
    return status ? status : find_projector(file, v, error);
}

zs_status vision_file_read(const model_file *file, uint32_t text_hidden, vision_file **vision, zs_error *error) {
    *vision = NULL;
    if (!gguf_find_value(&file->gguf, "clip.vision.block_count")) return ZS_OK;
    vision_file *v = calloc(1, sizeof *v);
    if (!v) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(file));
    v->config.text_hidden = text_hidden;
    zs_status status = read_all(file, v, error);
    if (status)
        vision_file_close(&v);
    else
        *vision = v;
    return status;
}

const model_matrix *vision_file_matrix(const vision_file *file, uint32_t i, const gguf_tensor **bias) {
    const gguf_tensor *unused;
    uint32_t layer = i / VISION_MATRICES, m = i % VISION_MATRICES, p = i - file->config.layers * VISION_MATRICES;
    if (!bias) bias = &unused;
    *bias = NULL;
    if (layer < file->config.layers) {
        *bias = file->layers[layer].biases[m];
        return &file->layers[layer].matrices[m];
    }
    if (p >= file->projector_count) return NULL;
    *bias = file->projector_bias[p];
    return &file->projector[p];
}

void vision_file_close(vision_file **handle) {
    vision_file *v = *handle;
    if (!v) return;
    *handle = NULL;
    for (uint32_t i = 0; v->layers && i < v->config.layers; i++) {
        for (uint32_t m = 0; m < VISION_MATRICES; m++) model_matrix_free(&v->layers[i].matrices[m]);
    }
    for (uint32_t i = 0; i < 2; i++) model_matrix_free(&v->projector[i]);
    free(v->layers);
    free(v);
}
