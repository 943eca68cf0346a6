/// Models on the kernels for GPUs, and on matrix units where the device has them, on drivers that run on the CPU.
#ifndef SUPPORT_GPU_KERNELS_H
#define SUPPORT_GPU_KERNELS_H

#include "zsigma/zsigma.h"

/// The device passes for a GPU from now on.
void gpu_kernels_use(zs_device *device);
/// As zs_model_load, without the measurement that would find, after minutes, that a CPU's matrix units are not worth using: they serve in
/// precision fast, in their smallest shape, with sums split for 64 workgroups, and attention by VK_NV_cooperative_matrix2 where that is.
zs_status gpu_kernels_load(zs_device *device, const char *path, const zs_model_params *params, zs_model **model, zs_error *error);

#endif
