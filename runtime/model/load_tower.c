#include "model/load_tower.h"

#include <stdlib.h>
#include <string.h>

/// The biases of q, k and v go together (vision_qkv_bias); the others with their matrices.
static const model_matrix *matrix_at(const vision_file *file, uint32_t i, const gguf_tensor **bias) {
    const model_matrix *m = vision_file_matrix(file, i, bias);
    if (i < file->config.layers * VISION_MATRICES && i % VISION_MATRICES < VISION_OUT) *bias = NULL;
    return m;
}

uint64_t load_tower_bytes(const vision_file *file, const op_policy *policy, uint64_t *file_bytes) {
    if (!file) return 0;
    const vision_config *c = &file->config;
    const gguf_tensor *bias;
    uint64_t bytes = load_tensor_bytes(&file->patch, policy) + 4ull * vision_positions(c) * vision_stride(c->hidden);
    bytes += 4ull * (4 * vision_stride(c->hidden) + vision_stride(c->text_hidden)); // norms, newline
    bytes += 4ull * c->layers * (8ull * vision_stride(c->hidden));                  // norms and the biases of q, k and v
    *file_bytes += file->patch.size;
    for (uint32_t i = 0;; i++) {
        const model_matrix *m = matrix_at(file, i, &bias);
        if (!m) break;
        const gguf_tensor *const parts[] = {m->dense, m->u, m->vt};
        for (size_t p = 0; p < 3; p++) {
            bytes += load_tensor_bytes(parts[p], policy);
            *file_bytes += parts[p] ? parts[p]->size : 0;
        }
        bytes += load_tensor_bytes(bias, policy);
    }
    return bytes;
}

size_t load_tower_names(const vision_file *file) {
    const gguf_tensor *bias;
    size_t bytes = 0;
    for (uint32_t i = 0; file; i++) {
        const model_matrix *m = matrix_at(file, i, &bias);
        if (!m) break;
        bytes += strlen(m->canonical) + 1;
    }
    return bytes;
}

/// Numbers made here, as a tensor; frees them.
static zs_status upload_values(model_upload *upload, const char *name, float *values, uint64_t count, uint64_t *address, zs_error *error) {
    if (!values) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading the image tower");
    gguf_tensor tensor = {.type = TENSOR_F32, .dims = 1, .shape = {count}, .elements = count, .data = values, .size = 4 * count};
    strncpy(tensor.name, name, sizeof tensor.name - 1);
    zs_status status = model_upload_vector(upload, &tensor, address, error);
    free(values);
    return status;
}

static zs_status load_norm(model_upload *upload, const vision_norm_file *from, vision_norm *to, zs_error *error) {
    if (!from->weight) return ZS_OK;
    zs_status status = model_upload_vector(upload, from->weight, &to->weight, error);
    return status ? status : model_upload_vector(upload, from->bias, &to->bias, error);
}

/// Matrix i as the tower knows it.
static vision_weight *take_matrix(const zs_model *model, uint32_t i) {
    vision_tower *tower = model->tower;
    const uint32_t layer = i / VISION_MATRICES, layers = tower->config.layers;
    const model_weight *w = &model->tower_weights[i];
    vision_weight *to =
        layer < layers ? &tower->layers[layer].weights[i % VISION_MATRICES] : &tower->projector[i - layers * VISION_MATRICES];
    *to = (vision_weight){.factored = w->factored, .dense = w->dense, .u = w->u, .vt = w->vt, .scale_offset = w->scale_offset};
    return to;
}

static zs_status load_matrices(zs_model *model, model_upload *upload, const vision_file *file, char **names, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < model->tower_weight_count && !status; i++) {
        const gguf_tensor *bias;
        const model_matrix *from = matrix_at(file, i, &bias);
        status = load_weight(model, upload, ZS_PLACE_DEVICE, from, &model->tower_weights[i], names, error);
        vision_weight *to = take_matrix(model, i);
        if (!status && bias) status = model_upload_vector(upload, bias, &to->bias, error);
    }
    return status;
}

static zs_status load_layers(vision_tower *tower, model_upload *upload, const vision_file *file, zs_error *error) {
    uint32_t offsets[3], stride = vision_qkv_offsets(&file->config, offsets);
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < file->config.layers && !status; i++) {
        for (uint32_t n = 0; n < 2 && !status; n++)
            status = load_norm(upload, &file->layers[i].norms[n], &tower->layers[i].norms[n], error);
        if (!status) status = upload_values(upload, "qkv bias", vision_qkv_bias(file, i), stride, &tower->layers[i].qkv_bias, error);
    }
    return status;
}

/// An empty tower and its list of matrices.
static zs_status create_tower(zs_model *model, const vision_file *file, zs_error *error) {
    const vision_config *c = &file->config;
    uint32_t count = c->layers * VISION_MATRICES + file->projector_count;
    vision_tower *tower = model->tower = calloc(1, sizeof *tower + c->layers * sizeof *tower->layers);
    model->tower_weights = calloc(count, sizeof *model->tower_weights);
    if (!tower || !model->tower_weights) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", model->path);
    model->tower_weight_count = count;
    tower->config = *c;
    tower->layers = (vision_layer *)(void *)(tower + 1);
    tower->projector_count = file->projector_count;
    return ZS_OK;
}

zs_status load_tower_shape(zs_model *model, const vision_file *file, zs_error *error) {
    zs_status status = create_tower(model, file, error);
    if (status) return status;
    model->tower->patch = model_tensor_matrix(&file->patch, &model->policy);
    for (uint32_t i = 0; i < model->tower_weight_count; i++) {
        const gguf_tensor *bias;
        model->tower_weights[i] = model_shape_weight(matrix_at(file, i, &bias), &model->policy, &model->scale_count);
        take_matrix(model, i);
    }
    return ZS_OK;
}

zs_status load_tower(zs_model *model, model_upload *upload, const vision_file *file, char **names, zs_error *error) {
    const vision_config *c = &file->config;
    zs_status status = create_tower(model, file, error);
    if (status) return status;
    vision_tower *tower = model->tower;
    uint64_t positions = (uint64_t)vision_positions(c) * vision_stride(c->hidden);
    status = model_upload_matrix(upload, &file->patch, NULL, &tower->patch, error);
    model->info.parameters += file->patch.elements;
    if (!status) status = upload_values(upload, "positions", vision_position_table(file), positions, &tower->positions, error);
    if (!status) status = load_norm(upload, &file->pre_norm, &tower->pre_norm, error);
    if (!status) status = load_norm(upload, &file->post_norm, &tower->post_norm, error);
    if (!status) status = load_layers(tower, upload, file, error);
    if (!status) status = load_matrices(model, upload, file, names, error);
    return status || !file->newline ? status : model_upload_vector(upload, file->newline, &tower->newline, error);
}
