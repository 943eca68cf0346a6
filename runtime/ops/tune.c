/// Which shapes of matvec.comp are fastest on a device: measured when asked for, kept in the cache folder.
#include "gpu/command.h"
#include "gpu/settings.h"
#include "ops/ops.h"

#include <math.h>
#include <string.h>

enum { SIDE = 4096, LONG_SIDE = 14336, OPERATIONS = 16, RUNS = 2 };
static const uint64_t pool_bytes = 512u << 20; // more than any cache holds, so that weights come from memory
static const char extension[] = "matvec";
static const uint32_t modules[] = {SHADER_matvec_f32,     SHADER_matvec_f16,     SHADER_matvec_bf16,   SHADER_matvec_q8,
                                   SHADER_matvec_q4,      SHADER_matvec_q5,      SHADER_matvec_q4k,    SHADER_matvec_q5k,
                                   SHADER_matvec_q6,      SHADER_matvec_q8_dot,  SHADER_matvec_q4_dot, SHADER_matvec_q5_dot,
                                   SHADER_matvec_q4k_dot, SHADER_matvec_q5k_dot, SHADER_matvec_q6_dot};
static const uint32_t rows_tried[] = {1, 2, 4}, depths_tried[] = {1, 2, 4}, subgroups_tried[] = {2, 4, 8};
enum { CHOICES = 3 };

/// What the cache folder keeps.
typedef struct finding {
    op_matvec floats[MATRIX_TYPES][OP_MATVEC_CLASSES], integers[MATRIX_TYPES][OP_MATVEC_CLASSES];
} finding;

typedef struct trial {
    zs_device *device;
    gpu_command *command;
    gpu_buffer pool, rows; // weights; x [LONG_SIDE], norm [LONG_SIDE] and y [LONG_SIDE]
} trial;

static uint64_t hash(void) { return gpu_setting_hash(modules, sizeof modules / sizeof *modules); }

void op_matvec_recall(zs_device *device, op_policy *policy) {
    finding found;
    if (!gpu_setting_read(device, extension, hash(), &found, sizeof found)) return;
    memcpy(policy->matvec, found.floats, sizeof found.floats);
    memcpy(policy->integers, found.integers, sizeof found.integers);
}

static zs_status trial_create(trial *t, zs_error *error) {
    uint64_t bytes = pool_bytes, limit = gpu_device_caps(t->device)->max_allocation;
    if (bytes > gpu_device_memory_free(t->device) / 2) bytes = gpu_device_memory_free(t->device) / 2;
    if (bytes > limit) bytes = limit;
    zs_status status = gpu_buffer_create(t->device, GPU_MEMORY_DEVICE, bytes / 256 * 256, true, "weights to tune with", &t->pool, error);
    if (!status) status = gpu_buffer_create(t->device, GPU_MEMORY_DEVICE, 12ull * LONG_SIDE, true, "rows to tune with", &t->rows, error);
    if (!status) status = gpu_command_create(t->device, "tuning", &t->command, error);
    return status;
}

/// The pool holds an operation of every class.
static zs_status check_pool(const trial *t, matrix_type type, zs_error *error) {
    const matrix weight = matrix_of(type, LONG_SIDE, SIDE, 1);
    if (2 * (matrix_bytes(&weight) + 256) <= t->pool.size) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY,
                        "tuning for %s weights takes %.0f MB on the device beside the model, of which half are to be free",
                        matrix_type_name(type), 2e-6 * (double)matrix_bytes(&weight));
}

static void trial_destroy(trial *t) {
    gpu_command_destroy(&t->command);
    gpu_buffer_destroy(t->device, &t->rows);
    gpu_buffer_destroy(t->device, &t->pool);
}

/// An operation of a class on one row, as a model of 8 billion weights has it; its matrices follow one another from *at in the pool.
static op_linear operation(const trial *t, op_matvec_class class, matrix_type type, matrix weights[2], uint64_t *at) {
    uint32_t count = class == OP_MATVEC_PAIR ? 2 : 1;
    weights[0] = matrix_of(type, class == OP_MATVEC_FEW_ROWS ? SIDE : LONG_SIDE, SIDE, 1);
    uint64_t bytes = (matrix_bytes(&weights[0]) + 255) / 256 * 256;
    if (*at + count * bytes > t->pool.size) *at = 0;
    op_linear op = {.segment_count = count,
                    .x = t->rows.address,
                    .y = t->rows.address + 8ull * LONG_SIDE,
                    .x_stride = LONG_SIDE,
                    .y_stride = LONG_SIDE,
                    .rows = 1,
                    .norm = class == OP_MATVEC_PAIR ? t->rows.address + 4ull * LONG_SIDE : 0,
                    .norm_width = SIDE,
                    .norm_eps = 1e-5f,
                    .silu_mul = class == OP_MATVEC_PAIR,
                    .decode = true};
    for (uint32_t i = 0; i < count; i++) {
        weights[i] = weights[0];
        weights[i].address = t->pool.address + *at;
        op.segments[i].weight = &weights[i];
        *at += bytes;
    }
    return op;
}

/// Milliseconds of one operation under a policy: the best of some runs of a command with many of them, each waiting for the one before.
static zs_status time_operation(trial *t, const op_policy *policy, op_matvec_class class, matrix_type type, double *ms, zs_error *error) {
    uint64_t at = 0;
    *ms = INFINITY;
    zs_status status = gpu_command_begin(t->command, error);
    if (status) return status;
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        matrix weights[2];
        const op_linear op = operation(t, class, type, weights, &at);
        op_record_linear(&(op_recorder){.command = t->command, .policy = *policy}, &op);
        gpu_command_barrier(t->command);
    }
    status = gpu_command_end(t->command, error);
    if (!status) status = gpu_command_time(t->command, RUNS, ms, error);
    if (!status) *ms /= OPERATIONS;
    return status;
}

/// The fastest of all shapes that *shape, a part of the policy, may have; what it was stays where none is faster than *best_ms.
static zs_status try_shapes(trial *t, const op_policy *policy, op_matvec *shape, op_tuned *tuned, double *best_ms, zs_error *error) {
    op_matvec best = *shape;
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < CHOICES * CHOICES * CHOICES && !status; i++) {
        double ms;
        *shape = (op_matvec){rows_tried[i % CHOICES], depths_tried[i / CHOICES % CHOICES], subgroups_tried[i / CHOICES / CHOICES]};
        status = time_operation(t, policy, tuned->class, tuned->type, &ms, error);
        if (status) break;
        gpu_log(t->device, ZS_LOG_DEBUG, "matvec %s, %s%s: rows %u, depth %u, subgroups %u: %.4f ms", matrix_type_name(tuned->type),
                op_matvec_class_name(tuned->class), policy->dot ? ", integers" : "", shape->rows, shape->depth, shape->subgroups, ms);
        if (ms >= *best_ms) continue;
        *best_ms = ms;
        best = *shape;
    }
    *shape = best;
    return status;
}

/// First in floats, which serve in precision exact too, then in integers, which serve where they are faster than those.
static zs_status tune_class(trial *t, op_policy *policy, matrix_type type, op_matvec_class class, op_tuned *tuned, zs_error *error) {
    op_matvec *floats = &policy->matvec[type][class], *integers = &policy->integers[type][class];
    *tuned = (op_tuned){.type = type, .class = class};
    *integers = (op_matvec){0};
    policy->dot = false;
    zs_status status = time_operation(t, policy, class, type, &tuned->before_ms, error);
    tuned->ms = tuned->before_ms;
    if (!status) status = try_shapes(t, policy, floats, tuned, &tuned->ms, error);
    policy->dot = (policy->tiers & ZS_TIER_DOT) && op_matvec_has_dot(type);
    if (!status && policy->dot) status = try_shapes(t, policy, integers, tuned, &tuned->ms, error);
    matrix weights[2];
    uint64_t bytes = 0;
    operation(t, class, type, weights, &bytes);
    tuned->bytes = (double)bytes;
    tuned->integers = integers->rows > 0;
    tuned->shape = tuned->integers ? *integers : *floats;
    return status;
}

zs_status op_policy_tune(zs_device *device, op_policy *policy, matrix_type type, op_tuned tuned[OP_MATVEC_CLASSES], zs_error *error) {
    if (policy->lanes || !(policy->tiers & ZS_TIER_SUBGROUP) || policy->subgroup_size < 4)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "this device has no kernels to tune: GPUs with subgroups have");
    trial t = {.device = device};
    op_policy tried = *policy;
    zs_status status = trial_create(&t, error);
    if (!status) status = check_pool(&t, type, error);
    for (uint32_t class = 0; class < OP_MATVEC_CLASSES && !status; class ++)
        status = tune_class(&t, &tried, type, (op_matvec_class) class, &tuned[class], error);
    trial_destroy(&t);
    if (status) return status;
    memcpy(policy->matvec, tried.matvec, sizeof tried.matvec);
    memcpy(policy->integers, tried.integers, sizeof tried.integers);
    finding found;
    memcpy(found.floats, tried.matvec, sizeof tried.matvec);
    memcpy(found.integers, tried.integers, sizeof tried.integers);
    gpu_setting_write(device, extension, hash(), &found, sizeof found);
    return ZS_OK;
}
