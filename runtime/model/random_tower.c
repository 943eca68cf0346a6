#include "model/random_tower.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// 23 of its 24 layers: LLaVA takes the output of the last but one.
static const vision_config clip_large = {
    .activation = VISION_QUICK_GELU, .hidden = 1024, .ffn = 4096, .heads = 16, .layers = 23, .norm_eps = 1e-5f, .class_token = true};
static const uint32_t canvases[][2] = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}}; // height, width

static gguf_tensor *next_tensor(random_tower *t, const char *name, uint32_t type, uint32_t rows, uint32_t columns) {
    gguf_tensor *tensor = &t->tensors[t->tensor_count++];
    *tensor = (gguf_tensor){.type = type, .dims = 2, .shape = {rows, columns}, .elements = (uint64_t)rows * columns};
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->size = tensor_type_bytes(type, tensor->elements);
    return tensor;
}

static const gguf_tensor *add_vector(random_tower *t, uint32_t count, const float *data) {
    gguf_tensor *tensor = next_tensor(t, "vision.vector", TENSOR_F32, 1, count);
    tensor->dims = 1;
    tensor->shape[0] = count;
    tensor->shape[1] = 0;
    tensor->data = data;
    return tensor;
}

static vision_norm_file add_norm(random_tower *t) {
    uint32_t hidden = t->file->config.hidden;
    return (vision_norm_file){add_vector(t, hidden, t->ones), add_vector(t, hidden, t->zeros)};
}

/// A matrix and its bias.
static bool add_matrix(random_tower *t, const char *canonical, uint32_t out, uint32_t in, model_matrix *to, const gguf_tensor **bias) {
    size_t size = strlen(canonical) + 1;
    char *copy = malloc(size);
    if (!copy) return false;
    memcpy(copy, canonical, size);
    *to = (model_matrix){.canonical = copy, .out = out, .in = in, .rank = out < in ? out : in};
    to->dense = next_tensor(t, canonical, t->type, out, in);
    *bias = add_vector(t, out, t->zeros);
    return true;
}

static bool add_layer(random_tower *t, uint32_t layer) {
    static const char *const names[VISION_MATRICES] = {"self_attn.q_proj",   "self_attn.k_proj", "self_attn.v_proj",
                                                       "self_attn.out_proj", "mlp.fc1",          "mlp.fc2"};
    const vision_config *c = &t->file->config;
    vision_layer_file *to = &t->file->layers[layer];
    for (uint32_t n = 0; n < 2; n++) to->norms[n] = add_norm(t);
    for (uint32_t m = 0; m < VISION_MATRICES; m++) {
        char name[56];
        snprintf(name, sizeof name, "vision.layers.%u.%s", layer, names[m]);
        uint32_t out = m == VISION_FC1 ? c->ffn : c->hidden, in = m == VISION_FC2 ? c->ffn : c->hidden;
        if (!add_matrix(t, name, out, in, &to->matrices[m], &to->biases[m])) return false;
    }
    return true;
}

static void choose_images(image_config *c) {
    image_config_defaults(IMAGE_LLAVA_NEXT, c);
    c->tile = c->shortest_edge = 336;
    c->patch = 14;
    c->pinpoint_count = sizeof canvases / sizeof *canvases;
    memcpy(c->pinpoints, canvases, sizeof canvases);
}

static bool describe(random_tower *t) {
    vision_file *file = t->file;
    const vision_config *c = &file->config;
    uint32_t pixels = 3 * c->image.patch * c->image.patch, side = vision_config_side(c), positions = 1 + side * side;
    file->positions = next_tensor(t, "vision.positions", TENSOR_F32, positions, c->hidden);
    t->tensors[t->tensor_count - 1].data = t->zeros;
    bool blocks = tensor_type_get_info(t->type)->block_elements > 1; // which do not divide a patch's pixels
    file->patch = *next_tensor(t, "vision.patch", blocks ? TENSOR_F16 : t->type, c->hidden, pixels);
    file->class_vector = add_vector(t, c->hidden, t->zeros);
    file->pre_norm = add_norm(t);
    file->newline = add_vector(t, c->text_hidden, t->zeros);
    file->projector_count = 2;
    for (uint32_t i = 0; i < c->layers; i++) {
        if (!add_layer(t, i)) return false;
    }
    return add_matrix(t, "projector.0", c->text_hidden, c->hidden, &file->projector[0], &file->projector_bias[0]) &&
           add_matrix(t, "projector.1", c->text_hidden, c->text_hidden, &file->projector[1], &file->projector_bias[1]);
}

zs_status random_tower_create(uint32_t text_hidden, uint32_t image_token, uint32_t type, random_tower *t, zs_error *error) {
    *t = (random_tower){.file = calloc(1, sizeof *t->file), .type = type};
    if (!t->file) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a random tower");
    vision_config *c = &t->file->config;
    *c = clip_large;
    c->text_hidden = text_hidden;
    c->image_token = image_token;
    choose_images(&c->image);
    uint32_t side = vision_config_side(c), longest = c->ffn > text_hidden ? c->ffn : text_hidden;
    t->file->layers = calloc(c->layers, sizeof *t->file->layers);
    t->tensors = calloc(10 + c->layers * (4 + 2 * (size_t)VISION_MATRICES), sizeof *t->tensors);
    t->ones = malloc(longest * sizeof *t->ones);
    t->zeros = calloc((1 + (size_t)side * side) * longest, sizeof *t->zeros);
    for (uint32_t i = 0; t->ones && i < longest; i++) t->ones[i] = 1;
    bool good = t->file->layers && t->tensors && t->ones && t->zeros && describe(t);
    return good ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a random tower");
}

void random_tower_free(random_tower *t) {
    free(t->tensors);
    free(t->ones);
    free(t->zeros);
    *t = (random_tower){0};
}
