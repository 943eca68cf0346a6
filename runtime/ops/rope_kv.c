#include "ops/record.h"

enum { WORKGROUP = 64 };

void op_record_rope_kv(const op_recorder *recorder, const op_rope_kv *op) {
    static const uint32_t modules[KV_TYPES] = {SHADER_rope_kv_f32, SHADER_rope_kv_f16, SHADER_rope_kv_q8};
    if (!kv_type_suits(op->kv, op->head_dim)) {
        op_fail(recorder, "rope_kv: heads of %u are not kept as %s", op->head_dim, kv_type_name(op->kv));
        return;
    }
    uint32_t of_head = op->head_dim / 4, workgroup = op->kv == KV_Q8 && of_head <= WORKGROUP ? WORKGROUP / of_head * of_head : WORKGROUP;
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
        .page_base = op_page_base(op->kv, op->layer, op->kv_heads, op->head_dim),
        .rows = op->rows,
    };
    uint32_t heads = op->heads + 2 * op->kv_heads;
    op_record(recorder, &(op_dispatch){
                            .key = {.module = modules[op->kv], .constant_count = 3, .constants = {workgroup, op->head_dim, op->bias != 0}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {divide_up(heads * of_head, workgroup), op->rows + op->copies, 1},
                            .work = {.bytes = 8.0 * (op->rows + op->copies) * heads * op->head_dim},
                        });
}
