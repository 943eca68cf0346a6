/// The inside of zs_device: instance, logical device, queue, capabilities, timeline, kernels and memory.
///
/// Baseline: Vulkan 1.3, bufferDeviceAddress, timelineSemaphore, synchronization2, push constants of 128 bytes,
/// 128 invocations and 16 KiB of shared memory per workgroup. Loaded by volk; device functions through a table of the
/// device's own, so that several devices can live in one process.
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include "zsigma/zsigma.h"

#include <volk.h>

/// The cooperative matrices that are used: f16 [m, k] · f16 [k, n] summed in f32, by a subgroup. All of them divide 32; zeros: none.
typedef struct gpu_matrix_units {
    uint32_t m, n, k;
    bool half_sums; // sums can be f16 as well
} gpu_matrix_units;

typedef struct gpu_caps {
    bool cpu;       // a CPU implementation (lavapipe, SwiftShader): gets kernels of its own
    uint32_t tiers; // in use
    uint32_t subgroup_size, min_subgroup_size, max_subgroup_size;
    gpu_matrix_units matrix;    // with the matrix tier
    uint32_t max_invocations;   // per workgroup
    uint32_t max_workgroups[3]; // per dispatch
    uint32_t shared_bytes;      // shared memory per workgroup
    uint64_t max_allocation;    // bytes of one allocation, block_limit respected
    uint64_t memory_bytes;      // device-local memory the process may use, memory_limit respected
    double timestamp_ns;        // per tick; 0: no timestamps
    char cache_key[80];         // device UUID and driver version: names files in the cache folder
} gpu_caps;

const gpu_caps *gpu_device_caps(const zs_device *device);
void gpu_log(const zs_device *device, zs_log_level level, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/// Waits until everything submitted up to `value` is done (values come from gpu_command_submit). Errors: ZS_ERROR_TIMEOUT
/// after params.timeout_ms, ZS_ERROR_DEVICE_LOST. After a lost device every further call fails at once.
zs_status gpu_device_wait(zs_device *device, uint64_t value, zs_error *error);
/// The timeline's value now: what is done.
uint64_t gpu_device_done(zs_device *device);
/// How long some work takes, by what the device's earlier submits took or, before there were any, by its type.
double gpu_device_estimate_ms(zs_device *device, double bytes, double flops);
/// Bytes of device memory held by this zs_device's buffers.
uint64_t gpu_device_memory_used(const zs_device *device);
/// Device-local bytes that can still be had (budget extension, memory_limit).
uint64_t gpu_device_memory_free(const zs_device *device);

#endif
