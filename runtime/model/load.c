#include "loader/tokenizer.h"
#include "model/load_tower.h"
#include "model/upload.h"
#include "model/warm.h"
#include "model/workspace.h"
#include "ops/ops.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy_string(const char *s) {
    size_t size = strlen(s) + 1;
    char *copy = malloc(size);
    if (copy) memcpy(copy, s, size);
    return copy;
}

matrix model_tensor_matrix(const gguf_tensor *tensor, const op_policy *policy) {
    if (!tensor) return (matrix){0};
    uint64_t needed;
    matrix shape =
        matrix_of(matrix_type_from_gguf(tensor->type), (uint32_t)tensor->shape[0], (uint32_t)tensor->shape[1], policy->weight_group);
    matrix_split(&shape, policy->part_limit, &needed); // where it can't be, loading says so
    return shape;
}

uint64_t load_tensor_bytes(const gguf_tensor *tensor, const op_policy *policy) {
    if (!tensor) return 0;
    if (tensor->dims == 1) return tensor->elements * sizeof(float);
    matrix shape = model_tensor_matrix(tensor, policy);
    return matrix_bytes(&shape);
}

uint64_t model_weight_bytes(const op_policy *policy, const model_file *file, zs_place factors, uint64_t *file_bytes) {
    uint64_t bytes = load_tensor_bytes(file->embedding, policy) + load_tensor_bytes(file->output_norm, policy);
    *file_bytes = file->embedding->size;
    if (!file->config.tied) {
        bytes += load_tensor_bytes(file->head, policy);
        *file_bytes += file->head->size;
    }
    for (uint32_t i = 0; i < file->config.layers; i++) {
        const model_layer_file *layer = &file->layers[i];
        for (uint32_t m = 0; m < 3; m++) bytes += load_tensor_bytes(layer->biases[m], policy);
        const gguf_tensor *norms[] = {layer->attention_norm,      layer->ffn_norm,     layer->q_norm, layer->k_norm,
                                      layer->attention_post_norm, layer->ffn_post_norm};
        for (size_t n = 0; n < sizeof norms / sizeof *norms; n++) bytes += load_tensor_bytes(norms[n], policy);
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const gguf_tensor *parts[] = {layer->matrices[m].dense, layer->matrices[m].u, layer->matrices[m].vt};
            for (size_t p = 0; p < 3; p++) {
                bool here = p == 0 || factors == ZS_PLACE_DEVICE;
                if (here) bytes += load_tensor_bytes(parts[p], policy);
                if (here || factors == ZS_PLACE_HOST) *file_bytes += parts[p] ? parts[p]->size : 0;
            }
        }
    }
    return bytes + load_tower_bytes(file->vision, policy, file_bytes);
}

static zs_status check_memory(const zs_device *device, const char *path, uint64_t bytes, zs_error *error) {
    uint64_t free_bytes = gpu_device_memory_free(device);
    if (bytes <= free_bytes) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY,
                        "%s needs %.0f MB for its weights and the device has %.0f MB free: close other programs, use a smaller type (q8_0 "
                        "factors) or another --device",
                        path, (double)bytes / 1e6, (double)free_bytes / 1e6);
}

/// σ on the host: F32 [rank], finite, as the file has it.
static zs_status read_sigma(const zs_model *model, const model_matrix *from, model_weight *to, zs_error *error) {
    to->sigma = malloc(to->rank * sizeof(float));
    if (!to->sigma) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", model->path);
    tensor_type_dequantise(from->s->type, from->s->data, to->sigma, to->rank);
    for (uint32_t i = 0; i < to->rank; i++) {
        if (!isfinite(to->sigma[i]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %u: the file is damaged",
                                model->path, from->s->name, i);
    }
    return ZS_OK;
}

static zs_status load_factors(const zs_model *model, model_upload *upload, zs_place place, const model_matrix *from, model_weight *to,
                              zs_error *error) {
    zs_status status = ZS_OK;
    switch (place) {
    case ZS_PLACE_DEFAULT:
    case ZS_PLACE_DEVICE:
        status = model_upload_matrix(upload, from->vt, NULL, &to->vt, error);
        return status ? status : model_upload_matrix(upload, from->u, from, &to->u, error);
    case ZS_PLACE_HOST:
        status = model_upload_host(upload, from->vt, NULL, &to->vt, &to->host_vt, error);
        return status ? status : model_upload_host(upload, from->u, from, &to->u, &to->host_u, error);
    case ZS_PLACE_FILE:
        to->vt = model_tensor_matrix(from->vt, &model->policy);
        to->u = model_tensor_matrix(from->u, &model->policy);
        return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "factors are kept on the device, in host memory or in the file");
}

zs_status load_weight(zs_model *model, model_upload *upload, zs_place place, const model_matrix *from, model_weight *to, char **names,
                      zs_error *error) {
    *to = (model_weight){.factored = from->dense == NULL, .out = from->out, .in = from->in, .rank = from->rank};
    size_t length = strlen(from->canonical) + 1;
    to->canonical = memcpy(*names, from->canonical, length);
    *names += length;
    if (from->sketch) {
        to->has_sketch = true;
        memcpy(to->sketch, from->sketch, sizeof to->sketch);
    }
    model->info.parameters += (uint64_t)from->out * from->in;
    if (!to->factored) return model_upload_matrix(upload, from->dense, from, &to->dense, error);

    to->scale_offset = model->scale_count;
    model->scale_count += (to->rank + 3) / 4 * 4;
    model->info.matrices++;
    model->info.ranks += to->rank;
    zs_status status = read_sigma(model, from, to, error);
    return status ? status : load_factors(model, upload, place, from, to, error);
}

/// The fused kernels take gate and up in one dispatch.
static zs_status check_pair(const zs_model *model, const model_layer *layer, zs_error *error) {
    const model_weight *gate = &layer->weights[MODEL_GATE], *up = &layer->weights[MODEL_UP];
    bool same = gate->factored == up->factored &&
                (gate->factored ? gate->u.type == up->u.type && gate->vt.type == up->vt.type : gate->dense.type == up->dense.type);
    if (same) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %s and %s are stored in different types, which is not supported", model->path,
                        gate->canonical, up->canonical);
}

/// Biases of q, k and v as one row, in Hugging Face order like the matrices.
static zs_status load_biases(zs_model *model, model_upload *upload, const model_file *file, uint32_t index, model_layer *to,
                             zs_error *error) {
    const model_layer_file *from = &file->layers[index];
    uint32_t widths[3], offsets[3];
    for (uint32_t m = 0; m < 3; m++) widths[m] = from->matrices[m].out;
    uint32_t stride = activation_offsets(widths, 3, offsets);
    float *row = calloc(stride, sizeof *row), *values = malloc(stride * sizeof *values);
    zs_status status = row && values ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", model->path);
    for (uint32_t m = 0; m < 3 && !status; m++) {
        tensor_type_dequantise(from->biases[m]->type, from->biases[m]->data, values, widths[m]);
        for (uint32_t i = 0; i < widths[m]; i++) row[offsets[m] + i] = values[model_bias_file_row(file, m, i)];
    }
    const gguf_tensor joined = {
        .name = "qkv bias", .type = TENSOR_F32, .dims = 1, .shape = {stride}, .elements = stride, .data = row, .size = 4ull * stride};
    if (!status) status = model_upload_vector(upload, &joined, &to->qkv_bias, error);
    free(values);
    free(row);
    return status;
}

static zs_status load_norms(model_upload *upload, const model_layer_file *from, model_layer *to, zs_error *error) {
    const struct {
        const gguf_tensor *from; // NULL: the architecture has none
        uint64_t *to;
    } norms[] = {
        {from->attention_norm, &to->attention_norm},
        {from->ffn_norm, &to->ffn_norm},
        {from->q_norm, &to->q_norm},
        {from->k_norm, &to->k_norm},
        {from->attention_post_norm, &to->attention_post_norm},
        {from->ffn_post_norm, &to->ffn_post_norm},
    };
    zs_status status = ZS_OK;
    for (size_t i = 0; i < sizeof norms / sizeof *norms && !status; i++)
        if (norms[i].from) status = model_upload_vector(upload, norms[i].from, norms[i].to, error);
    return status;
}

static zs_status load_layers(zs_model *model, model_upload *upload, const model_file *file, char **names, zs_error *error) {
    for (uint32_t i = 0; i < file->config.layers; i++) {
        const model_layer_file *from = &file->layers[i];
        model_layer *to = &model->layers[i];
        zs_status status = load_norms(upload, from, to, error);
        for (uint32_t m = 0; m < MODEL_MATRICES && !status; m++)
            status = load_weight(model, upload, model->factors, &from->matrices[m], &to->weights[m], names, error);
        if (!status && file->config.qkv_bias) status = load_biases(model, upload, file, i, to, error);
        if (!status) status = check_pair(model, to, error);
        if (status) return status;
    }
    return ZS_OK;
}

static zs_status load_tensors(zs_model *model, const model_file *file, const zs_model_params *params, zs_error *error) {
    uint64_t file_bytes, bytes = model_weight_bytes(&model->policy, file, model->factors, &file_bytes);
    model->info.weight_bytes = bytes;
    zs_status status = check_memory(model->device, model->path, bytes, error);
    if (status) return status;
    model_upload *upload = NULL;
    // Where weights are composed, other kernels will serve.
    model_warm *warm = model->factors == ZS_PLACE_DEVICE ? model_warm_start(model->device, &model->policy, file) : NULL;
    status = model_upload_create(model, params, file_bytes, &upload, error);
    if (!status) status = model_upload_matrix(upload, file->embedding, NULL, &model->embedding, error);
    if (!status && !file->config.tied) status = model_upload_matrix(upload, file->head, NULL, &model->head, error);
    if (!status) status = model_upload_vector(upload, file->output_norm, &model->output_norm, error);
    char *names = model->names;
    if (!status) status = load_layers(model, upload, file, &names, error);
    if (!status && file->vision) status = load_tower(model, upload, file->vision, &names, error);
    if (file->config.tied) model->head = model->embedding;
    zs_status finished = model_upload_finish(&upload, status ? NULL : error);
    model_warm_finish(&warm);
    return status ? status : finished;
}

static zs_status allocate(zs_model *model, const model_file *file, const char *path, zs_error *error) {
    size_t names = 0;
    for (uint32_t i = 0; i < file->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) names += strlen(file->layers[i].matrices[m].canonical) + 1;
    }
    names += load_tower_names(file->vision);
    model->path = copy_string(path);
    model->names = malloc(names + 1);
    model->layers = calloc(file->config.layers, sizeof *model->layers);
    if (file->rope_factors) model->rope_factors = malloc(file->rope_factors->size);
    if (!model->path || !model->names || !model->layers || (file->rope_factors && !model->rope_factors))
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", path);
    if (file->rope_factors) memcpy(model->rope_factors, file->rope_factors->data, file->rope_factors->size);
    return ZS_OK;
}

static void fill_info(zs_model *model) {
    const model_config *c = &model->config;
    zs_model_info *info = &model->info;
    snprintf(info->architecture, sizeof info->architecture, "%s", c->architecture);
    snprintf(info->name, sizeof info->name, "%s", c->name);
    info->factored = model->scale_count > 0;
    const model_weight *first = &model->layers[0].weights[MODEL_GATE];
    snprintf(info->weight_type, sizeof info->weight_type, "%s", matrix_type_name(first->factored ? first->u.type : first->dense.type));
    info->layers = c->layers;
    info->hidden = c->hidden;
    info->ffn = c->ffn;
    info->heads = c->heads;
    info->kv_heads = c->kv_heads;
    info->head_dim = c->head_dim;
    info->vocab = c->vocab;
    info->context = c->context;
    info->images = model->tower != NULL;
    info->image_token = model->tower && model->tower->config.image_token ? model->tower->config.image_token : UINT32_MAX;
    info->parameters += (uint64_t)c->vocab * c->hidden * (c->tied ? 1 : 2);
}

static uint64_t next_id(void) {
    static atomic_uint_fast64_t counter; // tells loaded models apart; no state that behaviour depends on
    return atomic_fetch_add(&counter, 1) + 1;
}

zs_status model_from_file(zs_device *device, const char *path, const model_file *file, const zs_model_params *params, zs_model **out,
                          zs_error *error) {
    zs_model *model = calloc(1, sizeof *model);
    if (!model) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", path);
    model->device = device;
    model->config = file->config;
    model->id = next_id();
    model->factors = params && file->config.factored && params->factors ? params->factors : ZS_PLACE_DEVICE;
    model->policy = op_policy_of(device);
    zs_status status = op_policy_measure(device, &model->policy, error);
    if (!status) status = allocate(model, file, path, error);
    if (!status && gguf_find_value(&file->gguf, "tokenizer.ggml.model"))
        status = tokenizer_from_gguf(&file->gguf, &model->tokenizer, error);
    if (!status && model->tokenizer && params && params->chat_template)
        status = tokenizer_choose_chat(model->tokenizer, params->chat_template, error);
    if (!status) status = load_tensors(model, file, params, error);
    if (status) {
        zs_model_destroy(&model);
        return status;
    }
    fill_info(model);
    *out = model;
    return ZS_OK;
}

zs_status zs_model_load(zs_device *device, const char *path, const zs_model_params *params, zs_model **out, zs_error *error) {
    model_file *file = calloc(1, sizeof *file);
    if (!file) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", path);
    zs_status status = model_file_open(path, file, error);
    if (!status && params && params->mmproj && (status = model_file_add_images(file, params->mmproj, error)) != ZS_OK)
        model_file_close(file);
    if (!status) {
        status = model_from_file(device, path, file, params, out, error);
        if (!status && (*out)->factors == ZS_PLACE_FILE) {
            (*out)->file = file;
            return ZS_OK;
        }
        model_file_close(file);
    }
    free(file);
    return status;
}

void zs_model_destroy(zs_model **handle) {
    zs_model *model = *handle;
    if (!model) return;
    *handle = NULL;
    for (uint32_t i = 0; i < model->buffer_count; i++) gpu_buffer_destroy(model->device, &model->buffers[i]);
    for (uint32_t i = 0; model->layers && i < model->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            model_weight *w = &model->layers[i].weights[m];
            free(w->sigma);
            free(w->host_u);
            free(w->host_vt);
        }
    }
    for (uint32_t i = 0; i < model->tower_weight_count; i++) free(model->tower_weights[i].sigma);
    free(model->tower_weights);
    free(model->tower);
    if (model->file) model_file_close(model->file);
    free(model->file);
    zs_tokenizer_destroy(&model->tokenizer);
    free(model->buffers);
    free(model->layers);
    free(model->names);
    free(model->rope_factors);
    free(model->path);
    free(model);
}

const zs_model_info *zs_model_get_info(const zs_model *model) { return &model->info; }
const zs_tokenizer *zs_model_get_tokenizer(const zs_model *model) { return model->tokenizer; }

const model_weight *model_weight_at(const zs_model *model, uint32_t i) {
    const uint32_t decoder = model->config.layers * MODEL_MATRICES;
    if (i < decoder) return &model->layers[i / MODEL_MATRICES].weights[i % MODEL_MATRICES];
    return i - decoder < model->tower_weight_count ? &model->tower_weights[i - decoder] : NULL;
}

bool model_tower_is_factored(const zs_model *model) {
    for (uint32_t i = 0; i < model->tower_weight_count; i++) {
        if (model->tower_weights[i].factored) return true;
    }
    return false;
}

void model_base_scales(const zs_model *model, float *row) {
    const model_weight *w;
    memset(row, 0, model->scale_count * sizeof *row);
    for (uint32_t i = 0; (w = model_weight_at(model, i)); i++) {
        if (w->factored) memcpy(row + w->scale_offset, w->sigma, w->rank * sizeof *row);
    }
}
