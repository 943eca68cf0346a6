#include "ops/record.h"

void op_record_embed(const op_recorder *recorder, const op_embed *op) {
    static const uint32_t modules[MATRIX_TYPES] = MODULES_BY_TYPE(embed, );
    enum { WORKGROUP = 64 };
    const matrix *e = op->embedding;
    for (uint32_t p = 0; p < matrix_part_count(e); p++) {
        matrix part = matrix_part(e, p);
        PushEmbed push = {.embedding = part.address,
                          .step = op->step,
                          .x = op->x,
                          .vocab = e->out,
                          .first = p * e->part_rows,
                          .part = part.out,
                          .in_units = e->padded / 8,
                          .width = e->in,
                          .scale = op->scale != 0 ? op->scale : 1,
                          .stride = op->stride,
                          .features = op->features,
                          .columns = op->columns,
                          .feature_rows = op->feature_rows};
        op_record(recorder, &(op_dispatch){
                                .key = {.module = modules[e->type],
                                        .constant_count = 4,
                                        .constants = {WORKGROUP, e->group, op->features != 0, op->columns != 0}},
                                .push = &push,
                                .push_size = sizeof push,
                                .groups = {divide_up(e->padded / 8, WORKGROUP), op->rows, 1},
                                .work = {.bytes = 8.0 * op->rows * e->in},
                            });
    }
}
