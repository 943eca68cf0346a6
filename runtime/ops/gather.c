#include "ops/record.h"

void op_record_gather(const op_recorder *recorder, const op_gather *op) {
    enum { WORKGROUP = 64 };
    if (op->width == 0 || op->pieces == 0 || op->rows == 0 || op->width > op->x_stride || (uint64_t)op->width * op->pieces > op->y_stride) {
        op_fail(recorder, "gather: %u pieces of %u columns do not fit %u rows of %u → %u floats", op->pieces, op->width, op->rows,
                op->x_stride, op->y_stride);
        return;
    }
    PushGather push = {.x = op->x,
                       .y = op->y,
                       .index = op->index,
                       .width = op->width,
                       .pieces = op->pieces,
                       .x_stride = op->x_stride,
                       .y_stride = op->y_stride};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_gather, .constant_count = 1, .constants = {WORKGROUP}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {divide_up(op->width, WORKGROUP), op->rows, op->pieces},
                            .work = {.bytes = 8.0 * op->rows * op->pieces * op->width},
                        });
}

void op_record_gather_sum(const op_recorder *recorder, const op_gather_sum *op) {
    enum { WORKGROUP = 64 };
    if (op->width == 0 || op->width > op->y_stride || op->rows == 0) {
        op_fail(recorder, "gather_sum: %u columns do not fit %u rows of %u floats", op->width, op->rows, op->y_stride);
        return;
    }
    PushGatherSum push = {.x = op->x, .y = op->y, .begin = op->begin, .from = op->from, .width = op->width, .y_stride = op->y_stride};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_gather_sum, .constant_count = 1, .constants = {WORKGROUP}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {divide_up(op->width, WORKGROUP), op->rows, 1},
                            .work = {.bytes = 8.0 * op->rows * op->width},
                        });
}
