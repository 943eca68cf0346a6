#include "gpu/instance.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

// volk's loader functions are process-wide whoever calls, so loading them is the one thing that different devices share.
static pthread_mutex_t volk_mutex = PTHREAD_MUTEX_INITIALIZER;

const char *gpu_result_name(VkResult result) {
    switch (result) {
    case VK_SUCCESS: return "VK_SUCCESS";
    case VK_NOT_READY: return "VK_NOT_READY";
    case VK_TIMEOUT: return "VK_TIMEOUT";
    case VK_INCOMPLETE: return "VK_INCOMPLETE";
    case VK_ERROR_OUT_OF_HOST_MEMORY: return "VK_ERROR_OUT_OF_HOST_MEMORY";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY: return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
    case VK_ERROR_INITIALIZATION_FAILED: return "VK_ERROR_INITIALIZATION_FAILED";
    case VK_ERROR_DEVICE_LOST: return "VK_ERROR_DEVICE_LOST";
    case VK_ERROR_MEMORY_MAP_FAILED: return "VK_ERROR_MEMORY_MAP_FAILED";
    case VK_ERROR_LAYER_NOT_PRESENT: return "VK_ERROR_LAYER_NOT_PRESENT";
    case VK_ERROR_EXTENSION_NOT_PRESENT: return "VK_ERROR_EXTENSION_NOT_PRESENT";
    case VK_ERROR_FEATURE_NOT_PRESENT: return "VK_ERROR_FEATURE_NOT_PRESENT";
    case VK_ERROR_INCOMPATIBLE_DRIVER: return "VK_ERROR_INCOMPATIBLE_DRIVER";
    case VK_ERROR_TOO_MANY_OBJECTS: return "VK_ERROR_TOO_MANY_OBJECTS";
    case VK_ERROR_INVALID_SHADER_NV: return "VK_ERROR_INVALID_SHADER_NV";
    default: return "an unknown VkResult";
    }
}

static bool load_volk(void) {
    pthread_mutex_lock(&volk_mutex);
    bool loaded = vkGetInstanceProcAddr != NULL || volkInitialize() == VK_SUCCESS;
    pthread_mutex_unlock(&volk_mutex);
    return loaded && vkCreateInstance != NULL;
}

void gpu_instance_load_device(const gpu_instance *instance, VkDevice device, struct VolkDeviceTable *table) {
    pthread_mutex_lock(&volk_mutex);
    volkLoadInstanceOnly(instance->handle); // volkLoadDeviceTable asks the vkGetDeviceProcAddr of the last instance loaded
    volkLoadDeviceTable(table, device);
    pthread_mutex_unlock(&volk_mutex);
}

static VkBool32 VKAPI_PTR on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
                                     const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    (void)severity, (void)types;
    gpu_validation *validation = user;
    atomic_fetch_add(&validation->count, 1);
    if (validation->log.write) validation->log.write(validation->log.user, ZS_LOG_ERROR, data->pMessage);
    return VK_FALSE;
}

static VkDebugUtilsMessengerCreateInfoEXT messenger_info(gpu_validation *validation) {
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = validation,
    };
}

static bool layer_present(const char *name) {
    uint32_t count = 0;
    if (vkEnumerateInstanceLayerProperties(&count, NULL) != VK_SUCCESS || count == 0) return false;
    VkLayerProperties *layers = calloc(count, sizeof *layers);
    bool found = false;
    if (layers && vkEnumerateInstanceLayerProperties(&count, layers) >= VK_SUCCESS)
        for (uint32_t i = 0; i < count && !found; i++) found = strcmp(layers[i].layerName, name) == 0;
    free(layers);
    return found;
}

/// layer NULL: the loader's and the drivers' own.
static bool extension_present(const char *layer, const char *name) {
    uint32_t count = 0;
    if (vkEnumerateInstanceExtensionProperties(layer, &count, NULL) != VK_SUCCESS || count == 0) return false;
    VkExtensionProperties *extensions = calloc(count, sizeof *extensions);
    bool found = false;
    if (extensions && vkEnumerateInstanceExtensionProperties(layer, &count, extensions) >= VK_SUCCESS)
        for (uint32_t i = 0; i < count && !found; i++) found = strcmp(extensions[i].extensionName, name) == 0;
    free(extensions);
    return found;
}

static zs_status load_functions(gpu_instance *instance, zs_error *error) {
    bool complete = true;
#define LOAD(name) complete &= (instance->name = (PFN_##name)vkGetInstanceProcAddr(instance->handle, #name)) != NULL;
    GPU_INSTANCE_FUNCTIONS(LOAD)
    if (instance->debug_utils) {
        GPU_DEBUG_FUNCTIONS(LOAD)
    }
#undef LOAD
#define LOAD(name) instance->name = (PFN_##name)vkGetInstanceProcAddr(instance->handle, #name);
    GPU_EXTENSION_FUNCTIONS(LOAD)
#undef LOAD
    if (!complete)
        return zs_error_set(error, ZS_ERROR_NO_DEVICE,
                            "the Vulkan loader lacks functions of Vulkan 1.1; install a newer one (package libvulkan1)");
    return ZS_OK;
}

static zs_status create_failed(VkResult result, zs_error *error) {
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return zs_error_set(
            error, ZS_ERROR_NO_DEVICE,
            "no Vulkan driver found; install the driver of the graphics card, or mesa-vulkan-drivers (it also holds lavapipe, which "
            "runs on the CPU)");
    return zs_error_set(error, result == VK_ERROR_OUT_OF_HOST_MEMORY ? ZS_ERROR_MEMORY : ZS_ERROR_NO_DEVICE,
                        "Vulkan does not start: vkCreateInstance gives %s; `vulkaninfo` shows which driver is at fault",
                        gpu_result_name(result));
}

/// The layer's settings: synchronisation is validated too. Their extensions are not enabled, because loaders older than the layer
/// refuse them; the layer reads the structs all the same.
typedef struct layer_options {
    VkDebugUtilsMessengerCreateInfoEXT messenger;
    VkLayerSettingEXT setting;
    VkLayerSettingsCreateInfoEXT settings;
    VkValidationFeatureEnableEXT enabled;
    VkValidationFeaturesEXT features;
} layer_options;

static zs_status choose_layer_options(gpu_validation *validation, layer_options *options, zs_error *error) {
    static const VkBool32 on = VK_TRUE;
    if (!layer_present(validation_layer))
        return zs_error_set(
            error, ZS_ERROR_UNSUPPORTED,
            "validation was asked for, but the layer %s is not installed; install vulkan-validationlayers, or set VK_ADD_LAYER_PATH to "
            "the folder of its .json file",
            validation_layer);
    options->messenger = messenger_info(validation);
    if (extension_present(validation_layer, VK_EXT_LAYER_SETTINGS_EXTENSION_NAME)) {
        options->setting = (VkLayerSettingEXT){validation_layer, "validate_sync", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &on};
        options->settings = (VkLayerSettingsCreateInfoEXT){VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT, NULL, 1, &options->setting};
        options->messenger.pNext = &options->settings;
    } else if (extension_present(validation_layer, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME)) {
        options->enabled = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
        options->features = (VkValidationFeaturesEXT){VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT, NULL, 1, &options->enabled, 0, NULL};
        options->messenger.pNext = &options->features;
    }
    return ZS_OK;
}

zs_status gpu_instance_create(gpu_validation *validation, gpu_instance *instance, zs_error *error) {
    *instance = (gpu_instance){0};
    layer_options options = {0};
    if (!load_volk())
        return zs_error_set(error, ZS_ERROR_NO_DEVICE,
                            "no Vulkan loader (libvulkan.so.1) found; install it (package libvulkan1) and a driver (for example "
                            "mesa-vulkan-drivers)");
    if (volkGetInstanceVersion() < VK_API_VERSION_1_1)
        return zs_error_set(error, ZS_ERROR_NO_DEVICE, "the Vulkan loader is of version 1.0; install a newer one (package libvulkan1)");
    if (validation && choose_layer_options(validation, &options, error)) return ZS_ERROR_UNSUPPORTED;

    const char *extensions[2];
    uint32_t extension_count = 0;
    VkInstanceCreateFlags flags = 0;
    instance->debug_utils = extension_present(NULL, VK_EXT_DEBUG_UTILS_EXTENSION_NAME) ||
                            (validation && extension_present(validation_layer, VK_EXT_DEBUG_UTILS_EXTENSION_NAME));
    if (instance->debug_utils) extensions[extension_count++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (extension_present(NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        extensions[extension_count++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    const char *layer = validation_layer;
    VkResult result = vkCreateInstance(
        &(VkInstanceCreateInfo){
            .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
            .pNext = validation && instance->debug_utils ? &options.messenger : options.messenger.pNext,
            .flags = flags,
            .pApplicationInfo = &(VkApplicationInfo){.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                                     .pApplicationName = "zsigma",
                                                     .pEngineName = "zsigma",
                                                     .apiVersion = VK_API_VERSION_1_3},
            .enabledLayerCount = validation ? 1 : 0,
            .ppEnabledLayerNames = &layer,
            .enabledExtensionCount = extension_count,
            .ppEnabledExtensionNames = extensions,
        },
        NULL, &instance->handle);
    if (result) {
        *instance = (gpu_instance){0};
        return create_failed(result, error);
    }
    zs_status status = load_functions(instance, error);
    if (!status && validation && instance->debug_utils) {
        VkDebugUtilsMessengerCreateInfoEXT info = messenger_info(validation);
        result = instance->vkCreateDebugUtilsMessengerEXT(instance->handle, &info, NULL, &instance->messenger);
        if (result)
            status = zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the validation layer takes no messenger: %s", gpu_result_name(result));
    }
    if (status) gpu_instance_destroy(instance);
    return status;
}

void gpu_instance_destroy(gpu_instance *instance) {
    if (!instance->handle) return;
    if (instance->messenger) instance->vkDestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    if (instance->vkDestroyInstance) instance->vkDestroyInstance(instance->handle, NULL);
    *instance = (gpu_instance){0};
}
