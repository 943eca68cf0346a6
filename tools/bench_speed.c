/// Prefill, decode and batched decode in tokens per second, and the times of their kernels.
#include "bench.h"

#include <math.h>
#include <stdlib.h>

double bench_now_ms(void) { return 1e3 * cli_now_seconds(); }

void bench_draw_ids(bench *b, uint32_t *ids, uint32_t count) {
    uint32_t vocab = zs_model_get_info(b->stack.model)->vocab;
    for (uint32_t i = 0; i < count; i++) {
        b->random = b->random * 1664525u + 1013904223u;
        ids[i] = (1000 + b->random % 30000) % vocab;
    }
}

bool bench_on_gpu(const bench *b) { return zs_device_get_info(b->stack.device)->type != ZS_DEVICE_CPU; }

/// A session that goes on whatever it samples, with a new prompt.
static zs_status open_session(bench *b, uint32_t expert, uint32_t prompt_tokens, zs_session **session, zs_error *error) {
    uint32_t *ids = malloc(prompt_tokens * sizeof *ids);
    if (!ids) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a prompt");
    bench_draw_ids(b, ids, prompt_tokens);
    zs_status status = zs_session_create(b->stack.engine, &(zs_session_params){.expert = expert, .ignore_end = true}, session, error);
    if (!status) status = zs_session_set_prompt(*session, ids, prompt_tokens, error);
    free(ids);
    return status;
}

zs_status bench_time_prefill(bench *b, uint32_t tokens, double *ms, zs_error *error) {
    zs_session *session = NULL;
    zs_status status = open_session(b, 0, tokens, &session, error);
    if (!status) status = zs_session_generate(session, 1, error);
    double start = bench_now_ms();
    if (!status) status = zs_engine_run(b->stack.engine, NULL, NULL, error);
    *ms = bench_now_ms() - start;
    zs_session_destroy(&session);
    return status;
}

zs_status bench_time_decode(bench *b, const uint32_t *experts, uint32_t count, uint32_t depth, uint32_t tokens, double *ms,
                            zs_error *error) {
    zs_session **sessions = calloc(count, sizeof *sessions);
    if (!sessions) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for sessions");
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        status = open_session(b, experts[i], depth, &sessions[i], error);
        if (!status) status = zs_session_generate(sessions[i], 1, error);
    }
    if (!status) status = zs_engine_run(b->stack.engine, NULL, NULL, error); // the prompts and the token they give
    for (uint32_t i = 0; i < count && !status; i++) status = zs_session_generate(sessions[i], tokens, error);
    double start = bench_now_ms();
    if (!status) status = zs_engine_run(b->stack.engine, NULL, NULL, error);
    *ms = bench_now_ms() - start;
    for (uint32_t i = 0; i < count; i++) zs_session_destroy(&sessions[i]);
    free(sessions);
    return status;
}

zs_status bench_time_answer(bench *b, const uint32_t *ids, size_t count, uint32_t tokens, double *ms, zs_error *error) {
    zs_session *session = NULL;
    double start = bench_now_ms();
    zs_status status = zs_session_create(b->stack.engine, &(zs_session_params){.ignore_end = true}, &session, error);
    if (!status) status = zs_session_set_prompt(session, ids, count, error);
    if (!status) status = zs_session_generate(session, tokens, error);
    if (!status) status = zs_engine_run(b->stack.engine, NULL, NULL, error);
    *ms = bench_now_ms() - start;
    zs_session_destroy(&session);
    return status;
}

static zs_status measure_prefill(bench *b, uint32_t tokens, zs_error *error) {
    double *rates = calloc(b->runs, sizeof *rates), ms;
    char name[48];
    zs_status status = rates ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = bench_time_prefill(b, tokens, &ms, error);
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = bench_time_prefill(b, tokens, &ms, error);
        rates[run] = tokens * 1e3 / ms;
    }
    snprintf(name, sizeof name, "prefill_%u", tokens);
    if (!status) figures_add(&b->figures, name, "tokens/s", rates, b->runs);
    free(rates);
    return status;
}

zs_status bench_prefill(bench *b, zs_error *error) {
    zs_status status = measure_prefill(b, b->prefill_tokens, error);
    if (!status && b->prefill_tokens > BENCH_SHORT_PROMPT) status = measure_prefill(b, BENCH_SHORT_PROMPT, error);
    if (!status && b->full && b->prefill_tokens != BENCH_FULL_TOKENS) status = measure_prefill(b, BENCH_FULL_TOKENS, error);
    return status;
}

/// The device's own time of the decode step before, by timestamps; 0 without.
static double step_ms(const bench *b) { return zs_engine_get_stats(b->stack.engine)->step_ms; }

/// Tokens per second of all sessions together. idle: also the share of the time in which the device does nothing, between steps.
static zs_status measure_decode(bench *b, const char *name, uint32_t sessions, uint32_t depth, bool idle, zs_error *error) {
    const uint32_t base[BENCH_FULL_BATCH] = {0};
    double *rates = calloc(b->runs, sizeof *rates), *shares = calloc(b->runs, sizeof *shares), ms, early = 0;
    zs_status status = rates && shares ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = bench_time_decode(b, base, sessions, depth, b->decode_tokens < 8 ? b->decode_tokens : 8, &ms, error);
    if (!status) early = step_ms(b);
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = bench_time_decode(b, base, sessions, depth, b->decode_tokens, &ms, error);
        rates[run] = sessions * b->decode_tokens * 1e3 / ms;
        // Steps get longer with their positions: taken as long as the mean of a first and a last one.
        shares[run] = 100 * fmax(0, 1 - b->decode_tokens * (early + step_ms(b)) / 2 / ms);
    }
    if (!status) figures_add(&b->figures, name, "tokens/s", rates, b->runs);
    if (!status && idle && early > 0) {
        figure *f = figures_add(&b->figures, "decode_idle", "%", shares, b->runs);
        if (bench_on_gpu(b)) f->bar = 3;
    }
    free(rates);
    free(shares);
    return status;
}

zs_status bench_decode(bench *b, zs_error *error) {
    char name[48];
    snprintf(name, sizeof name, "decode_%u", b->decode_tokens);
    zs_status status = measure_decode(b, name, 1, BENCH_DEPTH, true, error);
    uint32_t dispatches = zs_engine_get_info(b->stack.engine)->decode_dispatches_per_layer;
    if (!status) figures_add_value(&b->figures, "decode_dispatches_per_layer", "dispatches", dispatches);
    const uint32_t depths[] = {b->depth, b->full && b->depth != BENCH_FULL_TOKENS ? BENCH_FULL_TOKENS : 0};
    for (size_t i = 0; i < sizeof depths / sizeof *depths && !status; i++) {
        if (!depths[i]) continue;
        snprintf(name, sizeof name, "decode_%u_depth_%u", b->decode_tokens, depths[i]);
        status = measure_decode(b, name, 1, depths[i], false, error);
    }
    return status;
}

zs_status bench_batch(bench *b, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t batch = BENCH_BATCH; batch <= (b->full ? BENCH_FULL_BATCH : BENCH_BATCH) && !status; batch *= 2) {
        char name[48];
        snprintf(name, sizeof name, "decode_%u_batch_%u", b->decode_tokens, batch);
        status = measure_decode(b, name, batch, BENCH_DEPTH, false, error);
    }
    return status;
}

/// A decode step beside what it would take if the device only read its bytes and went through its dispatches.
static zs_status measure_limit(bench *b, uint32_t depth, const bench_step *step, zs_error *error) {
    const uint32_t base = 0;
    const double stages_ms = step->dispatches * b->peaks.stage_us * 1e-3;
    const double limit = step->bytes / b->peaks.read_gb_per_s * 1e-6 + stages_ms;
    double *over = calloc(b->runs, sizeof *over), ms;
    zs_status status = over ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = bench_time_decode(b, &base, 1, depth, b->decode_tokens < 8 ? b->decode_tokens : 8, &ms, error);
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = bench_time_decode(b, &base, 1, depth, b->decode_tokens, &ms, error);
        over[run] = ms / b->decode_tokens / limit;
    }
    if (!status) {
        figures_add_value(&b->figures, "decode_limit", "ms", limit);
        figures_add_value(&b->figures, "decode_limit_stages", "%", 100 * stages_ms / limit);
        figure *f = figures_add(&b->figures, "decode_over_limit", "ratio", over, b->runs);
        if (bench_on_gpu(b)) f->bar = 1.1;
    }
    free(over);
    return status;
}

double bench_peak(const bench *b) {
    return b->peaks.matrix_gflop_per_s > b->peaks.fma_gflop_per_s ? b->peaks.matrix_gflop_per_s : b->peaks.fma_gflop_per_s;
}

zs_status bench_kernel_table(bench *b, const char *name, const zs_kernel_params *params, bench_step *step, zs_error *error) {
    zs_kernel_time *times;
    size_t count;
    zs_status status = zs_bench_kernels(b->stack.engine, params, &times, &count, error);
    if (status) return status;
    double total = 0;
    const double peak = bench_peak(b);
    *step = (bench_step){0};
    for (size_t i = 0; i < count; i++) {
        total += times[i].ms;
        step->bytes += times[i].bytes;
        step->flops += times[i].flops;
        step->dispatches += times[i].calls;
    }
    json_t *rows = json_array();
    for (size_t i = 0; i < count; i++) {
        const zs_kernel_time *t = &times[i];
        double per_second = t->ms > 0 ? 1e3 / t->ms : 0;
        double gb = t->bytes * per_second * 1e-9, gflop = t->flops * per_second * 1e-9;
        json_array_append_new(rows,
                              json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "label", t->label, "kernel", t->kernel, "calls",
                                        (json_int_t)t->calls, "ms", t->ms, "share", total > 0 ? t->ms / total : 0, "gb_per_s", gb,
                                        "gflop_per_s", gflop, "of_read", gb / b->peaks.read_gb_per_s, "of_peak", gflop / peak));
    }
    free(times);
    if (!b->kernel_tables) b->kernel_tables = json_object();
    json_object_set_new(b->kernel_tables, name, rows);
    return ZS_OK;
}

zs_status bench_kernels(bench *b, zs_error *error) {
    const zs_kernel_params prefill = {.rows = b->prefill_tokens, .runs = b->runs};
    const zs_kernel_params decode = {.kind = ZS_STEP_DECODE, .rows = 1, .depth = b->depth ? b->depth : BENCH_DEPTH, .runs = 4 * b->runs};
    bench_step step;
    zs_status status = bench_device(b, error);
    if (!status) status = bench_kernel_table(b, "prefill", &prefill, &step, error);
    if (!status) status = bench_kernel_table(b, "decode", &decode, &step, error);
    return status ? status : measure_limit(b, decode.depth, &step, error);
}
