#include "ops/record.h"

void op_record_rms_norm_back(const op_recorder *recorder, const op_rms_norm_back *op) {
    PushRmsNormBack push = {.x = op->x,
                            .weight = op->weight,
                            .g = op->g,
                            .dx = op->dx,
                            .index = op->index,
                            .width = op->width,
                            .x_stride = op->x_stride,
                            .g_stride = op->g_stride,
                            .eps = op->eps};
    op_record(
        recorder,
        &(op_dispatch){
            .key = {.module = SHADER_rms_norm_back, .constant_count = 2, .constants = {recorder->policy.lanes ? 32 : 128, op->index != 0}},
            .push = &push,
            .push_size = sizeof push,
            .groups = {op->rows, 1, 1},
            .work = {.bytes = 24.0 * op->rows * op->width, .flops = 10.0 * op->rows * op->width},
        });
}
