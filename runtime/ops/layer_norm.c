#include "ops/record.h"

void op_record_layer_norm(const op_recorder *recorder, const op_layer_norm *op) {
    PushLayerNorm push = {.x = op->x,
                          .weight = op->weight,
                          .bias = op->bias,
                          .y = op->y,
                          .width = op->width,
                          .x_stride = op->x_stride,
                          .y_stride = op->y_stride,
                          .eps = op->eps};
    if (op->width == 0 || op->width > op->x_stride || op->width > op->y_stride || op->rows == 0) {
        op_fail(recorder, "layer_norm: %u columns do not fit %u rows of %u → %u floats", op->width, op->rows, op->x_stride, op->y_stride);
        return;
    }
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_layer_norm, .constant_count = 1, .constants = {recorder->policy.lanes ? 32 : 128}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->rows, 1, 1},
                            .work = {.bytes = 16.0 * op->rows * op->width, .flops = 8.0 * op->rows * op->width},
                        });
}

void op_record_layer_norm_back(const op_recorder *recorder, const op_layer_norm_back *op) {
    PushLayerNormBack push = {.x = op->x,
                              .weight = op->weight,
                              .g = op->g,
                              .dx = op->dx,
                              .width = op->width,
                              .x_stride = op->x_stride,
                              .g_stride = op->g_stride,
                              .eps = op->eps};
    if (op->width == 0 || op->width > op->x_stride || op->width > op->g_stride || op->rows == 0) {
        op_fail(recorder, "layer_norm_back: %u columns do not fit %u rows of %u and %u floats", op->width, op->rows, op->x_stride,
                op->g_stride);
        return;
    }
    op_record(recorder,
              &(op_dispatch){
                  .key = {.module = SHADER_layer_norm_back, .constant_count = 1, .constants = {recorder->policy.lanes ? 32 : 128}},
                  .push = &push,
                  .push_size = sizeof push,
                  .groups = {op->rows, 1, 1},
                  .work = {.bytes = 32.0 * op->rows * op->width, .flops = 16.0 * op->rows * op->width},
              });
}
