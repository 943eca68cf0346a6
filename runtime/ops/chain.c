/// Linear operations one after another in one dispatch (linear_chain.comp), where a CPU's driver allows it.
#include "ops/record.h"

enum { MOST_PIECES = OP_CHAIN_MOST * OP_MAX_SEGMENTS };

/// Operations first … end − 1 of a chain, which are whole stages.
typedef struct run {
    uint32_t first, end;
    uint32_t stages;
    bool chained; // in one dispatch
} run;

static uint32_t chain_module(matrix_type type) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(linear_chain, );
    return modules[type];
}

static bool policy_chains(const op_policy *policy) {
    return op_lanes_share(policy) && (policy->tiers & ZS_TIER_CHAIN) && !policy->deterministic;
}

/// Whether an operation can be part of a dispatch whose matrices are like `like`.
static bool op_suits(const op_policy *policy, const op_linear *op, const matrix *like) {
    if (!op->decode || op->bias) return false;
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const matrix *w = op->segments[s].weight;
        if (w->part_rows || w->type != like->type || w->group != like->group ||
            op_lanes_block(op, policy).rows * policy->subgroup_size % w->group)
            return false;
    }
    return true;
}

/// The end of the stage that begins with operation `first`.
static uint32_t stage_end(const op_chain *chain, uint32_t first) {
    uint32_t end = first;
    while (end < chain->count && chain->stages[end] == chain->stages[first]) end++;
    return end;
}

/// Some matrix of operations first … end − 1; NULL where there is none.
static const matrix *some_matrix(const op_chain *chain, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; i++)
        if (chain->ops[i].segment_count) return chain->ops[i].segments[0].weight;
    return NULL;
}

/// The longest run from operation `first` on that is one dispatch; else its stage alone.
static run next_run(const op_policy *policy, const op_chain *chain, uint32_t first) {
    run found = {.first = first, .end = first};
    const matrix *like = NULL;
    while (found.end < chain->count && found.stages < OP_CHAIN_STAGES && policy_chains(policy)) {
        uint32_t end = stage_end(chain, found.end);
        const matrix *some = some_matrix(chain, found.end, end);
        bool suits = true;
        if (!like) like = some;
        for (uint32_t i = found.end; i < end && some; i++) suits &= op_suits(policy, &chain->ops[i], like);
        if (!suits) break;
        found.stages += some != NULL;
        found.end = end;
    }
    found.chained = found.stages > 1;
    if (!found.chained) found.end = stage_end(chain, first);
    return found;
}

/// What a run's dispatch is made of.
typedef struct table {
    ChainPiece pieces[MOST_PIECES];
    uint32_t count;  // of pieces
    uint32_t groups; // workgroups
    uint32_t stages;
    gpu_work work;
} table;

static void add_piece(table *t, const op_linear *op, uint32_t segment, uint32_t tile, uint64_t ones) {
    const op_segment *of = &op->segments[segment], *up = op->silu_mul ? &op->segments[1] : of;
    t->pieces[t->count++] = (ChainPiece){
        .weights = of->weight->address,
        .up_weights = up->weight->address,
        .x = op->x + 4ull * of->x_offset,
        .up_x = op->x + 4ull * up->x_offset,
        .y = op->y + 4ull * of->y_offset,
        .norm = op->norm ? op->norm : ones,
        .first = t->groups,
        .stage = t->stages,
        .out_rows = of->weight->out,
        .in_units = of->weight->padded / 8,
        .x_stride = op->x_stride,
        .y_stride = op->y_stride,
        .scale_offset = of->scale_offset,
        .flags = op_linear_flags(op),
    };
    t->groups += divide_up(of->weight->out, tile);
}

/// The pieces of a stage, which wait for the `before` workgroups of the one before; returns its own.
static uint32_t add_stage(table *t, const op_chain *chain, uint32_t first, uint32_t end, uint32_t before, uint32_t tile, uint64_t ones) {
    uint32_t piece = t->count, groups = t->groups;
    for (uint32_t i = first; i < end; i++) {
        const op_linear *op = &chain->ops[i];
        gpu_work work = op_linear_work(op);
        for (uint32_t s = 0; s < (op->silu_mul ? op->segment_count / 2 : op->segment_count); s++) add_piece(t, op, s, tile, ones);
        t->work.bytes += work.bytes;
        t->work.flops += work.flops;
    }
    for (; piece < t->count; piece++) t->pieces[piece].before = before;
    return t->groups - groups;
}

/// With the constants that all operations share: where some have a norm, theirs.
static gpu_kernel_key key_of(const op_policy *policy, const op_chain *chain, const run *r) {
    const op_linear *op = &chain->ops[r->first], *normed = NULL;
    const op_lanes shape = op_lanes_block(op, policy);
    uint32_t flags = 0;
    for (uint32_t i = r->first; i < r->end; i++) {
        if (chain->ops[i].norm) normed = &chain->ops[i];
        flags |= op_linear_flags(&chain->ops[i]) & (LINEAR_GELU | LINEAR_NORM);
    }
    const matrix *like = some_matrix(chain, r->first, r->end);
    gpu_kernel_key key = {
        .module = chain_module(like->type),
        .subgroup_size = policy->subgroup_size,
        .constant_count = 5,
        .constants = {policy->subgroup_size, like->group, shape.rows, shape.tokens, flags},
    };
    if (normed) op_add_norm(&key, normed->norm_width, normed->norm_eps);
    return key;
}

static void record_run(const op_recorder *recorder, const op_chain *chain, const run *r) {
    static const float ones[2] = {1, 1};
    static const uint32_t zeros[OP_CHAIN_STAGES + 1];
    const uint64_t ones_at = gpu_command_constants(recorder->command, ones, sizeof ones);
    const op_lanes shape = op_lanes_block(&chain->ops[r->first], &recorder->policy);
    const uint32_t tile = shape.rows * recorder->policy.subgroup_size;
    table t = {0};
    uint32_t before = 0, last = 0;
    for (uint32_t first = r->first; first < r->end; first = stage_end(chain, first)) {
        uint32_t end = stage_end(chain, first);
        if (!some_matrix(chain, first, end)) continue;
        last = t.count;
        before = add_stage(&t, chain, first, end, before, tile, ones_at);
        t.stages++;
    }
    for (; last < t.count; last++) t.pieces[last].last = before;
    PushLinearChain push = {
        .table = gpu_command_constants(recorder->command, t.pieces, t.count * sizeof *t.pieces),
        .counters = gpu_command_constants(recorder->command, zeros, (t.stages + 1) * sizeof *zeros),
        .step = chain->ops[r->first].step,
        .pieces = t.count,
        .rows = chain->ops[r->first].rows,
    };
    op_dispatch dispatch = {
        .push = &push, .push_size = sizeof push, .groups = {t.groups * divide_up(push.rows, shape.tokens), 1, 1}, .work = t.work};
    dispatch.key = key_of(&recorder->policy, chain, r);
    gpu_command_label(recorder->command, "chain");
    op_record(recorder, &dispatch);
}

static void record_stage(const op_recorder *recorder, const op_chain *chain, const run *r) {
    for (uint32_t i = r->first; i < r->end; i++) {
        if (chain->ops[i].segment_count == 0) continue;
        gpu_command_label(recorder->command, chain->labels[i]);
        op_record_linear_mixed(recorder, &chain->ops[i]);
    }
}

void op_record_chain(const op_recorder *recorder, const op_chain *chain) {
    for (uint32_t first = 0; first < chain->count;) {
        const run r = next_run(&recorder->policy, chain, first);
        if (r.chained)
            record_run(recorder, chain, &r);
        else
            record_stage(recorder, chain, &r);
        if (some_matrix(chain, r.first, r.end)) gpu_command_barrier(recorder->command);
        first = r.end;
    }
}

uint32_t op_chain_dispatches(const op_policy *policy, const op_chain *chain) {
    uint32_t dispatches = 0;
    for (uint32_t first = 0; first < chain->count;) {
        const run r = next_run(policy, chain, first);
        for (uint32_t i = r.first; i < r.end && !r.chained; i++) {
            for (uint32_t s = 0; s < chain->ops[i].segment_count;) {
                op_linear part = op_linear_next_type(&chain->ops[i], &s);
                dispatches += op_linear_dispatches(&part);
            }
        }
        dispatches += r.chained;
        first = r.end;
    }
    return dispatches;
}
