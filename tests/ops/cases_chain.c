/// Linear operations one after another as a chain, against the same operations one by one: the same bits, since sums are the same. What an
/// operation has to give by itself is the linear table's.
#include "cases.h"
#include "weights.h"

#include <stdio.h>
#include <string.h>

typedef struct chain_case {
    uint32_t rows;
    bool gelu;
    bool mixed; // one stage is of another matrix type: two dispatches around it
    bool large; // long enough for several threads to be at work: without waiting it would fail
} chain_case;

static const chain_case cases[] = {
    {.rows = 1},
    {.rows = 3},
    {.rows = 8, .gelu = true},
    {.rows = 17},
    {.rows = 40},
    {.rows = 64},
    {.rows = 2, .mixed = true},
    {.rows = 19, .gelu = true, .mixed = true},
    {.rows = 1, .large = true},
};

/// x → a (two matrices, norm, scale) → y (two, and beside them one from x) and f (gate and up, of two x) → x (residual) → z (norm)
enum { V0, V1, U0, U1, BESIDE, GATE, UP, DOWN, LAST, MATRICES };
enum { X, A, Y, F, Z, BUFFERS };
enum { EXPERTS = 3, U_OUT = 65, BESIDE_OUT = 33, LAST_OUT = 130 };

typedef struct chain_data {
    chain_case shape;
    weights w[MATRICES];
    uint32_t stride[BUFFERS];
    float *start[BUFFERS]; // [rows, stride]
    uint64_t chained[BUFFERS], plain[BUFFERS];
    uint64_t step, norm;
    uint32_t scale_stride, hidden, rank;
} chain_data;

static uint32_t round_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

static chain_data *make_data(harness *h, const chain_case *c, uint32_t type) {
    chain_data *d = harness_alloc(h, 1, sizeof *d);
    const uint32_t other = type == TENSOR_F32 ? TENSOR_F16 : TENSOR_F32;
    const uint32_t times = c->large ? 8 : 1;
    const uint32_t hidden = times * weights_inner(type, 192), rank = times * weights_inner(type, 64), ffn = times * weights_inner(type, 96);
    const uint32_t shapes[MATRICES][2] = {
        [V0] = {rank, hidden}, [V1] = {rank, hidden}, [U0] = {hidden, rank},  [U1] = {U_OUT, rank},       [BESIDE] = {BESIDE_OUT, hidden},
        [GATE] = {ffn, rank},  [UP] = {ffn, rank},    [DOWN] = {hidden, ffn}, [LAST] = {LAST_OUT, hidden}};
    d->shape = *c;
    d->hidden = hidden;
    d->rank = rank;
    for (uint32_t m = 0; m < MATRICES; m++) {
        bool differs = c->mixed && (m == GATE || m == UP || m == U0 || m == U1 || m == BESIDE);
        d->w[m] = weights_random(h, differs ? other : type, shapes[m][0], shapes[m][1]);
    }
    const uint32_t widths[BUFFERS] = {hidden, 2 * rank, hidden + round_up(U_OUT, 4) + round_up(BESIDE_OUT, 4), ffn, LAST_OUT};
    for (uint32_t b = 0; b < BUFFERS; b++) {
        d->stride[b] = round_up(widths[b], 32) + 32;
        d->start[b] = random_floats(h, (size_t)c->rows * d->stride[b], 1);
        for (uint32_t t = 0; t < c->rows; t++) // what rows of x have behind them is zero
            for (uint32_t i = b == A ? 2 * rank : b == F ? ffn : b == X ? hidden : d->stride[b]; i < d->stride[b]; i++)
                d->start[b][(size_t)t * d->stride[b] + i] = 0;
    }
    d->scale_stride = 4 + 2 * rank;
    return d;
}

static void put_data(harness *h, chain_data *d) {
    const uint32_t rows = d->shape.rows;
    Row *of_rows = harness_alloc(h, rows, sizeof *of_rows);
    for (uint32_t t = 0; t < rows; t++) of_rows[t].expert = (t * 2 + 1) % EXPERTS;
    for (uint32_t m = 0; m < MATRICES; m++) weights_put(h, &d->w[m]);
    for (uint32_t b = 0; b < BUFFERS; b++) {
        size_t bytes = (size_t)rows * d->stride[b] * sizeof(float);
        d->chained[b] = harness_put(h, d->start[b], bytes);
        d->plain[b] = harness_put(h, d->start[b], bytes);
    }
    d->norm = harness_put(h, random_floats(h, d->hidden, 1), d->hidden * sizeof(float));
    step_data step = {.rows = of_rows,
                      .row_count = rows,
                      .scales = random_floats(h, (size_t)EXPERTS * d->scale_stride, 0.2f),
                      .scale_stride = d->scale_stride,
                      .scale_rows = EXPERTS};
    d->step = put_step(h, &step).step;
}

static op_linear *add(op_chain *chain, const chain_data *d, uint32_t stage, const uint64_t *at, uint32_t x, uint32_t y) {
    op_linear *op = &chain->ops[chain->count];
    *op = (op_linear){.x = at[x],
                      .y = at[y],
                      .x_stride = d->stride[x],
                      .y_stride = d->stride[y],
                      .rows = d->shape.rows,
                      .step = d->step,
                      .decode = true,
                      .norm_width = d->hidden,
                      .norm_eps = 1e-2f};
    chain->labels[chain->count] = "chain";
    chain->stages[chain->count++] = stage;
    return op;
}

static void add_segment(op_linear *op, const weights *w, uint32_t x_offset, uint32_t y_offset) {
    op->segments[op->segment_count++] =
        (op_segment){.weight = &w->shape, .x_offset = x_offset, .y_offset = y_offset, .scale_offset = 4 + y_offset};
}

static op_chain chain_of(const chain_data *d, const uint64_t *at) {
    op_chain chain = {0};
    op_linear *v = add(&chain, d, 0, at, X, A);
    v->norm = d->norm;
    v->scale = true;
    add_segment(v, &d->w[V0], 0, 0);
    add_segment(v, &d->w[V1], 0, d->rank);
    op_linear *u = add(&chain, d, 1, at, A, Y);
    add_segment(u, &d->w[U0], 0, 0);
    add_segment(u, &d->w[U1], d->rank, d->hidden);
    add_segment(add(&chain, d, 1, at, X, Y), &d->w[BESIDE], 0, d->hidden + round_up(U_OUT, 4));
    add(&chain, d, 1, at, X, Y); // of nothing
    op_linear *pair = add(&chain, d, 1, at, A, F);
    pair->silu_mul = true;
    pair->gelu = d->shape.gelu;
    add_segment(pair, &d->w[GATE], 0, 0);
    add_segment(pair, &d->w[UP], d->rank, 0);
    op_linear *down = add(&chain, d, 2, at, F, X);
    down->residual = true;
    add_segment(down, &d->w[DOWN], 0, 0);
    op_linear *last = add(&chain, d, 3, at, X, Z);
    last->norm = d->norm;
    add_segment(last, &d->w[LAST], 0, 0);
    return chain;
}

static void record(harness *h, const op_recorder *recorder, void *user) {
    const chain_data *d = user;
    const op_chain chain = chain_of(d, d->chained), plain = chain_of(d, d->plain);
    const op_policy *policy = &recorder->policy;
    uint32_t before = gpu_command_dispatch_count(recorder->command);
    op_record_chain(recorder, &chain);
    uint32_t dispatches = gpu_command_dispatch_count(recorder->command) - before, expected = op_chain_dispatches(policy, &chain);
    bool chains = (policy->tiers & ZS_TIER_CHAIN) && policy->lanes && !policy->deterministic;
    chains &= 2 * policy->subgroup_size % d->w[V0].shape.group == 0; // or a workgroup would read half of some interleaved rows
    if (dispatches != expected) harness_fail(h, "%u dispatches, not the %u that are expected", dispatches, expected);
    if (chains && dispatches > (d->shape.mixed ? 5u : 1u)) harness_fail(h, "%u dispatches: nothing was chained", dispatches);
    for (uint32_t i = 0; i < plain.count; i++) {
        if (plain.ops[i].segment_count) op_record_linear(recorder, &plain.ops[i]);
        gpu_command_barrier(recorder->command);
    }
    for (uint32_t b = 0; b < BUFFERS; b++) {
        size_t bytes = (size_t)d->shape.rows * d->stride[b] * sizeof(float);
        harness_ignore(h, d->chained[b], bytes);
        harness_ignore(h, d->plain[b], bytes);
    }
}

static void check(harness *h, const variant *v, void *user) {
    (void)v;
    static const char names[BUFFERS] = {'x', 'a', 'y', 'f', 'z'};
    const chain_data *d = user;
    for (uint32_t b = 0; b < BUFFERS; b++) {
        size_t bytes = (size_t)d->shape.rows * d->stride[b] * sizeof(float);
        if (memcmp(harness_after(h, d->chained[b]), harness_after(h, d->plain[b]), bytes))
            harness_fail(h, "%c is not what the operations leave one by one", names[b]);
        if (memcmp(harness_after(h, d->chained[b]), d->start[b], bytes) == 0) harness_fail(h, "%c is as it was", names[b]);
    }
}

void cases_chain(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            const chain_case *c = &cases[i];
            char name[32];
            if (c->large ? weight_types[t] != TENSOR_F16 : harness_leaves_out(h, t, i)) continue;
            snprintf(name, sizeof name, "chain %s", tensor_type_get_info(weight_types[t])->name);
            if (!harness_case(h, name, "%u rows%s%s%s", c->rows, c->large ? ", large" : "", c->gelu ? ", gelu" : "",
                              c->mixed ? ", two types" : ""))
                continue;
            chain_data *d = make_data(h, c, weight_types[t]);
            put_data(h, d);
            harness_run(h, record, check, d);
        }
}
