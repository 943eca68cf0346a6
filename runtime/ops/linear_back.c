#include "ops/record.h"

enum {
    TILE = 64,
    TILES_WORKGROUP = 128,
    LANES_WORKGROUP = 8,
    LANES_CHUNK = 16, // rows of W that a turn of linear_back.comp takes at most; a dispatch takes a multiple
    BLOCK_BYTES = 1 << 20,
};

static bool segments_fit(const op_recorder *recorder, const op_linear_back *op) {
    if (op->segment_count == 0 || op->segment_count > OP_MAX_SEGMENTS || op->rows == 0 || op->x_stride % 4 || op->y_stride % 4) {
        op_fail(recorder, "linear_back: %u segments and %u rows of %u → %u floats", op->segment_count, op->rows, op->x_stride,
                op->y_stride);
        return false;
    }
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const op_segment *segment = &op->segments[s];
        const matrix *w = segment->weight, *first = op->segments[0].weight;
        if (w->type != first->type || w->group != first->group || w->in == 0 || w->out == 0 || segment->x_offset % 4 ||
            segment->y_offset % 4) {
            op_fail(recorder, "linear_back: segment %u [%u, %u] differs in type or grouping, or is not aligned", s, w->out, w->in);
            return false;
        }
        if (segment->x_offset + w->out > op->x_stride || segment->y_offset + w->padded > op->y_stride || (op->sum && w->in != first->in)) {
            op_fail(recorder, "linear_back: segment %u [%u, %u] does not fit rows of %u → %u floats", s, w->out, w->in, op->x_stride,
                    op->y_stride);
            return false;
        }
    }
    return true;
}

static PushLinearBack push_of(const op_linear_back *op) {
    PushLinearBack push = {.x = op->x, .y = op->y, .end = UINT32_MAX, .rows = op->rows, .x_stride = op->x_stride, .y_stride = op->y_stride};
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const op_segment *segment = &op->segments[s];
        push.weights[s] = segment->weight->address;
        push.out_rows[s] = segment->weight->out;
        push.in_units[s] = segment->weight->padded / 8;
        push.x_offset[s] = segment->x_offset;
        push.y_offset[s] = segment->y_offset;
    }
    return push;
}

static gpu_work work_of(const op_linear_back *op) {
    gpu_work work = {0};
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const matrix *w = op->segments[s].weight;
        work.bytes += (double)matrix_bytes(w) + 4.0 * op->rows * ((double)w->in + w->out);
        work.flops += 2.0 * op->rows * (double)w->in * w->out;
    }
    return work;
}

/// Workgroups in x when each takes `tile` units.
static uint32_t unit_groups(const op_linear_back *op, uint32_t tile) {
    uint32_t groups = 0;
    for (uint32_t s = 0; s < (op->sum ? 1 : op->segment_count); s++) groups += divide_up(op->segments[s].weight->padded / 8, tile);
    return groups;
}

static uint32_t lanes_module(matrix_type type, bool subgroup) {
    static const uint32_t modules[2][MATRIX_TYPES] = {MODULES_BY_TYPE(linear_back_lanes, ), MODULES_BY_TYPE(linear_back_lanes, _subgroup)};
    return modules[subgroup][type];
}

static uint32_t tiles_module(matrix_type type) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(matmul_back, );
    return modules[type];
}

/// On matrix units, for types of factors; SHADER_COUNT: there is none. Of f32, half of the digits would be lost.
static uint32_t matrix_module(matrix_type type) {
    switch (type) {
    case MATRIX_F16: return SHADER_matmul_back_matrix_f16;
    case MATRIX_Q8: return SHADER_matmul_back_matrix_q8;
    default: return SHADER_COUNT;
    }
}

static bool takes_operands(const op_linear_back *op, const op_policy *policy) {
    return !policy->lanes && !policy->deterministic && policy->matrix_shape.tile && op->operands && op->x_stride % 32 == 0 &&
           matrix_module(op->segments[0].weight->type) != SHADER_COUNT && op_half_rows_suit(op->segments, op->segment_count);
}

/// Units that an invocation of linear_back.comp takes, as a share of a workgroup's invocations: types that can be read by fours
/// (weights.glsl) are.
static uint32_t lanes_units(matrix_type type, uint32_t workgroup) {
    bool by_fours = type == MATRIX_F32 || type == MATRIX_F16 || type == MATRIX_BF16;
    return by_fours ? workgroup / 2 : workgroup;
}

/// CPU drivers: blocks of 4 columns × 16 or 64 step rows, or 8 × 16 or 32 (8 step rows without subgroups, where every invocation loads x
/// for itself).
static void choose_lanes(const op_linear_back *op, const op_policy *policy, uint32_t flags, op_dispatch *dispatch) {
    bool subgroup = (policy->tiers & ZS_TIER_SUBGROUP) && policy->subgroup_size >= 4;
    uint32_t workgroup = subgroup ? policy->subgroup_size : LANES_WORKGROUP;
    matrix_type type = op->segments[0].weight->type;
    uint32_t units = lanes_units(type, workgroup), tokens = subgroup ? op_lanes_tokens(op->rows, policy) : 8;
    if (tokens > 32 && units == workgroup) tokens = 32; // of 8 columns, whose sums are twice as many
    dispatch->key = (gpu_kernel_key){
        .module = lanes_module(type, subgroup),
        .subgroup_size = subgroup ? policy->subgroup_size : 0,
        .constant_count = 5,
        .constants = {workgroup, op->segments[0].weight->group, tokens, flags, op->segment_count},
    };
    dispatch->groups[0] = unit_groups(op, units);
    dispatch->groups[1] = divide_up(op->rows, tokens);
}

/// Rows of the matrices that a dispatch on a CPU takes, so that what it reads of them stays in its caches.
static uint32_t block_rows(const op_linear_back *op) {
    uint64_t row_bytes = 0; // at least 32 values each
    for (uint32_t s = 0; s < op->segment_count; s++) row_bytes += matrix_bytes(op->segments[s].weight) / op->segments[s].weight->out;
    uint32_t rows = (uint32_t)(BLOCK_BYTES / (row_bytes ? row_bytes : 1)) / 64 * 64;
    return rows ? rows : 64;
}

static void record_blocks(const op_recorder *recorder, const op_linear_back *op, uint32_t flags, PushLinearBack *push,
                          op_dispatch *dispatch) {
    uint32_t longest = 0;
    for (uint32_t s = 0; s < op->segment_count; s++)
        longest = op->segments[s].weight->out > longest ? op->segments[s].weight->out : longest;
    if (longest == 0) return;
    uint32_t blocks = divide_up(longest, block_rows(op)),
             step = divide_up(divide_up(longest, blocks), LANES_CHUNK) * LANES_CHUNK; // of even size
    dispatch->work.bytes /= blocks;
    dispatch->work.flops /= blocks;
    for (push->first = 0; push->first < longest; push->first = push->end) {
        push->end = push->first + step;
        choose_lanes(op, &recorder->policy, flags, dispatch);
        if (push->first) gpu_command_barrier(recorder->command);
        op_record(recorder, dispatch);
        flags |= LINEAR_RESIDUAL; // the blocks after the first add to it
    }
}

/// GPUs: 64 × 64 tiles through shared memory.
static void choose_tiles(const op_linear_back *op, uint32_t flags, op_dispatch *dispatch) {
    dispatch->key = (gpu_kernel_key){.module = tiles_module(op->segments[0].weight->type),
                                     .constant_count = 4,
                                     .constants = {TILES_WORKGROUP, op->segments[0].weight->group, flags, op->segment_count}};
    dispatch->groups[0] = unit_groups(op, TILE / 8);
    dispatch->groups[1] = divide_up(op->rows, TILE);
}

/// GPUs with matrix units, where op_record_half_rows has brought x.
static void choose_matrix(const op_linear_back *op, const op_policy *policy, uint32_t flags, PushLinearBack *push, op_dispatch *dispatch) {
    const matrix *weight = op->segments[0].weight;
    push->x = op->operands;
    dispatch->key = op_matrix_key(policy, &policy->matrix_shape, matrix_module(weight->type), weight, flags, op->segment_count,
                                  policy->matrix_shape.tile, 1);
    dispatch->groups[0] = unit_groups(op, policy->matrix_shape.tile / 8);
    dispatch->groups[1] = divide_up(op->rows, policy->matrix_shape.tile);
}

/// Every matrix is in one part. operands: they are there.
static void record_whole(const op_recorder *recorder, const op_linear_back *op, bool operands) {
    uint32_t flags = (op->residual ? LINEAR_RESIDUAL : 0) | (op->sum ? LINEAR_SUM : 0);
    PushLinearBack push = push_of(op);
    op_dispatch dispatch = {.push = &push, .push_size = sizeof push, .groups = {1, 1, 1}, .work = work_of(op)};
    if (recorder->policy.lanes) {
        record_blocks(recorder, op, flags, &push, &dispatch);
        return;
    }
    if (operands)
        choose_matrix(op, &recorder->policy, flags, &push, &dispatch);
    else
        choose_tiles(op, flags, &dispatch);
    op_record(recorder, &dispatch);
}

static void record_operands(const op_recorder *recorder, const op_linear_back *op) {
    uint32_t end = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) {
        uint32_t of_segment = op->segments[s].x_offset + op->segments[s].weight->out;
        end = of_segment > end ? of_segment : end;
    }
    op_record_half_rows(
        recorder, &(op_half_rows){
                      .x = op->x, .operands = op->operands, .width = op->x_stride, .end = end, .x_stride = op->x_stride, .rows = op->rows});
}

void op_record_linear_back(const op_recorder *recorder, const op_linear_back *op) {
    if (!segments_fit(recorder, op)) return;
    uint32_t parts = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) {
        uint32_t of_segment = matrix_part_count(op->segments[s].weight);
        parts = of_segment > parts ? of_segment : parts;
    }
    const bool operands = takes_operands(op, &recorder->policy);
    if (operands) record_operands(recorder, op);
    // y is a sum over the rows of W: the parts behind the first add to it.
    for (uint32_t p = 0; p < parts; p++) {
        matrix matrices[OP_MAX_SEGMENTS];
        op_linear_back some = *op;
        some.segment_count = 0;
        some.residual |= p > 0;
        for (uint32_t s = 0; s < op->segment_count; s++) {
            if (p >= matrix_part_count(op->segments[s].weight)) continue;
            op_segment *to = &some.segments[some.segment_count];
            *to = op->segments[s];
            to->weight = &matrices[some.segment_count];
            to->x_offset += p * op->segments[s].weight->part_rows;
            to->y_offset = op->segments[op->sum ? 0 : s].y_offset;
            matrices[some.segment_count++] = matrix_part(op->segments[s].weight, p);
        }
        if (p) gpu_command_barrier(recorder->command);
        record_whole(recorder, &some, operands);
    }
}

void op_record_linear_back_mixed(const op_recorder *recorder, const op_linear_back *op) {
    op_linear_back part = *op;
    for (uint32_t s = 0; s < op->segment_count;) {
        part.segment_count = 0;
        matrix_type type = op->segments[s].weight->type;
        while (s < op->segment_count && op->segments[s].weight->type == type) part.segments[part.segment_count++] = op->segments[s++];
        op_record_linear_back(recorder, &part);
        if (!op->sum) continue;
        gpu_command_barrier(recorder->command);
        part.residual = true;
    }
}
