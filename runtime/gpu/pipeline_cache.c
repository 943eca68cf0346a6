/// The driver's compiled pipelines, kept in the cache folder from run to run.
#include "gpu/device_private.h"

#include "gpu/cache_file.h"

#include <stdlib.h>
#include <string.h>

static const char extension[] = "pipelines";

/// Whether the driver made this, by the header that Vulkan prescribes. Drivers check it too, but some trust too much.
static bool belongs(const gpu_physical *physical, const uint8_t *data, size_t size) {
    VkPipelineCacheHeaderVersionOne header;
    if (size < sizeof header) return false;
    memcpy(&header, data, sizeof header);
    return header.headerSize >= sizeof header && header.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           header.vendorID == physical->vendor_id && header.deviceID == physical->device_id &&
           memcmp(header.pipelineCacheUUID, physical->pipeline_cache_uuid, VK_UUID_SIZE) == 0;
}

/// What the folder holds for this device; *data NULL when there is nothing sound.
static void read_kept(const zs_device *device, uint8_t **data, size_t *size) {
    *data = NULL;
    *size = 0;
    if (!device->cache_dir || !cache_file_read(device->cache_dir, device->caps.cache_key, extension, data, size)) return;
    if (belongs(&device->physical, *data, *size)) return;
    free(*data);
    *data = NULL;
    *size = 0;
}

static VkResult create(const zs_device *device, const uint8_t *data, size_t size, VkPipelineCache *cache) {
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO, .initialDataSize = size, .pInitialData = data};
    return device->vk.vkCreatePipelineCache(device->handle, &info, NULL, cache);
}

zs_status gpu_pipeline_cache_open(zs_device *device, zs_error *error) {
    uint8_t *data;
    size_t size;
    read_kept(device, &data, &size);
    VkResult result = create(device, data, size, &device->pipeline_cache);
    if (result && data) result = create(device, NULL, 0, &device->pipeline_cache);
    free(data);
    return result ? gpu_device_fail(device, result, error, "creating the pipeline cache") : ZS_OK;
}

static bool save(zs_device *device, const uint8_t *kept, size_t kept_size) {
    size_t size = 0;
    if (device->vk.vkGetPipelineCacheData(device->handle, device->pipeline_cache, &size, NULL) || size == 0) return false;
    uint8_t *data = malloc(size);
    bool saved = data && device->vk.vkGetPipelineCacheData(device->handle, device->pipeline_cache, &size, data) == VK_SUCCESS;
    bool changed = saved && (!kept || size != kept_size || memcmp(data, kept, size) != 0);
    if (changed) saved = cache_file_write(device->cache_dir, device->caps.cache_key, extension, data, size);
    free(data);
    return saved;
}

void gpu_pipeline_cache_close(zs_device *device) {
    if (!device->pipeline_cache) return;
    if (device->cache_dir && device->kernels.count > 0 && !atomic_load(&device->lost)) {
        // Another program may have written since: its pipelines are kept beside ours.
        uint8_t *kept;
        size_t kept_size;
        VkPipelineCache other = VK_NULL_HANDLE;
        read_kept(device, &kept, &kept_size);
        if (kept && create(device, kept, kept_size, &other) == VK_SUCCESS) {
            (void)device->vk.vkMergePipelineCaches(device->handle, device->pipeline_cache, 1, &other); // at worst less is kept
            device->vk.vkDestroyPipelineCache(device->handle, other, NULL);
        }
        if (!save(device, kept, kept_size))
            gpu_log(device, ZS_LOG_WARNING, "compiled kernels cannot be kept in %s; the next start will take longer", device->cache_dir);
        free(kept);
    }
    device->vk.vkDestroyPipelineCache(device->handle, device->pipeline_cache, NULL);
    device->pipeline_cache = VK_NULL_HANDLE;
}
