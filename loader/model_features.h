/// What a model file may ask for beyond the plain llama computation: read where it is implemented. A model run without what it asks
/// for answers wrongly without a sign of it: so the rest is refused by name.
#ifndef LOADER_MODEL_FEATURES_H
#define LOADER_MODEL_FEATURES_H

#include "loader/model_file.h"

/// Reads the sliding window and linear rope scaling into the configuration. Other keys that change the computation (experts,
/// soft-capping, …) must be absent or neutral: else ZS_ERROR_UNSUPPORTED.
zs_status model_features_read_keys(model_file *file, zs_error *error);
/// used[gguf.tensor_count]: the tensors that the model reads. Any other one, but for an image tower's and projector's, is
/// ZS_ERROR_UNSUPPORTED.
zs_status model_features_check_tensors(const model_file *file, const bool *used, zs_error *error);

#endif
