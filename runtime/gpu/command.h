/// Recording of dispatches. A gpu_command is recorded once and submitted once (stream) or many times (replayed).
///
/// Work is bounded: every dispatch and copy tells its cost in bytes and floating-point operations; the recorder starts
/// another VkCommandBuffer, submitted on its own, when the estimate of the current one passes 100 ms. The estimate's rates are
/// learned per device from timestamps (or wall time of waits) of earlier submits.
#ifndef GPU_COMMAND_H
#define GPU_COMMAND_H

#include "gpu/buffer.h"
#include "gpu/kernel.h"

typedef struct gpu_command gpu_command;

zs_status gpu_command_create(zs_device *device, const char *name, gpu_command **command, zs_error *error);
/// The caller knows that no submit of it is pending.
void gpu_command_destroy(gpu_command **command);

/// Starts recording; earlier contents are dropped (no submit of them may be pending).
zs_status gpu_command_begin(gpu_command *command, zs_error *error);

typedef struct gpu_work {
    double bytes; // read and written
    double flops;
} gpu_work;

/// Records one dispatch of groups_x · groups_y · groups_z workgroups. Errors while recording are kept and returned by
/// gpu_command_end, so calls need not be checked one by one. Counts above the device's limits are an error: kernels that
/// may exceed 65535 in x fold themselves.
void gpu_command_dispatch(gpu_command *command, const gpu_kernel *kernel, const void *push, uint32_t push_size, uint32_t groups_x,
                          uint32_t groups_y, uint32_t groups_z, gpu_work work);
/// Everything recorded before is visible to everything after (compute and transfer, read and write; host reads at the end).
void gpu_command_barrier(gpu_command *command);
void gpu_command_copy(gpu_command *command, const gpu_buffer *from, uint64_t from_offset, const gpu_buffer *to, uint64_t to_offset,
                      uint64_t size);
/// offset and size multiples of 4.
void gpu_command_fill(gpu_command *command, const gpu_buffer *buffer, uint64_t offset, uint64_t size, uint32_t value);
/// A label for debugging tools and the per-kernel timing: dispatches until the next label belong to it. Static string.
void gpu_command_label(gpu_command *command, const char *label);
/// Remembers a failure met while recording (first one wins).
void gpu_command_fail(gpu_command *command, const zs_error *error);
zs_device *gpu_command_device(const gpu_command *command);
uint32_t gpu_command_dispatch_count(const gpu_command *command);

/// Memory for what dispatches read besides their push constants, and may write: a copy of `data` that lasts until the next begin and keeps
/// what they write. Its device address, on 16 bytes; 0 after a failure, which is kept.
uint64_t gpu_command_constants(gpu_command *command, const void *data, uint64_t size);

/// Ends recording. A recorded failure is returned here.
zs_status gpu_command_end(gpu_command *command, zs_error *error);
/// Submits; *value is the timeline value that is reached when all of it is done. Submits run in order, each after the one before.
/// Host writes to mapped buffers made before the call are visible to it.
zs_status gpu_command_submit(gpu_command *command, uint64_t *value, zs_error *error);
/// GPU time of the last completed submit in ms (first to last timestamp of all parts, pauses between parts included);
/// negative without timestamps.
double gpu_command_last_ms(gpu_command *command);
/// Submits it so many times, after once to warm up, each time waiting: the least of gpu_command_last_ms.
zs_status gpu_command_time(gpu_command *command, uint32_t runs, double *best_ms, zs_error *error);

/// With shares > 0 (before begin), dispatches are recorded without workgroups: submitting them touches no memory, but makes the driver
/// finish what it leaves until a pipeline's first use. Only every shares-th is, from `share` on, so that threads can divide a step's
/// kernels between them. Not together with profiling. 0, 0: off.
void gpu_command_set_empty(gpu_command *command, uint32_t share, uint32_t shares);
/// Whether the next dispatch is one of them; to be asked once for each, before its kernel is made. Always, when that is off.
bool gpu_command_takes_next(gpu_command *command);

/// Timing per dispatch, for bench: when on (before begin), a timestamp is written after every dispatch with its own barrier.
void gpu_command_set_profiling(gpu_command *command, bool on);
typedef struct gpu_dispatch_time {
    const char *label, *kernel;
    double ms;
    gpu_work work;
} gpu_dispatch_time;
/// Of the last completed submit; *times is valid until the next begin. 0 without profiling.
size_t gpu_command_times(gpu_command *command, const gpu_dispatch_time **times);

#endif
