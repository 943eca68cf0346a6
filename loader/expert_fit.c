#include "loader/expert_fit.h"

#include "loader/sketch.h"

static const char absent[] = "the model has no such matrix", dense[] = "the model has it dense, not as factors",
                  short_or_long[] = "the model has another number of singular values";

const char *expert_misfit(const expert_file *file, size_t i, const expert_base *base) {
    const expert_matrix *m = &file->matrices[i];
    expert_target target;
    if (!base->find(base->model, m->name, &target)) return absent;
    if (target.rank == 0) return dense;
    return target.rank == m->rank ? NULL : short_or_long;
}

void expert_fit_measure(const expert_file *file, const expert_base *base, zs_expert_fit *fit) {
    sketch_pairs pairs = {0};
    *fit = (zs_expert_fit){.matrices = (uint32_t)file->matrix_count};
    for (size_t i = 0; i < file->matrix_count; i++) {
        const expert_matrix *m = &file->matrices[i];
        expert_target target;
        if (!base->find(base->model, m->name, &target) || target.rank == 0) continue;
        fit->by_name++;
        if (m->has_sketch && target.sketch) sketch_pairs_add(&pairs, m->sketch, target.sketch);
        if (target.rank != m->rank) continue;
        fit->by_shape++;
        fit->values += m->rank;
    }
    fit->has_cosine = pairs.count > 0;
    fit->cosine = sketch_pairs_cosine(&pairs);
}

/// One matrix. With transfer, those that the model does not have are left out.
static zs_status check_matrix(const expert_file *file, const expert_matrix *m, const expert_base *base, bool transfer, zs_error *error) {
    expert_target target = {0};
    bool found = base->find(base->model, m->name, &target) && target.rank > 0;
    if (found && target.rank != m->rank)
        return zs_error_set(error, ZS_ERROR_MISMATCH, "expert %s: %s has %u values, and rank %u in %s", file->name, m->name, m->rank,
                            target.rank, base->path);
    if (found || transfer) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_MISMATCH, "expert %s adapts %s, which %s does not have in factored form", file->name, m->name,
                        base->path);
}

zs_status expert_fit_check(const expert_file *file, const expert_base *base, bool transfer, zs_expert_fit *fit, zs_error *error) {
    for (size_t i = 0; i < file->matrix_count; i++) {
        zs_status status = check_matrix(file, &file->matrices[i], base, transfer, error);
        if (status) return status;
    }
    expert_fit_measure(file, base, fit);
    if (fit->matrices > 0 && fit->by_shape == 0)
        return zs_error_set(error, ZS_ERROR_MISMATCH,
                            "nothing of expert %s can be transferred: %s has none of its %u matrices (%s, …) in factored form", file->name,
                            base->path, fit->matrices, file->matrices[0].name);
    if (transfer || !fit->has_cosine || fit->cosine >= ZS_SAME_BASE) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_MISMATCH,
                        "expert %s was made for another model than %s (its base: %s; cosine of the sketches %.2f, at least %.1f is "
                        "expected): use its own base, or insist with --transfer",
                        file->name, base->path, *file->base_model ? file->base_model : "not named", fit->cosine, ZS_SAME_BASE);
}
