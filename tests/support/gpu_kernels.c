#include "support/gpu_kernels.h"

#include "gpu/device.h"
#include "model/model.h"

static gpu_caps *caps_of(zs_device *device) { return (gpu_caps *)(uintptr_t)gpu_device_caps(device); }

void gpu_kernels_use(zs_device *device) { caps_of(device)->cpu = false; }

zs_status gpu_kernels_load(zs_device *device, const char *path, const zs_model_params *params, zs_model **model, zs_error *error) {
    const uint32_t units = caps_of(device)->tiers & (ZS_TIER_MATRIX | ZS_TIER_MATRIX2);
    caps_of(device)->tiers &= ~units;
    zs_status status = zs_model_load(device, path, params, model, error);
    caps_of(device)->tiers |= units;
    if (status || !units) return status;
    op_policy *policy = &(*model)->policy;
    policy->tiers |= units;
    policy->matrix_shape = op_matrix_smallest(&policy->matrix);
    policy->matrix_fill = 64;
    policy->matrix_attention = units & ZS_TIER_MATRIX2 ? ZS_TIER_MATRIX2 : ZS_TIER_MATRIX;
    return ZS_OK;
}
