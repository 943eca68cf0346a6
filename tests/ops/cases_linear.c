/// y[T, out] = x[T, in] · Wᵀ with its epilogues, for every file type.
///
/// Bounds. With u = 2^−24, an f32 sum of n products errs by n roundings, each at most u times a partial sum that Σ|w||x| bounds;
/// they are independent, so √n u Σ|w||x| holds with room; 5 more units pay for the product, for dequantising (q · d + m and
/// d · scale · q round twice at most) and for the epilogue's factor. A norm on x adds a unit for x ⊙ norm and, on the whole value, half
/// of the √n units that Σ x² errs by and 4 for the mean, eps, the inverse root (two) and the product. Reading x or w through f16 would
/// break it for most shapes. Matrix units do read both through f16, x after scaling that is exact: each product errs by 2 · 2^−11 more.
#include "cases.h"
#include "reference.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct linear_case {
    uint32_t in[3], out[3]; // of the segments
    uint32_t segments, rows;
    bool decode;
    bool scale, residual, silu_mul, norm;
    bool gelu; // silu_mul by gelu
    bool bias;
    bool one_x;     // all segments read the same x
    bool loud;      // rows of very different size, up to beyond what f16 holds
    uint32_t spare; // floats that strides have to spare
    uint32_t part;  // rows of the matrices' parts; 0: whole
} linear_case;

static const linear_case cases[] = {
    // one matrix: the smallest, and sizes beside the blocks' and tiles'
    {{1}, {1}, 1, .rows = 1, .decode = true},
    {{31}, {3}, 1, .rows = 1, .decode = true},
    {{32}, {63}, 1, .rows = 2, .decode = true, .spare = 32},
    {{33}, {1}, 1, .rows = 3, .decode = true},
    {{192}, {577}, 1, .rows = 5, .decode = true, .spare = 64},
    {{576}, {192}, 1, .rows = 7, .decode = true},
    {{576}, {576}, 1, .rows = 8, .decode = true},
    {{1536}, {63}, 1, .rows = 9, .decode = true},
    {{576}, {4099}, 1, .rows = 1, .decode = true},
    {{576}, {65}, 1, .rows = 64, .decode = true},
    {{192}, {66}, 1, .rows = 17, .decode = true},
    {{192}, {66}, 1, .rows = 40, .decode = true, .scale = true, .residual = true},
    {{192, 192}, {65, 65}, 2, .rows = 22, .decode = true, .one_x = true, .silu_mul = true, .norm = true},
    {{1}, {3}, 1, .rows = 1},
    {{33}, {65}, 1, .rows = 17, .spare = 32},
    {{192}, {577}, 1, .rows = 64},
    {{576}, {127}, 1, .rows = 100},
    {{1536}, {576}, 1, .rows = 65},
    {{33}, {65}, 1, .rows = 128, .scale = true, .residual = true},
    {{192, 192}, {66, 66}, 2, .rows = 190, .one_x = true, .silu_mul = true, .norm = true},
    // epilogues
    {{576}, {192}, 1, .rows = 1, .decode = true, .scale = true},
    {{192}, {66}, 1, .rows = 8, .decode = true, .scale = true, .residual = true},
    {{576}, {130}, 1, .rows = 3, .decode = true, .residual = true, .spare = 32},
    {{576}, {130}, 1, .rows = 70, .residual = true, .spare = 32},
    {{192}, {66}, 1, .rows = 33, .scale = true},
    // q, k and v of one x; their second factors, each of its own x
    {{576, 576, 576}, {576, 192, 192}, 3, .rows = 1, .decode = true, .one_x = true},
    {{192, 192, 192}, {577, 63, 1}, 3, .rows = 3, .decode = true, .one_x = true, .scale = true, .spare = 32},
    {{576, 192, 192}, {576, 192, 192}, 3, .rows = 2, .decode = true},
    {{33, 1, 192}, {3, 65, 64}, 3, .rows = 20},
    {{192, 192, 192}, {577, 63, 130}, 3, .rows = 66, .one_x = true, .scale = true},
    // an RMS norm on x
    {{33}, {65}, 1, .rows = 1, .decode = true, .norm = true},
    {{576}, {130}, 1, .rows = 5, .decode = true, .norm = true, .spare = 32},
    {{576}, {192}, 1, .rows = 70, .norm = true, .scale = true},
    {{192, 192, 192}, {577, 63, 1}, 3, .rows = 3, .decode = true, .one_x = true, .scale = true, .norm = true},
    {{192, 192}, {130, 130}, 2, .rows = 2, .decode = true, .one_x = true, .silu_mul = true, .norm = true},
    {{576, 576}, {129, 129}, 2, .rows = 65, .one_x = true, .silu_mul = true, .norm = true},
    // biases
    {{33}, {65}, 1, .rows = 1, .decode = true, .bias = true},
    {{192}, {130}, 1, .rows = 70, .bias = true, .spare = 32},
    {{192}, {577}, 1, .rows = 9, .bias = true, .scale = true},
    {{192}, {63}, 1, .rows = 65, .bias = true, .residual = true},
    {{192, 192, 192}, {577, 63, 130}, 3, .rows = 66, .one_x = true, .bias = true},
    // long sums, which are split where workgroups are few
    {{1536, 576, 576}, {130, 64, 1}, 3, .rows = 20, .bias = true, .part = 64},
    {{1536, 1536}, {161, 161}, 2, .rows = 65, .one_x = true, .silu_mul = true, .part = 96},
    // gate and up
    {{576, 576}, {1536, 1536}, 2, .rows = 1, .decode = true, .one_x = true, .silu_mul = true},
    {{192, 192}, {65, 65}, 2, .rows = 8, .decode = true, .silu_mul = true, .spare = 32},
    {{192, 192}, {577, 577}, 2, .rows = 2, .decode = true, .one_x = true, .scale = true},
    {{576, 576}, {129, 129}, 2, .rows = 65, .one_x = true, .silu_mul = true},
    {{33, 33}, {63, 63}, 2, .rows = 19, .silu_mul = true},
    // rows that f16 cannot hold
    {{192}, {66}, 1, .rows = 33, .loud = true},
    {{192}, {130}, 1, .rows = 70, .norm = true, .loud = true},
    {{192}, {66}, 1, .rows = 1, .decode = true, .loud = true},
    {{192}, {66}, 1, .rows = 2, .decode = true, .norm = true, .loud = true},
    {{192, 192}, {65, 65}, 2, .rows = 3, .decode = true, .one_x = true, .silu_mul = true, .gelu = true},
    {{192, 192}, {65, 65}, 2, .rows = 70, .one_x = true, .silu_mul = true, .gelu = true, .norm = true},
    // matrices in parts: more of them than a dispatch takes, one short at the end, one whole beside others
    {{192}, {450}, 1, .rows = 1, .decode = true, .part = 32},
    {{192}, {130}, 1, .rows = 66, .residual = true, .scale = true, .part = 64},
    {{192, 192, 192}, {130, 64, 1}, 3, .rows = 3, .decode = true, .one_x = true, .scale = true, .norm = true, .part = 64},
    {{33, 1, 192}, {3, 65, 64}, 3, .rows = 20, .part = 32},
    {{192, 192}, {161, 161}, 2, .rows = 2, .decode = true, .one_x = true, .silu_mul = true, .part = 64},
    {{192, 192}, {161, 161}, 2, .rows = 65, .one_x = true, .silu_mul = true, .norm = true, .part = 96},
};

enum { EXPERTS = 4 };

typedef struct linear_data {
    linear_case shape;
    weights w[3];
    op_linear op;
    float *x, *y, *scales;
    float *bias;   // [y_stride]
    float *norm;   // [padded], zero behind the width
    float *normed; // x ⊙ norm where there is a norm, else x
    double *rms;   // [rows]: 1 / √(mean x² + eps), or 1
    uint32_t scale_stride;
    size_t operand_bytes;
    Row *rows;
} linear_data;

static uint32_t round_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

/// Where each segment's x, y and scales lie, and the strides.
static void lay_out(linear_data *d) {
    const linear_case *c = &d->shape;
    uint32_t x_end = 0, y_end = 0, scale_end = 4;
    for (uint32_t s = 0; s < c->segments; s++) {
        op_segment *segment = &d->op.segments[s];
        segment->weight = &d->w[s].shape;
        segment->x_offset = c->one_x ? 0 : x_end;
        segment->y_offset = c->silu_mul ? 4 : y_end + (s ? 8 : 0); // gaps that must stay as they are
        segment->scale_offset = scale_end;
        x_end = segment->x_offset + d->w[s].shape.padded;
        y_end = segment->y_offset + round_up(c->out[s], 4);
        scale_end += round_up(c->out[s], 4);
    }
    d->op.x_stride = round_up(x_end, 32) + c->spare;
    d->op.y_stride = round_up(y_end, 32) + c->spare;
    d->scale_stride = scale_end + 4;
    d->op.segment_count = c->segments;
    d->op.rows = c->rows;
    d->op.scale = c->scale;
    d->op.residual = c->residual;
    d->op.silu_mul = c->silu_mul;
    d->op.gelu = c->gelu;
    d->op.decode = c->decode;
}

/// Where there is a norm, its weights, and x as they leave it.
static void make_norm(harness *h, linear_data *d) {
    const linear_case *c = &d->shape;
    uint32_t width = c->in[0];
    d->normed = d->x;
    d->rms = harness_alloc(h, c->rows, sizeof *d->rms);
    for (uint32_t t = 0; t < c->rows; t++) d->rms[t] = 1;
    if (!c->norm) return;
    d->op.norm_width = width;
    d->op.norm_eps = 1e-2f; // large enough to be missed if it were left out
    d->norm = harness_alloc(h, d->w[0].shape.padded, sizeof *d->norm);
    d->normed = harness_alloc(h, (size_t)c->rows * d->op.x_stride, sizeof *d->normed);
    for (uint32_t i = 0; i < width; i++) d->norm[i] = random_normal(h) + 1;
    for (uint32_t t = 0; t < c->rows; t++) {
        double squares = 0;
        for (uint32_t i = 0; i < width; i++) {
            float x = d->x[(size_t)t * d->op.x_stride + i];
            squares += (double)x * (double)x;
            d->normed[(size_t)t * d->op.x_stride + i] = x * d->norm[i];
        }
        d->rms[t] = 1 / sqrt(squares / width + (double)d->op.norm_eps);
    }
}

static linear_data *make_data(harness *h, const linear_case *c, uint32_t type) {
    linear_data *d = harness_alloc(h, 1, sizeof *d); // its segments point into it
    d->shape = *c;
    for (uint32_t s = 0; s < c->segments; s++) {
        d->w[s] = weights_random(h, type, c->out[s], c->in[s]);
        if (c->part < c->out[s]) d->w[s].shape.part_rows = c->part;
    }
    lay_out(d);
    d->x = harness_alloc(h, (size_t)c->rows * d->op.x_stride, sizeof *d->x);
    for (uint32_t t = 0; t < c->rows; t++)
        for (uint32_t s = 0; s < c->segments; s++)
            for (uint32_t i = 0; i < c->in[s]; i++) d->x[t * d->op.x_stride + d->op.segments[s].x_offset + i] = random_normal(h) + 0.25f;
    for (uint32_t t = 0; c->loud && t < c->rows; t++) // 1e−12 … 1e12, and one of zeros
        for (uint32_t i = 0; i < d->op.x_stride; i++) d->x[t * d->op.x_stride + i] *= t == 5 ? 0 : powf(10, (float)(t * 7 % 25) - 12);
    make_norm(h, d);
    d->y = random_floats(h, (size_t)c->rows * d->op.y_stride, 1);
    if (c->bias) d->bias = random_floats(h, d->op.y_stride, 3);
    d->scales = random_floats(h, (size_t)EXPERTS * d->scale_stride, 3);
    d->rows = harness_alloc(h, c->rows, sizeof *d->rows);
    for (uint32_t t = 0; t < c->rows; t++) d->rows[t].expert = (t * 3 + 1) % EXPERTS;
    return d;
}

/// What kernels make of x: with f16 weights are rounded too.
typedef enum operands { OPERANDS_F32, OPERANDS_F16, OPERANDS_INT16 } operands;

/// What rounding x to integers does to Σ w x: each by half of a 32512th of the largest of its unit of eight values.
static double integer_error(const float *w, const float *x, uint32_t count) {
    double sum = 0;
    for (uint32_t from = 0; from < count; from += 8) {
        double top = 0, weight = 0;
        for (uint32_t i = from; i < from + 8 && i < count; i++) {
            top = fmax(top, fabs((double)x[i]));
            weight += fabs((double)w[i]);
        }
        sum += weight * top / 65024;
    }
    return sum * 1.001;
}

/// Segment s's sum for row t and output o.
static expect product(const linear_data *d, operands kind, uint32_t s, uint32_t t, uint32_t o) {
    const weights *w = &d->w[s];
    const op_segment *segment = &d->op.segments[s];
    const float *values = w->values + (size_t)o * w->shape.padded, *x = d->normed + t * d->op.x_stride + segment->x_offset;
    reference_sum sum = reference_dot(values, x, w->shape.in);
    double scale = d->op.scale ? (double)d->scales[d->rows[t].expert * d->scale_stride + segment->scale_offset + o] : 1;
    double root = sqrt((double)w->shape.in), error = (root + 5) * U32 * sum.magnitude;
    if (kind == OPERANDS_F16) error += 2 * U16 * sum.magnitude;
    if (kind == OPERANDS_INT16) error += integer_error(values, x, w->shape.in);
    scale *= d->rms[t];
    if (d->norm) error += U32 * (sum.magnitude + (root / 2 + 4) * fabs(sum.value));
    return (expect){scale * sum.value, fabs(scale) * error};
}

/// silu(g) u: |silu'| ≤ 1.1; exp errs by (3 + 2|g|) units, the division by 2.5 (a unit is 2u), and three more roundings.
static expect gated(expect gate, expect up) {
    double silu = reference_silu(gate.value), value = silu * up.value;
    return (expect){value, 1.1 * gate.bound * (fabs(up.value) + up.bound) + fabs(silu) * up.bound +
                               (8 + 2 * fabs(gate.value)) * 2 * U32 * fabs(value) + 1e-37};
}

/// gelu(g) u = g u / (1 + exp(v)), v = −√(8/π) (g + 0.044715 g³): |gelu'| ≤ 1.13; v errs by 5 roundings, and so exp(v) by 5 |v| of them
/// and (3 + 2|v|) units of its own.
static expect gated_by_gelu(expect gate, expect up) {
    double g = gate.value, v = 1.5957691216057308 * (g + 0.044715 * g * g * g), gelu = g / (1 + exp(-v)), value = gelu * up.value;
    return (expect){value, 1.13 * gate.bound * (fabs(up.value) + up.bound) + fabs(gelu) * up.bound +
                               (8 + 5 * fabs(v)) * 2 * U32 * fabs(value) + 1e-37};
}

static expect *make_expected(harness *h, const linear_data *d, operands kind) {
    const linear_case *c = &d->shape;
    expect *expected = harness_alloc(h, (size_t)c->rows * d->op.y_stride, sizeof *expected);
    for (size_t i = 0; i < (size_t)c->rows * d->op.y_stride; i++) expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < c->rows; t++)
        for (uint32_t s = 0; s < (c->silu_mul ? 1 : c->segments); s++)
            for (uint32_t o = 0; o < c->out[s]; o++) {
                size_t i = (size_t)t * d->op.y_stride + d->op.segments[s].y_offset + o;
                expect e = product(d, kind, s, t, o);
                if (c->silu_mul) e = c->gelu ? gated_by_gelu(e, product(d, kind, 1, t, o)) : gated(e, product(d, kind, 1, t, o));
                if (c->bias) {
                    e.value += (double)d->bias[d->op.segments[s].y_offset + o];
                    e.bound += U32 * fabs(e.value);
                }
                if (c->residual) {
                    e.value += (double)d->y[i];
                    e.bound += U32 * fabs(e.value);
                }
                expected[i] = e;
            }
    return expected;
}

static void put_data(harness *h, linear_data *d) {
    for (uint32_t s = 0; s < d->shape.segments; s++) weights_put(h, &d->w[s]);
    if (d->norm) d->op.norm = harness_put(h, d->norm, d->w[0].shape.padded * sizeof *d->norm);
    if (d->bias) d->op.bias = harness_put(h, d->bias, d->op.y_stride * sizeof *d->bias);
    d->op.x = harness_put(h, d->x, (size_t)d->shape.rows * d->op.x_stride * sizeof *d->x);
    d->op.y = harness_put(h, d->y, (size_t)d->shape.rows * d->op.y_stride * sizeof *d->y);
    d->operand_bytes = (size_t)op_linear_operands(&(op_policy){.matrix_shape.tile = 64, .matrix_fill = 1}, d->shape.rows, d->op.x_stride);
    d->op.operands = harness_put(h, NULL, d->operand_bytes);
    step_data step = {
        .rows = d->rows, .row_count = d->shape.rows, .scales = d->scales, .scale_stride = d->scale_stride, .scale_rows = EXPERTS};
    if (d->shape.scale) d->op.step = put_step(h, &step).step;
}

static void record(harness *h, const op_recorder *recorder, void *user) {
    linear_data *d = user;
    op_record_linear(recorder, &d->op);
    harness_ignore(h, d->op.operands, d->operand_bytes);
}

static bool start_case(harness *h, const char *op, linear_case *c, uint32_t type) {
    char name[32], shapes[96] = "";
    snprintf(name, sizeof name, "%s %s", op, tensor_type_get_info(type)->name);
    for (uint32_t s = 0; s < c->segments; s++) {
        c->in[s] = weights_inner(type, c->in[s]);
        size_t used = strlen(shapes);
        snprintf(shapes + used, sizeof shapes - used, "[%u, %u] ", c->out[s], c->in[s]);
    }
    return harness_case(h, name, "%s× %u rows%s%s%s%s%s%s%s%s%s%s", shapes, c->rows, c->decode ? ", decode" : "", c->scale ? ", scale" : "",
                        c->residual ? ", residual" : "",
                        c->gelu       ? ", gelu"
                        : c->silu_mul ? ", silu_mul"
                                      : "",
                        c->norm ? ", norm" : "", c->bias ? ", bias" : "", c->one_x ? ", one x" : "", c->loud ? ", loud" : "",
                        c->spare ? ", spare" : "", c->part ? ", parts" : "");
}

void cases_linear(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            linear_case c = cases[i];
            if (harness_leaves_out(h, t, i)) continue;
            if (!start_case(h, "linear", &c, weight_types[t])) continue;
            linear_data *d = make_data(h, &c, weight_types[t]);
            put_data(h, d);
            operands half = weight_types[t] == TENSOR_F32 ? OPERANDS_F32 : OPERANDS_F16; // weights in f32 stay so
            harness_expect_f32_or(h, d->op.y, make_expected(h, d, OPERANDS_F32), make_expected(h, d, half),
                                  make_expected(h, d, OPERANDS_INT16), (size_t)c.rows * d->op.y_stride);
            harness_run(h, record, NULL, d);
        }
}

// ---- a row's bits do not depend on the rows beside it -----------------------------------------------------------------

enum { ROWS = 67, PARTS = 4 };

/// Some rows of the step, computed by an operation of their own.
typedef struct part {
    uint32_t first, count;
    bool decode;
} part;
static const part parts[PARTS] = {{5, 1, false}, {3, 7, false}, {64, 3, false}, {40, 1, true}};

typedef struct rows_data {
    linear_data *all;
    uint64_t y[PARTS];
} rows_data;

static void record_rows(harness *h, const op_recorder *recorder, void *user) {
    const rows_data *d = user;
    size_t bytes = d->all->op.y_stride * sizeof(float);
    op_record_linear(recorder, &d->all->op);
    harness_ignore(h, d->all->op.y, ROWS * bytes);
    harness_ignore(h, d->all->op.operands, d->all->operand_bytes);
    for (uint32_t p = 0; p < PARTS; p++) {
        op_linear op = d->all->op;
        op.x += (uint64_t)parts[p].first * op.x_stride * sizeof(float);
        op.y = d->y[p];
        op.rows = parts[p].count;
        op.decode = parts[p].decode;
        op_record_linear(recorder, &op);
        harness_ignore(h, d->y[p], parts[p].count * bytes);
    }
}

/// Among prefills, unless how sums are split depends on the rows (matrix_fill), always; between decode and prefill when deterministic.
static void check_rows(harness *h, const variant *v, void *user) {
    const rows_data *d = user;
    size_t bytes = d->all->op.y_stride * sizeof(float);
    for (uint32_t p = 0; p < PARTS; p++) {
        if ((parts[p].decode || v->policy.matrix_fill) && !v->policy.deterministic) continue;
        uint64_t whole = d->all->op.y + parts[p].first * bytes;
        if (memcmp(harness_after(h, whole), harness_after(h, d->y[p]), parts[p].count * bytes))
            harness_fail(h, "rows %u to %u differ when computed alone%s", parts[p].first, parts[p].first + parts[p].count - 1,
                         parts[p].decode ? " by decode" : "");
    }
}

void cases_linear_rows(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++) {
        linear_case c = {{576}, {67}, 1, .rows = ROWS};
        if (!start_case(h, "linear_rows", &c, weight_types[t])) continue;
        rows_data d = {.all = make_data(h, &c, weight_types[t])};
        memset(d.all->y, 0, (size_t)ROWS * d.all->op.y_stride * sizeof(float));
        put_data(h, d.all);
        for (uint32_t p = 0; p < PARTS; p++) d.y[p] = harness_put(h, d.all->y, (size_t)parts[p].count * d.all->op.y_stride * sizeof(float));
        harness_run(h, record_rows, check_rows, &d);
    }
}
