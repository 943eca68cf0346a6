/// What a physical device offers: the probing behind zs_device_list, device choice and the tiers.
#ifndef GPU_CAPS_H
#define GPU_CAPS_H

#include "gpu/instance.h"

// Vulkan headers older than 1.3.300 (Ubuntu 24.04 has 1.3.275) do not know this extension; its names as the registry has them.
#ifndef VK_NV_cooperative_matrix2
#define VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME "VK_NV_cooperative_matrix2"
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV ((VkStructureType)1000593000)
typedef struct VkPhysicalDeviceCooperativeMatrix2FeaturesNV {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrixWorkgroupScope;
    VkBool32 cooperativeMatrixFlexibleDimensions;
    VkBool32 cooperativeMatrixReductions;
    VkBool32 cooperativeMatrixConversions;
    VkBool32 cooperativeMatrixPerElementOperations;
    VkBool32 cooperativeMatrixTensorAddressing;
    VkBool32 cooperativeMatrixBlockLoads;
} VkPhysicalDeviceCooperativeMatrix2FeaturesNV;
#endif

/// Feature structs of a device, chained.
typedef struct gpu_features {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDeviceVulkan11Features v11;
    VkPhysicalDeviceVulkan12Features v12;
    VkPhysicalDeviceVulkan13Features v13;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrix2;
} gpu_features;

/// Device extensions that are used where present.
typedef struct gpu_extensions {
    bool portability, memory_budget, executable, matrix, matrix2;
} gpu_extensions;

typedef struct gpu_physical {
    VkPhysicalDevice handle;
    zs_device_info info;
    gpu_caps caps; // caps.tiers: what is offered
    gpu_features features;
    gpu_extensions extensions;
    VkPhysicalDeviceMemoryProperties memory;
    uint32_t queue_family;
    uint32_t timestamp_bits;
    bool sizes_required;    // a pipeline can ask for a subgroup size; else there is but one
    uint32_t max_subgroups; // per workgroup, where the subgroup size is required
    uint32_t vendor_id, device_id;
    uint8_t pipeline_cache_uuid[VK_UUID_SIZE];
} gpu_physical;

/// *list is malloc'ed. Devices below the baseline are in it, with info.missing.
zs_status gpu_physical_enumerate(const gpu_instance *instance, gpu_physical **list, uint32_t *count, zs_error *error);
/// Bytes of the largest device-local heap that can still be had.
uint64_t gpu_physical_free_bytes(const gpu_instance *instance, const gpu_physical *physical);
/// The features to turn on for these tiers: the baseline's, and of the rest only what the tiers need, so that validation finds
/// a kernel that uses more than its row in shaders/variants.h says.
void gpu_features_for_tiers(const gpu_physical *physical, uint32_t tiers, gpu_features *features);
/// Tiers without those to be left unused and those that stand on them.
uint32_t gpu_tiers_mask(uint32_t offered, uint32_t disable);
/// The extensions to turn on for these tiers.
gpu_extensions gpu_extensions_for_tiers(const gpu_physical *physical, uint32_t tiers);

#endif
