/// W' = U diag(s) Vᵀ as a matrix of f16, Q8 or Q4, block of rows by block of rows.
///
/// Before the rounding: a product of U and s rounds once, a sum of r products errs by (√r + 5) u Σ|terms| more, and on matrix units, which
/// take both through f16, by 2 · 2^−11 Σ|terms|. The rounding is ggml's, done again here from what the device made of y: bit for bit.
#include "cases.h"
#include "reference.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct compose_case {
    uint32_t out, rank, in, first, rows;
    uint32_t part; // rows of a part of W'; 0: one part
} compose_case;

static const compose_case cases[] = {
    {1, 1, 1, 0, 1, 0},       {7, 7, 33, 0, 7, 0},      {70, 33, 65, 0, 70, 0},    {70, 65, 96, 64, 6, 0},    {192, 192, 576, 64, 128, 0},
    {130, 96, 160, 0, 64, 0}, {33, 32, 1536, 0, 33, 0}, {200, 64, 96, 0, 192, 64}, {130, 33, 65, 64, 66, 96},
};

typedef struct compose_data {
    weights u, vt;
    uint32_t to_type; // GGUF number
    matrix to;
    op_compose op;
    float *scales;
    size_t operand_bytes;
} compose_data;

static void record(harness *h, const op_recorder *recorder, void *user) {
    compose_data *d = user;
    harness_ignore(h, d->op.a, (size_t)d->op.rows * d->u.shape.padded * sizeof(float));
    for (uint32_t p = 0; p < matrix_part_count(&d->to); p++) {
        const matrix part = matrix_part(&d->to, p);
        harness_ignore(h, part.address, (size_t)matrix_bytes(&part));
    }
    op_record_compose(recorder, &d->op);
    harness_ignore(h, d->op.operands, d->operand_bytes);
}

// ---- ggml's rounding ------------------------------------------------------------------------------------------------

static void round_q8(const float *x, uint8_t *block) {
    float top = 0;
    for (int j = 0; j < 32; j++) top = fmaxf(top, fabsf(x[j]));
    const float d = top / 127, inverse = d > 0 ? 1 / d : 0;
    uint16_t bits = half_from_float(d);
    memcpy(block, &bits, 2);
    for (int j = 0; j < 32; j++) block[2 + j] = (uint8_t)(int8_t)roundf(x[j] * inverse);
}

static void round_q4(const float *x, uint8_t *block) {
    float top = 0, extreme = 0;
    for (int j = 0; j < 32; j++) {
        if (top < fabsf(x[j])) {
            top = fabsf(x[j]);
            extreme = x[j];
        }
    }
    const float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
    uint16_t bits = half_from_float(d);
    memcpy(block, &bits, 2);
    for (int j = 0; j < 16; j++) {
        int low = (int)(x[j] * inverse + 8.5f), high = (int)(x[j + 16] * inverse + 8.5f);
        block[2 + j] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
    }
}

/// Rows of y as a file of the type would have them.
static void round_rows(uint32_t type, const float *y, size_t count, uint8_t *blocks) {
    if (type == TENSOR_F16) tensor_type_quantise(type, y, blocks, count);
    for (size_t i = 0; type != TENSOR_F16 && i < count / 32; i++) {
        if (type == TENSOR_Q8_0)
            round_q8(y + 32 * i, blocks + 34 * i);
        else
            round_q4(y + 32 * i, blocks + 18 * i);
    }
}

/// The rows that fill the last group, and what lies behind the last plane, may hold anything.
static void allow_padding(const matrix *to, const uint8_t *after, uint8_t *expected) {
    matrix_planes planes = matrix_get_planes(to);
    for (uint32_t p = 0; p < planes.count; p++) {
        size_t elements = (size_t)planes.row_bytes[p] / planes.element_bytes[p];
        for (uint32_t row = to->out; row % to->group; row++) {
            for (size_t i = 0; i < elements; i++) {
                uint32_t member = row % to->group;
                size_t at = (size_t)planes.offset[p] + (size_t)(row - member) * planes.row_bytes[p] +
                            (i * to->group + member) * planes.element_bytes[p];
                memcpy(expected + at, after + at, planes.element_bytes[p]);
            }
        }
    }
    uint32_t rows = (to->out + to->group - 1) / to->group * to->group, last = planes.count - 1;
    size_t end = (size_t)(planes.offset[last] + rows * planes.row_bytes[last]);
    if (end % 4) memcpy(expected + end, after + end, 4 - end % 4);
}

static void check_part(harness *h, const compose_data *d, uint32_t p, const uint8_t *blocks) {
    matrix part = matrix_part(&d->to, p), padded = part;
    padded.in = padded.padded; // y is zero there
    size_t bytes = (size_t)matrix_bytes(&part), row_bytes = (size_t)tensor_type_bytes(d->to_type, padded.in);
    uint8_t *expected = harness_alloc(h, bytes, 1);
    const uint8_t *after = harness_after(h, part.address);
    memset(expected, 0xff, bytes);
    uint32_t begin = p * d->to.part_rows, first = d->op.first > begin ? d->op.first : begin, last = d->op.first + d->op.rows;
    last = last < begin + part.out ? last : begin + part.out;
    if (first < last)
        matrix_pack_rows(&padded, d->to_type, blocks + (first - d->op.first) * row_bytes, first - begin, last - first, expected);
    allow_padding(&part, after, expected);
    for (size_t i = 0; i < bytes; i++) {
        if (after[i] == expected[i]) continue;
        harness_fail(h, "byte %zu of the matrix is %02x, expected %02x", i, after[i], expected[i]);
        return;
    }
}

/// From what y became.
static void check_packed(harness *h, const variant *of, void *user) {
    (void)of;
    const compose_data *d = user;
    size_t count = (size_t)d->op.rows * d->to.padded;
    uint8_t *blocks = harness_alloc(h, count, 2);
    round_rows(d->to_type, harness_after(h, d->op.y), count, blocks);
    for (uint32_t p = 0; p < matrix_part_count(&d->to); p++) check_part(h, d, p, blocks);
}

/// [rows, padded]
static expect *expect_y(harness *h, const compose_data *d, bool half) {
    uint32_t rank = d->u.shape.in, padded = d->to.padded;
    expect *expected = harness_alloc(h, (size_t)d->op.rows * padded, sizeof *expected);
    float *a = harness_alloc(h, rank, sizeof *a), *column = harness_alloc(h, rank, sizeof *column);
    for (uint32_t t = 0; t < d->op.rows; t++) {
        for (uint32_t k = 0; k < rank; k++) a[k] = d->u.values[(size_t)(d->op.first + t) * d->u.shape.padded + k];
        for (uint32_t i = 0; i < padded; i++) {
            for (uint32_t k = 0; k < rank; k++) column[k] = d->vt.values[(size_t)k * d->vt.shape.padded + i];
            double value = 0, magnitude = 0;
            for (uint32_t k = 0; k < rank; k++) {
                double term = (double)a[k] * (double)d->scales[k] * (double)column[k];
                value += term;
                magnitude += fabs(term);
            }
            expected[(size_t)t * padded + i] = (expect){value, ((sqrt(rank) + 6) * U32 + (half ? 2 * U16 : 0)) * magnitude};
        }
    }
    return expected;
}

static void run_case(harness *h, const compose_case *c, uint32_t from, uint32_t to) {
    static const uint32_t groups[] = {1, 4, 16};
    compose_data *d = harness_alloc(h, 1, sizeof *d);
    d->u = weights_random(h, from, c->out, weights_inner(from, c->rank));
    d->vt = weights_random(h, from, d->u.shape.in, weights_inner(from, c->in));
    d->to_type = to;
    d->to = matrix_of(matrix_type_from_gguf(to), c->out, d->vt.shape.in, groups[harness_pick(h, 3)]);
    uint32_t rank = d->u.shape.in;
    d->scales = random_floats(h, rank, 2);
    Row *rows = harness_alloc(h, c->rows, sizeof *rows);
    for (uint32_t i = 0; i < c->rows; i++) rows[i].token = c->first + i;
    d->op = (op_compose){.u = &d->u.shape, .vt = &d->vt.shape, .to = &d->to, .first = c->first, .rows = c->rows};
    weights_put(h, &d->u);
    weights_put(h, &d->vt);
    d->to.part_rows = c->part;
    for (uint32_t p = 0; p < matrix_part_count(&d->to); p++) {
        const matrix part = matrix_part(&d->to, p);
        matrix_set_part_address(&d->to, p, harness_put(h, NULL, (size_t)matrix_bytes(&part)));
    }
    d->op.scales = harness_put(h, d->scales, rank * sizeof *d->scales);
    d->op.step = put_step(h, &(step_data){.rows = rows, .row_count = c->rows}).step;
    d->op.a = harness_put(h, NULL, (size_t)c->rows * d->u.shape.padded * sizeof(float));
    d->op.y = harness_put(h, NULL, (size_t)c->rows * d->to.padded * sizeof(float));
    d->operand_bytes = (size_t)op_linear_back_operands(&(op_policy){.matrix_shape.tile = 64}, c->rows, d->u.shape.padded);
    d->op.operands = harness_put(h, NULL, d->operand_bytes);
    harness_expect_f32_or(h, d->op.y, expect_y(h, d, false), from == TENSOR_F32 ? NULL : expect_y(h, d, true), NULL,
                          (size_t)c->rows * d->to.padded);
    harness_run(h, record, check_packed, d);
}

void cases_compose(harness *h) {
    static const uint32_t from[] = {TENSOR_F32, TENSOR_F16, TENSOR_Q8_0}, to[] = {TENSOR_F16, TENSOR_Q8_0, TENSOR_Q4_0};
    for (size_t f = 0; f < 3; f++)
        for (size_t t = 0; t < 3; t++)
            for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                const compose_case *c = &cases[i];
                char name[48];
                snprintf(name, sizeof name, "compose %s", tensor_type_get_info(to[t])->name);
                if (harness_case(h, name, "of %s, [%u, %u] · [%u, %u], rows %u … %u%s", tensor_type_get_info(from[f])->name, c->out,
                                 c->rank, c->rank, c->in, c->first, c->first + c->rows - 1, c->part ? ", parts" : ""))
                    run_case(h, c, from[f], to[t]);
            }
}
