#include "model/random.h"
#include "model/upload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 4 << 20 };

struct model_upload {
    zs_model *model;
    gpu_upload *ring;
    zs_progress progress;
    double done, total;
    uint8_t *scratch; // one chunk in the device layout
    size_t scratch_bytes;
    uint8_t *random; // one chunk of a tensor without data
    size_t random_bytes;
};

zs_status model_upload_create(zs_model *model, const zs_model_params *params, uint64_t total_bytes, model_upload **upload, zs_error *error) {
    model_upload *up = calloc(1, sizeof *up);
    if (!up) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", model->path);
    up->model = model;
    up->total = (double)total_bytes;
    if (params) up->progress = params->progress;
    zs_status status = gpu_upload_create(model->device, &up->ring, error);
    if (status) free(up);
    else *upload = up;
    return status;
}

zs_status model_upload_finish(model_upload **upload, zs_error *error) {
    if (!*upload) return ZS_OK;
    zs_status status = gpu_upload_finish(&(*upload)->ring, error);
    free((*upload)->scratch);
    free((*upload)->random);
    free(*upload);
    *upload = NULL;
    return status;
}

/// A new buffer, owned by the model.
static zs_status add_buffer(zs_model *model, uint64_t bytes, const char *name, gpu_buffer **buffer, zs_error *error) {
    gpu_buffer *grown = realloc(model->buffers, (model->buffer_count + 1) * sizeof *grown);
    if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", model->path);
    model->buffers = grown;
    *buffer = &grown[model->buffer_count];
    zs_status status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, bytes, false, name, *buffer, error);
    if (!status) model->buffer_count++;
    return status;
}

static zs_status report(model_upload *up, double bytes, zs_error *error) {
    up->done += bytes;
    if (up->progress.report && !up->progress.report(up->progress.user, "load", up->done, up->total))
        return zs_error_set(error, ZS_ERROR_CANCELLED, "loading %s was cancelled", up->model->path);
    return ZS_OK;
}

static zs_status grow(const model_upload *up, uint8_t **buffer, size_t *capacity, size_t bytes, zs_error *error) {
    if (bytes <= *capacity) return ZS_OK;
    free(*buffer);
    *buffer = malloc(bytes);
    *capacity = *buffer ? bytes : 0;
    return *buffer ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", up->model->path);
}

/// Rows first … of a tensor: the file's, or made up where it has none.
static zs_status get_rows(model_upload *up, const gguf_tensor *tensor, uint32_t first, uint32_t rows, const uint8_t **src, zs_error *error) {
    size_t row_bytes = (size_t)(tensor->size / tensor->shape[0]);
    *src = (const uint8_t *)tensor->data + first * row_bytes;
    if (tensor->data) return ZS_OK;
    zs_status status = grow(up, &up->random, &up->random_bytes, rows * row_bytes, error);
    if (status) return status;
    random_weights_fill(tensor, first, rows, up->random);
    *src = up->random;
    return ZS_OK;
}

/// Sends rows first … of `whole`, packed in scratch as the matrix `part`, to their places plane by plane.
static zs_status send_part(model_upload *up, const gpu_buffer *buffer, const matrix *whole, const matrix *part, uint32_t first, zs_error *error) {
    matrix_planes to = matrix_get_planes(whole), from = matrix_get_planes(part);
    for (uint32_t p = 0; p < to.count; p++) {
        uint64_t offset = to.offset[p] + first * to.row_bytes[p];
        uint64_t size = part->out * to.row_bytes[p];
        uint64_t rounded = (size + 3) / 4 * 4; // only the very last plane's end may be odd, and it has room behind
        void *host;
        zs_status status = gpu_upload_map(up->ring, buffer, offset, rounded, &host, error);
        if (status) return status;
        memcpy(host, up->scratch + from.offset[p], size);
        memset((uint8_t *)host + size, 0, rounded - size);
    }
    return ZS_OK;
}

zs_status model_upload_matrix(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight, zs_error *error) {
    uint32_t out = (uint32_t)tensor->shape[0], in = (uint32_t)tensor->shape[1];
    *weight = matrix_of(matrix_type_from_gguf(tensor->type), out, in);
    if (weight->type == MATRIX_TYPES)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: tensor %s has a type that no kernel reads", up->model->path, tensor->name);
    gpu_buffer *buffer = NULL;
    zs_status status = add_buffer(up->model, matrix_bytes(weight->type, out, in), tensor->name, &buffer, error);
    if (status) return status;
    weight->address = buffer->address;

    size_t src_row = (size_t)(tensor->size / out);
    uint64_t row_bytes = matrix_bytes(weight->type, 1, in);
    uint64_t limit = gpu_upload_max(up->ring) < CHUNK_BYTES ? gpu_upload_max(up->ring) : CHUNK_BYTES;
    uint32_t step = (uint32_t)(limit / row_bytes) / 16 * 16; // whole words in every plane
    if (step == 0) step = 16;
    for (uint32_t first = 0; first < out; first += step) {
        uint32_t rows = out - first < step ? out - first : step;
        matrix part = matrix_of(weight->type, rows, in);
        const uint8_t *src;
        status = grow(up, &up->scratch, &up->scratch_bytes, matrix_bytes(part.type, rows, in), error);
        if (!status && permutation && permutation->permute_heads) src = tensor->data;
        else if (!status) status = get_rows(up, tensor, first, rows, &src, error);
        if (status) return status;
        if (permutation && permutation->permute_heads) {
            for (uint32_t i = 0; i < rows; i++)
                matrix_pack_rows(&part, tensor->type, src + model_matrix_file_row(permutation, first + i) * src_row, i, 1, up->scratch);
        } else {
            matrix_pack_rows(&part, tensor->type, src, 0, rows, up->scratch);
        }
        status = send_part(up, buffer, weight, &part, first, error);
        if (!status) status = report(up, (double)rows * (double)src_row, error);
        if (status) return status;
    }
    return ZS_OK;
}

zs_status model_upload_vector(model_upload *up, const gguf_tensor *tensor, uint64_t *address, zs_error *error) {
    size_t bytes = (size_t)(tensor->elements + 31) / 32 * 32 * sizeof(float);
    gpu_buffer *buffer = NULL;
    zs_status status = add_buffer(up->model, bytes, tensor->name, &buffer, error);
    if (status) return status;
    void *host;
    status = gpu_upload_map(up->ring, buffer, 0, bytes, &host, error);
    if (status) return status;
    tensor_type_dequantise(tensor->type, tensor->data, host, (size_t)tensor->elements);
    memset((float *)host + tensor->elements, 0, bytes - (size_t)tensor->elements * sizeof(float));
    for (uint64_t i = 0; i < tensor->elements; i++) {
        if (!isfinite(((float *)host)[i]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %llu: the file is damaged", up->model->path, tensor->name, (unsigned long long)i);
    }
    *address = buffer->address;
    return report(up, (double)bytes, error);
}
