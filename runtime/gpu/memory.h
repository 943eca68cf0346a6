/// Memory blocks and their sub-allocation. Not for use outside runtime/gpu: others make buffers.
#ifndef GPU_MEMORY_H
#define GPU_MEMORY_H

#include "gpu/buffer.h"

#include <pthread.h>

enum { GPU_MEMORY_KINDS = 3, GPU_ALIGNMENT = 256 };

typedef struct gpu_range {
    uint64_t offset, size;
} gpu_range;

typedef struct gpu_block {
    struct gpu_block *next;
    VkDeviceMemory memory;
    uint64_t size, address; // address: device address of its first byte
    char *mapped;           // or NULL
    gpu_memory kind;
    bool local;        // in a device-local heap
    gpu_range *free;   // sorted by offset, neighbours merged
    size_t free_count; // [free_count] of free_capacity
    size_t free_capacity;
    size_t buffers; // living in it
} gpu_block;

typedef struct gpu_memory_pool {
    pthread_mutex_t mutex;
    gpu_block *blocks;
    uint32_t types[GPU_MEMORY_KINDS][VK_MAX_MEMORY_TYPES]; // candidates of each kind, best first
    uint32_t type_counts[GPU_MEMORY_KINDS];
    uint64_t block_bytes[GPU_MEMORY_KINDS]; // usual size of a new block
    uint64_t local_bytes;                   // of all device-local blocks
    uint64_t used_bytes;                    // of all buffers
} gpu_memory_pool;

#define GPU_BUFFER_USAGE                                                                                                                   \
    (VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |                            \
     VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT)

zs_status gpu_memory_open(zs_device *device, zs_error *error);
/// Frees every block, buffers or no buffers.
void gpu_memory_close(zs_device *device);
/// A range of `requirements` for a buffer. Its address is a multiple of GPU_ALIGNMENT.
zs_status gpu_memory_take(zs_device *device, gpu_memory kind, const VkMemoryRequirements *requirements, const char *name, gpu_block **block,
                          uint64_t *offset, zs_error *error);
void gpu_memory_give_back(zs_device *device, gpu_block *block, uint64_t offset, uint64_t size);

#endif
