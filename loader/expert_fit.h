/// Whether a model can take an expert: its matrices by name and length, its base by sketches. Whoever has the model looks its matrices up.
#ifndef LOADER_EXPERT_FIT_H
#define LOADER_EXPERT_FIT_H

#include "loader/expert_file.h"

/// A matrix of a model.
typedef struct expert_target {
    uint32_t rank;       // 0: it is not factored
    const float *sketch; // [8] or NULL
} expert_target;

/// The model that is to take an expert.
typedef struct expert_base {
    const char *path; // for messages
    const void *model;
    bool (*find)(const void *model, const char *canonical, expert_target *target); // false: there is no matrix of that name
} expert_base;

/// Why the expert's i-th matrix cannot be put on the model, in words; NULL: it can.
const char *expert_misfit(const expert_file *file, size_t i, const expert_base *base);
void expert_fit_measure(const expert_file *file, const expert_base *base, zs_expert_fit *fit);

/// Refuses, as ZS_ERROR_MISMATCH, an expert that names matrices the model does not have in factored form, or whose sketches are of another
/// base; with transfer, one of which nothing can be applied. Another length is refused always. *fit is filled where it is accepted.
zs_status expert_fit_check(const expert_file *file, const expert_base *base, bool transfer, zs_expert_fit *fit, zs_error *error);

#endif
