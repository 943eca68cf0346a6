/// Experts from fine-tunes: the z that comes nearest to what was changed.
#include "factor/factored.h"
#include "factor/refine.h"
#include "factor/svd.h"
#include "loader/expert_fit.h"
#include "loader/file_output.h"
#include "loader/lora_folder.h"
#include "loader/sketch.h"
#include "loader/vision_file.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    const char *base_path, *tuned_path;
    const zs_project_params *params;
    model_file base, tuned; // tuned: zeroed for a LoRA
    lora_folder lora;       // zeroed for a checkpoint
    bool is_lora;
    expert_file expert;
    zs_project_report report;
    double changed, said, weights; // Σ ‖ΔW‖², Σ ‖diag(Uᵀ ΔW V)‖², Σ ‖W‖²
    double done, total;            // floating-point operations
} work;

/// What one matrix needs, all in double precision, rows in Hugging Face's order.
typedef struct projection {
    svd base;        // the factors as stored
    double *change;  // ΔW [out, in]
    double *scratch; // [out, rank]
} projection;

static zs_status no_memory(const work *w, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while projecting %s", w->tuned_path);
}

// ---- matrices ------------------------------------------------------------------------------------------------------

/// The decoder's matrices, then the tower's and the projector's; NULL behind the last.
static const model_matrix *matrix_at(const model_file *file, uint32_t i) {
    uint32_t decoder = file->config.layers * MODEL_MATRICES;
    if (i < decoder) return &file->layers[i / MODEL_MATRICES].matrices[i % MODEL_MATRICES];
    return file->vision ? vision_file_matrix(file->vision, i - decoder, NULL) : NULL;
}

static const model_matrix *find_matrix(const model_file *file, const char *canonical) {
    const model_matrix *m;
    for (uint32_t i = 0; (m = matrix_at(file, i)) != NULL; i++) {
        if (strcmp(m->canonical, canonical) == 0) return m;
    }
    return NULL;
}

/// Whether the expert will have it: a factored matrix that the fine-tune holds.
static bool is_wanted(const work *w, const model_matrix *m) {
    if (!m->u) return false;
    return w->is_lora ? lora_folder_find(&w->lora, m->canonical) != NULL : find_matrix(&w->tuned, m->canonical) != NULL;
}

static double cost(const work *w, const model_matrix *m) {
    double change = w->is_lora ? w->lora.rank : m->rank;
    return 2.0 * m->out * m->in * (change + m->rank);
}

// ---- checks --------------------------------------------------------------------------------------------------------

static zs_status check_shape(const work *w, const model_matrix *m, uint64_t out, uint64_t in, zs_error *error) {
    if (out == m->out && in == m->in) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_MISMATCH, "%s: %s has shape [%llu, %llu], and [%u, %u] in %s", w->tuned_path, m->canonical,
                        (unsigned long long)out, (unsigned long long)in, m->out, m->in, w->base_path);
}

static zs_status check_lora(const work *w, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < w->lora.matrix_count && !status; i++) {
        const lora_matrix *l = &w->lora.matrices[i];
        const model_matrix *m = find_matrix(&w->base, l->canonical);
        if (m && m->u)
            status = check_shape(w, m, l->b->shape[0], l->a->shape[1], error);
        else
            status = zs_error_set(error, ZS_ERROR_MISMATCH, "%s changes %s, which %s does not have in factored form", w->tuned_path,
                                  l->canonical, w->base_path);
    }
    return status;
}

static zs_status check_checkpoint(const work *w, zs_error *error) {
    const model_matrix *m;
    zs_status status = ZS_OK;
    if (w->tuned.config.factored)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is factored: the fine-tuned model itself is wanted", w->tuned_path);
    if (w->tuned.config.layers != w->base.config.layers)
        return zs_error_set(error, ZS_ERROR_MISMATCH, "%s has %u layers, and %s %u", w->tuned_path, w->tuned.config.layers, w->base_path,
                            w->base.config.layers);
    for (uint32_t i = 0; (m = matrix_at(&w->base, i)) != NULL && !status; i++) {
        const model_matrix *tuned = find_matrix(&w->tuned, m->canonical);
        if (tuned) status = check_shape(w, m, tuned->out, tuned->in, error);
    }
    return status;
}

static zs_status read_tuned(const work *w, const model_matrix *m, float *values, zs_error *error) {
    const model_matrix *tuned = find_matrix(&w->tuned, m->canonical);
    zs_status status = factored_read_weights(tuned, w->tuned_path, values, error);
    gguf_tensor_release(tuned->dense);
    return status;
}

static void warn(const work *w, const char *why) {
    char text[512];
    if (!w->params->log.write) return;
    snprintf(text, sizeof text, "%.150s: whether it was made from %.150s cannot be checked, because %s", w->tuned_path, w->base_path, why);
    w->params->log.write(w->params->log.user, ZS_LOG_WARNING, text);
}

/// The fine-tune's sketches against the base's.
static zs_status check_base(work *w, zs_error *error) {
    const model_matrix *m;
    sketch_pairs pairs = {0};
    zs_status status = ZS_OK;
    for (uint32_t i = 0; (m = matrix_at(&w->base, i)) != NULL && !status; i++) {
        if (!is_wanted(w, m) || !m->sketch) continue;
        float sketch[SKETCH_SIZE], *values = malloc((size_t)m->out * m->in * sizeof *values);
        status = values ? read_tuned(w, m, values, error) : no_memory(w, error);
        if (!status) sketch_matrix(values, m->out, m->in, sketch);
        if (!status) sketch_pairs_add(&pairs, m->sketch, sketch);
        free(values);
    }
    if (status) return status;
    w->report.has_cosine = pairs.count > 0;
    w->report.cosine = sketch_pairs_cosine(&pairs);
    if (!w->report.has_cosine) warn(w, "the model has no sketches");
    if (!w->report.has_cosine || w->report.cosine >= ZS_SAME_BASE) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_MISMATCH,
                        "%s was not made from %s (cosine of the sketches %.2f, at least %.1f is expected): factor the model that it was "
                        "tuned from",
                        w->tuned_path, w->base_path, w->report.cosine, ZS_SAME_BASE);
}

// ---- one matrix ----------------------------------------------------------------------------------------------------

/// values[rows, cols] of a tensor. Factors have their rows in Hugging Face's order.
static zs_status read_rows(const gguf_tensor *tensor, uint32_t rows, uint32_t cols, double *values, zs_error *error) {
    float *row = malloc(cols * sizeof *row);
    if (!row) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a factor");
    size_t bytes = (size_t)(tensor->size / rows);
    for (uint32_t i = 0; i < rows; i++) {
        tensor_type_dequantise(tensor->type, (const uint8_t *)tensor->data + i * bytes, row, cols);
        for (uint32_t j = 0; j < cols; j++) values[(size_t)i * cols + j] = (double)row[j];
    }
    free(row);
    gguf_tensor_release(tensor);
    return ZS_OK;
}

static void close_projection(projection *p) {
    svd_free(&p->base);
    free(p->change);
    free(p->scratch);
    *p = (projection){0};
}

static zs_status open_projection(const work *w, const model_matrix *m, projection *p, zs_error *error) {
    size_t out = m->out, in = m->in, rank = m->rank;
    *p = (projection){.base = {.out = m->out,
                               .in = m->in,
                               .rank = m->rank,
                               .u = malloc(out * rank * sizeof(double)),
                               .sigma = malloc(rank * sizeof(double)),
                               .vt = malloc(rank * in * sizeof(double))},
                      .change = malloc(out * in * sizeof(double)),
                      .scratch = malloc(out * rank * sizeof(double))};
    if (!p->base.u || !p->base.sigma || !p->base.vt || !p->change || !p->scratch) return no_memory(w, error);
    zs_status status = read_rows(m->u, m->out, m->rank, p->base.u, error);
    if (!status) status = read_rows(m->s, 1, m->rank, p->base.sigma, error);
    return status ? status : read_rows(m->vt, m->rank, m->in, p->base.vt, error);
}

/// values[n] of a tensor, each a number.
static zs_status read_lora(const work *w, const safetensors_tensor *tensor, double *values, zs_error *error) {
    float *read = malloc((size_t)tensor->elements * sizeof *read);
    zs_status status = read ? ZS_OK : no_memory(w, error);
    if (read) tensor_type_dequantise(tensor->type, tensor->data, read, (size_t)tensor->elements);
    for (size_t i = 0; i < tensor->elements && !status; i++) {
        values[i] = (double)read[i];
        if (!isfinite(read[i]))
            status =
                zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %zu", w->tuned_path, tensor->name, i);
    }
    free(read);
    return status;
}

/// ΔW[out, in] = scale · B[out, k] · A[k, in]
static zs_status lora_change(const work *w, const model_matrix *m, projection *p, zs_error *error) {
    const lora_matrix *l = lora_folder_find(&w->lora, m->canonical);
    double *a = malloc((size_t)l->a->elements * sizeof *a), *b = malloc((size_t)l->b->elements * sizeof *b);
    zs_status status = a && b ? read_lora(w, l->a, a, error) : no_memory(w, error);
    if (!status) status = read_lora(w, l->b, b, error);
    if (!status)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m->out, (int)m->in, (int)w->lora.rank, w->lora.scale, b,
                    (int)w->lora.rank, a, (int)m->in, 0, p->change, (int)m->in);
    free(a);
    free(b);
    return status;
}

/// ΔW[out, in] = W_ft − U diag(σ) Vᵀ
static zs_status checkpoint_change(const work *w, const model_matrix *m, projection *p, zs_error *error) {
    float *values = malloc((size_t)m->out * m->in * sizeof *values);
    zs_status status = values ? read_tuned(w, m, values, error) : no_memory(w, error);
    if (!status) refine_residual(&p->base, values, p->scratch, p->change);
    free(values);
    return status;
}

/// Σ x² of `count` numbers that lie `stride` apart.
static double squares(const double *x, size_t count, size_t stride) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += x[i * stride] * x[i * stride];
    return sum;
}

/// z[rank], and what of the change it says: Σ of the squares in *said.
static void solve(const projection *p, float *z, double *said, uint32_t *small) {
    const svd *s = &p->base;
    const double least = (s->out > s->in ? s->out : s->in) * 0x1p-23 * s->sigma[0];
    // D[out, r] = ΔW[out, in] · V[in, r]
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)s->out, (int)s->rank, (int)s->in, 1, p->change, (int)s->in, s->vt, (int)s->in,
                0, p->scratch, (int)s->rank);
    for (uint32_t k = 0; k < s->rank; k++) {
        z[k] = 1;
        if (!(s->sigma[k] > least)) {
            (*small)++;
            continue;
        }
        double along = 0, lengths = squares(s->u + k, s->out, s->rank) * squares(s->vt + (size_t)k * s->in, s->in, 1);
        for (uint32_t i = 0; i < s->out; i++) along += s->u[(size_t)i * s->rank + k] * p->scratch[(size_t)i * s->rank + k];
        if (!(lengths > 0)) continue;
        z[k] = (float)(1 + along / (lengths * s->sigma[k]));
        *said += along * along / lengths;
    }
}

static zs_status add_matrix(work *w, const model_matrix *m, const projection *p, zs_error *error) {
    expert_matrix *to = &w->expert.matrices[w->expert.matrix_count++];
    zs_projected_matrix told = {.name = m->canonical};
    double said = 0;
    *to = (expert_matrix){.name = strdup(m->canonical), .rank = m->rank, .values = malloc(m->rank * sizeof *to->values)};
    if (!to->name || !to->values) return no_memory(w, error);
    to->has_sketch = m->sketch != NULL;
    if (m->sketch) memcpy(to->sketch, m->sketch, sizeof to->sketch);
    solve(p, to->values, &said, &told.small);
    for (uint32_t k = 0; k < m->rank; k++) {
        if (!isfinite(to->values[k]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: z of %s is no number at element %u", w->tuned_path, m->canonical, k);
    }
    double changed = squares(p->change, (size_t)m->out * m->in, 1), weights = squares(p->base.sigma, m->rank, 1);
    told.change = weights > 0 ? sqrt(changed / weights) : 0;
    told.share = changed > 0 ? said / changed : 0;
    w->changed += changed;
    w->said += said;
    w->weights += weights;
    w->report.small += told.small;
    if (w->params->on_matrix) w->params->on_matrix(w->params->user, &told);
    return ZS_OK;
}

static zs_status project_matrix(work *w, const model_matrix *m, zs_error *error) {
    projection p;
    zs_status status = open_projection(w, m, &p, error);
    if (!status) status = w->is_lora ? lora_change(w, m, &p, error) : checkpoint_change(w, m, &p, error);
    if (!status) status = add_matrix(w, m, &p, error);
    close_projection(&p);
    const zs_progress *progress = &w->params->progress;
    w->done += cost(w, m);
    if (!status && progress->report && !progress->report(progress->user, "project", w->done, w->total))
        status = zs_error_set(error, ZS_ERROR_CANCELLED, "projecting %s was cancelled", w->tuned_path);
    return status;
}

// ---- the whole -----------------------------------------------------------------------------------------------------

static zs_status open_files(work *w, zs_error *error) {
    zs_status status = model_file_open(w->base_path, &w->base, error);
    if (status) return status;
    if (!w->base.config.factored)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is dense: make it factored with zsigma factor", w->base_path);
    w->is_lora = lora_folder_is(w->tuned_path);
    status = w->is_lora ? lora_folder_open(w->tuned_path, &w->lora, error) : model_file_open(w->tuned_path, &w->tuned, error);
    if (!status) status = w->is_lora ? check_lora(w, error) : check_checkpoint(w, error);
    return status;
}

static zs_status describe(work *w, zs_error *error) {
    char training[256];
    const char *slash = strrchr(w->tuned_path, '/'), *name = slash && slash[1] ? slash + 1 : w->tuned_path;
    snprintf(training, sizeof training, "projected from %.150s, of whose change z says %.4f", name, w->report.share);
    expert_file *e = &w->expert;
    e->name = strdup(w->params->name ? w->params->name : "");
    e->description = strdup(w->params->description ? w->params->description : "");
    e->base_model = strdup(w->base.config.name);
    e->training = strdup(training);
    e->sources = strdup("");
    e->alpha = strdup("");
    e->max_mult = 1;
    return e->name && e->description && e->base_model && e->training && e->sources && e->alpha ? ZS_OK : no_memory(w, error);
}

static zs_status project_all(work *w, zs_error *error) {
    const model_matrix *m;
    uint32_t count = 0;
    for (uint32_t i = 0; (m = matrix_at(&w->base, i)) != NULL; i++) {
        if (!is_wanted(w, m)) continue;
        w->total += cost(w, m);
        count++;
    }
    w->expert.matrices = calloc(count + 1, sizeof *w->expert.matrices);
    zs_status status = w->expert.matrices ? ZS_OK : no_memory(w, error);
    for (uint32_t i = 0; (m = matrix_at(&w->base, i)) != NULL && !status; i++) {
        if (is_wanted(w, m)) status = project_matrix(w, m, error);
    }
    w->report.matrices = (uint32_t)w->expert.matrix_count;
    w->report.change = w->weights > 0 ? sqrt(w->changed / w->weights) : 0;
    w->report.share = w->changed > 0 ? w->said / w->changed : 0;
    w->report.lora = w->is_lora;
    return status ? status : describe(w, error);
}

zs_status zs_project_file(const char *model, const char *tuned, const char *output, const zs_project_params *params,
                          zs_project_report *report, zs_error *error) {
    static const zs_project_params defaults;
    work w = {.base_path = model, .tuned_path = tuned, .params = params ? params : &defaults};
    zs_status status = file_output_check(output, w.params->force, error);
    if (!status) status = open_files(&w, error);
    if (!status && !w.is_lora) status = check_base(&w, error);
    if (!status && w.is_lora) warn(&w, "an adapter does not hold its base's weights");
    if (!status) status = project_all(&w, error);
    if (!status) status = expert_file_save(output, w.params->force, &w.expert, error);
    if (!status && report) *report = w.report;
    expert_file_free(&w.expert);
    lora_folder_close(&w.lora);
    model_file_close(&w.tuned);
    model_file_close(&w.base);
    return status;
}
