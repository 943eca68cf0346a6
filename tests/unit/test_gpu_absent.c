// What is said when there is no Vulkan loader, no driver, or only a device below the baseline.
#define _GNU_SOURCE // RTLD_NEXT
#include "zsigma/zsigma.h"

#include <volk.h>

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool loader_missing;

/// Stands in front of the C library's, so that the loader can be hidden.
void *dlopen(const char *name, int flags) {
    void *(*real)(const char *, int);
    *(void **)&real = dlsym(RTLD_NEXT, "dlopen");
    return loader_missing && name && strstr(name, "vulkan") ? NULL : real(name, flags);
}

static void expect_refusal(const char *said) {
    zs_device_info *infos = NULL;
    zs_device *device = NULL;
    uint32_t count = 0;
    zs_error error = {0};
    assert_int_equal(zs_device_list(&infos, &count, &error), ZS_ERROR_NO_DEVICE);
    assert_null(infos);
    if (!strstr(error.message, said)) fail_msg("said: %s", error.message);
    error = (zs_error){0};
    assert_int_equal(zs_device_create(NULL, &device, &error), ZS_ERROR_NO_DEVICE);
    assert_null(device);
    if (!strstr(error.message, said)) fail_msg("said: %s", error.message);
}

static void test_no_loader(void **state) {
    (void)state;
    loader_missing = true;
    expect_refusal("no Vulkan loader");
    loader_missing = false;
}

// ---- a driver that is less than it is ---------------------------------------------------------------------------------

static PFN_vkGetInstanceProcAddr real_instance_proc;
static PFN_vkGetPhysicalDeviceProperties real_properties;
static PFN_vkGetPhysicalDeviceProperties2 real_properties2;
static PFN_vkGetPhysicalDeviceFeatures2 real_features2;
static uint32_t pretended_version; // 0: the real one

static void VKAPI_PTR old_properties(VkPhysicalDevice device, VkPhysicalDeviceProperties *properties) {
    real_properties(device, properties);
    if (pretended_version) properties->apiVersion = pretended_version;
}

static void VKAPI_PTR small_properties2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *properties) {
    real_properties2(device, properties);
    properties->properties.limits.maxPushConstantsSize = 64;
}

static void VKAPI_PTR few_features2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *features) {
    real_features2(device, features);
    for (VkBaseOutStructure *s = (VkBaseOutStructure *)features; s; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES)
            ((VkPhysicalDeviceVulkan12Features *)s)->bufferDeviceAddress = VK_FALSE;
}

static PFN_vkVoidFunction VKAPI_PTR pretend(VkInstance instance, const char *name) {
    PFN_vkVoidFunction function = real_instance_proc(instance, name);
    if (strcmp(name, "vkGetPhysicalDeviceProperties") == 0) {
        real_properties = (PFN_vkGetPhysicalDeviceProperties)function;
        return (PFN_vkVoidFunction)old_properties;
    }
    if (strcmp(name, "vkGetPhysicalDeviceProperties2") == 0) {
        real_properties2 = (PFN_vkGetPhysicalDeviceProperties2)function;
        return (PFN_vkVoidFunction)small_properties2;
    }
    if (strcmp(name, "vkGetPhysicalDeviceFeatures2") == 0) {
        real_features2 = (PFN_vkGetPhysicalDeviceFeatures2)function;
        return (PFN_vkVoidFunction)few_features2;
    }
    return function;
}

/// Devices are listed with what they lack, but not opened, and the error names it.
static void expect_lacking(const char *first, const char *second) {
    zs_device_info *infos = NULL;
    zs_device *device = NULL;
    uint32_t count = 0;
    zs_error error = {0};
    assert_int_equal(zs_device_list(&infos, &count, &error), ZS_OK);
    assert_true(count > 0);
    for (uint32_t i = 0; i < count; i++) {
        assert_false(infos[i].usable);
        assert_non_null(strstr(infos[i].missing, first));
        assert_non_null(strstr(infos[i].missing, second));
    }
    static const char *const choices[] = {NULL, "0"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(zs_device_create(&(zs_device_params){.device = choices[i]}, &device, &error), ZS_ERROR_NO_DEVICE);
        assert_non_null(strstr(error.message, first));
        assert_non_null(strstr(error.message, second));
    }
    assert_non_null(strstr(error.message, infos[0].name));
    free(infos);
}

static void test_below_baseline(void **state) {
    (void)state;
    assert_int_equal(volkInitialize(), VK_SUCCESS);
    real_instance_proc = vkGetInstanceProcAddr;
    vkGetInstanceProcAddr = pretend;
    pretended_version = VK_API_VERSION_1_2;
    expect_lacking("Vulkan 1.3", "offers 1.2");
    pretended_version = 0;
    expect_lacking("128 bytes of push constants", "bufferDeviceAddress");
    vkGetInstanceProcAddr = real_instance_proc;
}

static void test_no_driver(void **state) {
    (void)state;
    setenv("VK_DRIVER_FILES", "/nonexistent/driver.json", 1);
    setenv("VK_ICD_FILENAMES", "/nonexistent/driver.json", 1);
    expect_refusal("driver");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_loader), // first: the loader stays once it is loaded
        cmocka_unit_test(test_below_baseline),
        cmocka_unit_test(test_no_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
