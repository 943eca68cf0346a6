/// The inside of zs_expert: an expert file with its multipliers, and what they make of a model's σ.
#ifndef ADAPT_EXPERT_H
#define ADAPT_EXPERT_H

#include "loader/expert_file.h"
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

/// Cosine between the sketches that expert and model share; false when there are none.
bool expert_compare_model(const zs_expert *expert, const zs_model *model, double *cosine);

/// row[scale_count] = s · σ ⊙ m where the expert adapts the model, σ elsewhere. Shapes and sketches are held against the model's first:
/// another base is ZS_ERROR_MISMATCH unless transfer.
zs_status expert_fill_scales(const zs_expert *expert, const zs_model *model, bool transfer, float *row, zs_error *error);

/// Below this cosine, sketches are of different base models (DESIGN.md §4).
#define EXPERT_SAME_BASE 0.9

#endif
