#include "ops/record.h"

void op_record_gelu(const op_recorder *recorder, const op_gelu *op) {
    enum { WORKGROUP = 64 };
    static const uint32_t kinds[] = {[OP_GELU_ERF] = GELU_ERF, [OP_GELU_TANH] = GELU_TANH, [OP_GELU_QUICK] = GELU_QUICK};
    if (op->width == 0 || op->width > op->stride || op->rows == 0) {
        op_fail(recorder, "gelu: %u columns do not fit %u rows of %u floats", op->width, op->rows, op->stride);
        return;
    }
    PushGelu push = {.x = op->x, .y = op->y, .width = op->width, .stride = op->stride};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_gelu, .constant_count = 3, .constants = {WORKGROUP, kinds[op->kind], op->back}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op_column_groups(recorder, op->width, WORKGROUP), op->rows, 1},
                            .work = {.bytes = (op->back ? 12.0 : 8.0) * op->rows * op->width, .flops = 10.0 * op->rows * op->width},
                        });
}
