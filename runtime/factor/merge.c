#include "loader/expert_fit.h"
#include "loader/model_file.h"
#include "loader/vision_file.h"
#include "zsigma/zsigma_lab.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t types[] = {
    [ZS_MERGE_F16] = TENSOR_F16, [ZS_MERGE_F32] = TENSOR_F32, [ZS_MERGE_Q8_0] = TENSOR_Q8_0, [ZS_MERGE_Q4_0] = TENSOR_Q4_0};
static const uint32_t file_types[] = {[ZS_MERGE_F16] = 1, [ZS_MERGE_F32] = 0, [ZS_MERGE_Q8_0] = 7, [ZS_MERGE_Q4_0] = 2}; // llama.cpp's

typedef struct work {
    const char *input;
    const zs_merge_params *params;
    model_file model;
    expert_file expert; // zeroed without one
    uint32_t count;     // factored matrices
    double done, total; // floating-point operations
} work;

// ---- the expert ----------------------------------------------------------------------------------------------------

static bool find_target(const void *model, const char *canonical, expert_target *target) {
    const model_matrix *m = model_file_find(model, canonical);
    if (!m) return false;
    *target = (expert_target){m->u ? m->rank : 0, m->sketch};
    return true;
}

/// What the caller should know about an expert that was accepted.
static void tell_fit(const work *w, const zs_expert_fit *fit) {
    char text[512];
    const zs_log *log = &w->params->log;
    if (!log->write) return;
    if (!fit->has_cosine) {
        snprintf(text, sizeof text, "expert %.100s: the base model cannot be checked, because the expert or %.200s has no sketches",
                 w->expert.name, w->input);
        log->write(log->user, ZS_LOG_WARNING, text);
    }
    if (w->params->transfer) {
        snprintf(text, sizeof text, "transfer of %.100s: %u of %u matrices are applied", w->expert.name, fit->by_shape, fit->matrices);
        log->write(log->user, ZS_LOG_WARNING, text);
    }
}

static zs_status check_expert(const work *w, zs_error *error) {
    const expert_base base = {w->input, &w->model, find_target};
    zs_expert_fit fit;
    zs_status status = expert_fit_check(&w->expert, &base, w->params->transfer, &fit, error);
    if (!status && fit.matrices) tell_fit(w, &fit);
    return status;
}

/// scales[r] = s · σ ⊙ m; σ where the expert leaves the matrix out.
static zs_status fill_scales(const work *w, const model_matrix *matrix, float *scales, zs_error *error) {
    tensor_type_dequantise(matrix->s->type, matrix->s->data, scales, matrix->rank);
    for (size_t i = 0; i < w->expert.matrix_count; i++) {
        const expert_matrix *m = &w->expert.matrices[i];
        if (strcmp(m->name, matrix->canonical) != 0) continue;
        float *multipliers = malloc(m->rank * sizeof *multipliers);
        if (!multipliers) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while merging %s", w->input);
        double scale = 1;
        expert_file_multipliers(&w->expert, m, multipliers);
        zs_status status = w->expert.trace ? expert_file_trace_scale(&w->expert, m, scales, multipliers, &scale, error) : ZS_OK;
        for (uint32_t r = 0; r < m->rank; r++) scales[r] = (float)(scale * (double)scales[r] * (double)multipliers[r]);
        free(multipliers);
        return status;
    }
    return ZS_OK;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

/// llama.cpp wants the rows of llama's q and k interleaved, factors have them in halves: the heads over which to reorder rows of
/// q and k, and of their biases; 0: none.
static uint32_t heads_to_reorder(const work *w, uint32_t kind) {
    const model_config *c = &w->model.config;
    if (strcmp(c->architecture, "llama") != 0 || (kind != MODEL_Q && kind != MODEL_K)) return 0;
    return kind == MODEL_Q ? c->heads : c->kv_heads;
}

/// The Hugging Face row that llama.cpp has at `row`: 2i + s holds s · d/2 + i of a head.
static uint32_t row_in_halves(uint32_t row, uint32_t rows, uint32_t heads) {
    if (heads == 0) return row;
    uint32_t d = rows / heads, head = row / d, j = row % d;
    return head * d + j % 2 * (d / 2) + j / 2;
}

/// Which q, k or bias of theirs a tensor of the file is, if its rows are in halves and have to be reordered.
static uint32_t dense_heads(const work *w, const gguf_tensor *tensor) {
    for (uint32_t i = 0; i < w->model.config.layers && w->model.rows_in_halves; i++) {
        const model_layer_file *layer = &w->model.layers[i];
        for (uint32_t m = MODEL_Q; m <= MODEL_K; m++) {
            if (layer->matrices[m].dense == tensor || layer->biases[m] == tensor) return heads_to_reorder(w, m);
        }
    }
    return 0;
}

// ---- tensors -------------------------------------------------------------------------------------------------------

/// Other programs take image towers from files of their own.
static bool is_left_out(const gguf_tensor *tensor) {
    return strstr(tensor->name, ".zs_") || strncmp(tensor->name, "v.", 2) == 0 || strncmp(tensor->name, "mm.", 3) == 0 ||
           strcmp(tensor->name, VISION_NEWLINE_TENSOR) == 0;
}

/// Vectors become F32, which llama.cpp's kernels for them expect.
static uint32_t copied_type(const gguf_tensor *tensor) { return tensor->dims == 1 ? TENSOR_F32 : tensor->type; }

static uint32_t merged_type(const work *w, const model_matrix *matrix) {
    uint32_t type = types[w->params->type];
    return matrix->in % tensor_type_get_info(type)->block_elements ? TENSOR_F16 : type;
}

static zs_status copy_tensor(const work *w, const gguf_tensor *tensor, gguf_writer *writer, zs_error *error) {
    uint32_t heads = dense_heads(w, tensor), type = copied_type(tensor), rows = (uint32_t)tensor->shape[0];
    if (heads == 0 && type == tensor->type) return gguf_writer_write(writer, tensor->data, (size_t)tensor->size, error);
    size_t bytes = (size_t)tensor_type_bytes(type, tensor->elements), row = bytes / rows;
    uint8_t *copy = malloc(bytes);
    if (!copy) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while merging %s", w->input);
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t from = row_in_halves(i, rows, heads);
        if (type == tensor->type)
            memcpy(copy + i * row, (const uint8_t *)tensor->data + from * row, row);
        else
            tensor_type_dequantise(tensor->type, (const uint8_t *)tensor->data + from * (tensor->size / rows),
                                   (float *)(void *)(copy + i * row), 1);
    }
    zs_status status = gguf_writer_write(writer, copy, bytes, error);
    free(copy);
    return status;
}

/// dense[out, in] = U[out, r] diag(scales) · Vᵀ[r, in], rows in the file's order.
static zs_status recompose(const work *w, const model_matrix *m, uint32_t kind, float *dense, zs_error *error) {
    uint32_t r = m->rank, heads = heads_to_reorder(w, kind);
    float *scales = malloc(r * sizeof *scales), *u = malloc((size_t)m->out * r * sizeof *u), *vt = malloc((size_t)r * m->in * sizeof *vt);
    zs_status status = scales && u && vt ? fill_scales(w, m, scales, error)
                                         : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while merging %s", w->input);
    if (!status) {
        size_t u_row = (size_t)(m->u->size / m->out);
        for (uint32_t i = 0; i < m->out; i++) {
            float *row = u + (size_t)i * r;
            tensor_type_dequantise(m->u->type, (const uint8_t *)m->u->data + row_in_halves(i, m->out, heads) * u_row, row, r);
            for (uint32_t k = 0; k < r; k++) row[k] *= scales[k];
        }
        tensor_type_dequantise(m->vt->type, m->vt->data, vt, (size_t)r * m->in);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m->out, (int)m->in, (int)r, 1, u, (int)r, vt, (int)m->in, 0, dense,
                    (int)m->in);
    }
    free(scales);
    free(u);
    free(vt);
    return status;
}

static zs_status check_finite(const work *w, const model_matrix *m, const float *dense, zs_error *error) {
    for (size_t i = 0; i < (size_t)m->out * m->in; i++) {
        if (!isfinite(dense[i]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s under expert %s: %s overflows", w->input,
                                w->expert.name ? w->expert.name : "none", m->canonical);
    }
    return ZS_OK;
}

static zs_status write_merged(work *w, const model_matrix *m, uint32_t kind, gguf_writer *writer, zs_error *error) {
    size_t elements = (size_t)m->out * m->in;
    uint32_t type = merged_type(w, m);
    size_t bytes = (size_t)tensor_type_bytes(type, elements);
    float *dense = malloc(elements * sizeof *dense);
    void *rounded = malloc(bytes);
    zs_status status = dense && rounded ? recompose(w, m, kind, dense, error)
                                        : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while merging %s", w->input);
    if (!status) status = check_finite(w, m, dense, error);
    if (!status) {
        tensor_type_quantise(type, dense, rounded, elements);
        status = gguf_writer_write(writer, rounded, bytes, error);
    }
    free(dense);
    free(rounded);
    w->done += 2.0 * m->out * m->in * m->rank;
    if (!status && w->params->progress.report && !w->params->progress.report(w->params->progress.user, "merge", w->done, w->total))
        status = zs_error_set(error, ZS_ERROR_CANCELLED, "merging %s was cancelled", w->input);
    return status;
}

// ---- the file ------------------------------------------------------------------------------------------------------

static bool begins(gguf_string key, const char *text) { return key.size >= strlen(text) && memcmp(key.data, text, strlen(text)) == 0; }

static void add_keys(const work *w, gguf_writer *writer) {
    const gguf_file *in = &w->model.gguf;
    for (size_t i = 0; i < in->value_count; i++) {
        gguf_string key = in->values[i].key;
        if (begins(key, "general.architecture") || begins(key, "general.file_type") || begins(key, "general.quantization_version") ||
            begins(key, "zsigma.") || begins(key, "clip."))
            continue;
        gguf_writer_copy_value(writer, &in->values[i]);
    }
    gguf_writer_add_string(writer, "general.architecture", w->model.config.architecture);
    gguf_writer_add_u32(writer, "general.file_type", file_types[w->params->type]);
    gguf_writer_add_u32(writer, "general.quantization_version", 2);
    if (w->expert.name) gguf_writer_add_string(writer, "zsigma.merged_expert", w->expert.name);
}

/// Visits the factored matrices in order.
static const model_matrix *factored_at(const work *w, uint32_t layer, uint32_t m) {
    const model_matrix *matrix = &w->model.layers[layer].matrices[m];
    return matrix->u ? matrix : NULL;
}

static void add_tensors(work *w, gguf_writer *writer) {
    const gguf_file *in = &w->model.gguf;
    for (size_t i = 0; i < in->tensor_count; i++) {
        const gguf_tensor *t = &in->tensors[i];
        if (!is_left_out(t)) gguf_writer_add_tensor(writer, t->name, copied_type(t), t->dims, t->shape);
    }
    for (uint32_t i = 0; i < w->model.config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const model_matrix *matrix = factored_at(w, i, m);
            char name[64];
            if (!matrix) continue;
            snprintf(name, sizeof name, "blk.%u.%s.weight", i, model_matrix_gguf_name(m));
            gguf_writer_add_tensor(writer, name, merged_type(w, matrix), 2, (const uint64_t[]){matrix->out, matrix->in});
            w->total += 2.0 * matrix->out * matrix->in * matrix->rank;
            w->count++;
        }
    }
}

static zs_status write_tensors(work *w, gguf_writer *writer, zs_error *error) {
    const gguf_file *in = &w->model.gguf;
    zs_status status = ZS_OK;
    for (size_t i = 0; i < in->tensor_count && !status; i++) {
        if (!is_left_out(&in->tensors[i])) status = copy_tensor(w, &in->tensors[i], writer, error);
    }
    for (uint32_t i = 0; i < w->model.config.layers && !status; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES && !status; m++) {
            const model_matrix *matrix = factored_at(w, i, m);
            if (matrix) status = write_merged(w, matrix, m, writer, error);
        }
    }
    return status;
}

static zs_status write_output(work *w, const char *output, zs_error *error) {
    gguf_writer *writer = NULL;
    zs_status status = gguf_writer_create(output, w->params->force, &writer, error);
    if (status) return status;
    add_keys(w, writer);
    add_tensors(w, writer);
    status = gguf_writer_start(writer, error);
    if (!status) status = write_tensors(w, writer, error);
    if (!status) status = gguf_writer_finish(&writer, error);
    gguf_writer_discard(&writer);
    return status;
}

zs_status zs_merge_file(const char *input, const char *expert, const char *output, const zs_merge_params *params, uint32_t *matrices,
                        zs_error *error) {
    static const zs_merge_params defaults;
    work w = {.input = input, .params = params ? params : &defaults};
    zs_status status = model_file_open(input, &w.model, error);
    if (status) return status;
    if (!w.model.config.factored)
        status = zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is dense: an expert scales the factors that zsigma factor makes", input);
    if (!status && expert) status = expert_file_load(expert, &w.expert, error);
    if (!status) status = check_expert(&w, error);
    if (!status) status = write_output(&w, output, error);
    if (!status && matrices) *matrices = w.count;
    expert_file_free(&w.expert);
    model_file_close(&w.model);
    return status;
}
