#include "model/random.h"
#include "model/upload.h"
#include "ops/ops.h"

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

zs_status model_upload_create(zs_model *model, const zs_model_params *params, uint64_t total_bytes, model_upload **upload,
                              zs_error *error) {
    model_upload *up = calloc(1, sizeof *up);
    if (!up) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while loading %s", model->path);
    up->model = model;
    up->total = (double)total_bytes;
    if (params) up->progress = params->progress;
    zs_status status = gpu_upload_create(model->device, &up->ring, error);
    if (status)
        free(up);
    else
        *upload = up;
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
static zs_status get_rows(model_upload *up, const gguf_tensor *tensor, uint32_t first, uint32_t rows, const uint8_t **src,
                          zs_error *error) {
    size_t row_bytes = (size_t)(tensor->size / tensor->shape[0]);
    *src = (const uint8_t *)tensor->data + first * row_bytes;
    if (tensor->data) return ZS_OK;
    zs_status status = grow(up, &up->random, &up->random_bytes, rows * row_bytes, error);
    if (status) return status;
    random_weights_fill(tensor, first, rows, up->random);
    *src = up->random;
    return ZS_OK;
}

static uint32_t round_up(uint32_t n, uint32_t step) { return (n + step - 1) / step * step; }

/// Rows of a tensor and where they lie in a matrix.
typedef struct rows_range {
    uint32_t file, matrix, count;
} rows_range;

/// Sends rows first … of `whole`, packed in scratch as the matrix `piece`, to their places plane by plane.
static zs_status send_piece(model_upload *up, const gpu_buffer *buffer, const matrix *whole, const matrix *piece, uint32_t first,
                            zs_error *error) {
    matrix_planes to = matrix_get_planes(whole), from = matrix_get_planes(piece);
    for (uint32_t p = 0; p < to.count; p++) {
        uint64_t offset = to.offset[p] + first * to.row_bytes[p];
        uint64_t size = (uint64_t)round_up(piece->out, piece->group) * to.row_bytes[p];
        uint64_t rounded = (size + 3) / 4 * 4; // only the very last plane's end may be odd, and it has room behind
        void *host;
        zs_status status = gpu_upload_map(up->ring, buffer, offset, rounded, &host, error);
        if (status) return status;
        memcpy(host, up->scratch + from.offset[p], size);
        memset((uint8_t *)host + size, 0, rounded - size);
    }
    return ZS_OK;
}

/// Packs rows of a tensor into the matrix `to`, whose bytes begin at dst: where the host sees the device's memory, that is their place.
static zs_status pack(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, const matrix *to, rows_range rows,
                      void *dst, zs_error *error) {
    const uint8_t *src = tensor->data;
    if (permutation && permutation->permute_heads) {
        size_t row = (size_t)(tensor->size / tensor->shape[0]);
        for (uint32_t i = 0; i < rows.count; i++)
            matrix_pack_rows(to, tensor->type, src + model_matrix_file_row(permutation, rows.file + i) * row, rows.matrix + i, 1, dst);
        return ZS_OK;
    }
    zs_status status = get_rows(up, tensor, rows.file, rows.count, &src, error);
    if (!status) matrix_pack_rows(to, tensor->type, src, rows.matrix, rows.count, dst);
    return status;
}

static zs_status pack_and_send(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, const matrix *part,
                               const gpu_buffer *buffer, rows_range rows, zs_error *error) {
    matrix piece = matrix_of(part->type, rows.count, part->in, part->group);
    uint32_t at = rows.matrix;
    rows.matrix = 0;
    zs_status status = grow(up, &up->scratch, &up->scratch_bytes, matrix_bytes(&piece), error);
    if (!status) status = pack(up, tensor, permutation, &piece, rows, up->scratch, error);
    return status ? status : send_piece(up, buffer, part, &piece, at, error);
}

/// Rows of a piece when pieces have at most `limit` bytes.
static uint32_t rows_within(const matrix *weight, uint64_t limit) {
    matrix row = matrix_of(weight->type, 1, weight->in, 1);
    uint32_t whole = weight->group > 16 ? weight->group : 16; // whole groups, and whole words in every plane
    uint32_t rows = (uint32_t)(limit / matrix_bytes(&row)) / whole * whole;
    return rows ? rows : whole;
}

/// The tensor's rows first … as `part`, into a buffer.
static zs_status send_rows(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, uint32_t first, const matrix *part,
                           const gpu_buffer *buffer, zs_error *error) {
    size_t src_row = (size_t)(tensor->size / tensor->shape[0]);
    uint64_t limit = buffer->mapped || gpu_upload_max(up->ring) > CHUNK_BYTES ? CHUNK_BYTES : gpu_upload_max(up->ring);
    uint32_t step = rows_within(part, limit);
    zs_status status = ZS_OK;
    for (uint32_t at = 0; at < part->out && !status; at += step) {
        rows_range rows = {.file = first + at, .matrix = at, .count = part->out - at < step ? part->out - at : step};
        status = buffer->mapped ? pack(up, tensor, permutation, part, rows, buffer->mapped, error)
                                : pack_and_send(up, tensor, permutation, part, buffer, rows, error);
        if (!status) status = report(up, (double)rows.count * (double)src_row, error);
    }
    return status;
}

/// The same into a buffer of its own.
static zs_status upload_part(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, uint32_t first, matrix *part,
                             zs_error *error) {
    gpu_buffer *buffer = NULL;
    zs_status status = add_buffer(up->model, matrix_bytes(part), tensor->name, &buffer, error);
    if (status) return status;
    part->address = buffer->address;
    return send_rows(up, tensor, permutation, first, part, buffer, error);
}

static zs_status split(const model_upload *up, const gguf_tensor *tensor, uint64_t limit, matrix *weight, zs_error *error) {
    const double mib = 1 << 20;
    uint64_t needed = 0;
    if (matrix_split(weight, limit, &needed)) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY,
                        "%s: tensor %s [%u, %u] takes %.2f MiB and may lie in %d parts of whole groups of rows, so one is %.2f MiB, but %s "
                        "holds %.2f MiB in one piece: use a smaller type or another --device",
                        up->model->path, tensor->name, weight->out, weight->in, (double)matrix_bytes(weight) / mib, MATRIX_MAX_PARTS,
                        (double)needed / mib, zs_device_get_info(up->model->device)->name, (double)limit / mib);
}

/// The device's layout of a tensor, in one piece.
static zs_status shape_of(const model_upload *up, const gguf_tensor *tensor, matrix *weight, zs_error *error) {
    *weight = model_tensor_matrix(tensor, &up->model->policy);
    weight->part_rows = 0;
    if (weight->type != MATRIX_TYPES) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: tensor %s has a type that no kernel reads", up->model->path, tensor->name);
}

zs_status model_upload_matrix(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight,
                              zs_error *error) {
    zs_status status = shape_of(up, tensor, weight, error);
    if (!status) status = split(up, tensor, up->model->policy.part_limit, weight, error);
    for (uint32_t p = 0; p < matrix_part_count(weight) && !status; p++) {
        matrix part = matrix_part(weight, p);
        status = upload_part(up, tensor, permutation, p * weight->part_rows, &part, error);
        matrix_set_part_address(weight, p, part.address);
    }
    gguf_tensor_release(tensor);
    return status;
}

zs_status model_upload_into(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight,
                            const gpu_buffer *buffer, zs_error *error) {
    zs_status status = shape_of(up, tensor, weight, error);
    if (status) return status;
    weight->address = buffer->address;
    status = send_rows(up, tensor, permutation, 0, weight, buffer, error);
    gguf_tensor_release(tensor);
    return status;
}

zs_status model_upload_host(model_upload *up, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight, void **host,
                            zs_error *error) {
    zs_status status = shape_of(up, tensor, weight, error);
    if (status) return status;
    uint8_t *packed = malloc(matrix_bytes(weight));
    if (!packed)
        return zs_error_set(error, ZS_ERROR_MEMORY, "no host memory for the %.0f MB of %s: leave the factors in the file",
                            (double)matrix_bytes(weight) / 1e6, tensor->name);
    *host = packed;
    size_t src_row = (size_t)(tensor->size / weight->out);
    uint32_t step = rows_within(weight, CHUNK_BYTES);
    for (uint32_t first = 0; first < weight->out && !status; first += step) {
        rows_range rows = {.file = first, .matrix = first, .count = weight->out - first < step ? weight->out - first : step};
        status = pack(up, tensor, permutation, weight, rows, packed, error);
        if (!status) status = report(up, (double)rows.count * (double)src_row, error);
    }
    gguf_tensor_release(tensor);
    return status;
}

zs_status model_upload_packed(model_upload *up, const matrix *weight, const void *host, const gpu_buffer *buffer, zs_error *error) {
    return gpu_upload_bytes(up->ring, buffer, 0, matrix_bytes(weight), host, error);
}

zs_status model_upload_wait(model_upload *up, zs_error *error) { return gpu_upload_wait(up->ring, error); }

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
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %llu: the file is damaged",
                                up->model->path, tensor->name, (unsigned long long)i);
    }
    *address = buffer->address;
    return report(up, (double)bytes, error);
}
