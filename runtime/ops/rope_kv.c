#include "ops/record.h"

void op_record_rope_kv(const op_recorder *recorder, const op_rope_kv *op) {
    enum { WORKGROUP = 64 };
    if (op->head_dim % 4) {
        op_fail(recorder, "rope_kv: head_dim %u is no multiple of 4", op->head_dim);
        return;
    }
    PushRopeKv push = {
        .step = op->step,
        .qkv = op->qkv,
        .table = op->table,
        .bias = op->bias,
        .stride = op->stride,
        .q_offset = op->q_offset,
        .k_offset = op->k_offset,
        .v_offset = op->v_offset,
        .heads = op->heads,
        .kv_heads = op->kv_heads,
        .page_base = op->layer * 2 * KV_PAGE_TOKENS * op->kv_heads * op->head_dim,
        .rows = op->rows,
    };
    uint32_t heads = op->heads + 2 * op->kv_heads;
    op_record(recorder, &(op_dispatch){
                            .key = {.module = op->kv_f16 ? SHADER_rope_kv_f16 : SHADER_rope_kv_f32,
                                    .constant_count = 3,
                                    .constants = {WORKGROUP, op->head_dim, op->bias != 0}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {divide_up(heads * op->head_dim / 4, WORKGROUP), op->rows + op->copies, 1},
                            .work = {.bytes = 8.0 * (op->rows + op->copies) * heads * op->head_dim},
                        });
}
