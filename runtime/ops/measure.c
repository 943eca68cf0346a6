/// Are the device's matrix units worth it? Drivers exist whose matrices are slower than none by orders of magnitude, or wrong.
#include "gpu/command.h"
#include "gpu/settings.h"
#include "ops/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 4096, ROWS = 512, RUNS = 3, SHAPES = 6 };
static const char extension[] = "matrix";

/// What the cache folder keeps.
typedef struct finding {
    op_matrix_shape best; // tile 0: none
    float plain_ms, best_ms;
} finding;

/// y[ROWS, SIDE] = x · Wᵀ in one range of memory.
typedef struct trial {
    zs_device *device;
    gpu_command *command;
    matrix weight;
    gpu_buffer memory;
    op_linear op;
    float *plain, *found; // [ROWS, SIDE]
} trial;

/// Numbers without a pattern, −1 … 1.
static float number(uint32_t i) {
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return (float)(i >> 8) / 8388608.0f - 1;
}

/// Weights of ±0.03 … 0.06, x of −1 … 1.
static zs_status fill(trial *t, zs_error *error) {
    uint16_t *w = malloc(2ull * SIDE * SIDE);
    float *x = malloc(4ull * ROWS * SIDE);
    zs_status status = w && x ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for measuring matrix units");
    for (uint32_t i = 0; i < SIDE * SIDE && !status; i++)
        w[i] = (uint16_t)(0x2800 | (number(i) < 0 ? 0x8000u : 0u) | (i * 0x9E3779B9u >> 22));
    for (uint32_t i = 0; i < ROWS * SIDE && !status; i++) x[i] = number(i);
    if (!status) status = gpu_buffer_write(t->device, &t->memory, 0, 2ull * SIDE * SIDE, w, error);
    if (!status) status = gpu_buffer_write(t->device, &t->memory, t->op.x - t->memory.address, 4ull * ROWS * SIDE, x, error);
    free(w);
    free(x);
    return status;
}

static void trial_destroy(trial *t) {
    gpu_command_destroy(&t->command);
    gpu_buffer_destroy(t->device, &t->memory);
    free(t->plain);
    free(t->found);
}

static zs_status trial_create(trial *t, zs_error *error) {
    const op_policy any = {.matrix_shape.tile = 1};
    uint64_t rows_bytes = 4ull * ROWS * SIDE;
    t->weight = matrix_of(MATRIX_F16, SIDE, SIDE, 1); // rows of plain f16 values
    uint64_t weight_bytes = matrix_bytes(&t->weight);
    t->plain = malloc(rows_bytes);
    t->found = malloc(rows_bytes);
    if (!t->plain || !t->found) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for measuring matrix units");
    zs_status status = gpu_buffer_create(t->device, GPU_MEMORY_DEVICE, weight_bytes + 2 * rows_bytes + op_linear_operands(&any, ROWS, SIDE),
                                         false, "matrix units' trial", &t->memory, error);
    if (!status) status = gpu_command_create(t->device, "matrix units' trial", &t->command, error);
    if (status) return status;
    t->weight.address = t->memory.address;
    t->op = (op_linear){.segments = {{.weight = &t->weight}},
                        .segment_count = 1,
                        .x = t->memory.address + weight_bytes,
                        .y = t->memory.address + weight_bytes + rows_bytes,
                        .operands = t->memory.address + weight_bytes + 2 * rows_bytes,
                        .x_stride = SIDE,
                        .y_stride = SIDE,
                        .rows = ROWS};
    return fill(t, error);
}

/// Fastest of some runs under a policy; y is read back.
static zs_status run(trial *t, const op_policy *policy, float *y, float *ms, zs_error *error) {
    uint64_t value;
    *ms = INFINITY;
    zs_status status = gpu_command_begin(t->command, error);
    if (status) return status;
    op_record_linear(&(op_recorder){.command = t->command, .policy = *policy}, &t->op);
    status = gpu_command_end(t->command, error);
    for (uint32_t i = 0; i <= RUNS && !status; i++) { // the first warms up
        status = gpu_command_submit(t->command, &value, error);
        if (!status) status = gpu_device_wait(t->device, value, error);
        float took = (float)gpu_command_last_ms(t->command);
        if (i && took < *ms) *ms = took;
    }
    if (status) return status;
    return gpu_buffer_read(t->device, &t->memory, t->op.y - t->memory.address, 4ull * ROWS * SIDE, y, error);
}

/// Operands of f16 err by 2 · 2^−11 of each product, and errors of thousands of products cancel: a hundredth of the largest result is far
/// more.
static bool agrees(const trial *t) {
    float largest = 0, worst = 0;
    for (uint32_t i = 0; i < ROWS * SIDE; i++) {
        float difference = fabsf(t->found[i] - t->plain[i]);
        if (!(difference <= worst)) worst = difference; // NaN too
        if (fabsf(t->plain[i]) > largest) largest = fabsf(t->plain[i]);
    }
    return worst <= 0.01f * largest;
}

/// Tries one shape; it is the best so far where it is right and the fastest. A driver that refuses it, or makes it wrong, does not end the
/// search.
static zs_status try_shape(trial *t, const op_policy *policy, const op_matrix_shape *shape, finding *found, zs_error *error) {
    op_policy tried = *policy;
    float ms;
    zs_error reason;
    tried.matrix_shape = *shape;
    zs_status ran = run(t, &tried, t->found, &ms, &reason);
    if (ran == ZS_ERROR_DEVICE_LOST || ran == ZS_ERROR_TIMEOUT) return zs_error_set(error, ran, "%s", reason.message);
    if (ran || !agrees(t)) {
        gpu_log(t->device, ZS_LOG_WARNING, "matrix units, tiles of %u × %u by %u subgroups: %s; this shape is not used", shape->tile,
                8 * shape->units, shape->subgroups, ran ? reason.message : "wrong numbers");
        return ZS_OK;
    }
    gpu_log(t->device, ZS_LOG_DEBUG, "matrix units, tiles of %u × %u by %u subgroups: %.3f ms", shape->tile, 8 * shape->units,
            shape->subgroups, (double)ms);
    if (ms >= found->best_ms) return ZS_OK;
    found->best_ms = ms;
    found->best = *shape;
    return ZS_OK;
}

static zs_status measure(zs_device *device, const op_policy *policy, finding *found, zs_error *error) {
    const uint32_t m = policy->matrix.m;
    const op_matrix_shape shapes[SHAPES] = {{4 * m, 4, 4}, {4 * m, 8, 4}, {4 * m, 4, 8}, {8 * m, 4, 4}, {8 * m, 4, 8}, {8 * m, 8, 8}};
    const gpu_caps *caps = gpu_device_caps(device);
    trial t = {.device = device};
    op_policy plain = *policy;
    plain.matrix_shape.tile = 0;
    *found = (finding){0};
    zs_status status = trial_create(&t, error);
    if (!status) status = run(&t, &plain, t.plain, &found->plain_ms, error);
    found->best_ms = found->plain_ms;
    for (uint32_t i = 0; i < SHAPES && !status; i++) {
        bool fits = op_matrix_divides(&shapes[i], &policy->matrix, policy->subgroup_size) &&
                    op_matrix_shared_bytes(&shapes[i], &policy->matrix) <= caps->shared_bytes &&
                    shapes[i].subgroups * policy->subgroup_size <= caps->max_invocations;
        if (fits) status = try_shape(&t, policy, &shapes[i], found, error);
    }
    trial_destroy(&t);
    return status;
}

zs_status op_policy_measure(zs_device *device, op_policy *policy, zs_error *error) {
    policy->matrix_shape.tile = 0;
    if (!policy->lanes) op_matvec_recall(device, policy);
    if (policy->lanes || !(policy->tiers & ZS_TIER_MATRIX)) return ZS_OK;
    const uint32_t modules[] = {SHADER_matmul_f16, SHADER_half_rows, SHADER_matmul_matrix_f16};
    finding found;
    uint64_t hash = gpu_setting_hash(modules, sizeof modules / sizeof *modules);
    if (!gpu_setting_read(device, extension, hash, &found, sizeof found)) {
        zs_status status = measure(device, policy, &found, error);
        if (status) return status;
        gpu_log(device, ZS_LOG_INFO, "matmul 512 × 4096 × 4096: %.3f ms, at best %.3f ms on matrix units: tiles of %u × %u by %u subgroups",
                (double)found.plain_ms, (double)found.best_ms, found.best.tile, 8 * found.best.units, found.best.subgroups);
        gpu_setting_write(device, extension, hash, &found, sizeof found);
    }
    policy->matrix_shape = found.best;
    return ZS_OK;
}
