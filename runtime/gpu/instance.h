/// The Vulkan instance of one zs_device (or of one listing), with functions of its own.
///
/// volk keeps instance-level functions in globals; with several instances in one process they would overwrite each other, so
/// they are loaded into a table per instance instead.
#ifndef GPU_INSTANCE_H
#define GPU_INSTANCE_H

#include "gpu/device.h"

#include <stdatomic.h>

#define GPU_INSTANCE_FUNCTIONS(X)                                                                                                          \
    X(vkDestroyInstance)                                                                                                                   \
    X(vkEnumeratePhysicalDevices)                                                                                                          \
    X(vkEnumerateDeviceExtensionProperties)                                                                                                \
    X(vkGetPhysicalDeviceProperties)                                                                                                       \
    X(vkGetPhysicalDeviceProperties2)                                                                                                      \
    X(vkGetPhysicalDeviceFeatures2)                                                                                                        \
    X(vkGetPhysicalDeviceQueueFamilyProperties)                                                                                            \
    X(vkGetPhysicalDeviceMemoryProperties)                                                                                                 \
    X(vkGetPhysicalDeviceMemoryProperties2)                                                                                                \
    X(vkCreateDevice)
#define GPU_EXTENSION_FUNCTIONS(X) X(vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR) /* NULL where no device has the extension */
#define GPU_DEBUG_FUNCTIONS(X)                                                                                                             \
    X(vkCreateDebugUtilsMessengerEXT)                                                                                                      \
    X(vkDestroyDebugUtilsMessengerEXT)                                                                                                     \
    X(vkSetDebugUtilsObjectNameEXT)                                                                                                        \
    X(vkCmdBeginDebugUtilsLabelEXT)                                                                                                        \
    X(vkCmdEndDebugUtilsLabelEXT)

/// Where the validation layer's messages go. Its address must not change while the instance lives.
typedef struct gpu_validation {
    zs_log log;
    atomic_uint count;
} gpu_validation;

typedef struct gpu_instance {
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger; // with validation
    bool debug_utils;                   // GPU_DEBUG_FUNCTIONS are there
#define GPU_MEMBER(name) PFN_##name name;
    GPU_INSTANCE_FUNCTIONS(GPU_MEMBER)
    GPU_EXTENSION_FUNCTIONS(GPU_MEMBER)
    GPU_DEBUG_FUNCTIONS(GPU_MEMBER)
#undef GPU_MEMBER
} gpu_instance;

/// validation NULL: no layer. Errors: ZS_ERROR_NO_DEVICE without a loader or driver, ZS_ERROR_UNSUPPORTED without the layer.
zs_status gpu_instance_create(gpu_validation *validation, gpu_instance *instance, zs_error *error);
/// A zeroed struct is fine.
void gpu_instance_destroy(gpu_instance *instance);
/// Fills a device's function table. Thread-safe, which volk's own loading is not.
void gpu_instance_load_device(const gpu_instance *instance, VkDevice device, struct VolkDeviceTable *table);
/// The name of a VkResult.
const char *gpu_result_name(VkResult result);

#endif
