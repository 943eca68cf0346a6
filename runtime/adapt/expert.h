/// The inside of zs_expert: an expert file with its multipliers, and what they make of a model's σ.
#ifndef ADAPT_EXPERT_H
#define ADAPT_EXPERT_H

#include "loader/expert_fit.h"
#include "model/model.h"

struct zs_expert {
    expert_file file;
    zs_expert_info info;
    float **multipliers; // [matrix_count][rank]: z, or sigmoid(p) · max_mult
};

/// Makes an expert of a file's contents, which it takes over; on failure they are freed.
zs_status expert_from_file(expert_file *file, zs_expert **expert, zs_error *error);

/// NULL when the expert leaves the matrix out.
const expert_matrix *expert_find(const zs_expert *expert, const char *canonical, const float **multipliers);

/// NULL when the model has no such factored matrix.
const model_weight *expert_model_weight(const zs_model *model, const char *canonical);

/// The model as loader/expert_fit.h wants to see it.
expert_base expert_model_base(const zs_model *model);

/// row[scale_count] = s · σ ⊙ m where the expert adapts the model, σ elsewhere. Names, lengths and sketches are held against the
/// model's first (expert_fit_check).
zs_status expert_fill_scales(const zs_expert *expert, const zs_model *model, bool transfer, float *row, zs_error *error);

#endif
