/// Where a step's time goes: its dispatches timed one by one.
#include "engine/engine.h"
#include "zsigma/zsigma_lab.h"

#include <stdlib.h>
#include <string.h>

/// Times summed over the runs, a row per label and kernel.
typedef struct kernel_table {
    zs_kernel_time *rows;
    size_t count, capacity;
} kernel_table;

static zs_kernel_time *find_row(kernel_table *table, const gpu_dispatch_time *time, zs_error *error) {
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->rows[i].label, time->label) == 0 && strcmp(table->rows[i].kernel, time->kernel) == 0) return &table->rows[i];
    }
    if (table->count == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 32;
        zs_kernel_time *rows = realloc(table->rows, capacity * sizeof *rows);
        if (!rows) {
            zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for kernel times");
            return NULL;
        }
        table->rows = rows;
        table->capacity = capacity;
    }
    table->rows[table->count] = (zs_kernel_time){.label = time->label, .kernel = time->kernel};
    return &table->rows[table->count++];
}

static zs_status add_times(void *user, gpu_command *command, zs_error *error) {
    kernel_table *table = user;
    const gpu_dispatch_time *times;
    size_t count = gpu_command_times(command, &times);
    if (!count) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the device has no timestamps, so kernels cannot be timed");
    for (size_t i = 0; i < count; i++) {
        zs_kernel_time *row = find_row(table, &times[i], error);
        if (!row) return ZS_ERROR_MEMORY;
        row->calls++;
        row->ms += times[i].ms;
        row->bytes += times[i].work.bytes;
        row->flops += times[i].work.flops;
    }
    return ZS_OK;
}

static void average(kernel_table *table, uint32_t runs) {
    for (size_t i = 0; i < table->count; i++) {
        zs_kernel_time *row = &table->rows[i];
        row->calls /= runs;
        row->ms /= runs;
        row->bytes /= runs;
        row->flops /= runs;
    }
}

/// A session with a prompt of its own, about to sample one token. Different `salt`s share no prefix.
static zs_status open_session(zs_engine *engine, uint32_t tokens, uint32_t salt, zs_session **session, zs_error *error) {
    uint32_t *ids = malloc(tokens * sizeof *ids);
    if (!ids) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a prompt");
    for (uint32_t i = 0; i < tokens; i++) ids[i] = (salt * 7919 + i * 31) % engine->model->config.vocab;
    zs_status status = zs_session_create(engine, &(zs_session_params){.ignore_end = true}, session, error);
    if (!status) status = zs_session_set_prompt(*session, ids, tokens, error);
    if (!status) status = zs_session_generate(*session, 1, error);
    free(ids);
    return status;
}

static zs_status time_prefill(zs_engine *engine, uint32_t rows, uint32_t runs, kernel_table *table, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t run = 0; run <= runs && !status; run++) {
        zs_session *session = NULL;
        status = open_session(engine, rows, run + 1, &session, error);
        if (!status) status = zs_engine_run(engine, NULL, NULL, error);
        if (!status && run > 0) status = add_times(table, engine->prefill_command, error);
        zs_session_destroy(&session);
    }
    return status;
}

static zs_status time_decode(zs_engine *engine, uint32_t rows, uint32_t depth, uint32_t runs, kernel_table *table, zs_error *error) {
    zs_session **sessions = calloc(rows, sizeof *sessions);
    if (!sessions) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for sessions");
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < rows && !status; i++) status = open_session(engine, depth, i + 1, &sessions[i], error);
    if (!status) status = zs_engine_run(engine, NULL, NULL, error); // the prompts
    for (uint32_t run = 0; run <= runs && !status; run++) {
        for (uint32_t i = 0; i < rows && !status; i++) status = zs_session_generate(sessions[i], 1, error);
        if (!status) status = zs_engine_run(engine, NULL, NULL, error);
        if (!status && run > 0) status = add_times(table, engine->decode_commands[rows], error);
    }
    for (uint32_t i = 0; i < rows; i++) zs_session_destroy(&sessions[i]);
    free(sessions);
    return status;
}

/// The weights of the base, again and again.
static zs_status time_compose(zs_engine *engine, uint32_t runs, kernel_table *table, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t run = 0; run <= runs && !status; run++) {
        model_composer_watch(engine->composer, run > 0 ? add_times : NULL, table);
        engine->loaded = 0;
        status = zs_engine_load_expert(engine, 0, error);
    }
    model_composer_watch(engine->composer, NULL, NULL);
    return status;
}

/// Prefill or decode.
static zs_status time_steps(zs_engine *engine, const zs_kernel_params *params, uint32_t runs, kernel_table *table, zs_error *error) {
    const bool decodes = params->kind == ZS_STEP_DECODE;
    const uint32_t depth = params->depth ? params->depth : 16, rows = params->rows;
    const uint32_t most = decodes ? engine->params.max_sessions : engine->params.max_rows;
    if (rows == 0 || rows > most)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a step of %u rows was asked for; between 1 and %u are possible", rows, most);
    gpu_command **decode = &engine->decode_commands[decodes ? rows : 0];
    engine->profiling = true;
    gpu_command_destroy(decode); // recorded anew with timestamps, and without them when next used
    zs_status status = decodes ? time_decode(engine, rows, depth, runs, table, error) : time_prefill(engine, rows, runs, table, error);
    engine->profiling = false;
    gpu_command_destroy(decode);
    return status;
}

zs_status zs_bench_kernels(zs_engine *engine, const zs_kernel_params *params, zs_kernel_time **times, size_t *count, zs_error *error) {
    const bool composes = params->kind == ZS_STEP_COMPOSE;
    const uint32_t runs = params->runs ? params->runs : 1;
    if (composes && !engine->composer) return zs_error_set(error, ZS_ERROR_ARGUMENT, "nothing is composed: the mode is another");
    zs_status status = engine_drain(engine, error);
    if (status) return status;
    kernel_table table = {0};
    status = composes ? time_compose(engine, runs, &table, error) : time_steps(engine, params, runs, &table, error);
    if (status) {
        free(table.rows);
        return status;
    }
    average(&table, runs);
    *times = table.rows;
    *count = table.count;
    return ZS_OK;
}
