/// Pages of keys and values: allocated as a few large buffers, handed out one by one, shared by reference counts.
#ifndef ENGINE_KV_POOL_H
#define ENGINE_KV_POOL_H

#include "gpu/command.h"

typedef struct kv_pool {
    zs_device *device;
    gpu_buffer *buffers;
    uint32_t buffer_count, pages_per_buffer;
    uint32_t page_count, free_count;
    uint32_t touched; // pages from here on were never taken
    uint64_t page_bytes;
    uint32_t *references; // [page_count]
    uint32_t *free_pages; // stack [free_count]
} kv_pool;

enum { KV_NO_PAGE = 0xffffffff };

zs_status kv_pool_create(zs_device *device, uint64_t page_bytes, uint32_t page_count, kv_pool *pool, zs_error *error);
void kv_pool_destroy(kv_pool *pool);
/// A page with one reference; KV_NO_PAGE when none is free.
uint32_t kv_pool_take(kv_pool *pool);
void kv_pool_retain(kv_pool *pool, uint32_t page);
void kv_pool_release(kv_pool *pool, uint32_t page);
uint64_t kv_pool_address(const kv_pool *pool, uint32_t page);
/// Records a copy of a whole page.
void kv_pool_record_copy(const kv_pool *pool, gpu_command *command, uint32_t from, uint32_t to);

#endif
