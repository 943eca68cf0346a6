/// Are the device's matrix units worth it? Drivers exist whose matrices are slower than none by orders of magnitude, or wrong.
#include "gpu/command.h"
#include "gpu/settings.h"
#include "ops/ops.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 512,
    SIDE = 4096, // of a matrix, and of a row of heads
    HEADS = 32,
    KV_HEADS = 8,
    HEAD_DIM = SIDE / HEADS,
    PAGES = ROWS / KV_PAGE_TOKENS,
    RUNS = 3,
    SHAPES = 6,
    FEW_ROWS = 64,
};
static const char extension[] = "matrix";

/// What the cache folder keeps.
typedef struct finding {
    uint32_t tiers;       // in use when it was found
    op_matrix_shape best; // tile 0: none
    float plain_ms, best_ms;
    uint32_t fill;             // op_policy.matrix_fill
    float few_ms, few_best_ms; // of FEW_ROWS rows in one dispatch, and at best
    uint32_t attention;        // op_policy.matrix_attention
    float attention_plain_ms, attention_ms;
} finding;

/// An operation that makes y[ROWS, SIDE], in one range of memory.
typedef struct trial {
    zs_device *device;
    gpu_command *command;
    gpu_buffer memory;
    void (*record)(const op_recorder *recorder, const struct trial *t);
    uint64_t y;
    matrix weight; // y = x · Wᵀ
    op_linear linear;
    op_attention attention; // y of queries that follow each other in one sequence
    uint32_t rows;          // of y that count
    float *plain, *found;   // [ROWS, SIDE]
} trial;

/// Numbers without a pattern, −1 … 1.
static float number(uint32_t i) {
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return (float)(i >> 8) / 8388608.0f - 1;
}

static zs_status no_memory(zs_error *error) { return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for measuring matrix units"); }

static zs_status write_at(trial *t, uint64_t address, uint64_t bytes, const void *data, zs_error *error) {
    return gpu_buffer_write(t->device, &t->memory, address - t->memory.address, bytes, data, error);
}

/// f16 of ±0.03 … 0.06.
static zs_status fill_halves(trial *t, uint64_t address, uint32_t count, zs_error *error) {
    uint16_t *values = malloc(2ull * count);
    if (!values) return no_memory(error);
    for (uint32_t i = 0; i < count; i++) values[i] = (uint16_t)(0x2800 | (number(i) < 0 ? 0x8000u : 0u) | (i * 0x9E3779B9u >> 22));
    zs_status status = write_at(t, address, 2ull * count, values, error);
    free(values);
    return status;
}

/// ROWS · SIDE numbers of −1 … 1.
static zs_status fill_rows(trial *t, uint64_t address, zs_error *error) {
    float *x = malloc(4ull * ROWS * SIDE);
    if (!x) return no_memory(error);
    for (uint32_t i = 0; i < ROWS * SIDE; i++) x[i] = number(i);
    zs_status status = write_at(t, address, 4ull * ROWS * SIDE, x, error);
    free(x);
    return status;
}

static void trial_destroy(trial *t) {
    gpu_command_destroy(&t->command);
    gpu_buffer_destroy(t->device, &t->memory);
    free(t->plain);
    free(t->found);
}

/// y lies at the beginning of the memory.
static zs_status trial_create(trial *t, uint64_t bytes, zs_error *error) {
    const uint64_t rows_bytes = 4ull * ROWS * SIDE;
    t->plain = malloc(rows_bytes);
    t->found = malloc(rows_bytes);
    if (!t->plain || !t->found) return no_memory(error);
    zs_status status = gpu_buffer_create(t->device, GPU_MEMORY_DEVICE, rows_bytes + bytes, false, "matrix units' trial", &t->memory, error);
    if (!status) status = gpu_command_create(t->device, "matrix units' trial", &t->command, error);
    t->y = t->memory.address;
    t->rows = ROWS;
    return status;
}

static void record_linear(const op_recorder *recorder, const trial *t) { op_record_linear(recorder, &t->linear); }

static zs_status create_linear(trial *t, zs_error *error) {
    const op_policy any = {.matrix_shape.tile = 1, .matrix_fill = 1};
    const uint64_t rows_bytes = 4ull * ROWS * SIDE;
    t->record = record_linear;
    t->weight = matrix_of(MATRIX_F16, SIDE, SIDE, 1); // rows of plain f16 values
    zs_status status = trial_create(t, rows_bytes + matrix_bytes(&t->weight) + op_linear_operands(&any, ROWS, SIDE), error);
    if (status) return status;
    t->linear = (op_linear){.segments = {{.weight = &t->weight}},
                            .segment_count = 1,
                            .x = t->y + rows_bytes,
                            .y = t->y,
                            .operands = t->y + 2 * rows_bytes + matrix_bytes(&t->weight),
                            .x_stride = SIDE,
                            .y_stride = SIDE,
                            .rows = ROWS};
    t->weight.address = t->y + 2 * rows_bytes;
    status = fill_rows(t, t->linear.x, error);
    return status ? status : fill_halves(t, t->weight.address, SIDE * SIDE, error);
}

static void record_attention(const op_recorder *recorder, const trial *t) {
    op_attention op = t->attention;
    op.spans = ROWS / op_span_rows(recorder->policy, HEADS, KV_HEADS, HEAD_DIM);
    op_record_attention(recorder, &op);
}

/// What lies behind the queries.
typedef struct attention_memory {
    Step step;
    Row rows[ROWS];
    uint64_t pages[PAGES];
    Span spans[ROWS];
} attention_memory;

/// The spans that the policy's kernel takes.
static zs_status put_spans(trial *t, const op_policy *policy, zs_error *error) {
    Span spans[ROWS] = {0};
    uint32_t rows = op_span_rows(*policy, HEADS, KV_HEADS, HEAD_DIM);
    for (uint32_t i = 0; i < ROWS / rows; i++) spans[i] = (Span){i * rows, rows};
    return write_at(t, t->attention.step + offsetof(attention_memory, spans), sizeof spans, spans, error);
}

static zs_status create_attention(trial *t, zs_error *error) {
    const uint64_t rows_bytes = 4ull * ROWS * SIDE, page_bytes = kv_page_bytes(KV_F16, KV_HEADS, HEAD_DIM);
    t->record = record_attention;
    zs_status status = trial_create(t, rows_bytes + sizeof(attention_memory) + PAGES * page_bytes, error);
    if (status) return status;
    uint64_t pages = t->y + 2 * rows_bytes, memory = pages + PAGES * page_bytes;
    t->attention = (op_attention){.step = memory,
                                  .q = t->y + rows_bytes,
                                  .out = t->y,
                                  .q_stride = SIDE,
                                  .out_stride = SIDE,
                                  .heads = HEADS,
                                  .kv_heads = KV_HEADS,
                                  .head_dim = HEAD_DIM,
                                  .rows = ROWS,
                                  .longest = ROWS,
                                  .scale = 8, // of keys so small: scores of a few units
                                  .kv = KV_F16};
    attention_memory held = {.step = {.rows = memory + offsetof(attention_memory, rows),
                                      .spans = memory + offsetof(attention_memory, spans),
                                      .pages = memory + offsetof(attention_memory, pages),
                                      .page_stride = PAGES}};
    for (uint32_t i = 0; i < ROWS; i++) held.rows[i] = (Row){.position = i};
    for (uint32_t i = 0; i < PAGES; i++) held.pages[i] = pages + i * page_bytes;
    status = write_at(t, memory, sizeof held, &held, error);
    if (!status) status = fill_rows(t, t->attention.q, error);
    return status ? status : fill_halves(t, pages, (uint32_t)(PAGES * page_bytes / 2), error);
}

/// Fastest of some runs under a policy; y is read back.
static zs_status run(trial *t, const op_policy *policy, float *y, float *ms, zs_error *error) {
    double best;
    zs_status status = gpu_command_begin(t->command, error);
    if (status) return status;
    t->record(&(op_recorder){.command = t->command, .policy = *policy}, t);
    status = gpu_command_end(t->command, error);
    if (!status) status = gpu_command_time(t->command, RUNS, &best, error);
    if (status) return status;
    *ms = (float)best;
    return gpu_buffer_read(t->device, &t->memory, 0, 4ull * ROWS * SIDE, y, error);
}

/// Operands of f16 err by 2 · 2^−11 of each product, and errors of thousands of products cancel: a hundredth of the largest result is far
/// more.
static bool agrees(const trial *t) {
    const uint32_t count = t->rows * SIDE;
    float largest = 0;
    for (uint32_t i = 0; i < count; i++) largest = fmaxf(largest, fabsf(t->plain[i]));
    for (uint32_t i = 0; i < count; i++)
        if (!(fabsf(t->found[i] - t->plain[i]) <= 0.01f * largest)) return false; // NaN too
    return true;
}

/// Tries the operation under another policy: *won where it is right, and faster than *best_ms, which is its time then. A driver that
/// refuses it, or makes it wrong, does not end the search.
static zs_status try_policy(trial *t, const op_policy *tried, const char *name, float *best_ms, bool *won, zs_error *error) {
    float ms;
    zs_error reason;
    *won = false;
    zs_status ran = run(t, tried, t->found, &ms, &reason);
    if (ran == ZS_ERROR_DEVICE_LOST || ran == ZS_ERROR_TIMEOUT) return zs_error_set(error, ran, "%s", reason.message);
    if (ran || !agrees(t)) {
        gpu_log(t->device, ZS_LOG_WARNING, "matrix units, %s: %s; not used", name, ran ? reason.message : "wrong numbers");
        return ZS_OK;
    }
    gpu_log(t->device, ZS_LOG_DEBUG, "matrix units, %s: %.3f ms", name, (double)ms);
    *won = ms < *best_ms;
    if (*won) *best_ms = ms;
    return ZS_OK;
}

/// How many workgroups the device wants of few rows: as many as the fastest way to split their sums makes of the tiles.
static zs_status measure_fill(trial *t, const op_policy *policy, finding *found, zs_error *error) {
    op_policy tried = *policy;
    char name[64];
    bool won;
    t->linear.rows = t->rows = FEW_ROWS;
    tried.matrix_shape = found->best;
    tried.matrix_fill = 0;
    zs_status status = run(t, &tried, t->plain, &found->few_ms, error); // the kernel that was found right
    found->few_best_ms = found->few_ms;
    for (uint32_t splits = 2; splits <= OP_MATRIX_SPLITS && !status; splits *= 2) {
        tried.matrix_fill = splits * op_matrix_groups(&tried, SIDE, FEW_ROWS);
        snprintf(name, sizeof name, "%u rows, sums in %u shares", FEW_ROWS, splits);
        status = try_policy(t, &tried, name, &found->few_best_ms, &won, error);
        if (!status && won) found->fill = tried.matrix_fill;
    }
    return status;
}

static zs_status measure_linear(zs_device *device, const op_policy *policy, finding *found, zs_error *error) {
    const uint32_t m = policy->matrix.m;
    const op_matrix_shape shapes[SHAPES] = {{4 * m, 4, 4}, {4 * m, 8, 4}, {4 * m, 4, 8}, {8 * m, 4, 4}, {8 * m, 4, 8}, {8 * m, 8, 8}};
    const gpu_caps *caps = gpu_device_caps(device);
    trial t = {.device = device};
    op_policy plain = *policy;
    char name[64];
    bool won;
    plain.matrix_shape.tile = 0;
    zs_status status = create_linear(&t, error);
    if (!status) status = run(&t, &plain, t.plain, &found->plain_ms, error);
    found->best_ms = found->plain_ms;
    for (uint32_t i = 0; i < SHAPES && !status; i++) {
        bool fits = op_matrix_divides(&shapes[i], &policy->matrix, policy->subgroup_size) &&
                    op_matrix_shared_bytes(&shapes[i], &policy->matrix) <= caps->shared_bytes &&
                    shapes[i].subgroups * policy->subgroup_size <= caps->max_invocations;
        if (!fits) continue;
        op_policy tried = *policy;
        tried.matrix_shape = shapes[i];
        snprintf(name, sizeof name, "tiles of %u × %u by %u subgroups", shapes[i].tile, 8 * shapes[i].units, shapes[i].subgroups);
        status = try_policy(&t, &tried, name, &found->best_ms, &won, error);
        if (!status && won) found->best = shapes[i];
    }
    if (!status && found->best.tile) status = measure_fill(&t, policy, found, error);
    trial_destroy(&t);
    return status;
}

static zs_status measure_attention(zs_device *device, const op_policy *policy, finding *found, zs_error *error) {
    static const struct {
        uint32_t tier;
        const char *name;
    } kernels[] = {{ZS_TIER_MATRIX, "attention"}, {ZS_TIER_MATRIX2, "attention by VK_NV_cooperative_matrix2"}};
    trial t = {.device = device};
    op_policy tried = *policy;
    bool won;
    tried.matrix_attention = 0;
    zs_status status = create_attention(&t, error);
    if (!status) status = put_spans(&t, &tried, error);
    if (!status) status = run(&t, &tried, t.plain, &found->attention_plain_ms, error);
    found->attention_ms = found->attention_plain_ms;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels && !status; i++) {
        tried.matrix_attention = kernels[i].tier;
        if (!(policy->tiers & kernels[i].tier) || !op_attention_on_matrix(&tried, HEADS, KV_HEADS, HEAD_DIM)) continue;
        status = put_spans(&t, &tried, error);
        if (!status) status = try_policy(&t, &tried, kernels[i].name, &found->attention_ms, &won, error);
        if (!status && won) found->attention = kernels[i].tier;
    }
    trial_destroy(&t);
    return status;
}

zs_status op_policy_measure(zs_device *device, op_policy *policy, zs_error *error) {
    policy->matrix_shape.tile = 0;
    policy->matrix_fill = 0;
    policy->matrix_attention = 0;
    if (!policy->lanes) op_matvec_recall(device, policy);
    if (policy->lanes || !(policy->tiers & ZS_TIER_MATRIX)) return ZS_OK;
    const uint32_t modules[] = {SHADER_matmul_f16,           SHADER_half_rows,           SHADER_matmul_matrix_f16,
                                SHADER_matmul_combine,       SHADER_attention_tiles_f16, SHADER_attention_matrix_f16,
                                SHADER_attention_matrix2_f16};
    finding found;
    uint64_t hash = gpu_setting_hash(modules, sizeof modules / sizeof *modules);
    if (!gpu_setting_read(device, extension, hash, &found, sizeof found) || found.tiers != policy->tiers) {
        found = (finding){.tiers = policy->tiers};
        zs_status status = measure_linear(device, policy, &found, error);
        if (!status) status = measure_attention(device, policy, &found, error);
        if (status) return status;
        gpu_log(device, ZS_LOG_INFO, "matmul 512 × 4096 × 4096: %.3f ms, at best %.3f ms on matrix units: tiles of %u × %u by %u subgroups",
                (double)found.plain_ms, (double)found.best_ms, found.best.tile, 8 * found.best.units, found.best.subgroups);
        if (found.best.tile)
            gpu_log(device, ZS_LOG_INFO, "matmul 64 × 4096 × 4096: %.3f ms, at best %.3f ms with split sums", (double)found.few_ms,
                    (double)found.few_best_ms);
        gpu_log(device, ZS_LOG_INFO, "attention of 512 rows: %.3f ms, at best %.3f ms on matrix units", (double)found.attention_plain_ms,
                (double)found.attention_ms);
        gpu_setting_write(device, extension, hash, &found, sizeof found);
    }
    policy->matrix_shape = found.best;
    policy->matrix_fill = found.fill;
    policy->matrix_attention = found.attention;
    return ZS_OK;
}
