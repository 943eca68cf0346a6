#include "ops/record.h"

enum { PACK_WORKGROUP = 64, PACK_GROUPS = 32768, PACK_ROWS = 16 };

uint32_t op_pack_rows(const matrix *to) { return to->group > PACK_ROWS ? to->group : PACK_ROWS; }

static bool rows_fit(const op_recorder *recorder, const matrix *to, uint32_t first, uint32_t rows) {
    uint32_t whole = op_pack_rows(to);
    bool inside = rows > 0 && first <= to->out && rows <= to->out - first;
    if (inside && first % whole == 0 && (rows % whole == 0 || first + rows == to->out)) return true;
    op_fail(recorder, "pack: rows %u … of %u do not suit a matrix [%u, %u], which takes them by %u", first, rows, to->out, to->in, whole);
    return false;
}

/// Rows of one part, as op_record_pack's of a matrix in one.
static void record_part(const op_recorder *recorder, uint32_t module, uint32_t units, const op_pack *op) {
    const matrix *to = op->to;
    PushPack push = {.x = op->x,
                     .words = to->address,
                     .out_rows = to->out,
                     .in_units = to->padded / 8,
                     .first = op->first,
                     .rows = op->rows,
                     .x_stride = op->x_stride};
    uint32_t padded = divide_up(op->rows, to->group) * to->group,
             groups = divide_up(divide_up(padded * push.in_units, units), PACK_WORKGROUP);
    uint32_t wide = groups < PACK_GROUPS ? groups : PACK_GROUPS;
    op_record(recorder, &(op_dispatch){
                            .key = {.module = module, .constant_count = 2, .constants = {PACK_WORKGROUP, to->group}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {wide, divide_up(groups, wide), 1},
                            .work = {.bytes = (4.0 + (double)matrix_bytes(to) / to->out / to->padded) * op->rows * to->padded},
                        });
}

void op_record_pack(const op_recorder *recorder, const op_pack *op) {
    const matrix *to = op->to;
    uint32_t module, units; // that an invocation packs
    switch (to->type) {
    case MATRIX_F16: module = SHADER_pack_f16, units = 1; break;
    case MATRIX_Q8: module = SHADER_pack_q8, units = 8; break;
    case MATRIX_Q4: module = SHADER_pack_q4, units = 4; break;
    default: op_fail(recorder, "pack: no kernel makes matrices of type %s", matrix_type_name(to->type)); return;
    }
    if (!rows_fit(recorder, to, op->first, op->rows)) return;
    if (op->x_stride % 4 || op->x_stride < to->padded) {
        op_fail(recorder, "pack: rows of %u floats for a matrix [%u, %u]", op->x_stride, to->out, to->in);
        return;
    }
    for (uint32_t p = 0; p < matrix_part_count(to); p++) {
        const matrix part = matrix_part(to, p);
        uint32_t begin = p * to->part_rows, end = begin + part.out; // of the part
        uint32_t first = op->first > begin ? op->first : begin, last = op->first + op->rows < end ? op->first + op->rows : end;
        if (first >= last) continue;
        record_part(recorder, module, units,
                    &(op_pack){.x = op->x + 4ull * (first - op->first) * op->x_stride,
                               .to = &part,
                               .x_stride = op->x_stride,
                               .first = first - begin,
                               .rows = last - first});
    }
}

void op_record_compose(const op_recorder *recorder, const op_compose *op) {
    const matrix *u = op->u, *vt = op->vt;
    if (u->in != vt->out || u->out != op->to->out || vt->in != op->to->in) {
        op_fail(recorder, "compose: [%u, %u] · [%u, %u] is no [%u, %u]", u->out, u->in, vt->out, vt->in, op->to->out, op->to->in);
        return;
    }
    if (!rows_fit(recorder, op->to, op->first, op->rows)) return;
    // a[rows, r] = U[first …, :] ⊙ s
    op_record_embed(
        recorder, &(op_embed){.embedding = u, .step = op->step, .x = op->a, .stride = u->padded, .rows = op->rows, .columns = op->scales});
    gpu_command_barrier(recorder->command);
    // y[rows, in] = a Vᵀ
    op_record_linear_back(recorder, &(op_linear_back){.segments = {{.weight = vt}},
                                                      .segment_count = 1,
                                                      .x = op->a,
                                                      .y = op->y,
                                                      .operands = op->operands,
                                                      .x_stride = u->padded,
                                                      .y_stride = vt->padded,
                                                      .rows = op->rows});
    gpu_command_barrier(recorder->command);
    op_record_pack(recorder, &(op_pack){.x = op->y, .to = op->to, .x_stride = vt->padded, .first = op->first, .rows = op->rows});
}
