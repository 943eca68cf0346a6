#include "ops/record.h"

void op_record_rms_norm(const op_recorder *recorder, const op_rms_norm *op) {
    uint32_t parts = op->parts ? op->parts : 1;
    PushRmsNorm push = {.x = op->x,
                        .weight = op->weight,
                        .y = op->y,
                        .index = op->index,
                        .width = op->width,
                        .x_stride = op->x_stride,
                        .y_stride = op->y_stride,
                        .part_stride = op->width,
                        .eps = op->eps};
    op_record(recorder,
              &(op_dispatch){
                  .key = {.module = SHADER_rms_norm,
                          .constant_count = 3,
                          .constants = {recorder->policy.lanes ? 32 : op_row_workgroup(recorder, op->width), op->index != 0, op->residual}},
                  .push = &push,
                  .push_size = sizeof push,
                  .groups = {op->rows, parts, 1},
                  .work = {.bytes = 12.0 * op->rows * parts * op->width, .flops = 4.0 * op->rows * parts * op->width},
              });
}
