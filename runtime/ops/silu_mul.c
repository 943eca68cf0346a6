#include "ops/record.h"

void op_record_silu_mul(const op_recorder *recorder, const op_silu_mul *op) {
    enum { WORKGROUP = 64 };
    if (op->gate_offset + op->width > op->x_stride || op->up_offset + op->width > op->x_stride || op->width > op->y_stride ||
        op->rows == 0) {
        op_fail(recorder, "silu_mul: %u columns do not fit %u rows of %u → %u floats", op->width, op->rows, op->x_stride, op->y_stride);
        return;
    }
    PushSiluMul push = {.x = op->x,
                        .y = op->y,
                        .gate_offset = op->gate_offset,
                        .up_offset = op->up_offset,
                        .width = op->width,
                        .x_stride = op->x_stride,
                        .y_stride = op->y_stride};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_silu_mul, .constant_count = 2, .constants = {WORKGROUP, op->back}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op_column_groups(recorder, op->width, WORKGROUP), op->rows, 1},
                            .work = {.bytes = (op->back ? 20.0 : 12.0) * op->rows * op->width},
                        });
}
