#include "gpu/device_private.h"

#include "gpu/command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROFILE_QUERIES = 1024, CONSTANTS_BYTES = 64 << 10, CONSTANTS_ALIGNMENT = 16 };
static const double part_ns = 100e6;            // a part is closed when its estimate passes this
static const double dispatch_ns = 5e3;          // what a dispatch takes besides its bytes and operations
static const double copy_ns_per_byte = 1 / 5.0; // 5 GB/s: a slow bus, so that copies stay bounded anywhere

/// One VkCommandBuffer, submitted on its own.
typedef struct command_part {
    VkCommandBuffer buffer;
    VkQueryPool queries; // its first and last moment, or every dispatch's when profiling; none without timestamps
    uint32_t query_capacity, query_count;
    uint32_t first_dispatch, dispatch_count;
    double work_ns;  // estimate of dispatches' work
    gpu_work bound;  // what decides it
    double other_ns; // estimate of copies, fills and fixed costs
} command_part;

/// A piece of memory that gpu_command_constants hands out from its beginning on.
typedef struct command_constants {
    gpu_buffer buffer;
    uint64_t used;
} command_constants;

struct gpu_command {
    zs_device *device;
    const char *name;
    VkCommandPool pool;
    command_part *parts; // made ones, of which part_count are in use
    size_t part_count, made_count;
    command_constants *constants; // [constants_count], filled one after another
    size_t constants_count;
    bool recording, recorded;
    bool profiling, profile_next;  // of what is recorded, and of what will be
    uint32_t share, shares, asked; // dispatches have no workgroups, and only those of the share are recorded; shares 0: off
    zs_error error;                // first failure while recording
    const gpu_kernel *bound;
    const char *label;
    bool label_open;
    uint32_t dispatch_count;
    gpu_dispatch_time *times; // per dispatch, when profiling
    size_t time_capacity;
    uint64_t first_value, last_value; // of the first and last submit since begin; 0: none
    uint64_t learned_value;           // last submit that the rates were taught by
    double last_ms;
};

zs_device *gpu_command_device(const gpu_command *command) { return command->device; }
uint32_t gpu_command_dispatch_count(const gpu_command *command) { return command->dispatch_count; }
void gpu_command_set_empty(gpu_command *command, uint32_t share, uint32_t shares) {
    command->share = share;
    command->shares = shares;
    command->asked = 0;
}

bool gpu_command_takes_next(gpu_command *command) { return !command->shares || command->asked++ % command->shares == command->share; }

void gpu_command_set_profiling(gpu_command *command, bool on) { command->profile_next = on; }

zs_status gpu_command_create(zs_device *device, const char *name, gpu_command **command, zs_error *error) {
    zs_status status = gpu_device_check(device, error);
    if (status) return status;
    gpu_command *made = calloc(1, sizeof *made);
    if (!made) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for command %s", name);
    made->device = device;
    made->name = name;
    made->last_ms = -1;
    VkCommandPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = device->physical.queue_family};
    VkResult result = device->vk.vkCreateCommandPool(device->handle, &info, NULL, &made->pool);
    if (result) {
        free(made);
        return gpu_device_fail(device, result, error, "creating a command pool");
    }
    gpu_device_name(device, VK_OBJECT_TYPE_COMMAND_POOL, (uint64_t)made->pool, name);
    *command = made;
    return ZS_OK;
}

void gpu_command_destroy(gpu_command **command) {
    gpu_command *c = *command;
    if (!c) return;
    *command = NULL;
    zs_device *device = c->device;
    // After a failure submits may be left pending; what a hanging device still reads is leaked.
    bool idle = c->last_value == 0 || gpu_device_done(device) >= c->last_value || gpu_device_settle(device);
    for (size_t i = 0; i < c->made_count && idle; i++)
        if (c->parts[i].queries) device->vk.vkDestroyQueryPool(device->handle, c->parts[i].queries, NULL);
    if (idle) device->vk.vkDestroyCommandPool(device->handle, c->pool, NULL);
    for (size_t i = 0; i < c->constants_count && idle; i++) gpu_buffer_destroy(device, &c->constants[i].buffer);
    free(c->constants);
    free(c->parts);
    free(c->times);
    free(c);
}

void gpu_command_fail(gpu_command *command, const zs_error *error) {
    if (!command->error.status) command->error = *error;
}

static void fail_vulkan(gpu_command *command, VkResult result, const char *what) {
    zs_error error = {0};
    gpu_device_fail(command->device, result, &error, what);
    gpu_command_fail(command, &error);
}

static bool failed(const gpu_command *command) { return command->error.status != ZS_OK; }
static command_part *current(gpu_command *command) { return &command->parts[command->part_count - 1]; }

// ---- measuring --------------------------------------------------------------------------------------------------------

/// The queries of a part in ns from an arbitrary start. False when they are not all there.
static bool read_queries(const gpu_command *command, const command_part *part, uint64_t *ticks) {
    const zs_device *device = command->device;
    VkResult result = device->vk.vkGetQueryPoolResults(device->handle, part->queries, 0, part->query_count,
                                                       part->query_count * sizeof *ticks, ticks, sizeof *ticks, VK_QUERY_RESULT_64_BIT);
    return result == VK_SUCCESS;
}

static double ticks_between(const zs_device *device, uint64_t from, uint64_t to) {
    uint64_t mask = device->physical.timestamp_bits >= 64 ? UINT64_MAX : ((uint64_t)1 << device->physical.timestamp_bits) - 1;
    return (double)((to - from) & mask) * device->caps.timestamp_ns;
}

/// Takes over the timestamps of the last finished run and teaches the rates by them. When a later submit of the same
/// command is running already, its queries may be half reset: then what was known before stays.
static void collect(gpu_command *command) {
    zs_device *device = command->device;
    uint64_t ticks[PROFILE_QUERIES], first = 0, last = 0;
    if (device->caps.timestamp_ns == 0 || command->first_value == 0 || command->learned_value == command->last_value) return;
    if (atomic_load(&device->lost) || gpu_device_done(device) < command->first_value) return;
    for (size_t i = 0; i < command->part_count; i++) {
        const command_part *part = &command->parts[i];
        if (!read_queries(command, part, ticks)) return;
        if (i == 0) first = ticks[0];
        last = ticks[part->query_count - 1];
        double ns = ticks_between(device, ticks[0], last);
        if (part->other_ns < 0.1 * part->work_ns && !command->profiling && !command->shares)
            gpu_rates_learn(&device->rates, part->bound, ns);
        for (uint32_t j = 0; command->profiling && j + 1 < part->query_count; j++)
            command->times[part->first_dispatch + j].ms = ticks_between(device, ticks[j], ticks[j + 1]) * 1e-6;
    }
    if (command->part_count > 0) command->last_ms = ticks_between(device, first, last) * 1e-6;
    command->learned_value = command->last_value;
}

double gpu_command_last_ms(gpu_command *command) {
    collect(command);
    return command->last_ms;
}

zs_status gpu_command_time(gpu_command *command, uint32_t runs, double *best_ms, zs_error *error) {
    zs_status status = ZS_OK;
    *best_ms = INFINITY;
    for (uint32_t i = 0; i <= runs && !status; i++) {
        uint64_t value;
        status = gpu_command_submit(command, &value, error);
        if (!status) status = gpu_device_wait(command->device, value, error);
        if (i && !status) *best_ms = fmin(*best_ms, gpu_command_last_ms(command));
    }
    return status;
}

size_t gpu_command_times(gpu_command *command, const gpu_dispatch_time **times) {
    collect(command);
    *times = command->times;
    return command->profiling && command->learned_value ? command->dispatch_count : 0;
}

// ---- parts ------------------------------------------------------------------------------------------------------------

static void memory_barrier(gpu_command *command, bool to_host) {
    VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
        .srcAccessMask = VK_ACCESS_2_SHADER_WRITE_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
        .dstStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT,
        .dstAccessMask =
            VK_ACCESS_2_SHADER_READ_BIT | VK_ACCESS_2_SHADER_WRITE_BIT | VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_TRANSFER_WRITE_BIT,
    };
    if (to_host) {
        barrier.dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT;
        barrier.dstAccessMask = VK_ACCESS_2_HOST_READ_BIT;
    }
    VkDependencyInfo dependency = {.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO, .memoryBarrierCount = 1, .pMemoryBarriers = &barrier};
    command->device->vk.vkCmdPipelineBarrier2(current(command)->buffer, &dependency);
}

static void write_timestamp(gpu_command *command) {
    command_part *part = current(command);
    if (part->queries)
        command->device->vk.vkCmdWriteTimestamp2(part->buffer, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, part->queries, part->query_count++);
}

static void open_label(gpu_command *command) {
    if (!command->label || !command->device->instance.debug_utils) return;
    VkDebugUtilsLabelEXT label = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = command->label};
    command->device->instance.vkCmdBeginDebugUtilsLabelEXT(current(command)->buffer, &label);
    command->label_open = true;
}

static void close_label(gpu_command *command) {
    if (command->label_open) command->device->instance.vkCmdEndDebugUtilsLabelEXT(current(command)->buffer);
    command->label_open = false;
}

/// Makes the Vulkan objects of one more part.
static bool make_part(gpu_command *command) {
    zs_device *device = command->device;
    if ((command->made_count & (command->made_count - 1)) == 0) { // room for a power of two
        size_t capacity = command->made_count ? 2 * command->made_count : 1;
        command_part *parts = realloc(command->parts, capacity * sizeof *parts);
        if (!parts) {
            fail_vulkan(command, VK_ERROR_OUT_OF_HOST_MEMORY, command->name);
            return false;
        }
        command->parts = parts;
    }
    command_part part = {0};
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = command->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkResult result = device->vk.vkAllocateCommandBuffers(device->handle, &info, &part.buffer);
    if (result) {
        fail_vulkan(command, result, command->name);
        return false;
    }
    gpu_device_name(device, VK_OBJECT_TYPE_COMMAND_BUFFER, (uint64_t)(uintptr_t)part.buffer, command->name);
    command->parts[command->made_count++] = part;
    return true;
}

/// Gives a part as many queries as its kind of timing needs.
static bool prepare_queries(gpu_command *command, command_part *part) {
    zs_device *device = command->device;
    uint32_t capacity = command->profiling ? PROFILE_QUERIES : 2;
    if (device->caps.timestamp_ns == 0 || part->query_capacity == capacity) return true;
    if (part->queries) device->vk.vkDestroyQueryPool(device->handle, part->queries, NULL);
    part->queries = VK_NULL_HANDLE;
    part->query_capacity = 0;
    VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = capacity};
    VkResult result = device->vk.vkCreateQueryPool(device->handle, &info, NULL, &part->queries);
    if (result) {
        fail_vulkan(command, result, command->name);
        return false;
    }
    part->query_capacity = capacity;
    return true;
}

static void open_part(gpu_command *command) {
    zs_device *device = command->device;
    if (command->part_count == command->made_count && !make_part(command)) return;
    command_part *part = &command->parts[command->part_count];
    if (!prepare_queries(command, part)) return;
    part->query_count = 0;
    part->first_dispatch = command->dispatch_count;
    part->dispatch_count = 0;
    part->work_ns = part->other_ns = 0;
    part->bound = (gpu_work){0};
    // Submitted again while an earlier submit still runs: the decode step is replayed ahead of the host.
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    VkResult result = device->vk.vkBeginCommandBuffer(part->buffer, &info);
    if (result) {
        fail_vulkan(command, result, command->name);
        return;
    }
    command->part_count++;
    command->bound = NULL;
    if (part->queries) device->vk.vkCmdResetQueryPool(part->buffer, part->queries, 0, part->query_capacity);
    memory_barrier(command, false); // order of submission alone makes nothing visible
    write_timestamp(command);
    open_label(command);
}

static void close_part(gpu_command *command) {
    close_label(command);
    memory_barrier(command, true);
    if (!command->profiling) write_timestamp(command);
    VkResult result = command->device->vk.vkEndCommandBuffer(current(command)->buffer);
    if (result) fail_vulkan(command, result, command->name);
}

/// Starts another part when the current one cannot take this much more.
static bool make_room(gpu_command *command, double ns) {
    if (failed(command)) return false;
    command_part *part = current(command);
    double sum = part->work_ns + part->other_ns;
    bool full = (sum > 0 && sum + ns > part_ns) || (command->profiling && part->dispatch_count + 1 >= PROFILE_QUERIES);
    if (full) {
        close_part(command);
        if (!failed(command)) open_part(command);
    }
    return !failed(command);
}

// ---- recording --------------------------------------------------------------------------------------------------------

zs_status gpu_command_begin(gpu_command *command, zs_error *error) {
    zs_device *device = command->device;
    zs_status status = gpu_device_check(device, error);
    if (status) return status;
    collect(command);
    VkResult result = device->vk.vkResetCommandPool(device->handle, command->pool, 0);
    if (result) return gpu_device_fail(device, result, error, command->name);
    command->profiling = command->profile_next;
    command->part_count = 0;
    for (size_t i = 0; i < command->constants_count; i++) command->constants[i].used = 0;
    command->dispatch_count = 0;
    command->error = (zs_error){0};
    command->label = NULL;
    command->label_open = false;
    command->first_value = command->last_value = command->learned_value = 0;
    command->recorded = false;
    command->recording = true;
    open_part(command);
    return ZS_OK;
}

/// Keeps a row for the dispatch's time.
static bool note_dispatch(gpu_command *command, const gpu_kernel *kernel, gpu_work work) {
    if (!command->profiling) return true;
    if (command->dispatch_count == command->time_capacity) {
        size_t capacity = command->time_capacity ? 2 * command->time_capacity : 256;
        gpu_dispatch_time *times = realloc(command->times, capacity * sizeof *times);
        if (!times) {
            fail_vulkan(command, VK_ERROR_OUT_OF_HOST_MEMORY, command->name);
            return false;
        }
        command->times = times;
        command->time_capacity = capacity;
    }
    command->times[command->dispatch_count] =
        (gpu_dispatch_time){command->label ? command->label : "", gpu_kernel_module(kernel)->name, 0, work};
    return true;
}

static bool check_dispatch(gpu_command *command, const gpu_kernel *kernel, uint32_t push_size, const uint32_t groups[3]) {
    const shader_module *module = gpu_kernel_module(kernel);
    const uint32_t *most = command->device->caps.max_workgroups;
    zs_error error = {0};
    if (push_size != module->push_size)
        zs_error_set(&error, ZS_ERROR_ARGUMENT, "kernel %s takes %u bytes of push constants, not %u", module->name, module->push_size,
                     push_size);
    else if (groups[0] > most[0] || groups[1] > most[1] || groups[2] > most[2])
        zs_error_set(&error, ZS_ERROR_UNSUPPORTED, "kernel %s needs %u × %u × %u workgroups, but %s allows %u × %u × %u", module->name,
                     groups[0], groups[1], groups[2], command->device->physical.info.name, most[0], most[1], most[2]);
    if (error.status) gpu_command_fail(command, &error);
    return error.status == ZS_OK;
}

void gpu_command_dispatch(gpu_command *command, const gpu_kernel *kernel, const void *push, uint32_t push_size, uint32_t groups_x,
                          uint32_t groups_y, uint32_t groups_z, gpu_work work) {
    const struct VolkDeviceTable *vk = &command->device->vk;
    if (failed(command) || groups_x == 0 || groups_y == 0 || groups_z == 0) return;
    if (!check_dispatch(command, kernel, push_size, (const uint32_t[]){groups_x, groups_y, groups_z})) return;
    if (command->shares) {
        groups_x = groups_y = groups_z = 0;
        work = (gpu_work){0};
    }
    gpu_estimate estimate = gpu_rates_estimate(&command->device->rates, work);
    if (!make_room(command, estimate.ns + dispatch_ns) || !note_dispatch(command, kernel, work)) return;
    command_part *part = current(command);
    if (command->bound != kernel) vk->vkCmdBindPipeline(part->buffer, VK_PIPELINE_BIND_POINT_COMPUTE, gpu_kernel_pipeline(kernel));
    command->bound = kernel;
    if (push_size) vk->vkCmdPushConstants(part->buffer, command->device->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_size, push);
    vk->vkCmdDispatch(part->buffer, groups_x, groups_y, groups_z);
    part->work_ns += estimate.ns;
    part->bound.bytes += estimate.bound.bytes;
    part->bound.flops += estimate.bound.flops;
    part->other_ns += dispatch_ns;
    part->dispatch_count++;
    command->dispatch_count++;
    if (command->profiling) {
        memory_barrier(command, false);
        write_timestamp(command);
    }
}

void gpu_command_barrier(gpu_command *command) {
    if (!failed(command)) memory_barrier(command, false);
}

static bool range_fits(gpu_command *command, const gpu_buffer *buffer, uint64_t offset, uint64_t size, const char *what) {
    uint64_t room = (buffer->size + 3) / 4 * 4;
    if (offset <= room && size <= room - offset && buffer->handle) return true;
    zs_error error = {0};
    zs_error_set(&error, ZS_ERROR_ARGUMENT, "%s in %s: %llu bytes at offset %llu leave a buffer of %llu bytes", what, command->name,
                 (unsigned long long)size, (unsigned long long)offset, (unsigned long long)buffer->size);
    gpu_command_fail(command, &error);
    return false;
}

void gpu_command_copy(gpu_command *command, const gpu_buffer *from, uint64_t from_offset, const gpu_buffer *to, uint64_t to_offset,
                      uint64_t size) {
    double ns = (double)size * copy_ns_per_byte;
    if (failed(command) || size == 0 || !range_fits(command, from, from_offset, size, "copy") ||
        !range_fits(command, to, to_offset, size, "copy"))
        return;
    if (!make_room(command, ns)) return;
    VkBufferCopy region = {from_offset, to_offset, size};
    command->device->vk.vkCmdCopyBuffer(current(command)->buffer, from->handle, to->handle, 1, &region);
    current(command)->other_ns += ns;
}

void gpu_command_fill(gpu_command *command, const gpu_buffer *buffer, uint64_t offset, uint64_t size, uint32_t value) {
    double ns = (double)size * copy_ns_per_byte;
    if (failed(command) || size == 0 || !range_fits(command, buffer, offset, size, "fill")) return;
    if (!make_room(command, ns)) return;
    command->device->vk.vkCmdFillBuffer(current(command)->buffer, buffer->handle, offset, size, value);
    current(command)->other_ns += ns;
}

void gpu_command_label(gpu_command *command, const char *label) {
    if (failed(command)) return;
    close_label(command);
    command->label = label;
    open_label(command);
}

/// Memory with room for `size` bytes: one that is there, or another.
static command_constants *constants_for(gpu_command *command, uint64_t size, zs_error *error) {
    for (size_t i = 0; i < command->constants_count; i++)
        if (size <= command->constants[i].buffer.size - command->constants[i].used) return &command->constants[i];
    command_constants *grown = realloc(command->constants, (command->constants_count + 1) * sizeof *grown);
    if (!grown) {
        zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for command %s", command->name);
        return NULL;
    }
    command->constants = grown;
    command_constants *made = &grown[command->constants_count];
    *made = (command_constants){0};
    uint64_t bytes = size > CONSTANTS_BYTES ? size : CONSTANTS_BYTES;
    if (gpu_buffer_create(command->device, GPU_MEMORY_SHARED, bytes, false, "constants", &made->buffer, error)) return NULL;
    command->constants_count++;
    return made;
}

uint64_t gpu_command_constants(gpu_command *command, const void *data, uint64_t size) {
    zs_error error = {0};
    if (failed(command)) return 0;
    command_constants *constants = constants_for(command, size, &error);
    if (!constants) {
        gpu_command_fail(command, &error);
        return 0;
    }
    uint64_t at = constants->used;
    memcpy((char *)constants->buffer.mapped + at, data, size);
    uint64_t end = (at + size + CONSTANTS_ALIGNMENT - 1) / CONSTANTS_ALIGNMENT * CONSTANTS_ALIGNMENT;
    constants->used = end < constants->buffer.size ? end : constants->buffer.size;
    return constants->buffer.address + at;
}

zs_status gpu_command_end(gpu_command *command, zs_error *error) {
    if (!command->recording) return zs_error_set(error, ZS_ERROR_ARGUMENT, "command %s: end without begin", command->name);
    command->recording = false;
    if (!failed(command)) close_part(command);
    if (failed(command)) return zs_error_set(error, command->error.status, "%s", command->error.message);
    command->recorded = true;
    return ZS_OK;
}

zs_status gpu_command_submit(gpu_command *command, uint64_t *value, zs_error *error) {
    zs_device *device = command->device;
    if (!command->recorded) return zs_error_set(error, ZS_ERROR_ARGUMENT, "command %s is not recorded", command->name);
    collect(command);
    for (size_t i = 0; i < command->part_count; i++) {
        uint64_t part_value;
        if (device->caps.timestamp_ns == 0) gpu_rates_submitted(&device->rates, command->parts[i].bound, gpu_now_ns());
        zs_status status = gpu_device_submit(device, command->parts[i].buffer, &part_value, error);
        if (status) return status;
        command->last_value = part_value;
    }
    if (command->first_value == 0) command->first_value = command->last_value;
    *value = command->last_value;
    return ZS_OK;
}
