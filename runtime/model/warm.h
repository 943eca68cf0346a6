/// Getting a model's kernels ready while its weights are still being read: drivers take as long for one as for the other.
#ifndef MODEL_WARM_H
#define MODEL_WARM_H

#include "model/model.h"

typedef struct model_warm model_warm;

/// Starts making the kernels of a prefill, as engines choose them by default, on threads of their own. NULL when it can't:
/// then they are made on first use. Nothing of it fails: what is wrong with the device or the model shows when it is used.
model_warm *model_warm_start(zs_device *device, const op_policy *policy, const model_file *file);
/// Waits until they are there; frees; takes NULL.
void model_warm_finish(model_warm **warm);

#endif
