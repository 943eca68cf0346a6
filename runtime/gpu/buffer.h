/// Buffers, each with a device address; sub-allocated from a few large memory blocks.
#ifndef GPU_BUFFER_H
#define GPU_BUFFER_H

#include "gpu/device.h"

typedef enum gpu_memory {
    GPU_MEMORY_DEVICE,   // device-local; mapped too where the device allows it for free (CPU and integrated devices)
    GPU_MEMORY_SHARED,   // written by the host now and then, read by kernels: device-local and host-visible where there is such
    GPU_MEMORY_READBACK, // written by kernels, read by the host: host-visible, cached
} gpu_memory;

typedef struct gpu_buffer {
    VkBuffer handle;
    uint64_t address; // device address, 256-aligned
    uint64_t size;
    void *mapped;            // host pointer (always for SHARED and READBACK, coherent), or NULL
    struct gpu_block *block; // private
    uint64_t offset, taken;  // private: its place in the block
} gpu_buffer;

/// Zeroed when zero is set (by the host or by a fill on the device). name is for debugging tools and messages. Errors:
/// ZS_ERROR_DEVICE_MEMORY with name, bytes asked and free.
zs_status gpu_buffer_create(zs_device *device, gpu_memory memory, uint64_t size, bool zero, const char *name, gpu_buffer *buffer,
                            zs_error *error);
/// Fills with zeros: by the host where it can, else on the device, waiting.
zs_status gpu_buffer_zero(zs_device *device, const gpu_buffer *buffer, zs_error *error);
/// Makes a buffer anew, zeroed, where it is smaller than `size`; what it held is lost then, and nothing submitted may be using it.
zs_status gpu_buffer_reserve(zs_device *device, gpu_memory memory, uint64_t size, const char *name, gpu_buffer *buffer, zs_error *error);
/// Waits for nothing: the caller knows that no submit uses it any more. A zeroed struct is fine.
void gpu_buffer_destroy(zs_device *device, gpu_buffer *buffer);

/// Streams data to device buffers through a ring of staging memory, overlapping the caller's reads with copies.
typedef struct gpu_upload gpu_upload;
zs_status gpu_upload_create(zs_device *device, gpu_upload **upload, zs_error *error);
/// A host pointer of `size` bytes (≤ gpu_upload_max) to be filled now; copied to buffer at offset when the next call of
/// the upload comes. Directly into mapped memory where the buffer is mapped. offset and size are multiples of 4.
zs_status gpu_upload_map(gpu_upload *upload, const gpu_buffer *buffer, uint64_t offset, uint64_t size, void **host, zs_error *error);
uint64_t gpu_upload_max(const gpu_upload *upload);
/// Copies host[size] to buffer at offset, in as many pieces as it takes; offset and size are multiples of 4.
zs_status gpu_upload_bytes(gpu_upload *upload, const gpu_buffer *buffer, uint64_t offset, uint64_t size, const void *host, zs_error *error);
/// Waits until all that was mapped so far is on the device.
zs_status gpu_upload_wait(gpu_upload *upload, zs_error *error);
/// Waits until all is on the device; frees the upload, also on failure.
zs_status gpu_upload_finish(gpu_upload **upload, zs_error *error);

/// The same for a single range, waiting.
zs_status gpu_buffer_write(zs_device *device, const gpu_buffer *buffer, uint64_t offset, uint64_t size, const void *host, zs_error *error);

/// Reads device memory back (waits for the device). For tests and rare reads.
zs_status gpu_buffer_read(zs_device *device, const gpu_buffer *buffer, uint64_t offset, uint64_t size, void *host, zs_error *error);

#endif
