#include "engine/kv_pool.h"

#include <stdlib.h>
#include <string.h>

/// Pages are zeroed: a masked key's value is multiplied by zero, and zero times NaN is NaN. The device does it here and now; where
/// the memory is the host's (CPU drivers), page by page when first taken: hundreds of megabytes need not be touched at start.
static zs_status create_buffer(zs_device *device, uint64_t bytes, gpu_buffer *buffer, zs_error *error) {
    zs_status status = gpu_buffer_create(device, GPU_MEMORY_DEVICE, bytes, false, "KV pages", buffer, error);
    return status || buffer->mapped ? status : gpu_buffer_zero(device, buffer, error);
}

zs_status kv_pool_create(zs_device *device, uint64_t page_bytes, uint32_t page_count, kv_pool *pool, zs_error *error) {
    uint64_t limit = gpu_device_caps(device)->max_allocation;
    *pool = (kv_pool){.device = device, .page_bytes = page_bytes, .page_count = page_count};
    uint64_t per_buffer = limit / page_bytes;
    if (per_buffer == 0)
        return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY, "a KV page of %.1f MB exceeds the device's largest allocation of %.1f MB",
                            (double)page_bytes / 1e6, (double)limit / 1e6);
    pool->pages_per_buffer = per_buffer < page_count ? (uint32_t)per_buffer : page_count;
    uint32_t buffers = (page_count + pool->pages_per_buffer - 1) / pool->pages_per_buffer;
    pool->buffers = calloc(buffers, sizeof *pool->buffers);
    pool->references = calloc(page_count, sizeof *pool->references);
    pool->free_pages = calloc(page_count, sizeof *pool->free_pages);
    zs_status status = ZS_OK;
    if (!pool->buffers || !pool->references || !pool->free_pages)
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %u KV pages", page_count);
    for (uint32_t i = 0; i < buffers && !status; i++) {
        uint32_t left = page_count - i * pool->pages_per_buffer;
        uint32_t pages = left < pool->pages_per_buffer ? left : pool->pages_per_buffer;
        status = create_buffer(device, pages * page_bytes, &pool->buffers[i], error);
        if (!status) pool->buffer_count++;
    }
    if (status) {
        kv_pool_destroy(pool);
        return status;
    }
    for (uint32_t i = 0; i < page_count; i++) pool->free_pages[pool->free_count++] = page_count - 1 - i;
    return ZS_OK;
}

void kv_pool_destroy(kv_pool *pool) {
    for (uint32_t i = 0; i < pool->buffer_count; i++) gpu_buffer_destroy(pool->device, &pool->buffers[i]);
    free(pool->buffers);
    free(pool->references);
    free(pool->free_pages);
    *pool = (kv_pool){0};
}

uint32_t kv_pool_take(kv_pool *pool) {
    if (pool->free_count == 0) return KV_NO_PAGE;
    uint32_t page = pool->free_pages[--pool->free_count];
    if (page >= pool->touched) { // new pages lie at the bottom of the stack, in order
        const gpu_buffer *buffer = &pool->buffers[page / pool->pages_per_buffer];
        if (buffer->mapped) memset((uint8_t *)buffer->mapped + page % pool->pages_per_buffer * pool->page_bytes, 0, pool->page_bytes);
        pool->touched = page + 1;
    }
    pool->references[page] = 1;
    return page;
}

void kv_pool_retain(kv_pool *pool, uint32_t page) { pool->references[page]++; }

void kv_pool_release(kv_pool *pool, uint32_t page) {
    if (--pool->references[page] == 0) pool->free_pages[pool->free_count++] = page;
}

uint64_t kv_pool_address(const kv_pool *pool, uint32_t page) {
    return pool->buffers[page / pool->pages_per_buffer].address + page % pool->pages_per_buffer * pool->page_bytes;
}

void kv_pool_record_copy(const kv_pool *pool, gpu_command *command, uint32_t from, uint32_t to) {
    gpu_command_copy(command, &pool->buffers[from / pool->pages_per_buffer], from % pool->pages_per_buffer * pool->page_bytes,
                     &pool->buffers[to / pool->pages_per_buffer], to % pool->pages_per_buffer * pool->page_bytes, pool->page_bytes);
}
