/// Causal attention over paged keys and values: prefill by spans, decode by single rows. The bound is made beside the reference.
/// Positions that a row must not see hold large finite values or, past the sequence's end, NaN.
#include "cases.h"
#include "kv_pages.h"
#include "reference.h"

#include <math.h>
#include <string.h>

enum { LAYERS = 2, LAYER = 1, MAX_SEQUENCES = 5 };
#define WHOLE 0xffffffffu // a window where every row sees all of its sequence: its position is the last one's

typedef struct attention_case {
    uint32_t heads, kv_heads, head_dim;
    bool decode;
    float size; // deviation of q and k: scores have size² · √head_dim / √head_dim
    struct {
        uint32_t first, rows; // positions first … first + rows − 1 are rows of the step
    } sequences[MAX_SEQUENCES];
    uint32_t window; // or WHOLE
} attention_case;

static const attention_case cases[] = {
    // prefill: SmolLM2's heads from the start, across pages, behind a prefix, several at once
    {9, 3, 64, false, 1, {{0, 1}}, 0},
    {9, 3, 64, false, 1, {{0, 100}}, 0},
    {9, 3, 64, false, 1, {{31, 2}, {0, 9}, {64, 33}}, 0},
    {9, 3, 64, false, 1, {{650, 50}}, 0},
    {9, 3, 64, false, 1, {{3, 7}, {0, 1}, {32, 8}, {95, 5}, {10, 16}}, 0},
    // other shapes
    {4, 4, 32, false, 1, {{0, 37}}, 0},
    {8, 1, 128, false, 1, {{20, 19}}, 0},
    {32, 8, 64, false, 1, {{0, 17}, {40, 3}}, 0},
    {5, 5, 80, false, 1, {{0, 35}}, 0},
    {6, 2, 16, false, 1, {{0, 65}}, 0},
    {2, 1, 256, false, 1, {{30, 5}}, 0},
    {14, 1, 256, false, 1, {{40, 3}}, 0},
    {11, 1, 96, false, 1, {{33, 4}}, 0},
    // scores of hundreds: exponentials over- and underflow unless the maximum is taken out
    {9, 3, 64, false, 12, {{0, 70}}, 0},
    {4, 4, 32, false, 1e-3f, {{0, 33}}, 0},
    // decode: one row per sequence
    {9, 3, 64, true, 1, {{0, 1}}, 0},
    {9, 3, 64, true, 1, {{31, 1}, {32, 1}, {33, 1}}, 0},
    {9, 3, 64, true, 1, {{700, 1}, {0, 1}, {63, 1}, {300, 1}, {7, 1}}, 0},
    {4, 4, 32, true, 1, {{127, 1}, {128, 1}}, 0},
    {8, 1, 128, true, 1, {{255, 1}, {2, 1}}, 0},
    {32, 8, 64, true, 1, {{511, 1}, {64, 1}}, 0},
    {32, 8, 128, true, 1, {{90, 1}}, 0},
    {5, 5, 80, true, 1, {{41, 1}, {200, 1}}, 0},
    {6, 2, 16, true, 1, {{96, 1}, {1, 1}}, 0},
    {2, 1, 256, true, 1, {{130, 1}}, 0},
    {9, 3, 64, true, 12, {{400, 1}, {15, 1}}, 0},
    // shares of several turns, none at all, and groups of heads of every kind
    {9, 3, 64, true, 1, {{2500, 1}, {63, 1}}, 0},
    {64, 64, 16, true, 1, {{100, 1}, {3, 1}, {264, 1}, {0, 1}, {33, 1}}, 0},
    {14, 2, 64, true, 1, {{500, 1}, {12, 1}}, 0},
    {16, 1, 64, true, 1, {{150, 1}}, 0},
    {10, 2, 128, true, 1, {{77, 1}, {333, 1}}, 0},
    {6, 3, 96, true, 1, {{70, 1}, {12, 1}}, 0},
    {14, 1, 256, true, 1, {{40, 1}}, 0},
    // windows: of one position, within a page, across pages, longer than what there is; with them scores of twice the usual scale
    {9, 3, 64, false, 1, {{0, 40}, {90, 20}}, 1},
    {9, 3, 64, false, 1, {{0, 100}, {60, 5}}, 13},
    {4, 4, 32, false, 1, {{0, 37}, {200, 50}}, 64},
    {8, 1, 128, false, 1, {{20, 19}}, 39},
    {2, 1, 256, false, 1, {{30, 70}}, 33},
    {9, 3, 64, true, 1, {{700, 1}, {0, 1}, {63, 1}, {64, 1}, {65, 1}}, 64},
    {4, 4, 32, true, 1, {{127, 1}, {128, 1}, {3, 1}}, 1},
    {8, 1, 128, true, 1, {{255, 1}, {2, 1}}, 200},
    {32, 8, 128, true, 1, {{90, 1}, {511, 1}}, 37},
    // image towers: no causal mask; heads of a CLIP tower and of SigLIP's, class token and all, and of less than a page
    {4, 4, 12, false, 1, {{0, 17}, {0, 17}, {0, 17}}, WHOLE},
    {3, 3, 64, false, 1, {{0, 577}, {0, 577}}, WHOLE},
    {2, 2, 72, false, 1, {{0, 1024}}, WHOLE},
    {1, 1, 64, false, 1, {{0, 64}, {0, 1}}, WHOLE},
};

typedef struct attention_data {
    attention_case shape;
    uint32_t sequences, row_count;
    kv_pages kv;
    float **keys, **values; // [sequence][position, kv_heads, head_dim] as the pages hold them
    Row *rows;
    float *q;
    op_attention op;
    uint64_t spans; // room for one per row
    uint64_t step, partials;
    size_t partial_bytes;
} attention_data;

static void fill_pages(harness *h, attention_data *d) {
    const attention_case *c = &d->shape;
    d->keys = harness_alloc(h, d->sequences, sizeof *d->keys);
    d->values = harness_alloc(h, d->sequences, sizeof *d->values);
    for (uint32_t s = 0; s < d->sequences; s++) {
        uint32_t length = c->sequences[s].first + c->sequences[s].rows, vectors = c->kv_heads * c->head_dim;
        d->keys[s] = random_floats(h, (size_t)length * vectors, c->size);
        d->values[s] = random_floats(h, (size_t)length * vectors, 1);
        for (uint32_t p = 0; p < length; p++)
            for (uint32_t head = 0; head < c->kv_heads; head++) {
                size_t at = (size_t)p * vectors + head * c->head_dim;
                kv_pages_set(h, &d->kv, kv_pages_at(&d->kv, LAYER, false, s, p, head), d->keys[s] + at);
                kv_pages_set(h, &d->kv, kv_pages_at(&d->kv, LAYER, true, s, p, head), d->values[s] + at);
            }
    }
}

static attention_data make_data(harness *h, const attention_case *c, kv_type kv) {
    attention_data d = {.shape = *c};
    uint32_t lengths[MAX_SEQUENCES] = {0}, longest = 0;
    while (d.sequences < MAX_SEQUENCES && c->sequences[d.sequences].rows > 0) {
        lengths[d.sequences] = c->sequences[d.sequences].first + c->sequences[d.sequences].rows;
        if (lengths[d.sequences] > longest) longest = lengths[d.sequences];
        d.row_count += c->sequences[d.sequences++].rows;
    }
    d.kv = kv_pages_make(h, LAYERS, c->kv_heads, c->head_dim, kv, lengths, d.sequences);
    fill_pages(h, &d);
    d.rows = harness_alloc(h, d.row_count, sizeof *d.rows);
    uint32_t t = 0;
    for (uint32_t s = 0; s < d.sequences; s++)
        for (uint32_t i = 0; i < c->sequences[s].rows; i++)
            d.rows[t++] = (Row){.position = c->sequences[s].first + (c->window == WHOLE ? c->sequences[s].rows - 1 : i), .sequence = s};
    op_attention *op = &d.op;
    *op = (op_attention){.heads = c->heads,
                         .kv_heads = c->kv_heads,
                         .head_dim = c->head_dim,
                         .layer = LAYER,
                         .rows = d.row_count,
                         .longest = longest,
                         .window = c->window == WHOLE ? 0 : c->window,
                         .scale = c->window ? 2 / sqrtf((float)c->head_dim) : 0,
                         .decode = c->decode,
                         .kv = kv};
    op->q_stride = ((c->heads + 2 * c->kv_heads) * c->head_dim + 31) / 32 * 32;
    op->out_stride = (c->heads * c->head_dim + 31) / 32 * 32 + 32;
    d.q = random_floats(h, (size_t)d.row_count * op->q_stride, c->size);
    op->q = harness_put(h, d.q, (size_t)d.row_count * op->q_stride * sizeof *d.q);
    op->out =
        harness_put(h, random_floats(h, (size_t)d.row_count * op->out_stride, 1), (size_t)d.row_count * op->out_stride * sizeof(float));
    Span *spans = harness_alloc(h, d.row_count, sizeof *spans);
    step_addresses a = put_step(h, &(step_data){.rows = d.rows,
                                                .row_count = d.row_count,
                                                .spans = spans,
                                                .span_count = d.row_count,
                                                .pages = d.kv.table,
                                                .page_stride = d.kv.page_stride,
                                                .page_rows = d.sequences});
    op->step = d.step = a.step;
    d.spans = a.spans;
    const op_policy most = {.tiers = ZS_TIER_SUBGROUP, .subgroup_size = 64}; // smaller ones have fewer heads a workgroup
    d.partial_bytes = c->decode ? (size_t)op_attention_partials(most, c->heads, c->kv_heads, c->head_dim) : 0;
    d.partials = harness_put(h, NULL, d.partial_bytes);
    if (d.partial_bytes) memset(harness_before(h, d.partials), 0, 4 * ATTENTION_FILL);
    return d;
}

static expect *make_expected(harness *h, const attention_data *d, bool half) {
    const attention_case *c = &d->shape;
    size_t count = (size_t)d->row_count * d->op.out_stride;
    expect *expected = harness_alloc(h, count, sizeof *expected);
    for (size_t i = 0; i < count; i++) expected[i] = UNTOUCHED;
    const float **keys = harness_alloc(h, d->op.longest, sizeof *keys), **values = harness_alloc(h, d->op.longest, sizeof *values);
    float *q = harness_alloc(h, c->head_dim, sizeof *q);
    double *out = harness_alloc(h, c->head_dim, sizeof *out), *bound = harness_alloc(h, c->head_dim, sizeof *bound);
    for (uint32_t t = 0; t < d->row_count; t++)
        for (uint32_t head = 0; head < c->heads; head++) {
            Row row = d->rows[t];
            uint32_t kv_head = head / (c->heads / c->kv_heads);
            uint32_t first = c->window && row.position + 1 > c->window ? row.position + 1 - c->window : 0;
            for (uint32_t p = first; p <= row.position; p++) {
                size_t at = ((size_t)p * c->kv_heads + kv_head) * c->head_dim;
                keys[p - first] = d->keys[row.sequence] + at;
                values[p - first] = d->values[row.sequence] + at;
            }
            for (uint32_t i = 0; i < c->head_dim; i++)
                q[i] = d->q[(size_t)t * d->op.q_stride + head * c->head_dim + i] * (c->window ? 2.0f : 1.0f);
            reference_attention(q, keys, values, row.position + 1 - first, c->head_dim, half, out, bound);
            for (uint32_t i = 0; i < c->head_dim; i++)
                expected[(size_t)t * d->op.out_stride + head * c->head_dim + i] = (expect){out[i], bound[i]};
        }
    return expected;
}

/// Cuts rows first … end − 1 into spans of at most `limit` rows of one sequence.
static uint32_t cut_spans(const attention_data *d, uint32_t first, uint32_t end, uint32_t limit, Span *spans) {
    uint32_t count = 0;
    for (uint32_t t = first; t < end;) {
        uint32_t rows = 1;
        while (rows < limit && t + rows < end && d->rows[t + rows].sequence == d->rows[t].sequence) rows++;
        spans[count++] = (Span){.first_row = t, .rows = rows};
        t += rows;
    }
    return count;
}

/// The scratch that this policy asks for; its counters and what lies behind it stay guarded: zero before, zero after.
static uint64_t offer_partials(harness *h, attention_data *d, op_policy policy) {
    size_t bytes = d->op.decode ? (size_t)op_attention_partials(policy, d->op.heads, d->op.kv_heads, d->op.head_dim) : 0;
    if (bytes > d->partial_bytes) {
        harness_fail(h, "attention asks for %zu bytes of scratch", bytes);
        return 0;
    }
    if (bytes) harness_ignore(h, d->partials + 4 * ATTENTION_FILL, bytes - 4 * ATTENTION_FILL);
    return bytes ? d->partials : 0;
}

/// As a workspace has it.
static op_recorder recorder_of(const op_recorder *recorder, const attention_data *d) {
    op_recorder made = *recorder;
    made.policy = op_policy_within(&recorder->policy, true, d->op.kv);
    return made;
}

static void record(harness *h, const op_recorder *given, void *user) {
    attention_data *d = user;
    const op_recorder recorder = recorder_of(given, d);
    uint32_t limit = d->op.decode ? 1 : op_span_rows(recorder.policy, d->op.heads, d->op.kv_heads, d->op.head_dim);
    d->op.spans = cut_spans(d, 0, d->row_count, limit, harness_before(h, d->spans));
    d->op.partials = offer_partials(h, d, recorder.policy);
    op_record_attention(&recorder, &d->op);
}

void cases_attention(harness *h) {
    static const char *const names[KV_TYPES] = {"attention f32", "attention f16", "attention q8_0"};
    for (kv_type kv = 0; kv < KV_TYPES; kv++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            const attention_case *c = &cases[i];
            if (harness_leaves_out(h, kv, i) || !kv_type_suits(kv, c->head_dim)) continue;
            if (!harness_case(h, names[kv], "heads %u/%u of %u, %s, first %u + %u rows, deviation %g, window %u%s", c->heads, c->kv_heads,
                              c->head_dim, c->decode ? "decode" : "prefill", c->sequences[0].first, c->sequences[0].rows, (double)c->size,
                              c->window == WHOLE ? 0 : c->window, c->window == WHOLE ? ", whole" : ""))
                continue;
            attention_data d = make_data(h, c, kv);
            harness_expect_f32_or(h, d.op.out, make_expected(h, &d, false), kv != KV_F32 && !c->decode ? make_expected(h, &d, true) : NULL,
                                  NULL, (size_t)d.row_count * d.op.out_stride);
            harness_run(h, record, NULL, &d);
        }
}

// ---- a row's bits do not depend on its span, nor (deterministic) on decode or prefill -----------------------------------

typedef struct rows_data {
    attention_data all;
    uint64_t out, spans, step; // of single-row prefill
    uint64_t decoded;
} rows_data;

/// A step of the same rows with spans of one row each.
static void put_single_spans(harness *h, const attention_data *d, uint64_t *spans, uint64_t *step) {
    Step copy;
    memcpy(&copy, harness_before(h, d->step), sizeof copy);
    Span *single = harness_alloc(h, d->row_count, sizeof *single);
    cut_spans(d, 0, d->row_count, 1, single);
    *spans = harness_put(h, single, d->row_count * sizeof *single);
    copy.spans = *spans;
    *step = harness_put(h, &copy, sizeof copy);
}

static void record_rows(harness *h, const op_recorder *given, void *user) {
    rows_data *d = user;
    attention_data *all = &d->all;
    const op_recorder made = recorder_of(given, all), *recorder = &made;
    size_t bytes = (size_t)all->row_count * all->op.out_stride * sizeof(float);
    all->op.decode = false;
    record(h, recorder, all);
    op_attention op = all->op;
    op.out = d->out;
    op.step = d->step;
    op.spans = all->row_count;
    op_record_attention(recorder, &op);
    all->op.decode = true;
    op.decode = true;
    op.partials = offer_partials(h, all, recorder->policy);
    op.out = d->decoded;
    op_record_attention(recorder, &op);
    harness_ignore(h, all->op.out, bytes);
    harness_ignore(h, d->out, bytes);
    harness_ignore(h, d->decoded, bytes);
}

static void check_rows(harness *h, const variant *v, void *user) {
    const rows_data *d = user;
    size_t bytes = (size_t)d->all.row_count * d->all.op.out_stride * sizeof(float);
    const void *whole = harness_after(h, d->all.op.out);
    if (memcmp(whole, harness_after(h, d->out), bytes)) harness_fail(h, "rows differ in spans of their own");
    if (v->policy.deterministic && memcmp(whole, harness_after(h, d->decoded), bytes)) harness_fail(h, "rows differ when decoded");
}

void cases_attention_rows(harness *h) {
    static const attention_case shapes[] = {{9, 3, 64, true, 1, {{60, 20}, {0, 5}}, 0},
                                            {4, 4, 32, true, 1, {{30, 9}}, 0},
                                            {8, 1, 128, true, 1, {{0, 40}}, 0},
                                            {9, 3, 64, true, 1, {{60, 20}, {0, 9}}, 21}};
    static const char *const names[KV_TYPES] = {"attention_rows f32", "attention_rows f16", "attention_rows q8_0"};
    for (kv_type kv = 0; kv < KV_TYPES; kv++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            const attention_case *c = &shapes[i];
            if (!harness_case(h, names[kv], "heads %u/%u of %u, window %u", c->heads, c->kv_heads, c->head_dim, c->window)) continue;
            rows_data d = {.all = make_data(h, c, kv)};
            size_t bytes = (size_t)d.all.row_count * d.all.op.out_stride * sizeof(float);
            memset(harness_before(h, d.all.op.out), 0, bytes);
            d.out = harness_put(h, harness_before(h, d.all.op.out), bytes);
            d.decoded = harness_put(h, harness_before(h, d.all.op.out), bytes);
            put_single_spans(h, &d.all, &d.spans, &d.step);
            harness_run(h, record_rows, check_rows, &d);
        }
}
