#include "gpu/device_private.h"

#include "gpu/command.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 3 };
static const uint64_t slot_bytes = 16u << 20;

/// A piece of staging memory with the copies out of it, collected until it is full.
typedef struct upload_slot {
    gpu_buffer staging;
    gpu_command *command;
    uint64_t used;  // bytes
    uint64_t value; // timeline value of its submit
} upload_slot;

struct gpu_upload {
    zs_device *device;
    upload_slot slots[SLOTS];
    uint32_t current;
    bool recording;
    gpu_buffer target; // of the piece handed out last, when it lies in the slot
    uint64_t target_offset, pending_offset, pending_bytes;
    uint64_t slot_bytes;
};

zs_status gpu_upload_create(zs_device *device, gpu_upload **upload, zs_error *error) {
    gpu_upload *made = calloc(1, sizeof *made);
    if (!made) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an upload");
    made->device = device;
    made->slot_bytes = slot_bytes < device->caps.max_allocation / 4 * 4 ? slot_bytes : device->caps.max_allocation / 4 * 4;
    *upload = made;
    return ZS_OK;
}

uint64_t gpu_upload_max(const gpu_upload *upload) { return upload->slot_bytes; }

/// Records the copy of the piece that the caller has filled by now.
static void record_pending(gpu_upload *upload) {
    if (upload->pending_bytes == 0) return;
    upload_slot *slot = &upload->slots[upload->current];
    gpu_command_copy(slot->command, &slot->staging, upload->pending_offset, &upload->target, upload->target_offset, upload->pending_bytes);
    upload->pending_bytes = 0;
}

/// Sends the current slot off and turns to the next.
static zs_status send(gpu_upload *upload, zs_error *error) {
    if (!upload->recording) return ZS_OK;
    upload_slot *slot = &upload->slots[upload->current];
    upload->recording = false;
    zs_status status = gpu_command_end(slot->command, error);
    if (!status) status = gpu_command_submit(slot->command, &slot->value, error);
    upload->current = (upload->current + 1) % SLOTS;
    return status;
}

/// Makes the current slot ready to take pieces: its memory on first use, its last copies finished.
static zs_status open_slot(gpu_upload *upload, zs_error *error) {
    if (upload->recording) return ZS_OK;
    upload_slot *slot = &upload->slots[upload->current];
    zs_status status = ZS_OK;
    // Cached host memory, because converting weights reads back what it wrote now and then.
    if (!slot->staging.handle)
        status = gpu_buffer_create(upload->device, GPU_MEMORY_READBACK, upload->slot_bytes, false, "staging", &slot->staging, error);
    if (!status && !slot->command) status = gpu_command_create(upload->device, "upload", &slot->command, error);
    if (!status && slot->value) status = gpu_device_wait(upload->device, slot->value, error);
    if (!status) status = gpu_command_begin(slot->command, error);
    slot->used = 0;
    upload->recording = !status;
    return status;
}

zs_status gpu_upload_map(gpu_upload *upload, const gpu_buffer *buffer, uint64_t offset, uint64_t size, void **host, zs_error *error) {
    uint64_t room = (buffer->size + 3) / 4 * 4;
    if (offset % 4 || size % 4 || offset > room || size > room - offset || (!buffer->mapped && size > upload->slot_bytes))
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "an upload of %llu bytes to offset %llu does not suit a buffer of %llu bytes",
                            (unsigned long long)size, (unsigned long long)offset, (unsigned long long)buffer->size);
    record_pending(upload);
    if (buffer->mapped) {
        *host = (char *)buffer->mapped + offset;
        return ZS_OK;
    }
    zs_status status = ZS_OK;
    if (upload->recording && upload->slots[upload->current].used + size > upload->slot_bytes) status = send(upload, error);
    if (!status) status = open_slot(upload, error);
    if (status) return status;
    upload_slot *slot = &upload->slots[upload->current];
    upload->target = *buffer;
    upload->target_offset = offset;
    upload->pending_offset = slot->used;
    upload->pending_bytes = size;
    slot->used += (size + 15) / 16 * 16;
    *host = (char *)slot->staging.mapped + upload->pending_offset;
    return ZS_OK;
}

zs_status gpu_upload_wait(gpu_upload *upload, zs_error *error) {
    record_pending(upload);
    zs_status status = send(upload, error);
    for (uint32_t i = 0; i < SLOTS && !status; i++) {
        if (upload->slots[i].value) status = gpu_device_wait(upload->device, upload->slots[i].value, error);
    }
    return status;
}

zs_status gpu_upload_finish(gpu_upload **upload, zs_error *error) {
    gpu_upload *u = *upload;
    if (!u) return ZS_OK;
    zs_status status = ZS_OK;
    record_pending(u);
    status = send(u, error);
    for (uint32_t i = 0; i < SLOTS; i++) {
        upload_slot *slot = &u->slots[i];
        if (!status && slot->value) status = gpu_device_wait(u->device, slot->value, error);
        gpu_command_destroy(&slot->command);
        gpu_buffer_destroy(u->device, &slot->staging);
    }
    free(u);
    *upload = NULL;
    return status;
}

zs_status gpu_upload_bytes(gpu_upload *upload, const gpu_buffer *buffer, uint64_t offset, uint64_t size, const void *host,
                           zs_error *error) {
    zs_status status = ZS_OK;
    for (uint64_t at = 0; at < size && !status; at += upload->slot_bytes) {
        uint64_t piece = size - at < upload->slot_bytes ? size - at : upload->slot_bytes;
        void *to;
        status = gpu_upload_map(upload, buffer, offset + at, piece, &to, error);
        if (!status) memcpy(to, (const uint8_t *)host + at, piece);
    }
    return status;
}

zs_status gpu_buffer_write(zs_device *device, const gpu_buffer *buffer, uint64_t offset, uint64_t size, const void *host, zs_error *error) {
    gpu_upload *upload = NULL;
    zs_status status = gpu_upload_create(device, &upload, error);
    if (!status) status = gpu_upload_bytes(upload, buffer, offset, size, host, error);
    zs_status finished = gpu_upload_finish(&upload, status ? NULL : error);
    return status ? status : finished;
}
