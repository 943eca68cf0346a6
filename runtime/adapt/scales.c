/// What an expert makes of a model's σ, after it was checked against the model.
#include "adapt/expert.h"

#include <math.h>
#include <stdlib.h>

/// What the caller should know about an expert that was accepted.
static void tell_fit(const zs_expert *expert, const zs_model *model, const zs_expert_fit *fit) {
    if (!fit->has_cosine)
        gpu_log(model->device, ZS_LOG_WARNING, "expert %s: the base model cannot be checked, because the expert or %s has no sketches",
                expert->file.name, model->path);
    else if (fit->cosine < ZS_SAME_BASE)
        gpu_log(model->device, ZS_LOG_INFO,
                "expert %s was made for another model (%s; cosine of the sketches %.2f): %u of its %u matrices are applied",
                expert->file.name, expert->file.base_model, fit->cosine, fit->by_shape, fit->matrices);
}

/// row[scale_offset …] = s · σ ⊙ m of one matrix.
static zs_status scale_matrix(const zs_expert *expert, size_t i, const zs_model *model, float *row, zs_error *error) {
    const expert_matrix *m = &expert->file.matrices[i];
    const model_weight *w = expert_model_weight(model, m->name);
    if (!w) return ZS_OK; // left out of a transfer
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
    zs_expert_fit fit;
    const expert_base base = expert_model_base(model);
    zs_status status = expert_fit_check(&expert->file, &base, transfer, &fit, error);
    if (status) return status;
    tell_fit(expert, model, &fit);
    model_base_scales(model, row);
    for (size_t i = 0; i < expert->file.matrix_count && !status; i++) status = scale_matrix(expert, i, model, row, error);
    return status;
}
