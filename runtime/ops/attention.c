#include "ops/record.h"

#include <math.h>

enum {
    LANES_DECODE = 16, // shares of the positions in decode, where not those of a subgroup
    LANES_STATE = 448, // floats of an invocation's queries at most, where that leaves it one
    TILES_WORKGROUP = 128,
    DECODE_WORKGROUP = 128,
    DECODE_VECS = 8, // vectors of queries that an invocation holds
    MATRIX_SUBGROUPS = 4,
    MATRIX_HEAD_DIM = 128, // of more, a subgroup's sums and queries do not fit its registers
};

/// Queries a workgroup of attention_tiles holds: shared memory stays below 16 KiB.
static uint32_t tile_queries(uint32_t head_dim) { return head_dim <= 128 ? 16 : 8; }

/// Of the heads that share a KV head, those that a workgroup takes: all, or as large a part of them as its queries allow.
static uint32_t tile_heads(uint32_t group, uint32_t head_dim) {
    uint32_t heads = 1;
    for (uint32_t n = 2; n <= group && n <= tile_queries(head_dim); n++)
        if (group % n == 0) heads = n;
    return heads;
}

/// Shared memory of a workgroup of attention_matrix with chunks of so many keys.
static uint32_t matrix_shared_bytes(const op_policy *policy, uint32_t head_dim, uint32_t keys) {
    const gpu_matrix_units *units = &policy->matrix;
    uint32_t widest = units->n > units->k ? units->n : units->k, queries = MATRIX_SUBGROUPS * units->m;
    uint32_t rows = keys > queries ? keys : queries, pitch = 2 * widest * divide_up(head_dim, widest) + 16;
    return rows * pitch + queries * (4 * units->n + 16) + (policy->matrix_attention == ZS_TIER_MATRIX2 ? 0 : queries * (2 * keys + 16));
}

/// What the kernels need of a device's matrices: sums become operands by themselves (ZS_TIER_MATRIX2), or through shared memory.
static bool matrix_suits(const op_policy *policy) {
    if (policy->matrix.n < 4 || policy->matrix.k < 4) return false; // rows of them pass as vectors of four
    return policy->matrix_attention == ZS_TIER_MATRIX2 ? policy->matrix.n == policy->matrix.k : policy->matrix.half_sums;
}

/// Keys of a chunk; 0: attention does without matrix units.
static uint32_t matrix_keys(const op_policy *policy, uint32_t group, uint32_t head_dim) {
    const gpu_matrix_units *units = &policy->matrix;
    uint32_t shared = policy->shared_bytes ? policy->shared_bytes : 16384;
    if (!policy->matrix_attention || !matrix_suits(policy) || policy->deterministic || head_dim % 8 || head_dim > MATRIX_HEAD_DIM ||
        group > MATRIX_SUBGROUPS * units->m)
        return 0;
    for (uint32_t keys = 64; keys >= 32; keys /= 2)
        if (matrix_shared_bytes(policy, head_dim, keys) <= shared) return keys;
    return 0;
}

bool op_attention_on_matrix(const op_policy *policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {
    return !policy->lanes && matrix_keys(policy, heads / kv_heads, head_dim) > 0;
}

uint32_t op_span_rows(op_policy policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {
    if (policy.lanes) return op_lanes_rows(&policy);
    uint32_t group = heads / kv_heads, queries = tile_queries(head_dim);
    if (matrix_keys(&policy, group, head_dim))
        queries = MATRIX_SUBGROUPS * policy.matrix.m;
    else
        group = tile_heads(group, head_dim);
    return queries > group ? queries / group : 1;
}

/// How attention_decode.comp is specialised; heads 0: it does not serve.
typedef struct decode_shape {
    uint32_t lanes; // that take a key together
    uint32_t heads; // of a workgroup
} decode_shape;

/// Vectors of a head that each of its lanes takes.
static uint32_t lane_vecs(uint32_t head_dim, uint32_t lanes) { return divide_up(head_dim / 4, lanes); }

/// Two vectors of a key to a lane, one where many heads share it, as each takes registers for its queries and sums; more only where a
/// subgroup is too small, and as many heads as registers are left for.
static decode_shape decode_shape_of(const op_policy *policy, uint32_t group, uint32_t head_dim) {
    const uint32_t vecs = group <= DECODE_VECS / 2 ? 2 : 1;
    if (policy->lanes || policy->deterministic || !(policy->tiers & ZS_TIER_SUBGROUP)) return (decode_shape){0};
    decode_shape shape = {.lanes = 1};
    while (shape.lanes < policy->subgroup_size && lane_vecs(head_dim, shape.lanes) > vecs) shape.lanes *= 2;
    const uint32_t taken = lane_vecs(head_dim, shape.lanes);
    if (taken > DECODE_VECS / 2) return shape; // the sums of so many groups of lanes do not fit 16 KiB
    for (uint32_t n = 1; n * taken <= DECODE_VECS; n++)
        if (group % n == 0) shape.heads = n;
    return shape;
}

/// Workgroups that share a row's positions.
static uint32_t decode_shares(uint32_t rows, uint32_t groups) {
    uint32_t all = rows * groups, shares = all ? ATTENTION_FILL / all : 1;
    return shares > ATTENTION_SHARES ? ATTENTION_SHARES : shares > 0 ? shares : 1;
}

uint64_t op_attention_partials(op_policy policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {
    const decode_shape shape = decode_shape_of(&policy, heads / kv_heads, head_dim);
    return shape.heads ? ATTENTION_FILL * 4ull * (1 + shape.heads * (2 + head_dim)) : 0;
}

uint32_t op_lanes_heads(uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {
    uint32_t sharers = heads / kv_heads, together = 1;
    for (uint32_t n = 2; n <= sharers && n * head_dim <= LANES_STATE; n++)
        if (sharers % n == 0) together = n;
    return together;
}

static void record_lanes(const op_recorder *recorder, const op_attention *op, op_dispatch *dispatch) {
    static const uint32_t modules[KV_TYPES][3] = {
        {SHADER_attention_lanes_f32, SHADER_attention_lanes_f32_subgroup, SHADER_attention_lanes_f32_touch},
        {SHADER_attention_lanes_f16, SHADER_attention_lanes_f16_subgroup, SHADER_attention_lanes_f16_touch},
        {SHADER_attention_lanes_q8, SHADER_attention_lanes_q8_subgroup, SHADER_attention_lanes_q8_touch}};
    const op_policy *policy = &recorder->policy;
    bool decode = op->decode && !policy->deterministic, share = op_lanes_share(policy);
    uint32_t decode_lanes = share ? policy->subgroup_size : LANES_DECODE;
    uint32_t heads = op_lanes_heads(op->heads, op->kv_heads, op->head_dim);
    const bool touch = share && (policy->tiers & ZS_TIER_STORAGE);
    dispatch->key = (gpu_kernel_key){
        .module = modules[op->kv][touch ? 2 : share],
        .subgroup_size = share ? policy->subgroup_size : 0,
        .constant_count = share ? 6 : 5,
        .constants = {decode ? decode_lanes : op_lanes_rows(policy), op->head_dim, heads, decode, op->heads / op->kv_heads,
                      policy->subgroup_size},
    };
    dispatch->groups[1] = op->heads / heads;
    op_record(recorder, dispatch);
}

static void record_decode(const op_recorder *recorder, const op_attention *op, decode_shape shape, op_dispatch *dispatch) {
    static const uint32_t modules[KV_TYPES] = {SHADER_attention_decode_f32, SHADER_attention_decode_f16, SHADER_attention_decode_q8};
    const uint32_t size = recorder->policy.subgroup_size;
    dispatch->key = (gpu_kernel_key){
        .module = modules[op->kv],
        .subgroup_size = size,
        .constant_count = 7,
        .constants = {DECODE_WORKGROUP, op->head_dim, shape.heads, op->heads / op->kv_heads, shape.lanes, op->kv == KV_F32 ? 2 : 4, size},
    };
    dispatch->groups[0] = op->rows;
    dispatch->groups[1] = op->heads / shape.heads;
    dispatch->groups[2] = decode_shares(op->rows, dispatch->groups[1]);
    op_record(recorder, dispatch);
}

static void record_tiles(const op_recorder *recorder, const op_attention *op, op_dispatch *dispatch) {
    static const uint32_t modules[KV_TYPES] = {SHADER_attention_tiles_f32, SHADER_attention_tiles_f16, SHADER_attention_tiles_q8};
    const uint32_t group = op->heads / op->kv_heads, heads = tile_heads(group, op->head_dim);
    dispatch->key = (gpu_kernel_key){
        .module = modules[op->kv],
        .constant_count = 5,
        .constants = {TILES_WORKGROUP, op->head_dim, heads, op->decode ? heads : tile_queries(op->head_dim), group},
    };
    dispatch->groups[1] = op->heads / heads;
    op_record(recorder, dispatch);
}

static void record_matrix(const op_recorder *recorder, const op_attention *op, uint32_t keys, op_dispatch *dispatch) {
    static const uint32_t modules[KV_TYPES][2] = {[KV_F16] = {SHADER_attention_matrix_f16, SHADER_attention_matrix2_f16},
                                                  [KV_Q8] = {SHADER_attention_matrix_q8, SHADER_attention_matrix2_q8}};
    const op_policy *policy = &recorder->policy;
    if (op->kv == KV_F32) {
        op_fail(recorder, "attention on matrix units takes keys and values as f16 or q8_0");
        return;
    }
    dispatch->key = (gpu_kernel_key){
        .module = modules[op->kv][policy->matrix_attention == ZS_TIER_MATRIX2],
        .subgroup_size = policy->subgroup_size,
        .constant_count = 8,
        .constants = {MATRIX_SUBGROUPS * policy->subgroup_size, op->head_dim, op->heads / op->kv_heads, policy->subgroup_size,
                      policy->matrix.m, policy->matrix.n, policy->matrix.k, keys},
    };
    op_record(recorder, dispatch);
}

/// What has to come from memory, and what has to be calculated. In decode every row has keys and values of its own; the rows of a prefill
/// mostly are one sequence's, and see those before them.
static gpu_work work_of(const op_attention *op) {
    const double page_bytes = (double)kv_page_bytes(op->kv, op->kv_heads, op->head_dim), width = (double)op->heads * op->head_dim;
    double seen = op->longest, read = op->longest; // positions: by a row in the mean, and in all
    if (!op->decode) seen -= 0.5 * (op->rows < op->longest ? op->rows : op->longest);
    if (op->window && op->window < seen) seen = op->window;
    if (op->decode) read = seen * op->rows;
    return (gpu_work){.bytes = read / KV_PAGE_TOKENS * page_bytes + 8.0 * op->rows * width, .flops = 4.0 * op->rows * seen * width};
}

void op_record_attention(const op_recorder *recorder, const op_attention *op) {
    if (op->kv_heads == 0 || op->heads % op->kv_heads || !kv_type_suits(op->kv, op->head_dim) || op->head_dim > 256) {
        op_fail(recorder, "attention: %u heads over %u KV heads of %u as %s", op->heads, op->kv_heads, op->head_dim, kv_type_name(op->kv));
        return;
    }
    PushAttention push = {
        .step = op->step,
        .q = op->q,
        .out_ = op->out,
        .q_stride = op->q_stride,
        .out_stride = op->out_stride,
        .kv_heads = op->kv_heads,
        .page_base = op_page_base(op->kv, op->layer, op->kv_heads, op->head_dim),
        .spans = op->spans,
        .scale = op->scale != 0 ? op->scale : 1.0f / sqrtf((float)op->head_dim),
        .window = op->window,
        .partials = op->partials,
    };
    op_dispatch dispatch = {
        .push = &push,
        .push_size = sizeof push,
        .groups = {op->spans, op->kv_heads, 1},
        .work = work_of(op),
    };
    const uint32_t group = op->heads / op->kv_heads, keys = op->decode ? 0 : matrix_keys(&recorder->policy, group, op->head_dim);
    const decode_shape decode = op->decode ? decode_shape_of(&recorder->policy, group, op->head_dim) : (decode_shape){0};
    if (recorder->policy.lanes)
        record_lanes(recorder, op, &dispatch);
    else if (decode.heads)
        record_decode(recorder, op, decode, &dispatch);
    else if (keys)
        record_matrix(recorder, op, keys, &dispatch);
    else
        record_tiles(recorder, op, &dispatch);
}
