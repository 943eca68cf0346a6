#include "loader/folder_vision.h"

#include "loader/image_keys.h"
#include "loader/json_file.h"
#include "loader/vision_file.h"

#include <stdio.h>
#include <string.h>

// ---- names ---------------------------------------------------------------------------------------------------------

static const struct {
    const char *class_name, *family;
} families[] = {{"LlavaForConditionalGeneration", "llava"},
                {"LlavaNextForConditionalGeneration", "llava_next"},
                {"Idefics3ForConditionalGeneration", "idefics3"},
                {"SmolVLMForConditionalGeneration", "idefics3"}};

const char *folder_vision_family(const char *class_name) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].class_name, class_name) == 0) return families[i].family;
    }
    return NULL;
}

static const char *const tower_names[][2] = {
    {"embeddings.class_embedding", "v.class_embd"},
    {"embeddings.patch_embedding.weight", "v.patch_embd.weight"},
    {"embeddings.patch_embedding.bias", "v.patch_embd.bias"},
    {"embeddings.position_embedding.weight", "v.position_embd.weight"},
    {"pre_layrnorm.weight", "v.pre_ln.weight"},
    {"pre_layrnorm.bias", "v.pre_ln.bias"},
    {"post_layernorm.weight", "v.post_ln.weight"},
    {"post_layernorm.bias", "v.post_ln.bias"},
    {"embeddings.position_ids", ""},
};
static const char *const layer_names[][2] = {
    {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"}, {"self_attn.v_proj", "attn_v"}, {"self_attn.out_proj", "attn_out"},
    {"layer_norm1", "ln1"},         {"layer_norm2", "ln2"},         {"mlp.fc1", "ffn_up"},          {"mlp.fc2", "ffn_down"},
};
static const char *const projector_names[][2] = {
    {"multi_modal_projector.linear_1.weight", "mm.0.weight"},
    {"multi_modal_projector.linear_1.bias", "mm.0.bias"},
    {"multi_modal_projector.linear_2.weight", "mm.2.weight"},
    {"multi_modal_projector.linear_2.bias", "mm.2.bias"},
    {"connector.modality_projection.proj.weight", "mm.model.fc.weight"},
    {"image_newline", VISION_NEWLINE_TENSOR},
};

/// The rest behind `prefix`; NULL when there is none.
static const char *behind(const char *name, const char *prefix) {
    size_t size = strlen(prefix);
    return strncmp(name, prefix, size) == 0 ? name + size : NULL;
}

static void translate_layer(const char *rest, char *plain, size_t size) {
    unsigned layer;
    int used = 0;
    if (rest[0] < '0' || rest[0] > '9' || sscanf(rest, "%5u.%n", &layer, &used) != 1 || used == 0) return;
    for (size_t i = 0; i < sizeof layer_names / sizeof *layer_names; i++) {
        const char *end = behind(rest + used, layer_names[i][0]);
        if (end && (strcmp(end, ".weight") == 0 || strcmp(end, ".bias") == 0))
            snprintf(plain, size, "v.blk.%u.%s%s", layer, layer_names[i][1], end);
    }
}

/// Inside the tower; a name that is none of these stays, for the error that tells of it.
static void translate_tower(const char *name, const char *rest, char *plain, size_t size) {
    snprintf(plain, size, "%s", name);
    for (size_t i = 0; i < sizeof tower_names / sizeof *tower_names; i++) {
        if (strcmp(rest, tower_names[i][0]) == 0) snprintf(plain, size, "%s", tower_names[i][1]);
    }
    rest = behind(rest, "encoder.layers.");
    if (rest) translate_layer(rest, plain, size);
}

bool folder_vision_translate(const char *name, char *plain, size_t size) {
    static const char *const towers[] = {"vision_tower.vision_model.", "vision_tower.", "vision_model."};
    static const char *const decoders[][2] = {
        {"language_model.model.", "model."},
        {"model.language_model.", "model."},
        {"model.text_model.", "model."},
        {"language_model.lm_head.", "lm_head."},
    };
    const char *inner = behind(name, "model.");
    if (!inner) inner = name;
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++) {
        const char *rest = behind(inner, towers[i]);
        if (!rest) continue;
        translate_tower(name, rest, plain, size);
        return false;
    }
    for (size_t i = 0; i < sizeof projector_names / sizeof *projector_names; i++) {
        if (strcmp(inner, projector_names[i][0]) != 0) continue;
        snprintf(plain, size, "%s", projector_names[i][1]);
        return false;
    }
    snprintf(plain, size, "%s", name);
    for (size_t i = 0; i < sizeof decoders / sizeof *decoders; i++) {
        const char *rest = behind(name, decoders[i][0]);
        if (rest) snprintf(plain, size, "%s%s", decoders[i][1], rest);
    }
    return true;
}

// ---- keys ----------------------------------------------------------------------------------------------------------

/// What vision_config leaves out: the defaults of transformers' CLIPVisionConfig and Idefics3VisionConfig.
typedef struct tower_defaults {
    const char *model_types[2];
    uint32_t hidden, ffn, layers, heads, image_size, patch_size;
    const char *act;
    double eps;
} tower_defaults;
static const tower_defaults clip = {{"clip_vision_model", NULL}, 768, 3072, 12, 12, 224, 32, "quick_gelu", 1e-5};
static const tower_defaults siglip = {{"idefics3_vision", "smolvlm_vision"}, 1152, 3072, 12, 16, 224, 32, "gelu_pytorch_tanh", 1e-6};

static zs_status check_kind(const json_t *vision, const tower_defaults *d, zs_error *error) {
    const json_t *type = json_file_get(vision, "model_type");
    const char *name = json_string_value(type);
    for (size_t i = 0; name && i < 2; i++) {
        if (d->model_types[i] && strcmp(d->model_types[i], name) == 0) return ZS_OK;
    }
    if (!type || (name && strcmp(name, "idefics3") == 0)) return ZS_OK; // as old files have it
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "config.json: vision_config: model_type %.60s is not supported in this class; %s is",
                        name ? name : "of another kind", d->model_types[0]);
}

static zs_status read_tower(const json_t *vision, const tower_defaults *d, gguf_writer *keys, uint32_t *layers, zs_error *error) {
    static const char *const names[][2] = {
        {"hidden_size", "clip.vision.embedding_length"},  {"intermediate_size", "clip.vision.feed_forward_length"},
        {"num_hidden_layers", "clip.vision.block_count"}, {"num_attention_heads", "clip.vision.attention.head_count"},
        {"image_size", "clip.vision.image_size"},         {"patch_size", "clip.vision.patch_size"},
    };
    const uint32_t defaults[] = {d->hidden, d->ffn, d->layers, d->heads, d->image_size, d->patch_size};
    double eps;
    zs_status status = check_kind(vision, d, error);
    for (size_t i = 0; i < sizeof names / sizeof *names && !status; i++) {
        uint32_t value;
        status = json_file_count(vision, names[i][0], defaults[i], &value, error);
        if (status) return status;
        if (i == 2) *layers = value;
        gguf_writer_add_u32(keys, names[i][1], value);
    }
    if (!status) status = json_file_number(vision, "layer_norm_eps", d->eps, &eps, error);
    if (status) return status;
    gguf_writer_add_f32(keys, "clip.vision.attention.layer_norm_epsilon", (float)eps);
    const json_t *act = json_file_get(vision, "hidden_act");
    if (act && !json_is_string(act)) return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: vision_config: hidden_act is no text");
    gguf_writer_add_string(keys, VISION_ACTIVATION_KEY, act ? json_string_value(act) : d->act);
    gguf_writer_add_bool(keys, "clip.use_gelu", strcmp(act ? json_string_value(act) : d->act, "quick_gelu") != 0);
    return ZS_OK;
}

/// LLaVA's: which layer's output the projector takes, counted from the end where negative, and what of it.
static zs_status read_feature_layer(const json_t *root, uint32_t layers, gguf_writer *keys, zs_error *error) {
    const json_t *layer = json_file_get(root, "vision_feature_layer"), *strategy = json_file_get(root, "vision_feature_select_strategy");
    if (layer && !json_is_integer(layer))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "config.json: vision_feature_layer is not one layer, which is all that is supported");
    if (strategy && (!json_is_string(strategy) || strcmp(json_string_value(strategy), "default") != 0))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "config.json: vision_feature_select_strategy is not default, which is the only one supported");
    long long index = layer ? json_integer_value(layer) : -2;
    if (index < 0) index += (long long)layers + 1; // hidden_states begins with what enters the first layer
    if (index < 1 || index > layers)
        return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: vision_feature_layer is none of the %u layers", layers);
    const uint32_t used = (uint32_t)index;
    gguf_writer_add_words(keys, "clip.vision.feature_layer", GGUF_U32, &used, 1);
    return ZS_OK;
}

static zs_status read_projector(const json_t *root, const char *family, gguf_writer *keys, zs_error *error) {
    bool idefics3 = strcmp(family, "idefics3") == 0;
    const json_t *act = json_file_get(root, "projector_hidden_act");
    uint32_t factor;
    gguf_writer_add_string(keys, "clip.projector_type", idefics3 ? "idefics3" : "mlp");
    if (act && !idefics3 && (!json_is_string(act) || strcmp(json_string_value(act), "gelu") != 0))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "config.json: projector_hidden_act is not gelu, which is the only one supported");
    if (!idefics3) return ZS_OK;
    zs_status status = json_file_count(root, "scale_factor", 2, &factor, error);
    if (!status) gguf_writer_add_u32(keys, "clip.vision.projector.scale_factor", factor);
    return status;
}

/// The preprocessor's tiles are what the tower was made for.
static zs_status read_images(const json_t *vision, const char *folder, const tower_defaults *d, gguf_writer *keys, zs_error *error) {
    image_config images;
    uint32_t side;
    zs_status status = image_config_read_folder(folder, &images, error);
    if (!status) status = json_file_count(vision, "image_size", d->image_size, &side, error);
    if (status) return status;
    if (images.tile != side)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "config.json: vision_config: image_size is %u and the preprocessor makes images of %u, which is not supported",
                            side, images.tile);
    image_keys_write(&images, keys);
    return ZS_OK;
}

zs_status folder_vision_read(const json_t *root, const char *folder, const char *family, gguf_writer *keys, zs_error *error) {
    const json_t *vision = json_file_get(root, "vision_config");
    bool idefics3 = strcmp(family, "idefics3") == 0;
    uint32_t layers = 0, token;
    if (!json_is_object(vision)) return zs_error_set(error, ZS_ERROR_FORMAT, "config.json: key vision_config is missing");
    gguf_writer_add_bool(keys, "clip.has_vision_encoder", true);
    gguf_writer_add_string(keys, VISION_FAMILY_KEY, family);
    zs_status status = read_tower(vision, idefics3 ? &siglip : &clip, keys, &layers, error);
    if (!status && !idefics3) status = read_feature_layer(root, layers, keys, error);
    if (!status) status = read_projector(root, family, keys, error);
    const char *key = json_file_get(root, "image_token_id") ? "image_token_id" : "image_token_index";
    if (!status) status = json_file_count(root, key, idefics3 ? 128257 : 32000, &token, error);
    if (!status) gguf_writer_add_u32(keys, VISION_TOKEN_KEY, token);
    return status ? status : read_images(vision, folder, idefics3 ? &siglip : &clip, keys, error);
}
