#include "ops/record.h"

#include <math.h>

/// An invocation per row: a subgroup of them on CPUs, a warp on GPUs.
uint32_t op_attention_back_span_rows(op_policy policy) { return policy.lanes ? op_lanes_rows(&policy) : 32; }

static PushAttentionBack push_of(const op_attention_back *op) {
    return (PushAttentionBack){
        .step = op->step,
        .q = op->q,
        .out_ = op->out,
        .d_out = op->d_out,
        .d_qkv = op->d_qkv,
        .stats = op->stats,
        .q_stride = op->q_stride,
        .out_stride = op->out_stride,
        .d_stride = op->d_stride,
        .dq_offset = op->dq_offset,
        .dk_offset = op->dk_offset,
        .dv_offset = op->dv_offset,
        .heads = op->heads,
        .kv_heads = op->kv_heads,
        .page_base = op_page_base(KV_F32, op->layer, op->kv_heads, op->head_dim),
        .rows = op->rows,
        .window = op->window,
        .whole = op->whole,
        .scale = 1.0f / sqrtf((float)op->head_dim),
    };
}

void op_record_attention_back(const op_recorder *recorder, const op_attention_back *op) {
    if (op->kv_heads == 0 || op->heads % op->kv_heads || op->head_dim % 4 || op->head_dim > 256 || op->rows == 0) {
        op_fail(recorder, "attention_back: %u heads over %u KV heads of %u, %u rows", op->heads, op->kv_heads, op->head_dim, op->rows);
        return;
    }
    PushAttentionBack push = push_of(op);
    uint32_t span_rows = op_attention_back_span_rows(recorder->policy);
    // On a CPU the heads that share keys go together, so that a key is loaded once; on a GPU their state would not fit registers: there
    // a head's gradients are made in slices, of 64 values by q and of 32 by k and v.
    bool lanes = recorder->policy.lanes, share = op_lanes_share(&recorder->policy);
    uint32_t subgroup_size = share ? recorder->policy.subgroup_size : 0;
    uint32_t together = lanes ? op_lanes_heads(op->heads, op->kv_heads, op->head_dim) : 1;
    uint32_t q_slices = lanes ? 1 : divide_up(op->head_dim, 64), kv_slices = lanes ? 1 : divide_up(op->head_dim, 32);
    const double pairs = (double)op->rows * op->longest * op->heads * op->head_dim;
    // What has to come from memory: a vector per head for each row, and keys with values.
    const double row_bytes = 4.0 * op->rows * op->heads * op->head_dim, kv_bytes = 8.0 * op->longest * op->kv_heads * op->head_dim;
    op_record(recorder, &(op_dispatch){
                            .key = {.module = share ? SHADER_attention_back_q_lanes : SHADER_attention_back_q,
                                    .subgroup_size = subgroup_size,
                                    .constant_count = share ? 6 : 5,
                                    .constants = {span_rows, op->head_dim, together, q_slices, lanes, subgroup_size}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->spans, op->heads / together, q_slices},
                            .work = {.bytes = 3 * row_bytes + kv_bytes, .flops = (6.0 * q_slices + 2.0) * pairs},
                        });
    gpu_command_barrier(recorder->command);
    op_record(recorder, &(op_dispatch){
                            .key = {.module = share ? SHADER_attention_back_kv_lanes : SHADER_attention_back_kv,
                                    .subgroup_size = subgroup_size,
                                    .constant_count = share ? 5 : 4,
                                    .constants = {span_rows, op->head_dim, kv_slices, lanes, subgroup_size}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->spans, op->kv_heads, kv_slices},
                            .work = {.bytes = 2 * row_bytes + 2 * kv_bytes, .flops = 4.0 * (kv_slices + 1.0) * pairs},
                        });
}
