/// zs_bench_device: how fast a device reads and calculates when nothing stands in its way.
#include "gpu/command.h"
#include "shaders/shared.h"
#include "zsigma/zsigma_lab.h"

#include <string.h>

enum { RUNS = 4, WORKGROUP = 128, GROUPS = 2048, CPU_GROUPS = 64, STAGES = 200 };
static const double aim_ms = 50; // of one dispatch

typedef struct peak_bench {
    zs_device *device;
    gpu_command *command;
    gpu_buffer data, out;
    uint32_t groups, workgroup;
} peak_bench;

/// One dispatch of a kernel, timed; negative ms without timestamps.
static zs_status time_once(peak_bench *b, const gpu_kernel_key *key, uint32_t count, gpu_work work, double *ms, zs_error *error) {
    const gpu_kernel *kernel = NULL;
    uint64_t value;
    zs_status status = gpu_kernel_get(b->device, key, &kernel, error);
    if (!status) status = gpu_command_begin(b->command, error);
    if (status) return status;
    // GPUs read one stream together; a CPU's cores, which wait for pages and fetch what comes next by themselves, one each.
    uint32_t together = b->workgroup * b->groups;
    bool cpu = gpu_device_caps(b->device)->cpu;
    PushPeak push = {.in_ = b->data.address,
                     .out_ = b->out.address,
                     .factor = 0.5f,
                     .count = count,
                     .step = cpu ? b->workgroup : together,
                     .apart = cpu ? 4 * b->workgroup * count : b->workgroup};
    gpu_command_dispatch(b->command, kernel, &push, sizeof push, b->groups, 1, 1, work);
    status = gpu_command_end(b->command, error);
    if (!status) status = gpu_command_submit(b->command, &value, error);
    if (!status) status = gpu_device_wait(b->device, value, error);
    if (status) return status;
    *ms = gpu_command_last_ms(b->command);
    if (*ms < 0) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the device has no timestamps, so its peaks cannot be measured");
    return ZS_OK;
}

/// Best rate over some runs, in 1e9 of `unit` (bytes or operations of one round) a second. Rounds grow until a dispatch is long enough
/// to be timed; reads keep their length, the buffer's.
static zs_status measure(peak_bench *b, const gpu_kernel_key *key, uint32_t count, bool grow, gpu_work unit, double *best,
                         zs_error *error) {
    *best = 0;
    for (uint32_t run = 0; run <= RUNS; run++) { // the first warms up
        double ms;
        gpu_work work = {.bytes = unit.bytes * count, .flops = unit.flops * count};
        zs_status status = time_once(b, key, count, work, &ms, error);
        if (status) return status;
        double rate = (work.bytes + work.flops) / (ms > 1e-3 ? ms : 1e-3) * 1e-6;
        if (run && rate > *best) *best = rate;
        double times = aim_ms / (ms > 0.1 ? ms : 0.1);
        if (grow && times > 1) count = (uint32_t)(count * (times > 8 ? 8 : times));
    }
    return ZS_OK;
}

static zs_status measure_read(peak_bench *b, double *best, zs_error *error) {
    const gpu_caps *caps = gpu_device_caps(b->device);
    const bool touch = caps->cpu && (caps->tiers & ZS_TIER_STORAGE);
    const gpu_kernel_key key = {
        .module = touch ? SHADER_peak_read_lanes : SHADER_peak_read, .constant_count = 1, .constants = {b->workgroup}};
    uint32_t turn = 4 * 16 * b->groups * b->workgroup; // bytes that a turn of the kernel's loop reads
    return measure(b, &key, (uint32_t)(b->data.size / turn), false, (gpu_work){.bytes = turn}, best, error);
}

static zs_status measure_fma(peak_bench *b, double *best, zs_error *error) {
    const gpu_kernel_key key = {.module = SHADER_peak_fma, .constant_count = 1, .constants = {b->workgroup}};
    return measure(b, &key, 64, true, (gpu_work){.flops = 64.0 * b->workgroup * b->groups}, best, error);
}

static zs_status measure_matrix(peak_bench *b, double *best, zs_error *error) {
    const gpu_caps *caps = gpu_device_caps(b->device);
    const gpu_matrix_units *m = &caps->matrix;
    *best = 0;
    if (!(caps->tiers & ZS_TIER_MATRIX)) return ZS_OK;
    uint32_t subgroups = 4;
    const gpu_kernel_key key = {.module = SHADER_peak_matrix,
                                .subgroup_size = caps->subgroup_size,
                                .constant_count = 4,
                                .constants = {subgroups * caps->subgroup_size, m->m, m->n, m->k}};
    return measure(b, &key, 16, true, (gpu_work){.flops = 8.0 * m->m * m->n * m->k * subgroups * b->groups}, best, error);
}

/// Dispatches of one idle workgroup, each after the one before.
static zs_status measure_stage(peak_bench *b, double *us, zs_error *error) {
    const gpu_kernel_key key = {.module = SHADER_peak_fma, .constant_count = 1, .constants = {32}};
    const PushPeak push = {.in_ = b->data.address, .out_ = b->out.address, .factor = 0.5f};
    const gpu_kernel *kernel = NULL;
    zs_status status = gpu_kernel_get(b->device, &key, &kernel, error);
    if (!status) status = gpu_command_begin(b->command, error);
    for (uint32_t i = 0; i < STAGES && !status; i++) {
        gpu_command_dispatch(b->command, kernel, &push, sizeof push, 1, 1, 1, (gpu_work){0});
        gpu_command_barrier(b->command);
    }
    if (!status) status = gpu_command_end(b->command, error);
    double best = 0;
    if (!status) status = gpu_command_time(b->command, RUNS, &best, error);
    *us = best * 1e3 / STAGES;
    return status;
}

zs_status zs_bench_device(zs_device *device, zs_device_peaks *peaks, zs_error *error) {
    const gpu_caps *caps = gpu_device_caps(device);
    peak_bench b = {.device = device, .groups = caps->cpu ? CPU_GROUPS : GROUPS, .workgroup = caps->cpu ? caps->subgroup_size : WORKGROUP};
    uint64_t bytes = caps->cpu ? 128u << 20 : 512u << 20, limit = gpu_device_memory_free(device) / 4;
    if (bytes > limit) bytes = limit;
    if (bytes > caps->max_allocation) bytes = caps->max_allocation;
    zs_device_peaks found = {0};
    zs_status status = gpu_buffer_create(device, GPU_MEMORY_DEVICE, bytes / 256 * 256, true, "device bench", &b.data, error);
    if (!status) status = gpu_buffer_create(device, GPU_MEMORY_DEVICE, 256, true, "device bench result", &b.out, error);
    if (!status) status = gpu_command_create(device, "device bench", &b.command, error);
    if (!status) status = measure_read(&b, &found.read_gb_per_s, error);
    if (!status) status = measure_fma(&b, &found.fma_gflop_per_s, error);
    if (!status) status = measure_matrix(&b, &found.matrix_gflop_per_s, error);
    if (!status) status = measure_stage(&b, &found.stage_us, error);
    if (!status) *peaks = found;
    gpu_command_destroy(&b.command);
    gpu_buffer_destroy(device, &b.out);
    gpu_buffer_destroy(device, &b.data);
    return status;
}
