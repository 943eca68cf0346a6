/// Does the device calculate? Small kernels, one per tier, compared with the host to the last bit. Drivers that offer a feature
/// and get it wrong exist; better to find out here than in an answer.
#include "gpu/device_private.h"

#include "gpu/command.h"
#include "gpu/settings.h"
#include "shaders/shared.h"

#include <stdlib.h>
#include <string.h>

enum { PROBE_COUNT = 1000, PROBE_WORKGROUP = 64, PROBE_COUNTERS = 3 };
static const char extension[] = "selftest";
static const uint32_t strict_bit = 1u << 31; // stands for the baseline beside the ZS_TIER_* bits

/// One row per test; a tier may have several.
static const struct {
    uint32_t module, tier; // tier 0: the baseline
    const char *tier_name;
} tests[] = {
    {SHADER_probe, 0, "strict"},
    {SHADER_probe_subgroup, ZS_TIER_SUBGROUP, "subgroup"},
    {SHADER_probe_storage, ZS_TIER_STORAGE, "storage"},
    {SHADER_probe_half, ZS_TIER_HALF, "half"},
    {SHADER_probe_dot, ZS_TIER_DOT, "dot"},
    {SHADER_probe_chain, ZS_TIER_CHAIN, "chain"},
};
enum { TEST_COUNT = sizeof tests / sizeof tests[0] };

/// What the cache folder keeps.
typedef struct verdict {
    uint32_t tested, passed;
} verdict;

static uint32_t test_bit(size_t i) { return tests[i].tier ? tests[i].tier : strict_bit; }

static uint64_t kernels_hash(void) {
    uint32_t modules[TEST_COUNT];
    for (size_t i = 0; i < TEST_COUNT; i++) modules[i] = tests[i].module;
    return gpu_setting_hash(modules, TEST_COUNT);
}

static zs_status run_probe(zs_device *device, uint32_t module, gpu_command *command, const gpu_buffer *in, const gpu_buffer *out,
                           zs_error *error) {
    const gpu_kernel *kernel = NULL;
    const gpu_kernel_key key = {.module = module, .constant_count = 1, .constants = {PROBE_WORKGROUP}};
    uint64_t value = 0;
    zs_status status = gpu_kernel_get(device, &key, &kernel, error);
    if (!status) status = gpu_command_begin(command, error);
    if (status) return status;
    PushProbe push = {.in_ = in->address, .out_ = out->address, .factor = 3, .count = PROBE_COUNT};
    uint32_t groups = (PROBE_COUNT + PROBE_WORKGROUP - 1) / PROBE_WORKGROUP;
    gpu_command_dispatch(command, kernel, &push, sizeof push, module == SHADER_probe_chain ? 2 * groups : groups, 1, 1,
                         (gpu_work){.bytes = 8 * PROBE_COUNT, .flops = 2 * PROBE_COUNT});
    status = gpu_command_end(command, error);
    if (!status) status = gpu_command_submit(command, &value, error);
    if (!status) status = gpu_device_wait(device, value, error);
    return status;
}

/// in holds small integers, so that the result is exact in whatever way it is calculated.
static bool is_right(const gpu_buffer *in, const gpu_buffer *out) {
    const float *x = in->mapped, *y = out->mapped;
    for (uint32_t i = 0; i < PROBE_COUNT; i++)
        if (!(y[i] == x[i] * 3 + (float)i)) return false;
    return true;
}

/// Runs all tests of tiers in use. Only a lost or hanging device is an error here; wrong numbers and failed compiles are findings.
static zs_status run_tests(zs_device *device, verdict *found, zs_error *error) {
    gpu_buffer in = {0}, out = {0};
    gpu_command *command = NULL;
    zs_status status = gpu_buffer_create(device, GPU_MEMORY_SHARED, PROBE_COUNT * sizeof(float), false, "self-test input", &in, error);
    if (!status)
        status = gpu_buffer_create(device, GPU_MEMORY_READBACK, (PROBE_COUNT + PROBE_COUNTERS) * sizeof(float), true, "self-test output",
                                   &out, error);
    if (!status) status = gpu_command_create(device, "self-test", &command, error);
    for (uint32_t i = 0; i < PROBE_COUNT && !status; i++) ((float *)in.mapped)[i] = (float)(i % 97) - 48;
    found->tested = found->passed = strict_bit | device->caps.tiers;
    for (size_t i = 0; i < TEST_COUNT && !status; i++) {
        zs_error reason = {0};
        if (tests[i].tier & ~device->caps.tiers) continue;
        memset(out.mapped, 0xff, PROBE_COUNT * sizeof(float)); // NaN, so that what is not written shows
        zs_status ran = run_probe(device, tests[i].module, command, &in, &out, &reason);
        if (ran == ZS_ERROR_DEVICE_LOST || ran == ZS_ERROR_TIMEOUT || ran == ZS_ERROR_MEMORY)
            status = zs_error_set(error, ran, "%s", reason.message);
        if (ran == ZS_OK && is_right(&in, &out)) continue;
        found->passed &= ~test_bit(i);
        gpu_log(device, ZS_LOG_WARNING, "self-test of tier %s on %s: %s", tests[i].tier_name, device->physical.info.name,
                ran ? reason.message : "wrong numbers");
    }
    gpu_command_destroy(&command);
    gpu_buffer_destroy(device, &out);
    gpu_buffer_destroy(device, &in);
    return status;
}

/// Takes failed tiers out of use, and those that stand on them.
static zs_status apply(zs_device *device, uint32_t passed, zs_error *error) {
    uint32_t before = device->caps.tiers;
    if (!(passed & strict_bit))
        return zs_error_set(error, ZS_ERROR_NO_DEVICE,
                            "%s fails the self-test: it calculates wrongly; update its driver or choose another device",
                            device->physical.info.name);
    device->caps.tiers = gpu_tiers_mask(before, ~passed);
    for (size_t i = 0; i < TEST_COUNT; i++)
        if (tests[i].tier & before & ~device->caps.tiers)
            gpu_log(device, ZS_LOG_WARNING, "tier %s of %s is not used: it failed the self-test, or stands on one that did",
                    tests[i].tier_name, device->physical.info.name);
    return ZS_OK;
}

zs_status gpu_self_test(zs_device *device, zs_error *error) {
    const uint64_t hash = kernels_hash();
    verdict found;
    bool kept = gpu_setting_read(device, extension, hash, &found, sizeof found) && !((strict_bit | device->caps.tiers) & ~found.tested);
    if (!kept) {
        memset(&found, 0, sizeof found);
        zs_status status = run_tests(device, &found, error);
        if (status) return status;
        gpu_setting_write(device, extension, hash, &found, sizeof found);
    }
    return apply(device, found.passed, error);
}
