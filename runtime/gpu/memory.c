#include "gpu/device_private.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t mebibyte = 1u << 20;

// ---- which memory types serve a kind ----------------------------------------------------------------------------------

/// How well a memory type suits a kind; negative: not at all.
static int type_score(gpu_memory kind, VkMemoryPropertyFlags flags, bool host_shares_memory, bool local_exists) {
    const VkMemoryPropertyFlags mapped = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags known = mapped | VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    bool local = flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    bool visible = (flags & mapped) == mapped;
    if (flags & ~known) return -1; // protected, lazily allocated, uncached by the device: none of them is for us
    switch (kind) {
    case GPU_MEMORY_DEVICE:
        // A discrete card's host-visible window may be small: it is left to GPU_MEMORY_SHARED.
        if (!local && local_exists) return -1;
        return host_shares_memory ? 2 * visible + cached : 2 * !(flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT);
    case GPU_MEMORY_SHARED: return visible ? 2 * local + (host_shares_memory ? cached : !cached) : -1;
    case GPU_MEMORY_READBACK: return visible ? 2 * cached + (host_shares_memory ? local : !local) : -1;
    }
    return -1;
}

static void choose_types(zs_device *device, uint32_t allowed) {
    const VkPhysicalDeviceMemoryProperties *memory = &device->physical.memory;
    gpu_memory_pool *pool = &device->memory;
    bool shares = device->physical.info.type == ZS_DEVICE_CPU || device->physical.info.type == ZS_DEVICE_INTEGRATED;
    bool local_exists = false;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++)
        local_exists |= (memory->memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) != 0;
    for (uint32_t kind = 0; kind < GPU_MEMORY_KINDS; kind++)
        for (int score = 3; score >= 0; score--)
            for (uint32_t i = 0; i < memory->memoryTypeCount; i++)
                if ((allowed >> i & 1) && type_score((gpu_memory)kind, memory->memoryTypes[i].propertyFlags, shares, local_exists) == score)
                    pool->types[kind][pool->type_counts[kind]++] = i;
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

zs_status gpu_memory_open(zs_device *device, zs_error *error) {
    gpu_memory_pool *pool = &device->memory;
    VkBuffer sample = VK_NULL_HANDLE;
    VkMemoryRequirements requirements;
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = 4096, .usage = GPU_BUFFER_USAGE};
    VkResult result = device->vk.vkCreateBuffer(device->handle, &info, NULL, &sample);
    if (result) return gpu_device_fail(device, result, error, "creating a buffer");
    device->vk.vkGetBufferMemoryRequirements(device->handle, sample, &requirements);
    device->vk.vkDestroyBuffer(device->handle, sample, NULL);
    choose_types(device, requirements.memoryTypeBits);
    pool->block_bytes[GPU_MEMORY_DEVICE] =
        smaller(device->caps.max_allocation, (device->physical.info.type == ZS_DEVICE_DISCRETE ? 256 : 64) * mebibyte);
    pool->block_bytes[GPU_MEMORY_SHARED] = smaller(device->caps.max_allocation, 16 * mebibyte);
    pool->block_bytes[GPU_MEMORY_READBACK] = smaller(device->caps.max_allocation, 16 * mebibyte);
    return ZS_OK;
}

static void block_destroy(zs_device *device, gpu_block *block) {
    if (block->memory) device->vk.vkFreeMemory(device->handle, block->memory, NULL); // unmaps too
    free(block->free);
    free(block);
}

void gpu_memory_close(zs_device *device) {
    gpu_memory_pool *pool = &device->memory;
    while (pool->blocks) {
        gpu_block *block = pool->blocks;
        pool->blocks = block->next;
        block_destroy(device, block);
    }
}

// ---- free ranges of a block -------------------------------------------------------------------------------------------

/// Makes room for one more range, so that giving back cannot fail: a block never has more than buffers + 1 free ranges.
static bool reserve_range(gpu_block *block) {
    size_t needed = block->buffers + 3;
    if (needed <= block->free_capacity) return true;
    gpu_range *ranges = realloc(block->free, 2 * needed * sizeof *ranges);
    if (!ranges) return false;
    block->free = ranges;
    block->free_capacity = 2 * needed;
    return true;
}

static void insert_range(gpu_block *block, size_t at, gpu_range range) {
    memmove(&block->free[at + 1], &block->free[at], (block->free_count - at) * sizeof *block->free);
    block->free[at] = range;
    block->free_count++;
}

static void remove_range(gpu_block *block, size_t at) {
    block->free_count--;
    memmove(&block->free[at], &block->free[at + 1], (block->free_count - at) * sizeof *block->free);
}

static uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

/// First fit. Offsets are aligned by address, because a CPU driver's blocks start wherever malloc put them.
static bool block_take(gpu_block *block, uint64_t size, uint64_t alignment, uint64_t *offset) {
    if (!reserve_range(block)) return false;
    for (size_t i = 0; i < block->free_count; i++) {
        gpu_range range = block->free[i];
        uint64_t begin = align_up(block->address + range.offset, alignment) - block->address, end = range.offset + range.size;
        if (begin > end || end - begin < size) continue;
        remove_range(block, i);
        if (end > begin + size) insert_range(block, i, (gpu_range){begin + size, end - begin - size});
        if (begin > range.offset) insert_range(block, i, (gpu_range){range.offset, begin - range.offset});
        block->buffers++;
        *offset = begin;
        return true;
    }
    return false;
}

static void block_give_back(gpu_block *block, gpu_range range) {
    size_t at = 0;
    while (at < block->free_count && block->free[at].offset < range.offset) at++;
    insert_range(block, at, range);
    if (at + 1 < block->free_count && range.offset + range.size == block->free[at + 1].offset) {
        block->free[at].size += block->free[at + 1].size;
        remove_range(block, at + 1);
    }
    if (at > 0 && block->free[at - 1].offset + block->free[at - 1].size == range.offset) {
        block->free[at - 1].size += block->free[at].size;
        remove_range(block, at);
    }
    block->buffers--;
}

// ---- blocks -----------------------------------------------------------------------------------------------------------

/// The block's device address, asked of a buffer that lives only for the question.
static VkResult block_address(zs_device *device, gpu_block *block) {
    VkBuffer buffer = VK_NULL_HANDLE;
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = block->size, .usage = GPU_BUFFER_USAGE};
    VkResult result = device->vk.vkCreateBuffer(device->handle, &info, NULL, &buffer);
    if (!result) result = device->vk.vkBindBufferMemory(device->handle, buffer, block->memory, 0);
    if (!result)
        block->address = device->vk.vkGetBufferDeviceAddress(
            device->handle, &(VkBufferDeviceAddressInfo){.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer});
    if (buffer) device->vk.vkDestroyBuffer(device->handle, buffer, NULL);
    if (!result && block->address == 0) result = VK_ERROR_OUT_OF_DEVICE_MEMORY; // how some drivers tell it
    return result;
}

/// One block of exactly `size` bytes of one memory type.
static VkResult block_create(zs_device *device, gpu_memory kind, uint32_t type, uint64_t size, gpu_block **created) {
    const VkMemoryType *memory_type = &device->physical.memory.memoryTypes[type];
    gpu_block *block = calloc(1, sizeof *block);
    if (!block) return VK_ERROR_OUT_OF_HOST_MEMORY;
    block->size = size;
    block->kind = kind;
    block->local = device->physical.memory.memoryHeaps[memory_type->heapIndex].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &flags, .allocationSize = size, .memoryTypeIndex = type};
    VkResult result =
        reserve_range(block) ? device->vk.vkAllocateMemory(device->handle, &info, NULL, &block->memory) : VK_ERROR_OUT_OF_HOST_MEMORY;
    bool map = (memory_type->propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) &&
               (memory_type->propertyFlags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    if (!result && map) {
        void *mapped = NULL;
        result = device->vk.vkMapMemory(device->handle, block->memory, 0, VK_WHOLE_SIZE, 0, &mapped);
        block->mapped = mapped;
    }
    if (!result) result = block_address(device, block);
    if (result) {
        block_destroy(device, block);
        return result;
    }
    insert_range(block, 0, (gpu_range){0, size});
    static const char *const names[] = {"device memory", "shared memory", "readback memory"};
    gpu_device_name(device, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)block->memory, names[kind]);
    *created = block;
    return VK_SUCCESS;
}

/// Bytes that device-local blocks may still grow by under memory_limit.
static uint64_t limit_left(const zs_device *device) {
    if (!device->memory_limit) return UINT64_MAX;
    return device->memory_limit > device->memory.local_bytes ? device->memory_limit - device->memory.local_bytes : 0;
}

/// A block that holds at least `needed` bytes; of the usual size if there is room, else smaller, else of the next memory type.
static VkResult grow(zs_device *device, gpu_memory kind, uint64_t needed, gpu_block **block) {
    gpu_memory_pool *pool = &device->memory;
    const VkPhysicalDeviceMemoryProperties *memory = &device->physical.memory;
    VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (needed > device->caps.max_allocation) return result;
    for (uint32_t i = 0; i < pool->type_counts[kind]; i++) {
        uint32_t type = pool->types[kind][i];
        bool local = memory->memoryHeaps[memory->memoryTypes[type].heapIndex].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
        uint64_t left = local ? limit_left(device) : UINT64_MAX;
        uint64_t size = smaller(needed > pool->block_bytes[kind] ? needed : pool->block_bytes[kind], left);
        while (size >= needed) {
            result = block_create(device, kind, type, size, block);
            if (result != VK_ERROR_OUT_OF_DEVICE_MEMORY && result != VK_ERROR_OUT_OF_HOST_MEMORY && result != VK_ERROR_MEMORY_MAP_FAILED)
                break;
            if (size == needed) break;
            size = size / 2 > needed ? size / 2 : needed;
        }
        if (result == VK_SUCCESS) {
            (*block)->next = pool->blocks;
            pool->blocks = *block;
            if ((*block)->local) pool->local_bytes += (*block)->size;
            return result;
        }
        if (result == VK_ERROR_DEVICE_LOST) return result;
    }
    return result;
}

static void drop_block(zs_device *device, gpu_block *block) {
    gpu_block **link = &device->memory.blocks;
    while (*link != block) link = &(*link)->next;
    *link = block->next;
    if (block->local) device->memory.local_bytes -= block->size;
    block_destroy(device, block);
}

static uint64_t free_bytes_locked(const zs_device *device) {
    const gpu_memory_pool *pool = &device->memory;
    uint64_t outside = gpu_physical_free_bytes(&device->instance, &device->physical), inside = 0;
    if (!device->physical.extensions.memory_budget) outside -= smaller(outside, pool->local_bytes);
    for (const gpu_block *block = pool->blocks; block; block = block->next)
        for (size_t i = 0; block->local && block->kind == GPU_MEMORY_DEVICE && i < block->free_count; i++) inside += block->free[i].size;
    return smaller(outside, limit_left(device)) + inside;
}

static zs_status no_room(zs_device *device, VkResult result, uint64_t size, const char *name, zs_error *error) {
    const double mib = 1.0 / (double)mebibyte;
    if (result == VK_ERROR_DEVICE_LOST) return gpu_device_fail(device, result, error, "allocating memory");
    if (size > device->caps.max_allocation)
        return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY, "%s needs %.1f MiB in one piece, but %s allows at most %.1f MiB per allocation",
                            name, (double)size * mib, device->physical.info.name, (double)device->caps.max_allocation * mib);
    return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY,
                        "no room for %s on %s: %.1f MiB asked, %.1f MiB in use, %.1f MiB free (%s); use a smaller model or context", name,
                        device->physical.info.name, (double)size * mib, (double)device->memory.used_bytes * mib,
                        (double)free_bytes_locked(device) * mib,
                        device->memory_limit ? "the memory limit given counts" : gpu_result_name(result));
}

zs_status gpu_memory_take(zs_device *device, gpu_memory kind, const VkMemoryRequirements *requirements, const char *name, gpu_block **block,
                          uint64_t *offset, zs_error *error) {
    gpu_memory_pool *pool = &device->memory;
    uint64_t alignment = requirements->alignment > GPU_ALIGNMENT ? requirements->alignment : GPU_ALIGNMENT;
    zs_status status = ZS_OK;
    VkResult result = VK_SUCCESS;
    pthread_mutex_lock(&pool->mutex);
    gpu_block *b = pool->blocks;
    while (b && !(b->kind == kind && block_take(b, requirements->size, alignment, offset))) b = b->next;
    if (!b) {
        // A block's first address may be unaligned on CPU drivers: some slack, where the limits leave room for it.
        uint64_t needed = requirements->size;
        if (needed <= UINT64_MAX - alignment && needed + alignment <= device->caps.max_allocation &&
            needed + alignment <= limit_left(device))
            needed += alignment;
        result = grow(device, kind, needed, &b);
        if (!result && !block_take(b, requirements->size, alignment, offset)) {
            drop_block(device, b);
            result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
        }
        if (result) status = no_room(device, result, requirements->size, name, error);
    }
    if (!status) {
        pool->used_bytes += requirements->size;
        *block = b;
    }
    pthread_mutex_unlock(&pool->mutex);
    return status;
}

void gpu_memory_give_back(zs_device *device, gpu_block *block, uint64_t offset, uint64_t size) {
    gpu_memory_pool *pool = &device->memory;
    pthread_mutex_lock(&pool->mutex);
    block_give_back(block, (gpu_range){offset, size});
    pool->used_bytes -= size;
    if (block->buffers == 0) drop_block(device, block);
    pthread_mutex_unlock(&pool->mutex);
}

uint64_t gpu_device_memory_used(const zs_device *device) {
    pthread_mutex_t *mutex = (pthread_mutex_t *)&device->memory.mutex; // locking changes nothing that a caller can see
    pthread_mutex_lock(mutex);
    uint64_t used = device->memory.used_bytes;
    pthread_mutex_unlock(mutex);
    return used;
}

uint64_t gpu_device_memory_free(const zs_device *device) {
    pthread_mutex_t *mutex = (pthread_mutex_t *)&device->memory.mutex;
    pthread_mutex_lock(mutex);
    uint64_t bytes = free_bytes_locked(device);
    pthread_mutex_unlock(mutex);
    return bytes;
}
