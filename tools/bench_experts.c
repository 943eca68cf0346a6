/// What experts cost: putting one into the engine's table, and a different one in each row of a batch.
#include "bench.h"

#include <stdlib.h>

enum { BATCH_TOKENS = 16 }; // per session and measurement: pairs are many

static zs_status time_switch(bench *b, uint64_t seed, double *ms, zs_error *error) {
    zs_expert *expert = NULL;
    uint32_t id = 0;
    zs_status status = zs_expert_create_random(b->stack.model, seed, &expert, error);
    double start = bench_now_ms();
    if (!status) status = zs_engine_attach_expert(b->stack.engine, expert, false, &id, error);
    *ms = bench_now_ms() - start;
    if (!status) zs_engine_detach_expert(b->stack.engine, id);
    zs_expert_destroy(&expert);
    return status;
}

/// Each run attaches contents that the table does not hold yet.
static zs_status measure_switch(bench *b, zs_error *error) {
    const uint32_t base[] = {0};
    uint32_t tokens = b->decode_tokens < BATCH_TOKENS ? b->decode_tokens : BATCH_TOKENS;
    double *switches = calloc(b->runs, sizeof *switches), *steps = calloc(b->runs, sizeof *steps), ms;
    zs_status status = switches && steps ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = time_switch(b, 1, &ms, error);
    if (!status) status = bench_time_decode(b, base, 1, BENCH_DEPTH, tokens, &ms, error);
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = time_switch(b, 2 + run, &switches[run], error);
        if (!status) status = bench_time_decode(b, base, 1, BENCH_DEPTH, tokens, &ms, error);
        steps[run] = ms / tokens;
    }
    if (!status) {
        const figure *step = figures_add(&b->figures, "decode_step", "ms", steps, b->runs);
        figures_add(&b->figures, "expert_switch", "ms", switches, b->runs)->bar = step->value;
    }
    free(switches);
    free(steps);
    return status;
}

static zs_status attach_batch(bench *b, uint32_t *ids, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < BENCH_BATCH && !status; i++) {
        zs_expert *expert = NULL;
        status = zs_expert_create_random(b->stack.model, 1000 + i, &expert, error);
        if (!status) status = zs_engine_attach_expert(b->stack.engine, expert, false, &ids[i], error);
        zs_expert_destroy(&expert);
    }
    return status;
}

/// times[2]: of the batch without and with experts; odd pairs measure the experts first, so that drift favours neither.
static zs_status time_pair(bench *b, const uint32_t *experts, uint32_t tokens, uint32_t pair, double *times, zs_error *error) {
    const uint32_t base[BENCH_BATCH] = {0};
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < 2 && !status; i++) {
        uint32_t with = (pair + i) % 2;
        status = bench_time_decode(b, with ? experts : base, BENCH_BATCH, BENCH_DEPTH, tokens, &times[with], error);
    }
    return status;
}

static zs_status measure_batch(bench *b, zs_error *error) {
    uint32_t experts[BENCH_BATCH] = {0}, tokens = b->decode_tokens < BATCH_TOKENS ? b->decode_tokens : BATCH_TOKENS;
    double *ratios = calloc(b->pairs, sizeof *ratios), times[2];
    zs_status status = ratios ? attach_batch(b, experts, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = time_pair(b, experts, tokens, 0, times, error);
    for (uint32_t pair = 0; pair < b->pairs && !status; pair++) {
        status = time_pair(b, experts, tokens, pair, times, error);
        ratios[pair] = times[1] / times[0];
    }
    if (!status) {
        double bound = median_upper_bound(ratios, b->pairs);
        figures_add(&b->figures, "experts_8_batch_8_ratio", "ratio", ratios, b->pairs);
        figure *upper = figures_add_value(&b->figures, "experts_8_batch_8_ratio_upper_95", "ratio", bound);
        upper->runs = b->pairs;
        upper->bar = 1.02;
    }
    for (uint32_t i = 0; i < BENCH_BATCH; i++) zs_engine_detach_expert(b->stack.engine, experts[i]);
    free(ratios);
    return status;
}

zs_status bench_experts(bench *b, zs_error *error) {
    zs_status status = measure_switch(b, error);
    return status ? status : measure_batch(b, error);
}
