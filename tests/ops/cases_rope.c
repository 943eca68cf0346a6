/// Rotation of q in place and of k on its way into the KV pages, where v goes too.
///
/// Bound of x cos − y sin: two products and a sum, 3u (|x cos| + |y sin|); halves in pages add u16 of the value and half of the
/// smallest subnormal. v is copied: exact in f32.
#include "cases.h"
#include "kv_pages.h"

#include <math.h>
#include <string.h>

typedef struct rope_case {
    uint32_t heads, kv_heads, head_dim;
    uint32_t sequences, rows; // rows of each sequence in the step
    uint32_t first;           // position of each sequence's first row
    bool bias;
    bool nan;        // among the first row's keys; KV_Q8 only
    uint32_t copies; // of the first sequence's first rows, for one more sequence
} rope_case;

static const rope_case cases[] = {
    {9, 3, 64, 1, 1, 0, false, false, 0},    {9, 3, 64, 1, 100, 0, false, false, 0},  {9, 3, 64, 3, 5, 30, false, false, 3},
    {4, 4, 32, 2, 33, 31, false, false, 20}, {8, 1, 128, 1, 7, 700, false, false, 1}, {32, 8, 64, 2, 9, 60, false, false, 0},
    {3, 1, 80, 2, 17, 15, false, false, 0},  {1, 1, 4, 1, 3, 62, false, false, 0},    {2, 2, 16, 5, 1, 95, false, false, 0},
    {9, 3, 64, 3, 5, 30, true, false, 3},    {8, 1, 128, 1, 7, 700, true, false, 0},  {3, 1, 80, 2, 17, 15, true, false, 0},
    {1, 1, 4, 1, 3, 62, true, false, 2},     {3, 1, 96, 2, 7, 30, true, false, 3},    {5, 1, 160, 1, 3, 60, false, false, 1},
    {1, 1, 256, 1, 2, 0, true, false, 0},    {4, 2, 64, 1, 3, 5, false, true, 0},
};

enum { LAYERS = 3, LAYER = 1 };

typedef struct rope_data {
    const rope_case *shape;
    kv_pages kv;
    op_rope_kv op;
    float *qkv, *table, *bias; // bias [stride]
    Row *rows;
    expect *qkv_expected, *page_expected;
} rope_data;

static void record(harness *h, const op_recorder *recorder, void *user) {
    const rope_data *d = user;
    op_record_rope_kv(recorder, &d->op);
    if (d->op.kv == KV_Q8) harness_ignore(h, d->kv.base, d->kv.page_count * d->kv.page_bytes); // check_q8 looks at them
}

/// NaN where either is.
static double larger(double a, double b) { return isnan(a) || a > b ? a : b; }

/// Bytes are off by half a step at most (a step is a 127th of their block's largest value), by roundings of up to 127 steps, and what the
/// rotation is off by; what no row is kept in is as it was.
static void check_q8(harness *h, const variant *v, void *user) {
    (void)v;
    const rope_data *d = user;
    const uint8_t *before = harness_before(h, d->kv.base), *after = harness_after(h, d->kv.base);
    for (size_t at = 0, end = d->kv.page_count * d->kv.page_values; at < end; at++) {
        size_t byte, scale, block = at / KV_BLOCK * KV_BLOCK;
        const expect *e = &d->page_expected[at];
        kv_pages_q8_places(&d->kv, at, &byte, &scale);
        if (e->bound < 0) {
            if (after[byte] != before[byte] || memcmp(after + scale, before + scale, sizeof(float)))
                harness_fail(h, "value %zu was written", at);
            continue;
        }
        double largest = 0;
        for (uint32_t i = 0; i < KV_BLOCK; i++)
            largest = larger(largest, fabs(d->page_expected[block + i].value) + d->page_expected[block + i].bound);
        if (isnan(largest)) { // no byte says that
            if (!isnan(kv_pages_q8(&d->kv, after, at))) harness_fail(h, "value %zu hides NaN", at);
            continue;
        }
        double error = fabs((double)kv_pages_q8(&d->kv, after, at) - e->value);
        harness_ratio(h, error / (e->bound + largest / 254 * (1 + 1024 * U32)));
    }
}

/// (cos, sin) of position · 10000^(−2i / head_dim).
static float *make_table(harness *h, uint32_t context, uint32_t head_dim) {
    float *table = harness_alloc(h, (size_t)context * head_dim, sizeof *table);
    for (uint32_t p = 0; p < context; p++)
        for (uint32_t i = 0; i < head_dim / 2; i++) {
            double angle = p * pow(10000, -2.0 * i / head_dim);
            table[(size_t)p * head_dim + 2 * i] = (float)cos(angle);
            table[(size_t)p * head_dim + 2 * i + 1] = (float)sin(angle);
        }
    return table;
}

/// Value i of a row with its bias, rounded as floats are; the sum's own rounding is in the bound of what is made of it.
static double biased(const rope_data *d, const float *row, uint32_t i) {
    return (double)row[i] + (d->shape->bias ? (double)d->bias[i] : 0);
}

/// Value i of the head at `at` in a row, after rotation.
static expect rotated(const rope_data *d, const float *row, uint32_t at, uint32_t position, uint32_t i) {
    uint32_t half = d->op.head_dim / 2, pair = i % half;
    const float *turn = d->table + ((size_t)position * half + pair) * 2;
    double a = biased(d, row, at + pair), b = biased(d, row, at + pair + half), c = (double)turn[0], s = (double)turn[1];
    double roundings = d->shape->bias ? 4 : 3;
    if (i < half) return (expect){a * c - b * s, roundings * U32 * (fabs(a * c) + fabs(b * s))};
    return (expect){b * c + a * s, roundings * U32 * (fabs(b * c) + fabs(a * s))};
}

static expect stored(const rope_data *d, expect e) {
    if (d->op.kv == KV_F16) e.bound += U16 * fabs(e.value) + 3e-8;
    return e;
}

static void expect_row(rope_data *d, uint32_t t) {
    const op_rope_kv *op = &d->op;
    Row row = d->rows[t];
    const bool copy = t >= op->rows;
    const float *x = d->qkv + (size_t)(copy ? row.token : t) * op->stride;
    for (uint32_t head = 0; head < op->heads && !copy; head++)
        for (uint32_t i = 0; i < op->head_dim; i++) {
            uint32_t at = op->q_offset + head * op->head_dim;
            d->qkv_expected[(size_t)t * op->stride + at + i] = rotated(d, x, at, row.position, i);
        }
    for (uint32_t head = 0; head < op->kv_heads; head++) {
        uint32_t k = op->k_offset + head * op->head_dim, v = op->v_offset + head * op->head_dim;
        size_t k_at = kv_pages_at(&d->kv, LAYER, false, row.sequence, row.position, head),
               v_at = kv_pages_at(&d->kv, LAYER, true, row.sequence, row.position, head);
        for (uint32_t i = 0; i < op->head_dim; i++) {
            d->page_expected[k_at + i] = stored(d, rotated(d, x, k, row.position, i));
            d->page_expected[v_at + i] = stored(d, (expect){biased(d, x, v + i), d->shape->bias ? U32 * fabs(biased(d, x, v + i)) : 0});
        }
    }
}

static void run_case(harness *h, const rope_case *c, kv_type kv) {
    uint32_t row_count = c->sequences * c->rows, all = row_count + c->copies, context = c->first + c->rows + 1;
    uint32_t sequences = c->sequences + (c->copies > 0), *lengths = harness_alloc(h, sequences, sizeof *lengths);
    for (uint32_t s = 0; s < sequences; s++) lengths[s] = c->first + c->rows;
    rope_data d = {.shape = c, .kv = kv_pages_make(h, LAYERS, c->kv_heads, c->head_dim, kv, lengths, sequences)};
    op_rope_kv *op = &d.op;
    *op = (op_rope_kv){.heads = c->heads,
                       .kv_heads = c->kv_heads,
                       .head_dim = c->head_dim,
                       .layer = LAYER,
                       .rows = row_count,
                       .copies = c->copies,
                       .kv = kv};
    op->q_offset = 32;
    op->k_offset = op->q_offset + c->heads * c->head_dim + 4;
    op->v_offset = op->k_offset + c->kv_heads * c->head_dim + 8;
    op->stride = (op->v_offset + c->kv_heads * c->head_dim + 31) / 32 * 32 + 32;
    size_t count = (size_t)row_count * op->stride, pages = d.kv.page_count * d.kv.page_values;
    d.qkv = random_floats(h, count, 2);
    if (c->nan) d.qkv[op->k_offset + 3] = NAN;
    d.bias = random_floats(h, op->stride, 1);
    d.table = make_table(h, context, c->head_dim);
    d.rows = harness_alloc(h, all, sizeof *d.rows);
    for (uint32_t t = 0; t < row_count; t++) d.rows[t] = (Row){.position = c->first + t / c->sequences, .sequence = t % c->sequences};
    for (uint32_t i = 0; i < c->copies; i++)
        d.rows[row_count + i] = (Row){.token = i * c->sequences, .position = c->first + i, .sequence = c->sequences};
    d.qkv_expected = harness_alloc(h, count, sizeof(expect));
    d.page_expected = harness_alloc(h, pages, sizeof(expect));
    for (size_t i = 0; i < count; i++) d.qkv_expected[i] = UNTOUCHED;
    for (size_t i = 0; i < pages; i++) d.page_expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < all; t++) expect_row(&d, t);

    op->qkv = harness_put(h, d.qkv, count * sizeof(float));
    if (c->bias) op->bias = harness_put(h, d.bias, op->stride * sizeof(float));
    op->table = harness_put(h, d.table, (size_t)context * c->head_dim * sizeof(float));
    op->step =
        put_step(
            h, &(step_data){.rows = d.rows, .row_count = all, .pages = d.kv.table, .page_stride = d.kv.page_stride, .page_rows = sequences})
            .step;
    harness_expect_f32(h, op->qkv, d.qkv_expected, count);
    if (kv == KV_F16)
        harness_expect_f16(h, d.kv.base, d.page_expected, pages);
    else if (kv == KV_F32)
        harness_expect_f32(h, d.kv.base, d.page_expected, pages);
    harness_run(h, record, kv == KV_Q8 ? check_q8 : NULL, &d);
}

void cases_rope_kv(harness *h) {
    static const char *const names[KV_TYPES] = {"rope_kv f32", "rope_kv f16", "rope_kv q8_0"};
    for (kv_type kv = 0; kv < KV_TYPES; kv++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            const rope_case *c = &cases[i];
            if (!kv_type_suits(kv, c->head_dim) || (c->nan && kv != KV_Q8)) continue;
            if (harness_case(h, names[kv], "heads %u/%u of %u, %u sequences, %u rows each from %u%s, %u copies", c->heads, c->kv_heads,
                             c->head_dim, c->sequences, c->rows, c->first, c->bias ? ", bias" : "", c->copies))
                run_case(h, c, kv);
        }
}
