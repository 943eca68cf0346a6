/// The queue and its timeline: submitting, waiting, and what becomes of a device that is lost or hangs.
#include "gpu/device_private.h"

#include <time.h>

int64_t gpu_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static zs_status set_lost(const zs_device *device, zs_error *error, const char *what) {
    return zs_error_set(error, ZS_ERROR_DEVICE_LOST,
                        "%s: the device %s is lost (its driver was reset or crashed, or it was unplugged); close it and open it again, and "
                        "see the system's "
                        "log for the driver's reason",
                        what, device->physical.info.name);
}

zs_status gpu_device_fail(zs_device *device, VkResult result, zs_error *error, const char *what) {
    switch (result) {
    case VK_ERROR_DEVICE_LOST:
        if (!atomic_exchange(&device->lost, true)) gpu_log(device, ZS_LOG_ERROR, "%s: %s is lost", what, device->physical.info.name);
        return set_lost(device, error, what);
    case VK_ERROR_OUT_OF_HOST_MEMORY: return zs_error_set(error, ZS_ERROR_MEMORY, "%s: out of host memory", what);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY, "%s: %s is out of memory", what, device->physical.info.name);
    default:
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: the driver of %s gives %s (%d); update the driver or choose another device",
                            what, device->physical.info.name, gpu_result_name(result), (int)result);
    }
}

zs_status gpu_device_check(const zs_device *device, zs_error *error) {
    return atomic_load(&device->lost) ? set_lost(device, error, "nothing more can run") : ZS_OK;
}

zs_status gpu_device_submit(zs_device *device, VkCommandBuffer buffer, uint64_t *value, zs_error *error) {
    zs_status status = gpu_device_check(device, error);
    if (status) return status;
    if (!device->timeline)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s only compiles, it runs nothing", device->physical.info.name);
    pthread_mutex_lock(&device->queue_mutex);
    uint64_t promised = atomic_load(&device->submitted) + 1;
    VkCommandBufferSubmitInfo command = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, .commandBuffer = buffer};
    VkSemaphoreSubmitInfo signal = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
        .semaphore = device->timeline,
        .value = promised,
        .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
    };
    VkSubmitInfo2 submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
        .commandBufferInfoCount = 1,
        .pCommandBufferInfos = &command,
        .signalSemaphoreInfoCount = 1,
        .pSignalSemaphoreInfos = &signal,
    };
    VkResult result = device->vk.vkQueueSubmit2(device->queue, 1, &submit, VK_NULL_HANDLE);
    if (!result) atomic_store(&device->submitted, promised);
    pthread_mutex_unlock(&device->queue_mutex);
    if (result) return gpu_device_fail(device, result, error, "submitting work");
    *value = promised;
    return ZS_OK;
}

uint64_t gpu_device_done(zs_device *device) {
    uint64_t value = 0;
    if (!device->timeline) return 0;
    VkResult result = device->vk.vkGetSemaphoreCounterValue(device->handle, device->timeline, &value);
    if (result == VK_ERROR_DEVICE_LOST) atomic_store(&device->lost, true);
    return result ? 0 : value;
}

/// Waits at most timeout_ms without progress: as long as submits keep finishing, it goes on.
static VkResult wait_for(zs_device *device, uint64_t value, uint32_t timeout_ms) {
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, .semaphoreCount = 1, .pSemaphores = &device->timeline, .pValues = &value};
    VkResult result;
    uint64_t before, after = gpu_device_done(device);
    do {
        before = after;
        result = device->vk.vkWaitSemaphores(device->handle, &info, (uint64_t)timeout_ms * 1000000);
        after = result == VK_TIMEOUT ? gpu_device_done(device) : before;
    } while (result == VK_TIMEOUT && after != before && after < value);
    return result == VK_TIMEOUT && after >= value ? VK_SUCCESS : result;
}

zs_status gpu_device_wait(zs_device *device, uint64_t value, zs_error *error) {
    zs_status status = gpu_device_check(device, error);
    if (status || value == 0) return status;
    VkResult result = wait_for(device, value, device->timeout_ms);
    if (result == VK_TIMEOUT) {
        atomic_store(&device->stalled, true);
        return zs_error_set(error, ZS_ERROR_TIMEOUT,
                            "%s did not finish a submit within %u ms; it hangs, or is far slower than thought: allow a longer time, or see "
                            "the system's log "
                            "for the driver's reason",
                            device->physical.info.name, device->timeout_ms);
    }
    if (result) return gpu_device_fail(device, result, error, "waiting for the device");
    atomic_store(&device->stalled, false);
    if (device->caps.timestamp_ns == 0 && value == atomic_load(&device->submitted)) gpu_rates_idle(&device->rates, gpu_now_ns());
    return ZS_OK;
}

bool gpu_device_settle(zs_device *device) {
    const uint32_t patience_ms = 10000;
    if (atomic_load(&device->lost) || !device->timeline) return true; // a lost device uses nothing any more
    VkResult result =
        wait_for(device, atomic_load(&device->submitted), device->timeout_ms > patience_ms ? device->timeout_ms : patience_ms);
    if (result == VK_ERROR_DEVICE_LOST) atomic_store(&device->lost, true);
    if (result == VK_TIMEOUT) atomic_store(&device->stalled, true);
    return result != VK_TIMEOUT;
}
