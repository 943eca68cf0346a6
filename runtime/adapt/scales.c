/// What an expert makes of a model's σ, after it was checked against the model.
#include "adapt/expert.h"

#include <math.h>
#include <stdlib.h>

static zs_status check_base(const zs_expert *expert, const zs_model *model, bool transfer, zs_error *error) {
    double cosine;
    if (!expert_compare_model(expert, model, &cosine)) {
        gpu_log(model->device, ZS_LOG_WARNING, "expert %s: the base model cannot be checked, because the expert or %s has no sketches",
                expert->file.name, model->path);
        return ZS_OK;
    }
    if (cosine >= EXPERT_SAME_BASE) return ZS_OK;
    if (transfer) {
        gpu_log(model->device, ZS_LOG_WARNING, "expert %s was made for another model (%s; cosine of the sketches %.2f)", expert->file.name,
                expert->file.base_model, cosine);
        return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_MISMATCH,
                        "expert %s was made for another model than %s (its base: %s; cosine of the sketches %.2f, at least %.1f is "
                        "expected): use its own base, or insist with --transfer",
                        expert->file.name, model->path, *expert->file.base_model ? expert->file.base_model : "not named", cosine,
                        EXPERT_SAME_BASE);
}

/// row[scale_offset …] = s · σ ⊙ m of one matrix.
static zs_status scale_matrix(const zs_expert *expert, size_t i, const zs_model *model, float *row, zs_error *error) {
    const expert_matrix *m = &expert->file.matrices[i];
    const model_weight *w = expert_model_weight(model, m->name);
    if (!w)
        return zs_error_set(error, ZS_ERROR_MISMATCH, "expert %s adapts %s, which %s does not have in factored form", expert->file.name,
                            m->name, model->path);
    if (w->rank != m->rank)
        return zs_error_set(error, ZS_ERROR_MISMATCH, "expert %s: %s has %u values, and rank %u in %s", expert->file.name, m->name, m->rank,
                            w->rank, model->path);
    double scale = 1;
    zs_status status =
        expert->file.trace ? expert_file_trace_scale(&expert->file, m, w->sigma, expert->multipliers[i], &scale, error) : ZS_OK;
    for (uint32_t r = 0; r < m->rank && !status; r++) {
        row[w->scale_offset + r] = (float)(scale * (double)w->sigma[r] * (double)expert->multipliers[i][r]);
        if (!isfinite(row[w->scale_offset + r]))
            status = zs_error_set(error, ZS_ERROR_NUMERIC, "expert %s: %s overflows at element %u", expert->file.name, m->name, r);
    }
    return status;
}

zs_status expert_fill_scales(const zs_expert *expert, const zs_model *model, bool transfer, float *row, zs_error *error) {
    if (!model->info.factored)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "%s is a dense model and experts scale the singular values of a factored one: make it with zsigma factor",
                            model->path);
    model_base_scales(model, row);
    zs_status status = ZS_OK;
    for (size_t i = 0; i < expert->file.matrix_count && !status; i++) status = scale_matrix(expert, i, model, row, error);
    return status ? status : check_base(expert, model, transfer, error);
}
