#include "gpu/device_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gpu_kernel {
    gpu_kernel_key key;
    VkPipeline pipeline;
};

const shader_module *gpu_kernel_module(const gpu_kernel *kernel) { return &shader_modules[kernel->key.module]; }

VkPipeline gpu_kernel_pipeline(const gpu_kernel *kernel) { return kernel->pipeline; }

// ---- the table --------------------------------------------------------------------------------------------------------

static bool keys_equal(const gpu_kernel_key *a, const gpu_kernel_key *b) {
    return a->module == b->module && a->subgroup_size == b->subgroup_size && a->constant_count == b->constant_count &&
           memcmp(a->constants, b->constants, a->constant_count * sizeof *a->constants) == 0;
}

/// FNV-1a over the key's words.
static uint64_t hash_key(const gpu_kernel_key *key) {
    uint64_t hash = 0xcbf29ce484222325u;
    const uint32_t head[] = {key->module, key->subgroup_size, key->constant_count};
    for (size_t i = 0; i < 3; i++) hash = (hash ^ head[i]) * 0x100000001b3u;
    for (size_t i = 0; i < key->constant_count; i++) hash = (hash ^ key->constants[i]) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

/// The slot that holds the key, or the free one where it belongs.
static gpu_kernel **find_slot(gpu_kernel **slots, size_t capacity, const gpu_kernel_key *key) {
    size_t i = hash_key(key) & (capacity - 1);
    while (slots[i] && !keys_equal(&slots[i]->key, key)) i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static bool grow_table(gpu_kernel_table *table) {
    size_t capacity = table->capacity ? 2 * table->capacity : 64;
    gpu_kernel **slots = calloc(capacity, sizeof(gpu_kernel *));
    if (!slots) return false;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i]) *find_slot(slots, capacity, &table->slots[i]->key) = table->slots[i];
    free(table->slots);
    table->slots = slots;
    table->capacity = capacity;
    return true;
}

zs_status gpu_kernels_open(zs_device *device, zs_error *error) {
    VkPushConstantRange range = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = GPU_PUSH_BYTES};
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .pushConstantRangeCount = 1, .pPushConstantRanges = &range};
    VkResult result = device->vk.vkCreatePipelineLayout(device->handle, &info, NULL, &device->layout);
    if (result) return gpu_device_fail(device, result, error, "creating the pipeline layout");
    if (!grow_table(&device->kernels)) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the table of kernels");
    return ZS_OK;
}

void gpu_kernels_close(zs_device *device) {
    gpu_kernel_table *table = &device->kernels;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i]) {
            device->vk.vkDestroyPipeline(device->handle, table->slots[i]->pipeline, NULL);
            free(table->slots[i]);
        }
    free(table->slots);
    if (device->layout) device->vk.vkDestroyPipelineLayout(device->handle, device->layout, NULL);
}

// ---- making pipelines -------------------------------------------------------------------------------------------------

static zs_status check_key(const zs_device *device, const gpu_kernel_key *key, zs_error *error) {
    const gpu_caps *caps = &device->caps;
    if (key->module >= SHADER_COUNT || key->constant_count > GPU_KERNEL_MAX_CONSTANTS)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "no shader module of number %u with %u constants", key->module, key->constant_count);
    const shader_module *module = &shader_modules[key->module];
    uint32_t needed = module->tiers | (key->subgroup_size ? (uint32_t)ZS_TIER_SUBGROUP : 0), lacking = needed & ~caps->tiers;
    if (lacking)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "kernel %s needs tiers (bits 0x%x) that are not in use on %s", module->name,
                            lacking, device->physical.info.name);
    uint32_t size = key->subgroup_size, workgroup = key->constant_count ? key->constants[0] : 0;
    if (workgroup > caps->max_invocations)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "kernel %s with %u invocations: %s allows %u", module->name, workgroup,
                            device->physical.info.name, caps->max_invocations);
    if (size && (size < caps->min_subgroup_size || size > caps->max_subgroup_size || (size & (size - 1)) ||
                 (device->physical.sizes_required && workgroup / size > device->physical.max_subgroups)))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "kernel %s with %u invocations in subgroups of %u: %s offers sizes %u to %u, at most %u of them", module->name,
                            workgroup, size, device->physical.info.name, caps->min_subgroup_size, caps->max_subgroup_size,
                            device->physical.max_subgroups);
    return ZS_OK;
}

static void describe(const gpu_kernel_key *key, char *text, size_t size) {
    int length = snprintf(text, size, "%s", shader_modules[key->module].name);
    if (key->subgroup_size && length >= 0 && (size_t)length < size)
        length += snprintf(text + length, size - (size_t)length, " subgroup %u", key->subgroup_size);
    for (uint32_t i = 0; i < key->constant_count && length >= 0 && (size_t)length < size; i++)
        length += snprintf(text + length, size - (size_t)length, "%c%u", i ? ',' : ' ', key->constants[i]);
}

void gpu_kernel_describe(const gpu_kernel *kernel, char *text, size_t size) { describe(&kernel->key, text, size); }

static VkResult make_pipeline(zs_device *device, const gpu_kernel_key *key, VkPipelineCreateFlags flags, VkPipeline *pipeline) {
    const shader_module *source = &shader_modules[key->module];
    VkShaderModule module = VK_NULL_HANDLE;
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = source->size, .pCode = source->words};
    VkResult result = device->vk.vkCreateShaderModule(device->handle, &module_info, NULL, &module);
    if (result) return result;
    VkSpecializationMapEntry entries[GPU_KERNEL_MAX_CONSTANTS];
    for (uint32_t i = 0; i < key->constant_count; i++) entries[i] = (VkSpecializationMapEntry){i, 4 * i, 4};
    VkSpecializationInfo constants = {key->constant_count, entries, 4 * key->constant_count, key->constants};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo required = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = key->subgroup_size,
    };
    bool full = key->subgroup_size && key->constant_count && key->constants[0] % key->subgroup_size == 0;
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = flags,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = key->subgroup_size && device->physical.sizes_required ? &required : NULL,
                  .flags = full ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &constants},
        .layout = device->layout,
    };
    result = device->vk.vkCreateComputePipelines(device->handle, device->pipeline_cache, 1, &info, NULL, pipeline);
    device->vk.vkDestroyShaderModule(device->handle, module, NULL);
    return result;
}

static zs_status make_kernel(zs_device *device, const gpu_kernel_key *key, gpu_kernel **kernel, zs_error *error) {
    char name[128], what[160];
    describe(key, name, sizeof name);
    gpu_kernel *made = calloc(1, sizeof *made);
    if (!made) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for kernel %s", name);
    made->key = *key;
    int64_t begin = gpu_now_ns();
    VkResult result = make_pipeline(device, key, 0, &made->pipeline);
    if (result) {
        free(made);
        snprintf(what, sizeof what, "compiling kernel %s", name);
        return gpu_device_fail(device, result, error, what);
    }
    gpu_device_name(device, VK_OBJECT_TYPE_PIPELINE, (uint64_t)made->pipeline, name);
    gpu_log(device, ZS_LOG_DEBUG, "kernel %s compiled in %.1f ms", name, (double)(gpu_now_ns() - begin) * 1e-6);
    *kernel = made;
    return ZS_OK;
}

zs_status gpu_kernel_get(zs_device *device, const gpu_kernel_key *key, const gpu_kernel **kernel, zs_error *error) {
    gpu_kernel_table *table = &device->kernels;
    zs_status status = gpu_device_check(device, error);
    if (!status) status = check_key(device, key, error);
    if (status) return status;
    pthread_mutex_lock(&table->mutex);
    gpu_kernel *found = *find_slot(table->slots, table->capacity, key), *made = NULL;
    pthread_mutex_unlock(&table->mutex);
    // Compiled outside of the lock, so that several threads can; of two that made the same one, the second throws its own away.
    if (!found) status = make_kernel(device, key, &made, error);
    if (status) return status;
    if (made) {
        pthread_mutex_lock(&table->mutex);
        if (2 * (table->count + 1) > table->capacity && !grow_table(table))
            status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the table of kernels");
        gpu_kernel **slot = find_slot(table->slots, table->capacity, key);
        if (!status && !*slot) {
            *slot = made;
            made = NULL;
            table->count++;
        }
        found = *slot;
        pthread_mutex_unlock(&table->mutex);
    }
    if (made) {
        device->vk.vkDestroyPipeline(device->handle, made->pipeline, NULL);
        free(made);
    }
    if (!status) *kernel = found;
    return status;
}

// ---- statistics -------------------------------------------------------------------------------------------------------

static double statistic_value(const VkPipelineExecutableStatisticKHR *statistic) {
    switch (statistic->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: return statistic->value.b32 ? 1 : 0;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: return (double)statistic->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: return (double)statistic->value.u64;
    default: return statistic->value.f64;
    }
}

zs_status gpu_kernel_statistics(zs_device *device, const gpu_kernel *kernel, void (*visit)(void *user, const char *name, double value),
                                void *user, zs_error *error) {
    if (!device->physical.extensions.executable || !device->physical.features.executable.pipelineExecutableInfo)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s tells nothing about its pipelines", device->physical.info.name);
    enum { MAX_STATISTICS = 64 };
    VkPipelineExecutableStatisticKHR statistics[MAX_STATISTICS];
    uint32_t executables = 0;
    VkPipeline pipeline = VK_NULL_HANDLE; // made anew, because drivers keep statistics only when asked before compiling
    VkResult result = make_pipeline(device, &kernel->key, VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR, &pipeline);
    if (result) return gpu_device_fail(device, result, error, gpu_kernel_module(kernel)->name);
    VkPipelineInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = pipeline};
    result = device->vk.vkGetPipelineExecutablePropertiesKHR(device->handle, &info, &executables, NULL);
    for (uint32_t i = 0; i < executables && result >= VK_SUCCESS; i++) {
        VkPipelineExecutableInfoKHR which = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = pipeline, .executableIndex = i};
        uint32_t count = MAX_STATISTICS;
        for (uint32_t j = 0; j < MAX_STATISTICS; j++)
            statistics[j] = (VkPipelineExecutableStatisticKHR){.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
        result = device->vk.vkGetPipelineExecutableStatisticsKHR(device->handle, &which, &count, statistics);
        for (uint32_t j = 0; j < count && result >= VK_SUCCESS; j++) visit(user, statistics[j].name, statistic_value(&statistics[j]));
    }
    device->vk.vkDestroyPipeline(device->handle, pipeline, NULL);
    return result < VK_SUCCESS ? gpu_device_fail(device, result, error, gpu_kernel_module(kernel)->name) : ZS_OK;
}
