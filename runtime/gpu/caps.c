#include "gpu/caps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// Property structs of a Vulkan 1.3 device.
typedef struct properties {
    VkPhysicalDeviceProperties2 core;
    VkPhysicalDeviceVulkan11Properties v11;
    VkPhysicalDeviceVulkan12Properties v12;
    VkPhysicalDeviceVulkan13Properties v13;
    VkPhysicalDeviceCooperativeMatrixPropertiesKHR matrix;
} properties;

/// Sets the sTypes and links the structs that the device knows.
static void chain_features(gpu_features *features, const gpu_extensions *extensions) {
    features->core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    features->v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    features->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    features->v13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
    features->executable.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR;
    features->matrix.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR;
    features->matrix2.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV;
    features->core.pNext = &features->v11;
    features->v11.pNext = &features->v12;
    features->v12.pNext = &features->v13;
    void **next = &features->v13.pNext;
    *next = NULL;
    if (extensions->executable) {
        *next = &features->executable;
        next = &features->executable.pNext;
        *next = NULL;
    }
    if (extensions->matrix) {
        *next = &features->matrix;
        next = &features->matrix.pNext;
        *next = NULL;
    }
    if (extensions->matrix2) {
        *next = &features->matrix2;
        next = &features->matrix2.pNext;
        *next = NULL;
    }
}

static void chain_properties(properties *p, bool matrix) {
    *p = (properties){0};
    p->core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    p->v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES;
    p->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
    p->v13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES;
    p->matrix.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    p->core.pNext = &p->v11;
    p->v11.pNext = &p->v12;
    p->v12.pNext = &p->v13;
    if (matrix) p->v13.pNext = &p->matrix;
}

static zs_status probe_extensions(const gpu_instance *instance, VkPhysicalDevice device, gpu_extensions *extensions, zs_error *error) {
    uint32_t count = 0;
    *extensions = (gpu_extensions){0};
    if (instance->vkEnumerateDeviceExtensionProperties(device, NULL, &count, NULL) != VK_SUCCESS || count == 0) return ZS_OK;
    VkExtensionProperties *list = calloc(count, sizeof *list);
    if (!list) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while listing Vulkan extensions");
    if (instance->vkEnumerateDeviceExtensionProperties(device, NULL, &count, list) < VK_SUCCESS) count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const char *name = list[i].extensionName;
        extensions->portability |= strcmp(name, "VK_KHR_portability_subset") == 0;
        extensions->memory_budget |= strcmp(name, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) == 0;
        extensions->executable |= strcmp(name, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME) == 0;
        extensions->matrix |= strcmp(name, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME) == 0;
        extensions->matrix2 |= strcmp(name, VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME) == 0;
    }
    free(list);
    return ZS_OK;
}

/// Adds "what" to a comma-separated list.
static void add_missing(zs_device_info *info, const char *what) {
    size_t length = strlen(info->missing);
    snprintf(info->missing + length, sizeof info->missing - length, "%s%s", length ? ", " : "", what);
}

static zs_device_type device_type(VkPhysicalDeviceType type) {
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return ZS_DEVICE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return ZS_DEVICE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return ZS_DEVICE_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return ZS_DEVICE_CPU;
    default: return ZS_DEVICE_OTHER;
    }
}

/// A family with compute; one without graphics where there is such, because it does not compete with the desktop.
static bool choose_queue_family(const gpu_instance *instance, gpu_physical *physical) {
    enum { MAX_FAMILIES = 32 };
    VkQueueFamilyProperties families[MAX_FAMILIES];
    uint32_t count = MAX_FAMILIES;
    bool found = false, found_dedicated = false;
    instance->vkGetPhysicalDeviceQueueFamilyProperties(physical->handle, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0) continue;
        bool dedicated = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (found && (found_dedicated || !dedicated)) continue;
        found = true, found_dedicated = dedicated;
        physical->queue_family = i;
        physical->timestamp_bits = families[i].timestampValidBits;
    }
    return found;
}

static bool can_require_sizes(const properties *p) { return p->v13.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT; }

static bool divides_32(uint32_t n) { return n > 0 && n <= 32 && 32 % n == 0; }

/// Matrices of f16 with sums of a type, of sizes that kernels can use.
static bool multiplies_halves(const VkCooperativeMatrixPropertiesKHR *k, VkComponentTypeKHR sums) {
    return k->AType == VK_COMPONENT_TYPE_FLOAT16_KHR && k->BType == VK_COMPONENT_TYPE_FLOAT16_KHR && k->CType == sums &&
           k->ResultType == sums && k->scope == VK_SCOPE_SUBGROUP_KHR && divides_32(k->MSize) && divides_32(k->NSize) &&
           divides_32(k->KSize);
}

/// The largest of the driver's matrices that the kernels can use, the squarest of equals; zeros when there is none.
static gpu_matrix_units choose_matrix_units(const gpu_instance *instance, const gpu_physical *physical) {
    enum { MAX_KINDS = 128 };
    VkCooperativeMatrixPropertiesKHR kinds[MAX_KINDS];
    gpu_matrix_units best = {0};
    uint32_t count = MAX_KINDS;
    if (!physical->extensions.matrix || !instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR) return best;
    for (uint32_t i = 0; i < MAX_KINDS; i++)
        kinds[i] = (VkCooperativeMatrixPropertiesKHR){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    if (instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical->handle, &count, kinds) < VK_SUCCESS) return best;
    for (uint32_t i = 0; i < count; i++) {
        const VkCooperativeMatrixPropertiesKHR *k = &kinds[i];
        if (!multiplies_halves(k, VK_COMPONENT_TYPE_FLOAT32_KHR)) continue;
        uint32_t size = k->MSize * k->NSize * k->KSize, best_size = best.m * best.n * best.k;
        uint32_t longest = k->MSize > k->NSize ? k->MSize : k->NSize, best_longest = best.m > best.n ? best.m : best.n;
        if (size > best_size || (size == best_size && longest < best_longest))
            best = (gpu_matrix_units){.m = k->MSize, .n = k->NSize, .k = k->KSize};
    }
    for (uint32_t i = 0; i < count; i++)
        best.half_sums |= multiplies_halves(&kinds[i], VK_COMPONENT_TYPE_FLOAT16_KHR) && kinds[i].MSize == best.m &&
                          kinds[i].NSize == best.n && kinds[i].KSize == best.k;
    return best;
}

static uint32_t offered_tiers(const gpu_physical *physical, const properties *p) {
    const gpu_features *f = &physical->features;
    const VkSubgroupFeatureFlags operations = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_VOTE_BIT |
                                              VK_SUBGROUP_FEATURE_ARITHMETIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT |
                                              VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    const bool is_cpu = physical->info.type == ZS_DEVICE_CPU;
    uint32_t tiers = 0;
    // AMD's cards before RDNA know one size and no asking for it.
    bool size_known = can_require_sizes(p) || p->v13.minSubgroupSize == p->v13.maxSubgroupSize;
    if ((p->v11.subgroupSupportedOperations & operations) == operations && (p->v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
        f->v13.subgroupSizeControl && f->v13.computeFullSubgroups && size_known)
        tiers |= ZS_TIER_SUBGROUP;
    // Kernels for CPU drivers gather by 64 bits there.
    if (f->v11.storageBuffer16BitAccess && f->v12.storageBuffer8BitAccess && (!is_cpu || f->core.features.shaderInt64))
        tiers |= ZS_TIER_STORAGE;
    if ((tiers & ZS_TIER_STORAGE) && f->v12.shaderFloat16) tiers |= ZS_TIER_HALF;
    // On CPU drivers only tests use it.
    if (f->v13.shaderIntegerDotProduct && (p->v13.integerDotProduct4x8BitPackedSignedAccelerated || is_cpu)) tiers |= ZS_TIER_DOT;
    bool half_subgroup = (tiers & ZS_TIER_HALF) && (tiers & ZS_TIER_SUBGROUP);
    if (half_subgroup && f->matrix.cooperativeMatrix && f->v12.vulkanMemoryModel && physical->caps.matrix.m &&
        (p->matrix.cooperativeMatrixSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT))
        tiers |= ZS_TIER_MATRIX;
#ifdef ZSIGMA_MATRIX2 // glslc could make its kernels
    if ((tiers & ZS_TIER_MATRIX) && f->matrix2.cooperativeMatrixReductions && f->matrix2.cooperativeMatrixConversions &&
        f->matrix2.cooperativeMatrixPerElementOperations)
        tiers |= ZS_TIER_MATRIX2;
#endif
    if (is_cpu && (tiers & ZS_TIER_SUBGROUP) && (tiers & ZS_TIER_STORAGE)) tiers |= ZS_TIER_CHAIN;
    return tiers;
}

uint32_t gpu_tiers_mask(uint32_t offered, uint32_t disable) {
    uint32_t tiers = offered & ~disable;
    if (!(tiers & ZS_TIER_STORAGE)) tiers &= ~(uint32_t)ZS_TIER_HALF;
    if (!(tiers & ZS_TIER_HALF) || !(tiers & ZS_TIER_SUBGROUP)) tiers &= ~(uint32_t)ZS_TIER_MATRIX;
    if (!(tiers & ZS_TIER_MATRIX)) tiers &= ~(uint32_t)ZS_TIER_MATRIX2;
    if (!(tiers & ZS_TIER_SUBGROUP) || !(tiers & ZS_TIER_STORAGE)) tiers &= ~(uint32_t)ZS_TIER_CHAIN;
    return tiers;
}

gpu_extensions gpu_extensions_for_tiers(const gpu_physical *physical, uint32_t tiers) {
    gpu_extensions extensions = physical->extensions;
    extensions.matrix &= (tiers & ZS_TIER_MATRIX) != 0;
    extensions.matrix2 &= (tiers & ZS_TIER_MATRIX2) != 0;
    return extensions;
}

void gpu_features_for_tiers(const gpu_physical *physical, uint32_t tiers, gpu_features *features) {
    const gpu_features *offered = &physical->features;
    const gpu_extensions extensions = gpu_extensions_for_tiers(physical, tiers);
    *features = (gpu_features){0};
    features->v12.bufferDeviceAddress = VK_TRUE;
    features->v12.timelineSemaphore = VK_TRUE;
    features->v13.synchronization2 = VK_TRUE;
    features->v13.maintenance4 = offered->v13.maintenance4;
    features->v12.scalarBlockLayout = offered->v12.scalarBlockLayout;
    features->executable.pipelineExecutableInfo = offered->executable.pipelineExecutableInfo;
    if (tiers & ZS_TIER_SUBGROUP) features->v13.subgroupSizeControl = features->v13.computeFullSubgroups = VK_TRUE;
    if (tiers & ZS_TIER_STORAGE) {
        features->v11.storageBuffer16BitAccess = features->v12.storageBuffer8BitAccess = VK_TRUE;
        features->v11.uniformAndStorageBuffer16BitAccess = offered->v11.uniformAndStorageBuffer16BitAccess;
        features->v12.uniformAndStorageBuffer8BitAccess = offered->v12.uniformAndStorageBuffer8BitAccess;
        if (physical->info.type == ZS_DEVICE_CPU) features->core.features.shaderInt64 = VK_TRUE;
    }
    if (tiers & ZS_TIER_HALF) features->v12.shaderFloat16 = VK_TRUE;
    if (tiers & ZS_TIER_DOT) features->v13.shaderIntegerDotProduct = VK_TRUE;
    if (tiers & ZS_TIER_MATRIX) {
        features->matrix.cooperativeMatrix = VK_TRUE;
        features->v12.vulkanMemoryModel = VK_TRUE;
    }
    if (tiers & ZS_TIER_MATRIX2) features->matrix2 = offered->matrix2;
    chain_features(features, &extensions); // last, because copies bring the offer's links along
}

static uint32_t largest_local_heap(const VkPhysicalDeviceMemoryProperties *memory) {
    uint32_t best = 0;
    bool found = false;
    for (uint32_t i = 0; i < memory->memoryHeapCount; i++) {
        if (!(memory->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)) continue;
        if (!found || memory->memoryHeaps[i].size > memory->memoryHeaps[best].size) best = i;
        found = true;
    }
    return best;
}

uint64_t gpu_physical_free_bytes(const gpu_instance *instance, const gpu_physical *physical) {
    uint32_t heap = largest_local_heap(&physical->memory);
    if (physical->info.memory_bytes == 0) return 0; // null hardware: RADV's driver for it crashes when asked for its budget
    if (!physical->extensions.memory_budget) return physical->memory.memoryHeaps[heap].size;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, .pNext = &budget};
    instance->vkGetPhysicalDeviceMemoryProperties2(physical->handle, &memory);
    return budget.heapBudget[heap] > budget.heapUsage[heap] ? budget.heapBudget[heap] - budget.heapUsage[heap] : 0;
}

static void hex(const uint8_t *bytes, size_t count, char *text) {
    for (size_t i = 0; i < count; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static void fill_info(zs_device_info *info, const properties *p) {
    const VkPhysicalDeviceProperties *core = &p->core.properties;
    hex(p->v11.deviceUUID, VK_UUID_SIZE, info->uuid);
    snprintf(info->driver, sizeof info->driver, "%.120s %.120s", p->v12.driverName, p->v12.driverInfo);
    info->subgroup_size = p->v11.subgroupSize;
    if (core->limits.maxPushConstantsSize < 128) add_missing(info, "128 bytes of push constants");
    if (core->limits.maxComputeWorkGroupInvocations < 128 || core->limits.maxComputeWorkGroupSize[0] < 128)
        add_missing(info, "workgroups of 128 invocations");
    if (core->limits.maxComputeSharedMemorySize < 16384) add_missing(info, "16 KiB of shared memory");
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void fill_caps(gpu_physical *physical, const properties *p) {
    const VkPhysicalDeviceLimits *limits = &p->core.properties.limits;
    gpu_caps *caps = &physical->caps;
    caps->cpu = physical->info.type == ZS_DEVICE_CPU;
    caps->tiers = physical->info.tiers;
    caps->subgroup_size = p->v11.subgroupSize;
    caps->min_subgroup_size = p->v13.minSubgroupSize;
    caps->max_subgroup_size = p->v13.maxSubgroupSize;
    caps->max_invocations = (uint32_t)smaller(limits->maxComputeWorkGroupInvocations, limits->maxComputeWorkGroupSize[0]);
    memcpy(caps->max_workgroups, limits->maxComputeWorkGroupCount, sizeof caps->max_workgroups);
    caps->shared_bytes = limits->maxComputeSharedMemorySize;
    caps->max_allocation = smaller(p->v11.maxMemoryAllocationSize, p->v13.maxBufferSize ? p->v13.maxBufferSize : UINT64_MAX);
    caps->memory_bytes = physical->info.memory_bytes;
    caps->timestamp_ns = physical->timestamp_bits ? (double)limits->timestampPeriod : 0;
    physical->sizes_required = can_require_sizes(p);
    physical->max_subgroups = p->v13.maxComputeWorkgroupSubgroups;
    // The subgroup size is part of the key because lavapipe's depends on the environment, and with it what the self-test saw.
    snprintf(caps->cache_key, sizeof caps->cache_key, "%s-%08x-%u", physical->info.uuid, p->core.properties.driverVersion,
             caps->subgroup_size);
}

static zs_status probe(const gpu_instance *instance, gpu_physical *physical, zs_error *error) {
    zs_device_info *info = &physical->info;
    VkPhysicalDeviceProperties core;
    instance->vkGetPhysicalDeviceProperties(physical->handle, &core);
    snprintf(info->name, sizeof info->name, "%s", core.deviceName);
    info->api_version = core.apiVersion;
    info->type = device_type(core.deviceType);
    physical->vendor_id = core.vendorID;
    physical->device_id = core.deviceID;
    memcpy(physical->pipeline_cache_uuid, core.pipelineCacheUUID, VK_UUID_SIZE);
    instance->vkGetPhysicalDeviceMemoryProperties(physical->handle, &physical->memory);
    info->memory_bytes = physical->memory.memoryHeapCount ? physical->memory.memoryHeaps[largest_local_heap(&physical->memory)].size : 0;
    if (core.apiVersion < VK_API_VERSION_1_3) {
        char what[96];
        snprintf(what, sizeof what, "Vulkan 1.3 (the driver offers %u.%u)", VK_API_VERSION_MAJOR(core.apiVersion),
                 VK_API_VERSION_MINOR(core.apiVersion));
        add_missing(info, what);
        info->free_bytes = info->memory_bytes;
        return ZS_OK;
    }
    zs_status status = probe_extensions(instance, physical->handle, &physical->extensions, error);
    if (status) return status;
    info->free_bytes = gpu_physical_free_bytes(instance, physical);
    properties p;
    chain_properties(&p, physical->extensions.matrix);
    instance->vkGetPhysicalDeviceProperties2(physical->handle, &p.core);
    chain_features(&physical->features, &physical->extensions);
    instance->vkGetPhysicalDeviceFeatures2(physical->handle, &physical->features.core);
    fill_info(info, &p);
    if (!physical->features.v12.bufferDeviceAddress) add_missing(info, "bufferDeviceAddress");
    if (!physical->features.v12.timelineSemaphore) add_missing(info, "timelineSemaphore");
    if (!physical->features.v13.synchronization2) add_missing(info, "synchronization2");
    if (!choose_queue_family(instance, physical)) add_missing(info, "a compute queue");
    info->usable = info->missing[0] == '\0';
    physical->caps.matrix = choose_matrix_units(instance, physical);
    info->tiers = offered_tiers(physical, &p);
    fill_caps(physical, &p);
    return ZS_OK;
}

zs_status gpu_physical_enumerate(const gpu_instance *instance, gpu_physical **list, uint32_t *count, zs_error *error) {
    VkPhysicalDevice *handles = NULL;
    gpu_physical *physicals = NULL;
    uint32_t found = 0;
    zs_status status = ZS_OK;
    VkResult result = instance->vkEnumeratePhysicalDevices(instance->handle, &found, NULL);
    if (result == VK_SUCCESS && found == 0) result = VK_ERROR_INCOMPATIBLE_DRIVER;
    if (result < VK_SUCCESS)
        return zs_error_set(
            error, ZS_ERROR_NO_DEVICE,
            "the Vulkan drivers show no device (%s); install the driver of the graphics card, or mesa-vulkan-drivers, whose lavapipe runs "
            "on the CPU",
            gpu_result_name(result));
    handles = calloc(found, sizeof *handles);
    physicals = calloc(found, sizeof *physicals);
    if (!handles || !physicals) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while listing devices");
        goto done;
    }
    result = instance->vkEnumeratePhysicalDevices(instance->handle, &found, handles);
    if (result < VK_SUCCESS) {
        status = zs_error_set(error, ZS_ERROR_NO_DEVICE, "listing devices fails: %s", gpu_result_name(result));
        goto done;
    }
    for (uint32_t i = 0; i < found && !status; i++) {
        physicals[i].handle = handles[i];
        physicals[i].info.index = i;
        status = probe(instance, &physicals[i], error);
    }
    if (!status) {
        *list = physicals;
        *count = found;
        physicals = NULL;
    }
done:
    free(physicals);
    free(handles);
    return status;
}
