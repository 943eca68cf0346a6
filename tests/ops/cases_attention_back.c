/// The gradients of attention by q, k and v over sequences in pages, causal or such that every row sees all of its own.
///
/// With P_p = exp(s_p − L), ds = P (g · v − D), D = g · out, u = 2^−24 and d the head's size, f32 errs
///   in s by (√d + 4) u Σ|q k| / √d; in L by the mean of that, of exp's (32 + 3|x|) 2u (cf. reference.c) and of √count u;
///   so in P by ε = the error of s + that of L + (8 + 3|x|) 2u, relative;
///   in g · v and in D by (√d + 4) u Σ|g v| and Σ|g out|;
///   in the sums over positions by (√n + 4) u of their magnitudes.
#include "cases.h"
#include "kv_pages.h"
#include "reference.h"

#include <math.h>

enum { LAYERS = 2, LAYER = 1, MAX_SEQUENCES = 4 };

typedef struct back_case {
    uint32_t heads, kv_heads, head_dim;
    float size; // deviation of q and k
    uint32_t lengths[MAX_SEQUENCES];
    uint32_t window;
    uint32_t shared; // positions of the first sequence that are the others' too
    bool whole;
} back_case;

static const back_case cases[] = {
    {9, 3, 64, 1, {1}, 0, 0, false},
    {9, 3, 64, 1, {100}, 0, 0, false},
    {9, 3, 64, 1, {33, 1, 8, 17}, 0, 0, false},
    {4, 4, 32, 1, {37, 9}, 0, 0, false},
    {8, 1, 128, 1, {19}, 0, 0, false},
    {32, 8, 64, 1, {17, 3}, 0, 0, false},
    {5, 5, 80, 1, {35}, 0, 0, false},
    {6, 2, 16, 1, {65}, 0, 0, false},
    {2, 1, 256, 1, {12}, 0, 0, false},
    {9, 3, 64, 8, {70}, 0, 0, false},
    {9, 3, 64, 1, {40, 3}, 1, 0, false},
    {9, 3, 64, 1, {70, 12}, 20, 0, false},
    {8, 1, 128, 1, {19}, 100, 0, false},
    {9, 3, 64, 1, {100, 40, 33, 70}, 0, 32, false},
    {8, 2, 32, 1, {50, 40, 33}, 20, 32, false},
    {9, 3, 64, 1, {100, 60, 46, 70}, 0, 45, false},
    {8, 2, 32, 1, {50, 7, 20}, 20, 6, false},
    {3, 3, 64, 1, {37, 37}, 0, 0, true},
    {4, 4, 32, 1, {1, 1, 1}, 0, 0, true},
    {2, 2, 72, 2, {65}, 0, 0, true},
};

/// One query's probabilities and what they err by, over the keys it sees.
typedef struct query {
    double *p, *error; // [position]: P, its relative error
    double *ds, *ds_error;
} query;

typedef struct back_data {
    back_case shape;
    uint32_t sequences, row_count;
    kv_pages kv;
    float *keys, *values; // [row, kv_heads · head_dim]
    float *q, *out, *g;
    Row *rows;
    uint64_t spans;
    op_attention_back op;
    uint32_t v_stride; // of keys and values
    expect *expected;  // of d_qkv
    double *magnitude; // beside: Σ|terms| for the sums of k and v
} back_data;

static double dot(const float *a, const float *b, uint32_t n) { return reference_dot(a, b, n).value; }
static double dot_error(const float *a, const float *b, uint32_t n) {
    return (sqrt((double)n) + 4) * U32 * reference_dot(a, b, n).magnitude;
}

/// Row that holds position p of the sequence of row t: its own, or the first sequence's.
static uint32_t key_row(const back_data *d, uint32_t t, uint32_t p) { return p < d->shape.shared ? p : t - (d->rows[t].position - p); }

/// The position behind the last that row t sees.
static uint32_t end_of(const back_data *d, uint32_t t) { return d->op.whole ? d->op.whole : d->rows[t].position + 1; }

/// q of row t, head h over the keys of positions from `first` on.
static query make_query(harness *h, const back_data *d, uint32_t t, uint32_t head, uint32_t first) {
    uint32_t count = end_of(d, t) - first, size = d->shape.head_dim, kv_head = head / (d->shape.heads / d->shape.kv_heads);
    double root = sqrt((double)size), top = -INFINITY, total = 0, mean_error = 0;
    query r = {harness_alloc(h, count, sizeof(double)), harness_alloc(h, count, sizeof(double)), harness_alloc(h, count, sizeof(double)),
               harness_alloc(h, count, sizeof(double))};
    const float *q = d->q + (size_t)t * d->op.q_stride + head * size, *g = d->g + (size_t)t * d->op.out_stride + head * size,
                *out = d->out + (size_t)t * d->op.out_stride + head * size;
    for (uint32_t i = 0; i < count; i++) {
        const float *k = d->keys + (size_t)key_row(d, t, first + i) * d->v_stride + kv_head * size;
        r.p[i] = dot(q, k, size) / root;
        r.error[i] = dot_error(q, k, size) / root;
        top = fmax(top, r.p[i]);
    }
    for (uint32_t i = 0; i < count; i++) total += exp(r.p[i] - top);
    double log_sum = top + log(total);
    for (uint32_t i = 0; i < count; i++) mean_error += exp(r.p[i] - log_sum) * (r.error[i] + (32 + 3 * fabs(r.p[i] - top)) * 2 * U32);
    mean_error += sqrt((double)count) * U32 + 2 * U32 * fabs(log_sum);
    double along = dot(g, out, size), along_error = dot_error(g, out, size);
    for (uint32_t i = 0; i < count; i++) {
        const float *v = d->values + (size_t)key_row(d, t, first + i) * d->v_stride + kv_head * size;
        double x = r.p[i] - log_sum, product = dot(g, v, size);
        r.p[i] = exp(x);
        r.error[i] += mean_error + (8 + 3 * fabs(x)) * 2 * U32;
        r.ds[i] = r.p[i] * (product - along);
        r.ds_error[i] = fabs(r.ds[i]) * (r.error[i] + 3 * U32) + r.p[i] * (dot_error(g, v, size) + along_error) + 1e-37;
    }
    return r;
}

/// Adds a term to a sum whose number of terms is known at its end.
static void add(back_data *d, size_t at, double term, double error) {
    d->expected[at].value += term;
    d->expected[at].bound += error;
    d->magnitude[at] += fabs(term);
}

static void add_query(harness *h, back_data *d, uint32_t t, uint32_t head, uint32_t first) {
    uint32_t size = d->shape.head_dim, kv_head = head / (d->shape.heads / d->shape.kv_heads), stride = d->op.d_stride;
    double scale = 1 / sqrt((double)size);
    query r = make_query(h, d, t, head, first);
    const float *q = d->q + (size_t)t * d->op.q_stride + head * size, *g = d->g + (size_t)t * d->op.out_stride + head * size;
    for (uint32_t i = 0; i < end_of(d, t) - first; i++) {
        uint32_t row = key_row(d, t, first + i);
        const float *k = d->keys + (size_t)row * d->v_stride + kv_head * size;
        size_t dq = (size_t)t * stride + d->op.dq_offset + head * size, key = (size_t)row * stride;
        for (uint32_t c = 0; c < size; c++) {
            add(d, dq + c, scale * r.ds[i] * (double)k[c], scale * r.ds_error[i] * fabs((double)k[c]));
            add(d, key + d->op.dk_offset + kv_head * size + c, scale * r.ds[i] * (double)q[c], scale * r.ds_error[i] * fabs((double)q[c]));
            add(d, key + d->op.dv_offset + kv_head * size + c, r.p[i] * (double)g[c], r.p[i] * r.error[i] * fabs((double)g[c]));
        }
    }
}

/// Attention itself, rounded once: what op_attention would have left.
static void attend(harness *h, back_data *d, uint32_t t, uint32_t head, uint32_t first) {
    uint32_t size = d->shape.head_dim, kv_head = head / (d->shape.heads / d->shape.kv_heads);
    uint32_t count = end_of(d, t) - first;
    const float **keys = harness_alloc(h, count, sizeof *keys), **values = harness_alloc(h, count, sizeof *values);
    double *out = harness_alloc(h, size, sizeof *out), *bound = harness_alloc(h, size, sizeof *bound);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = key_row(d, t, first + i);
        keys[i] = d->keys + (size_t)row * d->v_stride + kv_head * size;
        values[i] = d->values + (size_t)row * d->v_stride + kv_head * size;
    }
    reference_attention(d->q + (size_t)t * d->op.q_stride + head * size, keys, values, count, size, false, out, bound);
    for (uint32_t c = 0; c < size; c++) d->out[(size_t)t * d->op.out_stride + head * size + c] = (float)out[c];
}

static void make_expected(harness *h, back_data *d) {
    const back_case *c = &d->shape;
    const op_attention_back *op = &d->op;
    size_t count = (size_t)d->row_count * op->d_stride;
    d->expected = harness_alloc(h, count, sizeof *d->expected);
    d->magnitude = harness_alloc(h, count, sizeof *d->magnitude);
    for (size_t i = 0; i < count; i++) d->expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < d->row_count; t++) {
        expect *row = d->expected + (size_t)t * op->d_stride;
        for (uint32_t i = 0; i < c->heads * c->head_dim; i++) row[op->dq_offset + i] = (expect){0, 0};
        for (uint32_t i = 0; i < c->kv_heads * c->head_dim; i++) row[op->dk_offset + i] = row[op->dv_offset + i] = (expect){0, 0};
    }
    for (uint32_t t = 0; t < d->row_count; t++)
        for (uint32_t head = 0; head < c->heads; head++) {
            uint32_t seen = end_of(d, t);
            if (c->window && seen > c->window) seen = c->window;
            uint32_t first = end_of(d, t) - seen;
            attend(h, d, t, head, first);
            add_query(h, d, t, head, first);
        }
    double terms = (double)d->row_count * c->heads;
    for (size_t i = 0; i < count; i++)
        if (d->expected[i].bound >= 0) d->expected[i].bound += (sqrt(terms) + 4) * U32 * d->magnitude[i] + 1e-37;
}

static void put_data(harness *h, back_data *d) {
    const back_case *c = &d->shape;
    op_attention_back *op = &d->op;
    size_t q_count = (size_t)d->row_count * op->q_stride, out_count = (size_t)d->row_count * op->out_stride,
           d_count = (size_t)d->row_count * op->d_stride;
    Span *spans = harness_alloc(h, d->row_count, sizeof *spans);
    step_addresses a = put_step(h, &(step_data){.rows = d->rows,
                                                .row_count = d->row_count,
                                                .spans = spans,
                                                .span_count = d->row_count,
                                                .pages = d->kv.table,
                                                .page_stride = d->kv.page_stride,
                                                .page_rows = d->sequences});
    op->step = a.step;
    d->spans = a.spans;
    op->q = harness_put(h, d->q, q_count * sizeof(float));
    op->out = harness_put(h, d->out, out_count * sizeof(float));
    op->d_out = harness_put(h, d->g, out_count * sizeof(float));
    op->d_qkv = harness_put(h, random_floats(h, d_count, 1), d_count * sizeof(float));
    op->stats = harness_put(h, NULL, 8 * (size_t)d->row_count * c->heads);
}

/// Row t's key and value, where `sequence` has them.
static void fill_page(harness *h, back_data *d, uint32_t t, uint32_t sequence) {
    const back_case *c = &d->shape;
    uint32_t position = d->rows[t].position;
    for (uint32_t head = 0; head < c->kv_heads; head++) {
        size_t at = (size_t)t * d->v_stride + head * c->head_dim;
        kv_pages_set(h, &d->kv, kv_pages_at(&d->kv, LAYER, false, sequence, position, head), d->keys + at);
        kv_pages_set(h, &d->kv, kv_pages_at(&d->kv, LAYER, true, sequence, position, head), d->values + at);
    }
}

static void fill_pages(harness *h, back_data *d) {
    for (uint32_t t = 0; t < d->row_count; t++) fill_page(h, d, t, d->rows[t].sequence);
    for (uint32_t s = 1; s < d->sequences; s++)
        for (uint32_t p = d->shape.shared / KV_PAGE_TOKENS * KV_PAGE_TOKENS; p < d->shape.shared; p++) fill_page(h, d, p, s);
}

static void make_data(harness *h, const back_case *c, back_data *d) {
    d->shape = *c;
    uint32_t shared = c->shared;
    for (; d->sequences < MAX_SEQUENCES && c->lengths[d->sequences]; d->sequences++)
        d->row_count += c->lengths[d->sequences] - (d->sequences ? shared : 0);
    d->rows = harness_alloc(h, d->row_count, sizeof *d->rows);
    uint32_t t = 0, longest = 0;
    for (uint32_t s = 0; s < d->sequences; s++) {
        longest = c->lengths[s] > longest ? c->lengths[s] : longest;
        for (uint32_t p = s ? shared : 0; p < c->lengths[s]; p++) d->rows[t++] = (Row){.position = p, .sequence = s};
    }
    uint32_t wide = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    d->v_stride = kv;
    d->op = (op_attention_back){.heads = c->heads,
                                .kv_heads = c->kv_heads,
                                .head_dim = c->head_dim,
                                .layer = LAYER,
                                .rows = d->row_count,
                                .window = c->window,
                                .whole = c->whole ? longest : 0,
                                .longest = longest};
    d->op.q_stride = (wide + 2 * kv + 31) / 32 * 32;
    d->op.out_stride = (wide + 31) / 32 * 32 + 32;
    d->op.dq_offset = 4;
    d->op.dk_offset = wide + 8;
    d->op.dv_offset = wide + kv + 16;
    d->op.d_stride = (wide + 2 * kv + 16 + 31) / 32 * 32;
    d->q = random_floats(h, (size_t)d->row_count * d->op.q_stride, c->size);
    d->g = random_floats(h, (size_t)d->row_count * d->op.out_stride, 1);
    d->out = random_floats(h, (size_t)d->row_count * d->op.out_stride, 1);
    d->keys = random_floats(h, (size_t)d->row_count * kv, c->size);
    d->values = random_floats(h, (size_t)d->row_count * kv, 1);
    d->kv = kv_pages_make(h, LAYERS, c->kv_heads, c->head_dim, KV_F32, c->lengths, d->sequences);
    for (uint32_t s = 1; s < d->sequences; s++) {
        kv_pages_share(&d->kv, s, 0, 0, c->shared / KV_PAGE_TOKENS);
        // What an earlier step left behind a sequence's end means nothing.
        if (c->shared) kv_pages_share(&d->kv, s, 0, (c->lengths[s] + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS, d->kv.page_stride);
    }
    fill_pages(h, d);
}

static void record(harness *h, const op_recorder *recorder, void *user) {
    back_data *d = user;
    uint32_t limit = op_attention_back_span_rows(recorder->policy), count = 0;
    Span *spans = harness_before(h, d->spans);
    for (uint32_t t = 0; t < d->row_count;) {
        uint32_t rows = 1;
        while (rows < limit && t + rows < d->row_count && d->rows[t + rows].sequence == d->rows[t].sequence) rows++;
        spans[count++] = (Span){.first_row = t, .rows = rows};
        t += rows;
    }
    d->op.spans = count;
    harness_ignore(h, d->op.stats, 8 * (size_t)d->row_count * d->shape.heads);
    op_record_attention_back(recorder, &d->op);
}

void cases_attention_back(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const back_case *c = &cases[i];
        if (harness_leaves_out(h, 0, i)) continue;
        if (!harness_case(h, "attention_back", "heads %u/%u of %u, %u, %u, … rows, deviation %g, window %u, %u positions shared%s",
                          c->heads, c->kv_heads, c->head_dim, c->lengths[0], c->lengths[1], (double)c->size, c->window, c->shared,
                          c->whole ? ", whole" : ""))
            continue;
        back_data d = {0};
        make_data(h, c, &d);
        make_expected(h, &d);
        put_data(h, &d);
        harness_expect_f32(h, d.op.d_qkv, d.expected, (size_t)d.row_count * d.op.d_stride);
        harness_run(h, record, NULL, &d);
    }
}
