/// The inside of zs_device, for the files of runtime/gpu (and their tests) only.
#ifndef GPU_DEVICE_PRIVATE_H
#define GPU_DEVICE_PRIVATE_H

#include "gpu/caps.h"
#include "gpu/kernel.h"
#include "gpu/memory.h"
#include "gpu/rates.h"

enum { GPU_PUSH_BYTES = 128 };

/// Kernels in the order of their making; looked up by a hash of the key.
typedef struct gpu_kernel_table {
    pthread_mutex_t mutex;
    gpu_kernel **slots; // open addressing, capacity a power of two
    size_t capacity, count;
} gpu_kernel_table;

struct zs_device {
    zs_log log;
    char *cache_dir;       // or NULL: exists and is ours to write
    uint64_t memory_limit; // 0: none
    uint32_t timeout_ms;

    gpu_validation validation;
    gpu_instance instance;
    gpu_physical physical;
    gpu_caps caps;
    VkDevice handle;
    struct VolkDeviceTable vk;

    pthread_mutex_t queue_mutex; // queue, and submitted with it
    VkQueue queue;
    VkSemaphore timeline;
    atomic_uint_fast64_t submitted; // the timeline's last promised value
    atomic_bool lost;
    atomic_bool stalled; // a wait timed out and nothing has shown since that the device goes on

    VkPipelineLayout layout;
    VkPipelineCache pipeline_cache;
    gpu_kernel_table kernels;
    gpu_memory_pool memory;
    gpu_rates rates;
};

/// Turns a failed VkResult into a status and a message "what: …"; remembers a lost device.
zs_status gpu_device_fail(zs_device *device, VkResult result, zs_error *error, const char *what);
/// ZS_ERROR_DEVICE_LOST when the device is lost, else ZS_OK.
zs_status gpu_device_check(const zs_device *device, zs_error *error);
/// Submits one command buffer; its end is *value on the timeline.
zs_status gpu_device_submit(zs_device *device, VkCommandBuffer buffer, uint64_t *value, zs_error *error);
/// Before objects are freed: whether the device is surely done with what was submitted. False only for a device that hangs;
/// then what it may still use has to be leaked.
bool gpu_device_settle(zs_device *device);
/// Gives a Vulkan object a name for debugging tools.
void gpu_device_name(const zs_device *device, VkObjectType type, uint64_t handle, const char *name);
/// Monotonic clock.
int64_t gpu_now_ns(void);

zs_status gpu_kernels_open(zs_device *device, zs_error *error);
void gpu_kernels_close(zs_device *device);
VkPipeline gpu_kernel_pipeline(const gpu_kernel *kernel);
/// The pipeline cache: read from the cache folder when sound, empty otherwise; written back by close.
zs_status gpu_pipeline_cache_open(zs_device *device, zs_error *error);
void gpu_pipeline_cache_close(zs_device *device);
/// Runs small kernels of every tier in use and takes tiers that compute wrongly out of caps.tiers. The result is kept in the
/// cache folder. Errors: ZS_ERROR_NO_DEVICE when even the baseline fails.
zs_status gpu_self_test(zs_device *device, zs_error *error);

#endif
