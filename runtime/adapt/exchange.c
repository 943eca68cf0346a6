/// Experts from and to the files of the paper's authors.
#include "adapt/expert.h"
#include "loader/authors_file.h"
#include "zsigma/zsigma_lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- import --------------------------------------------------------------------------------------------------------

static zs_status set_text(char **to, const char *text, zs_error *error) {
    if (!text) return ZS_OK;
    char *copy = strdup(text);
    if (!copy) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    free(*to);
    *to = copy;
    return ZS_OK;
}

/// The reference's matrix of this name has to be of this rank; its sketch comes along.
static zs_status take_sketch(const char *reference, uint32_t rank, const float *sketch, expert_matrix *m, zs_error *error) {
    if (rank == 0) return zs_error_set(error, ZS_ERROR_MISMATCH, "%s has no %s to adapt", reference, m->name);
    if (rank != m->rank)
        return zs_error_set(error, ZS_ERROR_MISMATCH, "%s has %u values, and rank %u in %s", m->name, m->rank, rank, reference);
    m->has_sketch = sketch != NULL;
    if (sketch) memcpy(m->sketch, sketch, sizeof m->sketch);
    return ZS_OK;
}

static zs_status follow_model(const char *path, expert_file *file, zs_error *error) {
    model_file model;
    zs_status status = model_file_open(path, &model, error);
    if (status) return status;
    for (size_t i = 0; i < file->matrix_count && !status; i++) {
        const model_matrix *m = model_file_find(&model, file->matrices[i].name);
        status = take_sketch(path, m ? m->rank : 0, m ? m->sketch : NULL, &file->matrices[i], error);
    }
    if (!status) status = set_text(&file->base_model, model.config.name, error);
    model_file_close(&model);
    return status;
}

static zs_status follow_expert(const zs_expert *like, expert_file *file, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < file->matrix_count && !status; i++) {
        const float *unused;
        const expert_matrix *m = expert_find(like, file->matrices[i].name, &unused);
        status = take_sketch(like->file.name, m ? m->rank : 0, m && m->has_sketch ? m->sketch : NULL, &file->matrices[i], error);
    }
    return status ? status : set_text(&file->base_model, like->file.base_model, error);
}

zs_status zs_expert_import(const char *path, const zs_import_params *params, zs_expert **expert, zs_error *error) {
    const zs_import_params p = params ? *params : (zs_import_params){0};
    expert_file file;
    if (p.model && p.like) return zs_error_set(error, ZS_ERROR_ARGUMENT, "an imported expert follows a model or another expert, not both");
    zs_status status = authors_file_load(path, &file, error);
    if (status) return status;
    status = set_text(&file.name, p.name, error);
    if (!status) status = set_text(&file.description, p.description, error);
    if (!status && p.model) status = follow_model(p.model, &file, error);
    if (!status && p.like) status = follow_expert(p.like, &file, error);
    if (!status) return expert_from_file(&file, expert, error);
    expert_file_free(&file);
    return status;
}

// ---- export --------------------------------------------------------------------------------------------------------

/// p with sigmoid(p) = c · m. Under trace any c > 0 gives the same weights: half of 1 / max m is far from both ends of the sigmoid.
static zs_status find_parameters(const zs_expert *expert, size_t i, float *p, zs_error *error) {
    const expert_matrix *m = &expert->file.matrices[i];
    const float *multipliers = expert->multipliers[i];
    double most = 0;
    for (uint32_t r = 0; r < m->rank; r++) {
        if (!(multipliers[r] > 0))
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                                "expert %s: %s has z = %g at element %u, and a sigmoid gives only numbers above 0", expert->file.name,
                                m->name, (double)multipliers[r], r);
        most = fmax(most, (double)multipliers[r]);
    }
    for (uint32_t r = 0; r < m->rank; r++) {
        double share = 0.5 * (double)multipliers[r] / most;
        p[r] = (float)log(share / (1 - share));
    }
    return ZS_OK;
}

/// A copy whose values are p; only what authors_file_save looks at is in it.
static zs_status make_sigmoid(const zs_expert *expert, expert_file *file, zs_error *error) {
    const expert_file *from = &expert->file;
    *file = (expert_file){.sigmoid = true, .trace = true, .max_mult = 1};
    zs_status status = set_text(&file->name, from->name, error);
    file->matrices = calloc(from->matrix_count + 1, sizeof *file->matrices);
    if (!file->matrices) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    for (size_t i = 0; i < from->matrix_count && !status; i++) {
        expert_matrix *m = &file->matrices[file->matrix_count++];
        m->rank = from->matrices[i].rank;
        m->values = malloc(m->rank * sizeof *m->values);
        status = set_text(&m->name, from->matrices[i].name, error);
        if (!m->values) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
        if (status) return status;
        if (from->sigmoid && from->max_mult == 1)
            memcpy(m->values, from->matrices[i].values, m->rank * sizeof *m->values);
        else
            status = find_parameters(expert, i, m->values, error);
    }
    return status;
}

zs_status zs_expert_export(const zs_expert *expert, const char *path, const zs_export_params *params, zs_error *error) {
    const zs_export_params p = params ? *params : (zs_export_params){0};
    if (!expert->file.trace && !p.rescale)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "expert %s has normalise none, and the authors' code scales every matrix so that its singular values keep "
                            "their sum: it would be another expert there, by one factor per matrix; accept that with --rescale",
                            expert->file.name);
    expert_file file;
    zs_status status = make_sigmoid(expert, &file, error);
    authors_format format =
        p.keys == ZS_KEYS_POLICY || (p.keys == ZS_KEYS_AUTO && authors_file_fits_policy(&expert->file)) ? AUTHORS_POLICY : AUTHORS_NAMES;
    if (!status) status = authors_file_save(path, p.force, format, &file, error);
    expert_file_free(&file);
    return status;
}
