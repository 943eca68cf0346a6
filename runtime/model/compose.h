/// Composed weights: W' = U diag(σ ⊙ z) Vᵀ made dense on the device, for one z at a time (DESIGN: three ways to apply z).
#ifndef MODEL_COMPOSE_H
#define MODEL_COMPOSE_H

#include "model/model.h"

typedef struct model_composer model_composer;

/// Bytes on the device: W' of every factored matrix, and the scratch that makes them (with one matrix' factors where the model keeps
/// them elsewhere). scratch may be NULL.
uint64_t model_composer_bytes(const zs_model *model, matrix_type type, bool fast, uint64_t *scratch);
/// Floating-point operations of one model_compose.
double model_compose_flops(const zs_model *model);

/// type: F16, Q8 or Q4. fast: products of factors may go through f16, on matrix units (ZS_PRECISION_FAST). The model outlives it. What the
/// weights are is open until model_compose.
zs_status model_composer_create(zs_model *model, matrix_type type, bool fast, model_composer **composer, zs_error *error);
void model_composer_destroy(model_composer **composer);
/// Makes W' from a row of scales, device address of f32 [scale_count], matrix by matrix, and waits for it; nothing submitted may be using
/// the old one. After a failure the weights are a mixture.
zs_status model_compose(model_composer *composer, uint64_t scales, zs_error *error);
/// From now on every dispatch is timed, and `done` is told the command after each submit of model_compose; NULL: no longer.
typedef zs_status model_compose_done(void *user, gpu_command *command, zs_error *error);
void model_composer_watch(model_composer *composer, model_compose_done *done, void *user);
/// The model as a dense one, for model_record and the workspace. Its matrices that are not factored are the model's own.
const zs_model *model_composed(const model_composer *composer);

#endif
