// What is said when there is no Vulkan loader, no driver, or only a device below the baseline.
#define _GNU_SOURCE // RTLD_NEXT
#include "zsigma/zsigma.h"

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

/// Only Mesa can pretend to be older than it is; with other drivers nothing is checked but that all works.
static void test_below_baseline(void **state) {
    (void)state;
    zs_device_info *infos = NULL;
    zs_device *device = NULL;
    uint32_t count = 0;
    zs_error error = {0};
    setenv("MESA_VK_VERSION_OVERRIDE", "1.2", 1);
    assert_int_equal(zs_device_list(&infos, &count, &error), ZS_OK);
    for (uint32_t i = 0; i < count; i++)
        if (!infos[i].usable) assert_non_null(strstr(infos[i].missing, "Vulkan 1.3"));
    if (!infos[0].usable) {
        assert_int_equal(zs_device_create(&(zs_device_params){.device = "0"}, &device, &error), ZS_ERROR_NO_DEVICE);
        assert_non_null(strstr(error.message, infos[0].name));
        assert_non_null(strstr(error.message, "Vulkan 1.3"));
    }
    free(infos);
    unsetenv("MESA_VK_VERSION_OVERRIDE");
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
