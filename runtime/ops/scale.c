#include "ops/record.h"

static uint32_t widest(const op_scale_segment *segments, uint32_t count) {
    uint32_t width = 0;
    for (uint32_t s = 0; s < count; s++) width = segments[s].width > width ? segments[s].width : width;
    return width;
}

static bool segments_fit(const op_recorder *recorder, const op_scale_segment *segments, uint32_t count, uint32_t stride, uint32_t rows) {
    bool fit = count > 0 && count <= OP_MAX_SEGMENTS && rows > 0;
    for (uint32_t s = 0; fit && s < count; s++) fit = segments[s].width > 0 && segments[s].offset + segments[s].width <= stride;
    if (!fit) op_fail(recorder, "scale: %u segments do not fit %u rows of %u floats", count, rows, stride);
    return fit;
}

void op_record_scale(const op_recorder *recorder, const op_scale *op) {
    enum { WORKGROUP = 64 };
    if (!segments_fit(recorder, op->segments, op->segment_count, op->stride, op->rows)) return;
    PushScale push = {.x = op->x, .y = op->y, .scales = op->scales, .stride = op->stride};
    for (uint32_t s = 0; s < op->segment_count; s++) {
        push.offset[s] = op->segments[s].offset;
        push.width[s] = op->segments[s].width;
        push.scale_offset[s] = op->segments[s].scale_offset;
    }
    uint32_t width = widest(op->segments, op->segment_count);
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_scale, .constant_count = 1, .constants = {WORKGROUP}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op_column_groups(recorder, width, WORKGROUP), op->rows, op->segment_count},
                            .work = {.bytes = 12.0 * op->rows * width * op->segment_count},
                        });
}

/// CPU drivers: a column per invocation, no barrier. GPUs: eight invocations share one.
void op_record_scale_back(const op_recorder *recorder, const op_scale_back *op) {
    if (!segments_fit(recorder, op->segments, op->segment_count, op->stride, op->rows)) return;
    PushScaleBack push = {.x = op->x, .g = op->g, .scales = op->scales, .sums = op->sums, .stride = op->stride, .rows = op->rows};
    for (uint32_t s = 0; s < op->segment_count; s++) {
        push.offset[s] = op->segments[s].offset;
        push.width[s] = op->segments[s].width;
        push.scale_offset[s] = op->segments[s].scale_offset;
    }
    uint32_t width = widest(op->segments, op->segment_count), workgroup = recorder->policy.lanes ? 16 : 128, columns = 16;
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_scale_back, .constant_count = 2, .constants = {workgroup, columns}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {divide_up(width, columns), 1, op->segment_count},
                            .work = {.bytes = 12.0 * op->rows * width * op->segment_count},
                        });
}
