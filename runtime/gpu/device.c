#include "gpu/device_private.h"

#include "gpu/cache_file.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 60000, CPU_TIMEOUT_MS = 600000 };

void gpu_log(const zs_device *device, zs_log_level level, const char *format, ...) {
    if (!device->log.write) return;
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    device->log.write(device->log.user, level, message);
}

void gpu_device_name(const zs_device *device, VkObjectType type, uint64_t handle, const char *name) {
    if (!device->instance.debug_utils) return;
    VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT, .objectType = type, .objectHandle = handle, .pObjectName = name};
    device->instance.vkSetDebugUtilsObjectNameEXT(device->handle, &info);
}

const gpu_caps *gpu_device_caps(const zs_device *device) { return &device->caps; }
const zs_device_info *zs_device_get_info(const zs_device *device) { return &device->physical.info; }
uint32_t zs_device_get_tiers(const zs_device *device) { return device->caps.tiers; }
uint32_t zs_device_validation_count(const zs_device *device) { return atomic_load(&device->validation.count); }

zs_status zs_device_list(zs_device_info **infos, uint32_t *count, zs_error *error) {
    gpu_instance instance = {0};
    gpu_physical *physicals = NULL;
    uint32_t found = 0;
    zs_status status = gpu_instance_create(NULL, &instance, error);
    if (!status) status = gpu_physical_enumerate(&instance, &physicals, &found, error);
    zs_device_info *list = status ? NULL : calloc(found, sizeof *list);
    if (!status && !list) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while listing devices");
    if (!status) {
        for (uint32_t i = 0; i < found; i++) list[i] = physicals[i].info;
        *infos = list;
        *count = found;
    }
    free(physicals);
    gpu_instance_destroy(&instance);
    return status;
}

// ---- choosing ---------------------------------------------------------------------------------------------------------

/// Lower is better.
static int type_rank(zs_device_type type) {
    switch (type) {
    case ZS_DEVICE_DISCRETE: return 0;
    case ZS_DEVICE_INTEGRATED: return 1;
    case ZS_DEVICE_VIRTUAL: return 2;
    case ZS_DEVICE_CPU: return 4;
    default: return 3;
    }
}

/// Usable before unusable, then by type, then by free memory.
static bool better(const zs_device_info *a, const zs_device_info *b) {
    if (a->usable != b->usable) return a->usable;
    if (type_rank(a->type) != type_rank(b->type)) return type_rank(a->type) < type_rank(b->type);
    return a->free_bytes > b->free_bytes;
}

static bool contains_any_case(const char *text, const char *part) {
    size_t length = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < length && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) i++;
        if (i == length) return true;
    }
    return length == 0;
}

/// Whether text spells this UUID, dashes allowed.
static bool is_uuid(const char *text, const char *uuid) {
    for (; *text; text++) {
        if (*text == '-') continue;
        if (tolower((unsigned char)*text) != *uuid) return false;
        uuid++;
    }
    return *uuid == '\0';
}

static const gpu_physical *choose(const gpu_physical *list, uint32_t count, const char *wanted) {
    const gpu_physical *best = NULL;
    char *end = NULL;
    unsigned long index = wanted && isdigit((unsigned char)*wanted) ? strtoul(wanted, &end, 10) : count;
    if (end && *end == '\0' && index < count) return &list[index];
    for (uint32_t i = 0; i < count; i++) {
        bool fits = !wanted || is_uuid(wanted, list[i].info.uuid) || contains_any_case(list[i].info.name, wanted);
        if (fits && (!best || better(&list[i].info, &best->info))) best = &list[i];
    }
    return best;
}

static zs_status no_such_device(const gpu_physical *list, uint32_t count, const char *wanted, zs_error *error) {
    char names[512] = "";
    for (uint32_t i = 0; i < count; i++) {
        size_t length = strlen(names);
        snprintf(names + length, sizeof names - length, "%s[%u] %s", length ? ", " : "", i, list[i].info.name);
    }
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "no device \"%s\"; there %s %s", wanted, count == 1 ? "is" : "are", names);
}

static zs_status choose_physical(zs_device *device, const char *wanted, zs_error *error) {
    gpu_physical *list = NULL;
    uint32_t count = 0;
    zs_status status = gpu_physical_enumerate(&device->instance, &list, &count, error);
    if (status) return status;
    const gpu_physical *chosen = choose(list, count, wanted && *wanted ? wanted : NULL);
    if (!chosen)
        status = no_such_device(list, count, wanted, error);
    else if (!chosen->info.usable)
        status = zs_error_set(error, ZS_ERROR_NO_DEVICE, "%s lacks %s; update its driver or choose another device", chosen->info.name,
                              chosen->info.missing);
    else
        device->physical = *chosen;
    free(list);
    if (!status && device->physical.info.type == ZS_DEVICE_CPU && !(wanted && *wanted))
        gpu_log(device, ZS_LOG_WARNING, "no usable GPU found: running on the CPU by %s", device->physical.info.name);
    return status;
}

// ---- opening ----------------------------------------------------------------------------------------------------------

static zs_status create_logical(zs_device *device, uint32_t tiers, zs_error *error) {
    const gpu_extensions wanted = gpu_extensions_for_tiers(&device->physical, tiers);
    const char *extensions[5];
    uint32_t extension_count = 0;
    if (wanted.portability) extensions[extension_count++] = "VK_KHR_portability_subset"; // must be on where it is offered
    if (wanted.memory_budget) extensions[extension_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (wanted.executable) extensions[extension_count++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
    if (wanted.matrix) extensions[extension_count++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    if (wanted.matrix2) extensions[extension_count++] = VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME;
    gpu_features features;
    gpu_features_for_tiers(&device->physical, tiers, &features);
    const float priority = 1;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = device->physical.queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features.core,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = extension_count,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = device->instance.vkCreateDevice(device->physical.handle, &info, NULL, &device->handle);
    if (result) {
        device->handle = VK_NULL_HANDLE;
        return zs_error_set(error, ZS_ERROR_NO_DEVICE, "%s cannot be opened: %s; update its driver or choose another device",
                            device->physical.info.name, gpu_result_name(result));
    }
    gpu_instance_load_device(&device->instance, device->handle, &device->vk);
    device->vk.vkGetDeviceQueue(device->handle, device->physical.queue_family, 0, &device->queue);
    // A driver on null hardware has no memory and no timelines: it compiles kernels for a card that is not there.
    if (device->physical.info.memory_bytes == 0) return ZS_OK;
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO, .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    result = device->vk.vkCreateSemaphore(device->handle, &semaphore, NULL, &device->timeline);
    return result ? gpu_device_fail(device, result, error, "creating the timeline") : ZS_OK;
}

static zs_status read_params(zs_device *device, const zs_device_params *params, zs_error *error) {
    device->log = params->log;
    device->memory_limit = params->memory_limit;
    device->validation.log = params->log;
    if (!params->cache_dir) return ZS_OK;
    device->cache_dir = calloc(1, strlen(params->cache_dir) + 1);
    if (!device->cache_dir) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a device");
    memcpy(device->cache_dir, params->cache_dir, strlen(params->cache_dir));
    if (!cache_folder_make(device->cache_dir)) {
        gpu_log(device, ZS_LOG_WARNING, "the cache folder %s cannot be made; starting will take longer", device->cache_dir);
        free(device->cache_dir);
        device->cache_dir = NULL;
    }
    return ZS_OK;
}

static void apply_limits(zs_device *device, const zs_device_params *params) {
    gpu_caps *caps = &device->caps;
    *caps = device->physical.caps;
    // What a loop may be is known by testing alone.
    caps->tiers = gpu_tiers_mask(caps->tiers, params->disable | (params->skip_self_test ? (uint32_t)ZS_TIER_CHAIN : 0));
    if (params->block_limit && params->block_limit < caps->max_allocation) caps->max_allocation = params->block_limit;
    if (params->memory_limit && params->memory_limit < caps->memory_bytes) caps->memory_bytes = params->memory_limit;
    device->timeout_ms = params->timeout_ms ? params->timeout_ms : caps->cpu ? CPU_TIMEOUT_MS : TIMEOUT_MS;
}

static zs_status open_device(zs_device *device, const zs_device_params *params, zs_error *error) {
    zs_status status = read_params(device, params, error);
    if (!status) status = gpu_instance_create(params->validate ? &device->validation : NULL, &device->instance, error);
    if (!status) status = choose_physical(device, params->device, error);
    if (status) return status;
    apply_limits(device, params);
    gpu_rates_open(device);
    status = create_logical(device, device->caps.tiers, error);
    if (!status) status = gpu_memory_open(device, error);
    if (!status) status = gpu_kernels_open(device, error);
    if (!status) status = gpu_pipeline_cache_open(device, error);
    if (!status && !params->skip_self_test) status = gpu_self_test(device, error);
    if (!status)
        gpu_log(device, ZS_LOG_INFO, "device %u: %s, %s, tiers 0x%x", device->physical.info.index, device->physical.info.name,
                device->physical.info.driver, device->caps.tiers);
    return status;
}

zs_status zs_device_create(const zs_device_params *params, zs_device **device, zs_error *error) {
    static const zs_device_params defaults = {0};
    zs_device *made = calloc(1, sizeof *made);
    if (!made) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a device");
    pthread_mutex_init(&made->queue_mutex, NULL);
    pthread_mutex_init(&made->kernels.mutex, NULL);
    pthread_mutex_init(&made->memory.mutex, NULL);
    pthread_mutex_init(&made->rates.mutex, NULL);
    zs_status status = open_device(made, params ? params : &defaults, error);
    if (status)
        zs_device_destroy(&made);
    else
        *device = made;
    return status;
}

static void close_vulkan(zs_device *device) {
    gpu_pipeline_cache_close(device);
    gpu_kernels_close(device);
    gpu_memory_close(device);
    if (device->timeline) device->vk.vkDestroySemaphore(device->handle, device->timeline, NULL);
    device->vk.vkDestroyDevice(device->handle, NULL);
}

void zs_device_destroy(zs_device **device) {
    zs_device *d = *device;
    if (!d) return;
    *device = NULL;
    if (d->handle && !gpu_device_settle(d)) {
        // Freeing what a hanging device still uses would crash, and waiting for it might take for ever.
        gpu_log(d, ZS_LOG_ERROR, "%s hangs: its memory is left to the end of the process", d->physical.info.name);
        return;
    }
    if (d->handle) {
        gpu_rates_keep(d);
        close_vulkan(d);
    }
    gpu_instance_destroy(&d->instance);
    pthread_mutex_destroy(&d->rates.mutex);
    pthread_mutex_destroy(&d->memory.mutex);
    pthread_mutex_destroy(&d->kernels.mutex);
    pthread_mutex_destroy(&d->queue_mutex);
    free(d->cache_dir);
    free(d);
}

double gpu_device_estimate_ms(zs_device *device, double bytes, double flops) {
    return gpu_rates_estimate(&device->rates, (gpu_work){.bytes = bytes, .flops = flops}).ns * 1e-6;
}
