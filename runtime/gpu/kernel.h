/// Compute pipelines, made on first use from an embedded module and its specialisation constants, kept until the device
/// goes; backed by the pipeline cache on disk.
#ifndef GPU_KERNEL_H
#define GPU_KERNEL_H

#include "gpu/device.h"
#include "shaders/modules.h"

enum { GPU_KERNEL_MAX_CONSTANTS = 12 };

typedef struct gpu_kernel_key {
    uint32_t module;         // SHADER_*
    uint32_t subgroup_size;  // required size (needs the subgroup tier); 0: the driver's choice
    uint32_t constant_count; // constant ids are 0, 1, 2, …
    uint32_t constants[GPU_KERNEL_MAX_CONSTANTS];
} gpu_kernel_key;

typedef struct gpu_kernel gpu_kernel;

/// Thread-safe. Constant 0 is by convention the workgroup size in x. Errors: ZS_ERROR_UNSUPPORTED when the device lacks
/// a tier of the module; the driver's own failures with the module's name.
zs_status gpu_kernel_get(zs_device *device, const gpu_kernel_key *key, const gpu_kernel **kernel, zs_error *error);
const shader_module *gpu_kernel_module(const gpu_kernel *kernel);
/// Module, subgroup size and specialisation constants in words: "matvec_q4 subgroup 32 128,1,32,2,1,0,3,2".
void gpu_kernel_describe(const gpu_kernel *kernel, char *text, size_t size);

/// Statistics of a pipeline by VK_KHR_pipeline_executable_properties, for tests on null hardware: calls visit for each.
/// ZS_ERROR_UNSUPPORTED without the extension.
zs_status gpu_kernel_statistics(zs_device *device, const gpu_kernel *kernel, void (*visit)(void *user, const char *name, double value),
                                void *user, zs_error *error);

#endif
