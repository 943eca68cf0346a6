/// y[T, in] = x[T, out] · W, the gradient of a linear operation by its input, for every file type.
///
/// Bounds as in cases_linear.c: a sum of n products errs by (√n + 5) u Σ|w||x|, where n counts the rows of all matrices that are summed.
/// A result that is added to what y held rounds once more. Through f16, on matrix units, each product errs by 2 · 2^−11 more.
#include "cases.h"
#include "reference.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct back_case {
    uint32_t out[3], in[3]; // of the segments
    uint32_t segments, rows;
    bool sum, residual;
    bool one_x;     // all segments read the same x
    uint32_t spare; // floats that strides have to spare
    uint32_t part;  // rows of the matrices' parts; 0: whole
    uint32_t apart; // what offsets in x are multiples of; 0: 4. Matrix units take 8
} back_case;

static const back_case cases[] = {
    // one matrix: the smallest, and sizes beside the blocks' and tiles'
    {{1}, {1}, 1, .rows = 1},
    {{7}, {33}, 1, .rows = 3},
    {{63}, {32}, 1, .rows = 8, .spare = 32},
    {{16}, {577}, 1, .rows = 9},
    {{577}, {65}, 1, .rows = 65},
    {{130}, {192}, 1, .rows = 70, .residual = true, .spare = 32},
    {{1536}, {576}, 1, .rows = 17},
    {{4099}, {64}, 1, .rows = 2},
    {{65}, {192}, 1, .rows = 190},
    // the second factors of q, k and v: each a gradient of its own
    {{576, 192, 192}, {576, 192, 192}, 3, .rows = 20},
    {{65, 3, 64}, {33, 1, 192}, 3, .rows = 66, .spare = 32},
    {{192, 192}, {65, 63}, 2, .rows = 5, .one_x = true},
    // the first factors: one gradient from all
    {{576, 192, 192}, {576, 576, 576}, 3, .rows = 20, .sum = true},
    {{5, 70, 1}, {96, 96, 96}, 3, .rows = 67, .sum = true, .residual = true, .spare = 32},
    {{129, 129}, {193, 193}, 2, .rows = 8, .sum = true},
    {{5, 70, 33}, {96, 96, 96}, 3, .rows = 185, .sum = true, .residual = true, .spare = 32},
    // matrices in parts
    {{450}, {65}, 1, .rows = 17, .part = 32},
    {{65, 130, 64}, {33, 64, 192}, 3, .rows = 66, .spare = 32, .part = 64},
    {{5, 70, 130}, {96, 96, 96}, 3, .rows = 67, .sum = true, .residual = true, .part = 64},
    {{130, 3}, {64, 64}, 2, .rows = 20, .part = 64},
    // several on matrix units
    {{65, 3, 64}, {33, 1, 192}, 3, .rows = 66, .spare = 32, .apart = 8},
    {{5, 70, 130}, {96, 96, 96}, 3, .rows = 67, .sum = true, .residual = true, .part = 64, .apart = 8},
    {{129, 129}, {193, 193}, 2, .rows = 8, .sum = true, .apart = 8},
};

typedef struct back_data {
    back_case shape;
    weights w[3];
    op_linear_back op;
    float *x, *y;
    size_t operand_bytes;
} back_data;

static uint32_t round_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

static void lay_out(back_data *d) {
    const back_case *c = &d->shape;
    uint32_t x_end = 0, y_end = 0;
    for (uint32_t s = 0; s < c->segments; s++) {
        op_segment *segment = &d->op.segments[s];
        segment->weight = &d->w[s].shape;
        segment->x_offset = c->one_x ? 0 : x_end + (s ? 8 : 0);
        segment->y_offset = c->sum ? 4 : y_end + (s ? 8 : 0); // gaps that must stay as they are
        x_end = segment->x_offset + round_up(c->out[s], c->apart ? c->apart : 4);
        y_end = segment->y_offset + d->w[s].shape.padded;
    }
    d->op.x_stride = round_up(x_end, 32) + c->spare;
    d->op.y_stride = round_up(y_end, 32) + c->spare;
    d->op.segment_count = c->segments;
    d->op.rows = c->rows;
    d->op.sum = c->sum;
    d->op.residual = c->residual;
}

static void fill_x(harness *h, back_data *d) {
    const back_case *c = &d->shape;
    size_t count = (size_t)c->rows * d->op.x_stride;
    d->x = harness_alloc(h, count, sizeof *d->x);
    for (size_t i = 0; i < count; i++) d->x[i] = NAN; // until `record`
    for (uint32_t t = 0; t < c->rows; t++)
        for (uint32_t s = 0; s < c->segments; s++)
            for (uint32_t o = 0; o < c->out[s]; o++) d->x[t * d->op.x_stride + d->op.segments[s].x_offset + o] = random_normal(h) + 0.25f;
}

/// Σ_o W[o, i] x[t, o] of segment s.
static reference_sum product(const back_data *d, uint32_t s, uint32_t t, uint32_t i, float *column) {
    const weights *w = &d->w[s];
    for (uint32_t o = 0; o < w->shape.out; o++) column[o] = w->values[(size_t)o * w->shape.padded + i];
    return reference_dot(column, d->x + (size_t)t * d->op.x_stride + d->op.segments[s].x_offset, w->shape.out);
}

static expect *make_expected(harness *h, const back_data *d, bool half) {
    const back_case *c = &d->shape;
    size_t count = (size_t)c->rows * d->op.y_stride;
    expect *expected = harness_alloc(h, count, sizeof *expected);
    float *column = harness_alloc(h, 8192, sizeof *column);
    for (size_t i = 0; i < count; i++) expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < c->rows; t++)
        for (uint32_t s = 0; s < (c->sum ? 1 : c->segments); s++)
            for (uint32_t i = 0; i < d->w[s].shape.padded; i++) {
                reference_sum sum = product(d, s, t, i, column);
                double n = c->out[s];
                for (uint32_t more = 1; c->sum && more < c->segments; more++) {
                    reference_sum part = product(d, more, t, i, column);
                    sum.value += part.value;
                    sum.magnitude += part.magnitude;
                    n += c->out[more];
                }
                size_t at = (size_t)t * d->op.y_stride + d->op.segments[s].y_offset + i;
                expect e = {sum.value, ((sqrt(n) + 5) * U32 + (half ? 2 * U16 : 0)) * sum.magnitude};
                if (c->residual) {
                    e.value += (double)d->y[at];
                    e.bound += U32 * fabs(e.value);
                }
                expected[at] = e;
            }
    return expected;
}

/// What lies between the segments' x must not be read into a sum: it is NaN, or a number where x goes through f16.
static void record(harness *h, const op_recorder *recorder, void *user) {
    back_data *d = user;
    float *x = harness_before(h, d->op.x);
    for (size_t i = 0; i < (size_t)d->shape.rows * d->op.x_stride; i++)
        if (isnan(d->x[i])) x[i] = recorder->policy.matrix_shape.tile ? 7 : NAN;
    op_record_linear_back(recorder, &d->op);
    harness_ignore(h, d->op.operands, d->operand_bytes);
}

static void run_case(harness *h, const back_case *c, uint32_t type) {
    back_data *d = harness_alloc(h, 1, sizeof *d); // its segments point into it
    d->shape = *c;
    for (uint32_t s = 0; s < c->segments; s++) {
        d->w[s] = weights_random(h, type, c->out[s], c->in[s]);
        if (c->part < c->out[s]) d->w[s].shape.part_rows = c->part;
    }
    lay_out(d);
    fill_x(h, d);
    d->y = random_floats(h, (size_t)c->rows * d->op.y_stride, 1);
    for (uint32_t s = 0; s < c->segments; s++) weights_put(h, &d->w[s]);
    d->op.x = harness_put(h, d->x, (size_t)c->rows * d->op.x_stride * sizeof *d->x);
    d->op.y = harness_put(h, d->y, (size_t)c->rows * d->op.y_stride * sizeof *d->y);
    d->operand_bytes = (size_t)op_linear_back_operands(&(op_policy){.matrix_shape.tile = 64}, c->rows, d->op.x_stride);
    d->op.operands = harness_put(h, NULL, d->operand_bytes);
    bool halved = type == TENSOR_F16 || type == TENSOR_Q8_0; // the types of factors that matrix units take
    harness_expect_f32_or(h, d->op.y, make_expected(h, d, false), halved ? make_expected(h, d, true) : NULL, NULL,
                          (size_t)c->rows * d->op.y_stride);
    harness_run(h, record, NULL, d);
}

void cases_linear_back(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            back_case c = cases[i];
            if (harness_leaves_out(h, t, i)) continue;
            char name[40], shapes[96] = "";
            snprintf(name, sizeof name, "linear_back %s", tensor_type_get_info(weight_types[t])->name);
            for (uint32_t s = 0; s < c.segments; s++) {
                c.in[s] = weights_inner(weight_types[t], c.in[s]);
                size_t used = strlen(shapes);
                snprintf(shapes + used, sizeof shapes - used, "[%u, %u] ", c.out[s], c.in[s]);
            }
            if (harness_case(h, name, "%s× %u rows%s%s%s%s", shapes, c.rows, c.sum ? ", sum" : "", c.residual ? ", residual" : "",
                             c.one_x ? ", one x" : "", c.spare ? ", spare" : ""))
                run_case(h, &c, weight_types[t]);
        }
}
