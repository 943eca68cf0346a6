/// Composed mode: what another expert costs, and what a token then costs less.
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    zs_composed_type type;
} types[] = {{"f16", ZS_COMPOSED_F16}, {"q8_0", ZS_COMPOSED_Q8_0}, {"q4_0", ZS_COMPOSED_Q4_0}};

/// Decode steps and, on composed weights, changes of expert, of one engine: medians of the runs, and the figures.
static zs_status measure(bench *b, const char *name, double *step, double *change, zs_error *error) {
    const uint32_t base[1] = {0};
    double *steps = calloc(b->runs, sizeof *steps), *changes = calloc(b->runs, sizeof *changes), ms;
    uint32_t expert = 0;
    char label[48];
    zs_expert *random = NULL;
    zs_status status = steps && changes ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = zs_expert_create_random(b->stack.model, 1, &random, error);
    if (!status) status = zs_engine_attach_expert(b->stack.engine, random, false, &expert, error);
    if (!status) status = bench_time_decode(b, base, 1, BENCH_DEPTH, b->decode_tokens < 8 ? b->decode_tokens : 8, &ms, error);
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        double start = bench_now_ms();
        status = zs_engine_load_expert(b->stack.engine, run % 2 ? 0 : expert, error);
        changes[run] = bench_now_ms() - start;
        if (!status) status = bench_time_decode(b, run % 2 ? base : &expert, 1, BENCH_DEPTH, b->decode_tokens, &ms, error);
        steps[run] = ms / b->decode_tokens;
    }
    if (!status) {
        snprintf(label, sizeof label, "decode_step_%s", name);
        *step = figures_add(&b->figures, label, "ms", steps, b->runs)->value;
        snprintf(label, sizeof label, "compose_%s", name);
        if (change) *change = figures_add(&b->figures, label, "ms", changes, b->runs)->value;
    }
    zs_expert_destroy(&random);
    free(steps);
    free(changes);
    return status;
}

static zs_status with_engine(bench *b, zs_mode mode, zs_composed_type type, zs_error *error) {
    const zs_engine_info *like = zs_engine_get_info(b->stack.engine);
    zs_engine_params params = {.precision = like->precision,
                               .kv = like->kv,
                               .mode = mode,
                               .composed = type,
                               .context = like->context,
                               .max_sessions = 1,
                               .max_experts = 2,
                               .max_rows = like->max_rows};
    return zs_engine_create(b->stack.model, &params, &b->stack.engine, error);
}

/// Tokens after which a change of expert has paid for itself; told as 0 where it never does.
static void add_break_even(bench *b, const char *name, double change, double step, double factored) {
    char label[48];
    snprintf(label, sizeof label, "break_even_%s", name);
    figures_add_value(&b->figures, label, "tokens", step < factored ? change / (factored - step) : 0);
}

/// Making the weights, beside what the device would take for the products at its peak.
static zs_status add_limit(bench *b, const char *name, double change, zs_error *error) {
    char label[48];
    bench_step step;
    snprintf(label, sizeof label, "compose_%s", name);
    zs_status status = bench_kernel_table(b, label, &(zs_kernel_params){.kind = ZS_STEP_COMPOSE, .runs = 1}, &step, error);
    if (status) return status;
    snprintf(label, sizeof label, "compose_%s_over_limit", name);
    figure *f = figures_add_value(&b->figures, label, "ratio", change / (step.flops / bench_peak(b) * 1e-6));
    if (bench_on_gpu(b)) f->bar = 1 / 0.6;
    return ZS_OK;
}

zs_status bench_compose(bench *b, zs_error *error) {
    zs_engine *own = b->stack.engine;
    double factored = 0, step, change;
    zs_status status = bench_device(b, error);
    if (!status) status = with_engine(b, ZS_MODE_FACTORED, ZS_COMPOSED_DEFAULT, error);
    if (!status) status = measure(b, "factored", &factored, NULL, error);
    if (b->stack.engine != own) zs_engine_destroy(&b->stack.engine);
    for (size_t t = 0; t < sizeof types / sizeof *types && !status; t++) {
        b->stack.engine = own;
        status = with_engine(b, ZS_MODE_COMPOSED, types[t].type, error);
        if (!status) status = measure(b, types[t].name, &step, &change, error);
        if (!status) add_break_even(b, types[t].name, change, step, factored);
        if (!status) status = add_limit(b, types[t].name, change, error);
        if (b->stack.engine != own) zs_engine_destroy(&b->stack.engine);
    }
    b->stack.engine = own;
    return status;
}
