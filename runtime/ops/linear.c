#include "ops/record.h"

#include <string.h>

enum {
    LANES_MANY_ROWS = 128,  // from which on kernels for them are worth the second that making them takes at the first start
    MOST_DOT_ROWS = 2,      // of more, products cost what unpacking weights once saves
    SPLIT_CHUNKS = 4,       // of the inner dimension, at least, in a split
    SPLIT_BYTES = 16 << 20, // of sums that splits leave, at most
    COMBINE_WORKGROUP = 128,
};

/// How linear.comp is specialised for a case.
typedef struct linear_shape {
    uint32_t workgroup, lanes, rows, tokens;
} linear_shape;

static bool segments_fit(const op_recorder *recorder, const op_linear *op) {
    if (op->segment_count == 0 || op->segment_count > OP_MAX_SEGMENTS || op->rows == 0) {
        op_fail(recorder, "linear: %u segments and %u rows", op->segment_count, op->rows);
        return false;
    }
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const op_segment *segment = &op->segments[s];
        const matrix *w = segment->weight;
        if (w->type != op->segments[0].weight->type || w->group != op->segments[0].weight->group || w->in == 0 || w->out == 0 ||
            segment->x_offset % 4 || segment->y_offset % 4 || op->x_stride % 4 || op->y_stride % 4) {
            op_fail(recorder, "linear: segment %u [%u, %u] differs in type or grouping, or is not aligned", s, w->out, w->in);
            return false;
        }
        if (segment->x_offset + w->padded > op->x_stride || (!(op->silu_mul && s == 1) && segment->y_offset + w->out > op->y_stride)) {
            op_fail(recorder, "linear: segment %u [%u, %u] does not fit rows of %u → %u floats", s, w->out, w->in, op->x_stride,
                    op->y_stride);
            return false;
        }
    }
    if (op->silu_mul && (op->segment_count != 2 || op->segments[0].weight->out != op->segments[1].weight->out ||
                         op->segments[0].weight->part_rows != op->segments[1].weight->part_rows)) {
        op_fail(recorder, "linear: silu_mul needs two matrices of one shape");
        return false;
    }
    for (uint32_t s = 0; op->norm && s < op->segment_count; s++) {
        if (op->segments[s].weight->in != op->norm_width) {
            op_fail(recorder, "linear: a norm over %u values before matrix [%u, %u]", op->norm_width, op->segments[s].weight->out,
                    op->segments[s].weight->in);
            return false;
        }
    }
    if (op->bias && (op->norm || op->silu_mul)) {
        op_fail(recorder, "linear: a bias together with a norm or silu_mul");
        return false;
    }
    if (op->scale && op->step == 0) {
        op_fail(recorder, "linear: scale needs a step");
        return false;
    }
    return true;
}

static PushLinear push_of(const op_linear *op) {
    PushLinear push = {.x = op->x,
                       .y = op->y,
                       .step = op->step,
                       .norm = op->bias ? op->bias : op->norm,
                       .rows = op->rows,
                       .x_stride = op->x_stride,
                       .y_stride = op->y_stride};
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const op_segment *segment = &op->segments[s];
        push.weights[s] = segment->weight->address;
        push.out_rows[s] = segment->weight->out;
        push.in_units[s] = segment->weight->padded / 8;
        push.x_offset[s] = segment->x_offset;
        push.y_offset[s] = segment->y_offset;
        push.scale_offset[s] = segment->scale_offset;
    }
    return push;
}

gpu_work op_linear_work(const op_linear *op) {
    gpu_work work = {0};
    for (uint32_t s = 0; s < op->segment_count; s++) {
        const matrix *w = op->segments[s].weight;
        work.bytes += (double)matrix_bytes(w) + 4.0 * op->rows * ((double)w->in + w->out);
        work.flops += 2.0 * op->rows * (double)w->in * w->out;
    }
    return work;
}

uint32_t op_linear_flags(const op_linear *op) {
    return (op->scale ? LINEAR_SCALE : 0) | (op->residual ? LINEAR_RESIDUAL : 0) | (op->silu_mul ? LINEAR_SILU_MUL : 0) |
           (op->gelu ? LINEAR_GELU : 0) | (op->norm ? LINEAR_NORM : 0) | (op->bias ? LINEAR_BIAS : 0);
}

/// Workgroups in x when each takes `tile` output rows.
static uint32_t row_groups(const op_linear *op, uint32_t tile) {
    if (op->silu_mul) return divide_up(op->segments[0].weight->out, tile);
    uint32_t groups = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) groups += divide_up(op->segments[s].weight->out, tile);
    return groups;
}

static uint32_t power_of_two_up_to(uint32_t n, uint32_t limit) {
    uint32_t p = 1;
    while (p < n && p < limit) p *= 2;
    return p;
}

/// CPU drivers without subgroups: an invocation alone. Many rows: blocks of 4 output × 8 step rows in registers. Few: as many step rows as
/// there are.
static linear_shape lanes_shape(const op_linear *op, const op_policy *policy) {
    bool many = !op->decode || policy->deterministic;
    return (linear_shape){.workgroup = 8, .lanes = 1, .rows = many ? 4 : 2, .tokens = many ? 8 : power_of_two_up_to(op->rows, 8)};
}

/// GPUs without subgroups, few rows: 32 invocations per two output rows.
static linear_shape shared_shape(const op_linear *op) {
    return (linear_shape){.workgroup = 64, .lanes = 32, .rows = 2, .tokens = power_of_two_up_to(op->rows, 8)};
}

/// touch: brings a turn's weights near before it reads them.
static uint32_t lanes_module(matrix_type type, bool touch) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(linear_lanes, );
    static const uint32_t touching[MATRIX_TYPES] = MODULES_BY_TYPE(linear_lanes, _touch);
    return touch ? touching[type] : modules[type];
}

static uint32_t linear_module(matrix_type type, bool storage) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(linear, );
    return type == MATRIX_F16 && storage ? SHADER_linear_f16_storage : modules[type];
}

/// By products of integers; SHADER_COUNT: the type has none.
static uint32_t dot_module(matrix_type type) {
    switch (type) {
    case MATRIX_Q8: return SHADER_matvec_q8_dot;
    case MATRIX_Q4: return SHADER_matvec_q4_dot;
    case MATRIX_Q5: return SHADER_matvec_q5_dot;
    case MATRIX_Q4K: return SHADER_matvec_q4k_dot;
    case MATRIX_Q5K: return SHADER_matvec_q5k_dot;
    case MATRIX_Q6: return SHADER_matvec_q6_dot;
    default: return SHADER_COUNT;
    }
}

bool op_matvec_has_dot(matrix_type type) { return dot_module(type) != SHADER_COUNT; }

static uint32_t matvec_module(matrix_type type) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(matvec, );
    return modules[type];
}

static uint32_t matmul_module(matrix_type type) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(matmul, );
    return modules[type];
}

static uint32_t matrix_module(matrix_type type) {
    static const uint32_t modules[MATRIX_TYPES] = {
        [MATRIX_F16] = SHADER_matmul_matrix_f16, [MATRIX_BF16] = SHADER_matmul_matrix_bf16, [MATRIX_Q8] = SHADER_matmul_matrix_q8,
        [MATRIX_Q4] = SHADER_matmul_matrix_q4,   [MATRIX_Q5] = SHADER_matmul_matrix_q5,     [MATRIX_Q4K] = SHADER_matmul_matrix_q4k,
        [MATRIX_Q5K] = SHADER_matmul_matrix_q5k, [MATRIX_Q6] = SHADER_matmul_matrix_q6,
    };
    return modules[type];
}

/// Whether blocks of 64 step rows would be an eighth empty at most: an empty place in a block costs as much as a row.
static bool fills_large_blocks(uint32_t rows) {
    const uint32_t padded = divide_up(rows, 64) * 64;
    return padded - rows <= padded / 8;
}

uint32_t op_lanes_tokens(uint32_t rows, const op_policy *policy) {
    return !policy->deterministic && rows >= LANES_MANY_ROWS && fills_large_blocks(rows) ? 64 : 16;
}

/// Step rows of a block in decode: one block of up to 8, else of 64, 12 or 16, whichever leaves few empty.
static uint32_t decode_tokens(uint32_t rows) {
    if (rows <= 8) return power_of_two_up_to(rows, 8);
    if (fills_large_blocks(rows)) return 64;
    return divide_up(rows, 12) * 12 < divide_up(rows, 16) * 16 ? 12 : 16;
}

/// Blocks of 4 output × 16 or 64 step rows; 2 output rows when there are few step rows.
op_lanes op_lanes_block(const op_linear *op, const op_policy *policy) {
    const uint32_t tokens = op->decode && !policy->deterministic ? decode_tokens(op->rows) : op_lanes_tokens(op->rows, policy);
    return (op_lanes){.rows = tokens > 8 ? 4 : 2, .tokens = tokens};
}

/// CPU drivers with subgroups.
static void choose_lanes(const op_linear *op, const op_policy *policy, uint32_t flags, op_dispatch *dispatch) {
    const op_lanes block = op_lanes_block(op, policy);
    const uint32_t group = op->segments[0].weight->group;
    // Where products are few, weights are waited for.
    const bool touch = (policy->tiers & ZS_TIER_STORAGE) && block.rows * policy->subgroup_size % group == 0;
    dispatch->key = (gpu_kernel_key){
        .module = lanes_module(op->segments[0].weight->type, touch),
        .subgroup_size = policy->subgroup_size,
        .constant_count = 6,
        .constants = {policy->subgroup_size, group, block.rows, block.tokens, flags, op->segment_count},
    };
    dispatch->groups[0] = row_groups(op, policy->subgroup_size * block.rows);
    dispatch->groups[1] = divide_up(op->rows, block.tokens);
}

/// GPUs, many rows: 64 × 64 tiles through shared memory.
static void choose_tiles(const op_linear *op, uint32_t flags, op_dispatch *dispatch) {
    dispatch->key = (gpu_kernel_key){.module = matmul_module(op->segments[0].weight->type),
                                     .constant_count = 4,
                                     .constants = {128, op->segments[0].weight->group, flags, op->segment_count}};
    dispatch->groups[0] = row_groups(op, 64);
    dispatch->groups[1] = divide_up(op->rows, 64);
}

static bool takes_tiles(const op_linear *op, const op_policy *policy) {
    return !policy->lanes && (!op->decode || op->rows > 8 || policy->deterministic);
}

/// Matrix units serve. Not weights in f32, which would lose half of their digits.
static bool takes_operands(const op_linear *op, const op_policy *policy) {
    return takes_tiles(op, policy) && policy->matrix_shape.tile && op->operands && !policy->deterministic &&
           op->segments[0].weight->type != MATRIX_F32 && op_half_rows_suit(op->segments, op->segment_count);
}

/// f16 rows, what undoes their scaling, and up to 16 bytes.
static uint64_t half_bytes(uint32_t rows, uint32_t stride) { return (((uint64_t)stride * 2 + 4) * rows + 15) / 16 * 16; }

uint64_t op_linear_operands(const op_policy *policy, uint32_t rows, uint32_t stride) {
    return policy->matrix_shape.tile ? half_bytes(rows, stride) + (policy->matrix_fill ? SPLIT_BYTES : 0) : 0;
}

uint64_t op_linear_back_operands(const op_policy *policy, uint32_t rows, uint32_t stride) {
    return policy->matrix_shape.tile ? half_bytes(rows, stride) : 0;
}

static uint32_t operand_width(const op_linear *op) { return op->norm ? op->segments[0].weight->padded : op->x_stride; }

void op_add_norm(gpu_kernel_key *key, uint32_t width, float eps) {
    key->constants[key->constant_count++] = width;
    memcpy(&key->constants[key->constant_count++], &eps, sizeof eps);
}

void op_record_half_rows(const op_recorder *recorder, const op_half_rows *op) {
    gpu_command_barrier(recorder->command); // the operation before may read its operands still, where the caller has no barrier between
    PushHalfRows push = {.x = op->x,
                         .norm = op->norm,
                         .h = op->operands,
                         .undo = op->operands + 2ull * op->width * op->rows,
                         .width = op->width,
                         .end = op->end,
                         .x_stride = op->x_stride};
    op_dispatch dispatch = {
        .key = {.module = SHADER_half_rows, .constant_count = 2, .constants = {128, op->norm != 0}},
        .push = &push,
        .push_size = sizeof push,
        .groups = {op->rows, 1, 1},
        .work = {.bytes = 10.0 * op->rows * op->width},
    };
    if (op->norm) op_add_norm(&dispatch.key, op->norm_width, op->norm_eps);
    op_record(recorder, &dispatch);
    gpu_command_barrier(recorder->command);
}

op_matrix_shape op_matrix_smallest(const gpu_matrix_units *units) {
    return (op_matrix_shape){.tile = 4 * units->m, .units = 4, .subgroups = 4};
}

static bool divides(const op_matrix_shape *shape, const gpu_matrix_units *units, uint32_t subgroup_size) {
    return shape->tile * shape->units % (shape->subgroups * subgroup_size) == 0 && shape->tile / 2 % units->m == 0 &&
           shape->tile / (shape->subgroups / 2) % units->n == 0;
}

/// For two matrices at once, which have two sums for each value of a tile: larger tiles would spill.
static op_matrix_shape pair_shape(const op_matrix_shape *shape, const gpu_matrix_units *units, uint32_t subgroup_size) {
    op_matrix_shape small = *shape;
    if (small.tile > 4 * units->m) small.tile = 4 * units->m;
    return divides(&small, units, subgroup_size) ? small : op_matrix_smallest(units);
}

bool op_matrix_divides(const op_matrix_shape *shape, const gpu_matrix_units *units, uint32_t subgroup_size) {
    op_matrix_shape pair = pair_shape(shape, units, subgroup_size);
    return divides(shape, units, subgroup_size) && divides(&pair, units, subgroup_size);
}

uint32_t op_matrix_shared_bytes(const op_matrix_shape *shape, const gpu_matrix_units *units) {
    uint32_t pitch = 16 * shape->units + 16, sums = 4 * units->m * units->n; // bytes of a tile's row; of a subgroup's matrix on its way out
    return 2 * shape->tile * pitch + shape->subgroups * sums * (shape->tile > 4 * units->m ? 1 : 2);
}

gpu_kernel_key op_matrix_key(const op_policy *policy, const op_matrix_shape *shape, uint32_t module, const matrix *weight, uint32_t flags,
                             uint32_t segments, uint32_t x_tile, uint32_t splits) {
    return (gpu_kernel_key){
        .module = module,
        .subgroup_size = policy->subgroup_size,
        .constant_count = 12,
        .constants = {shape->subgroups * policy->subgroup_size, weight->group, flags, segments, policy->subgroup_size, policy->matrix.m,
                      policy->matrix.n, policy->matrix.k, shape->tile, shape->units, x_tile, splits},
    };
}

/// Step rows of a tile: all there are, if each subgroup still has a matrix.
static uint32_t step_tile(const op_matrix_shape *shape, const gpu_matrix_units *units, uint32_t rows) {
    uint32_t lines = shape->tile / units->m, columns = shape->subgroups > lines ? shape->subgroups / lines : 1, tile = units->n * columns;
    while (tile < rows && tile < shape->tile) tile *= 2;
    return tile < shape->tile ? tile : shape->tile;
}

/// Shares that the inner dimension is cut into, a power of two: workgroups that `groups` leave the device room for.
static uint32_t splits_of(const op_linear *op, const op_policy *policy, uint32_t unit_chunk, uint32_t groups) {
    uint32_t chunks = UINT32_MAX, splits = 1;
    for (uint32_t s = 0; s < op->segment_count; s++) {
        uint32_t of_segment = divide_up(op->segments[s].weight->padded / 8, unit_chunk);
        chunks = of_segment < chunks ? of_segment : chunks;
    }
    uint64_t share = 4ull * (op->silu_mul ? 2 : 1) * op->rows * op->y_stride;
    while (2 * splits <= OP_MATRIX_SPLITS && 2 * splits * groups <= policy->matrix_fill && 2 * splits * SPLIT_CHUNKS <= chunks &&
           2 * splits * share <= SPLIT_BYTES)
        splits *= 2;
    return splits;
}

/// Of few rows, where reading weights is what takes time, the smallest tiles, so that there are more of them; gate and up take no others.
static op_matrix_shape shape_for(const op_policy *policy, uint32_t rows, bool pair) {
    op_matrix_shape small = pair_shape(&policy->matrix_shape, &policy->matrix, policy->subgroup_size);
    return pair || rows <= small.tile ? small : policy->matrix_shape;
}

uint32_t op_matrix_groups(const op_policy *policy, uint32_t out, uint32_t rows) {
    op_matrix_shape shape = shape_for(policy, rows, false);
    return divide_up(out, shape.tile) * divide_up(rows, step_tile(&shape, &policy->matrix, rows));
}

/// GPUs with matrix units, many rows: tiles through shared memory as f16, where op_record_half_rows has brought x. Returns the shares
/// that are to be combined.
static uint32_t choose_matrix(const op_linear *op, const op_policy *policy, uint32_t flags, PushLinear *push, op_dispatch *dispatch) {
    const op_matrix_shape shape = shape_for(policy, op->rows, op->silu_mul);
    uint32_t x_tile = step_tile(&shape, &policy->matrix, op->rows);
    push->x = op->operands;
    push->x_stride = operand_width(op);
    dispatch->groups[0] = row_groups(op, shape.tile);
    dispatch->groups[1] = divide_up(op->rows, x_tile);
    dispatch->groups[2] = splits_of(op, policy, shape.units, dispatch->groups[0] * dispatch->groups[1]);
    dispatch->key = op_matrix_key(policy, &shape, matrix_module(op->segments[0].weight->type), op->segments[0].weight, flags & ~LINEAR_NORM,
                                  op->segment_count, x_tile, dispatch->groups[2]);
    return dispatch->groups[2];
}

static void record_combine(const op_recorder *recorder, const op_linear *op, uint32_t flags, uint32_t splits, const PushLinear *push) {
    uint32_t outputs = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) outputs += op->segments[s].weight->out;
    gpu_command_barrier(recorder->command);
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_matmul_combine,
                                    .constant_count = 4,
                                    .constants = {COMBINE_WORKGROUP, flags & ~LINEAR_NORM, op->segment_count, splits}},
                            .push = push,
                            .push_size = sizeof *push,
                            .groups = {row_groups(op, COMBINE_WORKGROUP), op->rows, 1},
                            .work = {.bytes = 4.0 * (splits + 1) * op->rows * outputs},
                        });
}

static void choose_linear(const op_linear *op, const op_policy *policy, uint32_t flags, op_dispatch *dispatch) {
    linear_shape shape = policy->lanes ? lanes_shape(op, policy) : shared_shape(op);
    dispatch->key = (gpu_kernel_key){
        .module = linear_module(op->segments[0].weight->type, (policy->tiers & ZS_TIER_STORAGE) != 0 && !policy->lanes),
        .constant_count = 7,
        .constants = {shape.workgroup, op->segments[0].weight->group, shape.lanes, shape.rows, shape.tokens, flags, op->segment_count},
    };
    dispatch->groups[0] = row_groups(op, shape.workgroup / shape.lanes * shape.rows);
    dispatch->groups[1] = divide_up(op->rows, shape.tokens);
}

static op_matvec_class class_of(const op_linear *op) {
    if (op->silu_mul) return OP_MATVEC_PAIR;
    uint32_t rows = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) rows += op->segments[s].weight->out;
    return rows < OP_MATVEC_MANY ? OP_MATVEC_FEW_ROWS : OP_MATVEC_MANY_ROWS;
}

/// Shared memory of a workgroup of matvec.comp: x, and sums of its squares.
static uint32_t matvec_shared_bytes(uint32_t inputs, uint32_t tokens, uint32_t step) {
    uint32_t share = 256 / (inputs * tokens), units = share > step ? share : step;
    return inputs * tokens * (units * (32 + 4) + 4);
}

/// GPUs with subgroups, few rows. Several step rows take the registers that units on their way would have; there are as many as x leaves
/// shared memory for.
static void choose_matvec(const op_linear *op, const op_policy *policy, uint32_t flags, op_dispatch *dispatch) {
    const matrix_type type = op->segments[0].weight->type;
    const op_matvec *integers = &policy->integers[type][class_of(op)];
    bool dot = policy->dot && integers->rows && op_matvec_has_dot(type) && op->rows <= MOST_DOT_ROWS;
    op_matvec shape = dot ? *integers : policy->matvec[type][class_of(op)];
    uint32_t tokens = power_of_two_up_to(op->rows, 8), size = policy->subgroup_size;
    uint32_t most = policy->wide < 256 ? 128 : 256, shared = policy->shared_bytes ? policy->shared_bytes : 16384;
    uint32_t workgroup = shape.subgroups * size < most ? shape.subgroups * size : size < most ? most : size;
    uint32_t inputs = op->silu_mul && op->segments[0].x_offset != op->segments[1].x_offset ? 2 : 1;
    if (inputs == 2) flags |= LINEAR_TWO_X;
    if (tokens > 2) shape.depth = 1;
    if (tokens > 2 && shape.rows > 2) shape.rows = 2;
    while (tokens > 1 && matvec_shared_bytes(inputs, tokens, size * shape.depth) > shared) tokens /= 2;
    dispatch->key = (gpu_kernel_key){
        .module = dot ? dot_module(type) : matvec_module(type),
        .subgroup_size = size,
        .constant_count = 8,
        .constants = {workgroup, op->segments[0].weight->group, size, shape.rows, tokens, flags, op->segment_count, shape.depth},
    };
    dispatch->groups[0] = row_groups(op, workgroup / size * shape.rows);
    dispatch->groups[1] = divide_up(op->rows, tokens);
}

/// One dispatch: every matrix is in one part.
static void record_whole(const op_recorder *recorder, const op_linear *op) {
    const op_policy *policy = &recorder->policy;
    uint32_t flags = op_linear_flags(op);
    PushLinear push = push_of(op);
    op_dispatch dispatch = {.push = &push, .push_size = sizeof push, .groups = {1, 1, 1}, .work = op_linear_work(op)};
    bool operands = takes_operands(op, policy);
    uint32_t splits = 1;
    if (op_lanes_share(policy))
        choose_lanes(op, policy, flags, &dispatch);
    else if (operands)
        splits = choose_matrix(op, policy, flags, &push, &dispatch);
    else if (takes_tiles(op, policy))
        choose_tiles(op, flags, &dispatch);
    else if (!policy->lanes && (policy->tiers & ZS_TIER_SUBGROUP) && policy->subgroup_size >= 4)
        choose_matvec(op, policy, flags, &dispatch);
    else
        choose_linear(op, policy, flags, &dispatch);
    if (op->norm && !operands) op_add_norm(&dispatch.key, op->norm_width, op->norm_eps);
    op_record(recorder, &dispatch);
    if (splits > 1) record_combine(recorder, op, flags, splits, &push);
}

/// The rows of part `index` of a segment as a segment; `part` holds the matrix.
static op_segment part_of(const op_segment *segment, uint32_t index, matrix *part) {
    op_segment of = *segment;
    uint32_t first = index * segment->weight->part_rows;
    *part = matrix_part(segment->weight, index);
    of.weight = part;
    of.y_offset += first;
    of.scale_offset += first;
    return of;
}

/// Gate and up go part by part together.
static void record_pair_parts(const op_recorder *recorder, const op_linear *op) {
    for (uint32_t p = 0; p < matrix_part_count(op->segments[0].weight); p++) {
        matrix parts[2];
        op_linear pair = *op;
        for (uint32_t s = 0; s < 2; s++) pair.segments[s] = part_of(&op->segments[s], p, &parts[s]);
        record_whole(recorder, &pair);
    }
}

/// All parts of all segments, as many to a dispatch as it takes. They write different outputs: no barrier between them.
static void record_parts(const op_recorder *recorder, const op_linear *op) {
    matrix parts[OP_MAX_SEGMENTS];
    op_linear some = *op;
    some.segment_count = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) {
        for (uint32_t p = 0; p < matrix_part_count(op->segments[s].weight); p++) {
            some.segments[some.segment_count] = part_of(&op->segments[s], p, &parts[some.segment_count]);
            if (++some.segment_count < OP_MAX_SEGMENTS) continue;
            record_whole(recorder, &some);
            some.segment_count = 0;
        }
    }
    if (some.segment_count) record_whole(recorder, &some);
}

uint32_t op_linear_dispatches(const op_linear *op) {
    uint32_t parts = 0;
    for (uint32_t s = 0; s < op->segment_count; s++) parts += matrix_part_count(op->segments[s].weight);
    return op->silu_mul ? divide_up(parts, 2) : divide_up(parts, OP_MAX_SEGMENTS);
}

void op_record_linear(const op_recorder *recorder, const op_linear *op) {
    if (!segments_fit(recorder, op)) return;
    if (takes_operands(op, &recorder->policy))
        op_record_half_rows(recorder, &(op_half_rows){.x = op->x,
                                                      .operands = op->operands,
                                                      .norm = op->norm,
                                                      .norm_width = op->norm_width,
                                                      .norm_eps = op->norm_eps,
                                                      .width = operand_width(op),
                                                      .end = operand_width(op),
                                                      .x_stride = op->x_stride,
                                                      .rows = op->rows});
    bool split = false;
    for (uint32_t s = 0; s < op->segment_count; s++) split |= op->segments[s].weight->part_rows != 0;
    if (!split)
        record_whole(recorder, op);
    else if (op->silu_mul)
        record_pair_parts(recorder, op);
    else
        record_parts(recorder, op);
}

op_linear op_linear_next_type(const op_linear *op, uint32_t *first) {
    op_linear part = *op;
    matrix_type type = op->segments[*first].weight->type;
    part.segment_count = 0;
    while (*first < op->segment_count && op->segments[*first].weight->type == type)
        part.segments[part.segment_count++] = op->segments[(*first)++];
    return part;
}

void op_record_linear_mixed(const op_recorder *recorder, const op_linear *op) {
    for (uint32_t s = 0; s < op->segment_count;) {
        op_linear part = op_linear_next_type(op, &s);
        op_record_linear(recorder, &part);
    }
}
