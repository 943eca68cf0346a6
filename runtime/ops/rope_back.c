#include "ops/record.h"

void op_record_rope_back(const op_recorder *recorder, const op_rope_kv *op) {
    enum { WORKGROUP = 64 };
    if (op->head_dim % 4) {
        op_fail(recorder, "rope_back: head_dim %u is no multiple of 4", op->head_dim);
        return;
    }
    PushRopeKv push = {
        .step = op->step,
        .qkv = op->qkv,
        .table = op->table,
        .stride = op->stride,
        .q_offset = op->q_offset,
        .k_offset = op->k_offset,
        .heads = op->heads,
        .kv_heads = op->kv_heads,
        .rows = op->rows,
    };
    uint32_t heads = op->heads + op->kv_heads;
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_rope_back, .constant_count = 2, .constants = {WORKGROUP, op->head_dim}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {divide_up(heads * op->head_dim / 4, WORKGROUP), op->rows, 1},
                            .work = {.bytes = 8.0 * op->rows * heads * op->head_dim},
                        });
}
