#include "gpu/device_private.h"

#include "gpu/command.h"

#include <string.h>

/// Bytes of one submit when a transfer has to be made on the device.
static const uint64_t transfer_bytes = 16u << 20;

zs_status gpu_buffer_zero(zs_device *device, const gpu_buffer *buffer, zs_error *error) {
    if (buffer->mapped) {
        memset(buffer->mapped, 0, buffer->size);
        return ZS_OK;
    }
    gpu_command *command = NULL;
    uint64_t value = 0;
    zs_status status = gpu_command_create(device, "clear", &command, error);
    if (!status) status = gpu_command_begin(command, error);
    if (!status) {
        gpu_command_fill(command, buffer, 0, buffer->size / 4 * 4, 0);
        status = gpu_command_end(command, error);
    }
    if (!status) status = gpu_command_submit(command, &value, error);
    if (!status) status = gpu_device_wait(device, value, error);
    gpu_command_destroy(&command);
    return status;
}

static zs_status create(zs_device *device, gpu_memory memory, const char *name, gpu_buffer *buffer, zs_error *error) {
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = buffer->size, .usage = GPU_BUFFER_USAGE};
    VkMemoryRequirements requirements;
    VkResult result = device->vk.vkCreateBuffer(device->handle, &info, NULL, &buffer->handle);
    if (result) return gpu_device_fail(device, result, error, name);
    gpu_device_name(device, VK_OBJECT_TYPE_BUFFER, (uint64_t)buffer->handle, name);
    device->vk.vkGetBufferMemoryRequirements(device->handle, buffer->handle, &requirements);
    zs_status status = gpu_memory_take(device, memory, &requirements, name, &buffer->block, &buffer->offset, error);
    if (status) return status;
    buffer->taken = requirements.size;
    result = device->vk.vkBindBufferMemory(device->handle, buffer->handle, buffer->block->memory, buffer->offset);
    if (result) return gpu_device_fail(device, result, error, name);
    VkBufferDeviceAddressInfo address = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer->handle};
    buffer->address = device->vk.vkGetBufferDeviceAddress(device->handle, &address);
    buffer->mapped = buffer->block->mapped ? buffer->block->mapped + buffer->offset : NULL;
    if (buffer->address % GPU_ALIGNMENT)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s: the driver of %s gives an address that is not a multiple of %d; choose another device", name,
                            device->physical.info.name, GPU_ALIGNMENT);
    return ZS_OK;
}

zs_status gpu_buffer_create(zs_device *device, gpu_memory memory, uint64_t size, bool zero, const char *name, gpu_buffer *buffer,
                            zs_error *error) {
    *buffer = (gpu_buffer){0};
    zs_status status = gpu_device_check(device, error);
    if (status) return status;
    if (size == 0) return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s: a buffer of no bytes was asked for", name);
    if (size > device->caps.max_allocation)
        return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY, "%s needs %.1f MiB in one piece, but %s allows at most %.1f MiB per allocation",
                            name, (double)size / (1 << 20), device->physical.info.name, (double)device->caps.max_allocation / (1 << 20));
    gpu_buffer made = {.size = (size + 3) / 4 * 4}; // fills and copies go by words
    status = create(device, memory, name, &made, error);
    if (!status && zero) status = gpu_buffer_zero(device, &made, error);
    made.size = size;
    if (status)
        gpu_buffer_destroy(device, &made);
    else
        *buffer = made;
    return status;
}

zs_status gpu_buffer_reserve(zs_device *device, gpu_memory memory, uint64_t size, const char *name, gpu_buffer *buffer, zs_error *error) {
    if (buffer->size >= size) return ZS_OK;
    gpu_buffer_destroy(device, buffer);
    return gpu_buffer_create(device, memory, size, true, name, buffer, error);
}

void gpu_buffer_destroy(zs_device *device, gpu_buffer *buffer) {
    bool safe = !atomic_load(&device->stalled) || gpu_device_settle(device);
    if (safe && buffer->handle) device->vk.vkDestroyBuffer(device->handle, buffer->handle, NULL);
    if (safe && buffer->block) gpu_memory_give_back(device, buffer->block, buffer->offset, buffer->taken);
    *buffer = (gpu_buffer){0};
}

/// Copies through a staging buffer in host memory, a piece at a time.
static zs_status read_staged(zs_device *device, const gpu_buffer *buffer, uint64_t offset, uint64_t size, char *host, zs_error *error) {
    gpu_buffer staging = {0};
    gpu_command *command = NULL;
    uint64_t first = offset / 4 * 4; // copies go by words
    zs_status status = gpu_buffer_create(device, GPU_MEMORY_READBACK, size + 8 < transfer_bytes ? size + 8 : transfer_bytes, false,
                                         "read back", &staging, error);
    if (!status) status = gpu_command_create(device, "read back", &command, error);
    while (!status && size > 0) {
        uint64_t skip = offset - first, piece = staging.size / 4 * 4 - skip, value = 0;
        if (piece > size) piece = size;
        status = gpu_command_begin(command, error);
        if (status) break;
        gpu_command_copy(command, buffer, first, &staging, 0, skip + piece);
        status = gpu_command_end(command, error);
        if (!status) status = gpu_command_submit(command, &value, error);
        if (!status) status = gpu_device_wait(device, value, error);
        if (status) break;
        memcpy(host, (const char *)staging.mapped + skip, piece); // NOLINT(clang-analyzer-core.NonNullParamChecker): always mapped
        host += piece, offset += piece, size -= piece;
        first = offset / 4 * 4;
    }
    gpu_command_destroy(&command);
    gpu_buffer_destroy(device, &staging);
    return status;
}

zs_status gpu_buffer_read(zs_device *device, const gpu_buffer *buffer, uint64_t offset, uint64_t size, void *host, zs_error *error) {
    if (offset > buffer->size || size > buffer->size - offset)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "reading bytes %llu … %llu of a buffer of %llu", (unsigned long long)offset,
                            (unsigned long long)(offset + size), (unsigned long long)buffer->size);
    zs_status status = gpu_device_wait(device, atomic_load(&device->submitted), error);
    if (status || size == 0) return status;
    if (!buffer->mapped) return read_staged(device, buffer, offset, size, host, error);
    memcpy(host, (const char *)buffer->mapped + offset, size);
    return ZS_OK;
}
