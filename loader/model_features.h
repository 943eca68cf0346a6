/// What a model file may ask for beyond the plain llama computation. None of it is implemented, and a model run without
/// what it asks for answers wrongly without a sign of it: so it is refused by name.
#ifndef LOADER_MODEL_FEATURES_H
#define LOADER_MODEL_FEATURES_H

#include "loader/model_file.h"

/// Keys that change the computation (rope scaling, sliding windows, experts, soft-capping, …) must be absent or neutral:
/// else ZS_ERROR_UNSUPPORTED.
zs_status model_features_check_keys(const model_file *file, zs_error *error);
/// used[gguf.tensor_count]: the tensors that the model reads. Any other one, but for an image tower's and projector's, is
/// ZS_ERROR_UNSUPPORTED.
zs_status model_features_check_tensors(const model_file *file, const bool *used, zs_error *error);

#endif
