/// Sampling: one token per logit row, against an exact host version that draws the same random numbers.
///
/// A token is right when it is the one that exact arithmetic draws; f32 sums over the vocabulary err by about √V u of the mass, so
/// cuts and draws that fall within 4 √V u + 2e-6 of a boundary may go either way.
/// The reported log-probability errs by (√V + 64) u from the sum and its logarithm and by 4u (|logit| + |max|) from the subtractions.
#include "cases.h"
#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum logits_kind {
    LOGITS_NORMAL, // deviation 3
    LOGITS_EQUAL,  // all the same: ties everywhere
    LOGITS_STEPS,  // few distinct values: ties at the top and at cuts
    LOGITS_PEAK,   // one token far above the others
    LOGITS_LARGE,  // around 80 ± 30
} logits_kind;

typedef struct sample_case {
    uint32_t vocab, rows;
    logits_kind logits;
    float temperature, top_p, min_p, penalty; // 0 stands for off (1) in top_p and penalty
    uint32_t top_k;
    uint32_t allow_every; // one of so many ids allowed; 0: all
    bool advance, nan;    // nan: every other row holds one
} sample_case;

static const sample_case cases[] = {
    // greedy
    {1, 2, LOGITS_NORMAL, .temperature = 0},
    {7, 5, LOGITS_NORMAL, .advance = true},
    {7, 3, LOGITS_EQUAL, .temperature = 0},
    {300, 9, LOGITS_STEPS, .advance = true},
    {300, 9, LOGITS_NORMAL, .penalty = 1.3f},
    {300, 5, LOGITS_NORMAL, .allow_every = 7},
    {300, 4, LOGITS_NORMAL, .nan = true, .advance = true},
    {49152, 4, LOGITS_NORMAL, .advance = true},
    {49152, 2, LOGITS_STEPS, .temperature = 0},
    {128256, 2, LOGITS_LARGE, .temperature = 0},
    // one filter at a time
    {1, 2, LOGITS_NORMAL, .temperature = 1},
    {7, 64, LOGITS_NORMAL, .temperature = 1},
    {300, 64, LOGITS_NORMAL, .temperature = 0.7f, .advance = true},
    {300, 64, LOGITS_EQUAL, .temperature = 1},
    {300, 32, LOGITS_NORMAL, .temperature = 1, .top_k = 1},
    {300, 64, LOGITS_NORMAL, .temperature = 1.5f, .top_k = 5},
    {300, 64, LOGITS_STEPS, .temperature = 1, .top_k = 3},
    {300, 16, LOGITS_NORMAL, .temperature = 1, .top_k = 300},
    {300, 64, LOGITS_NORMAL, .temperature = 1, .top_p = 0.9f},
    {300, 32, LOGITS_NORMAL, .temperature = 1, .top_p = 0.01f},
    {300, 64, LOGITS_STEPS, .temperature = 1, .top_p = 0.5f},
    {300, 64, LOGITS_NORMAL, .temperature = 1, .min_p = 0.2f},
    {300, 64, LOGITS_NORMAL, .temperature = 1, .penalty = 1.5f},
    {300, 64, LOGITS_NORMAL, .temperature = 1, .allow_every = 10},
    {300, 8, LOGITS_NORMAL, .temperature = 1, .nan = true},
    {300, 16, LOGITS_PEAK, .temperature = 1, .top_p = 0.999f},
    {300, 16, LOGITS_LARGE, .temperature = 0.05f},
    // all together, and real vocabularies
    {300, 64, LOGITS_NORMAL, .temperature = 1.2f, .top_k = 50, .top_p = 0.9f, .min_p = 0.02f, .penalty = 1.1f, .allow_every = 3,
     .advance = true},
    {49152, 8, LOGITS_NORMAL, .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .advance = true},
    {49152, 8, LOGITS_NORMAL, .temperature = 1, .top_p = 0.9f, .penalty = 1.2f},
    {49152, 8, LOGITS_NORMAL, .temperature = 1},
    {128256, 4, LOGITS_NORMAL, .temperature = 1, .min_p = 0.05f},
    {128256, 2, LOGITS_NORMAL, .temperature = 0.9f, .top_k = 1000, .top_p = 0.8f},
};

typedef struct sample_data {
    sample_case shape;
    op_sample op;
    uint32_t step_rows, sequences;
    float *logits;
    uint32_t *index;
    Row *rows;
    reference_sampler *how;               // [sequences]
    uint64_t rows_address, *seen_address; // [sequences]
    size_t mask_bytes;
    double *scratch;
} sample_data;

static float make_logit(harness *h, logits_kind kind) {
    switch (kind) {
    case LOGITS_NORMAL: return 3 * random_normal(h);
    case LOGITS_EQUAL: return 1.5f;
    case LOGITS_STEPS: return (float)random_below(h, 6) - 4;
    case LOGITS_PEAK: return random_below(h, 300) == 0 ? 20 : random_normal(h);
    case LOGITS_LARGE: return 80 + 30 * random_normal(h);
    }
    return 0;
}

static void make_samplers(harness *h, sample_data *d, Sampler *samplers) {
    const sample_case *c = &d->shape;
    size_t words = d->mask_bytes / 4;
    d->how = harness_alloc(h, d->sequences, sizeof *d->how);
    d->seen_address = harness_alloc(h, d->sequences, sizeof *d->seen_address);
    for (uint32_t s = 0; s < d->sequences; s++) {
        uint32_t *allowed = harness_alloc(h, words, 4), *seen = harness_alloc(h, words, 4);
        uint32_t phase = c->allow_every ? random_below(h, c->allow_every) : 0;
        for (uint32_t i = 0; i < c->vocab; i++) {
            if (c->allow_every && i % c->allow_every == phase) allowed[i / 32] |= 1u << (i % 32);
            if (random_below(h, 4) == 0) seen[i / 32] |= 1u << (i % 32);
        }
        d->seen_address[s] = harness_put(h, seen, d->mask_bytes);
        reference_sampler *how = &d->how[s];
        *how = (reference_sampler){.temperature = c->temperature,
                                   .top_k = c->top_k,
                                   .min_p = c->min_p,
                                   .top_p = c->top_p > 0 ? c->top_p : 1,
                                   .repetition_penalty = c->penalty > 0 ? c->penalty : 1,
                                   .allowed = c->allow_every ? allowed : NULL,
                                   .seen = seen,
                                   .seed = random_bits(h),
                                   .stream = random_bits(h)};
        samplers[s] = (Sampler){.allowed = c->allow_every ? harness_put(h, allowed, d->mask_bytes) : 0,
                                .seen = d->seen_address[s],
                                .temperature = how->temperature,
                                .top_p = how->top_p,
                                .min_p = how->min_p,
                                .repetition_penalty = how->repetition_penalty,
                                .top_k = how->top_k,
                                .seed_low = (uint32_t)how->seed,
                                .seed_high = (uint32_t)(how->seed >> 32),
                                .stream_low = (uint32_t)how->stream,
                                .stream_high = (uint32_t)(how->stream >> 32)};
    }
}

/// Logit rows belong to every second step row, in reverse; sequences are numbered by a stride of their own.
static sample_data make_data(harness *h, const sample_case *c) {
    sample_data d = {.shape = *c, .step_rows = 2 * c->rows, .sequences = 2 * c->rows + 1, .mask_bytes = (c->vocab + 31) / 32 * 4u};
    uint32_t stride = (c->vocab + 31) / 32 * 32 + 32;
    d.logits = harness_alloc(h, (size_t)c->rows * stride, sizeof *d.logits);
    for (uint32_t j = 0; j < c->rows; j++) {
        for (uint32_t i = 0; i < c->vocab; i++) d.logits[j * stride + i] = make_logit(h, c->logits);
        if (c->nan && j % 2) d.logits[j * stride + random_below(h, c->vocab)] = NAN;
    }
    d.index = harness_alloc(h, c->rows, sizeof *d.index);
    d.rows = harness_alloc(h, d.step_rows, sizeof *d.rows);
    for (uint32_t j = 0; j < c->rows; j++) d.index[j] = 2 * (c->rows - 1 - j);
    for (uint32_t t = 0; t < d.step_rows; t++)
        d.rows[t] = (Row){.token = t, .position = random_below(h, 1000), .sequence = (t * 2 + 1) % d.sequences, .expert = t};
    Sampler *samplers = harness_alloc(h, d.sequences, sizeof *samplers);
    make_samplers(h, &d, samplers);
    d.scratch = harness_alloc(h, 2 * (size_t)c->vocab, sizeof *d.scratch);

    step_addresses a = put_step(h, &(step_data){.rows = d.rows, .row_count = d.step_rows});
    d.rows_address = a.rows;
    d.op = (op_sample){.step = a.step, .logits_stride = stride, .vocab = c->vocab, .rows = c->rows, .advance = c->advance};
    d.op.logits = harness_put(h, d.logits, (size_t)c->rows * stride * sizeof *d.logits);
    d.op.index = harness_put(h, d.index, c->rows * sizeof *d.index);
    d.op.samplers = harness_put(h, samplers, d.sequences * sizeof *samplers);
    d.op.results = harness_put(h, NULL, d.sequences * SAMPLED_RING * sizeof(Sampled));
    return d;
}

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    const sample_data *d = user;
    op_record_sample(recorder, &d->op);
}

static void check_token(harness *h, const sample_data *d, uint32_t j, const Sampled *result) {
    const float *logits = d->logits + (size_t)j * d->op.logits_stride;
    uint32_t vocab = d->shape.vocab;
    Row row = d->rows[d->index[j]];
    if (d->shape.nan && j % 2) {
        if (result->token != NO_TOKEN || !(result->flags & SAMPLED_NAN))
            harness_fail(h, "row %u: NaN gives token %u, flags %u", j, result->token, result->flags);
        return;
    }
    double tolerance = 4 * sqrt((double)vocab) * U32 + 2e-6;
    if (result->flags ||
        !reference_sample_allows(&d->how[row.sequence], logits, vocab, row.position + 1, result->token, tolerance, d->scratch)) {
        harness_fail(h, "row %u: token %u, flags %u", j, result->token, result->flags);
        return;
    }
    double top = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) top = fmax(top, (double)logits[i]);
    double logit = (double)logits[result->token], expected = logit - reference_log_sum(logits, vocab);
    double bound = (sqrt((double)vocab) + 64) * U32 + 4 * U32 * (fabs(logit) + fabs(top)), error = fabs((double)result->logprob - expected);
    if (!(error <= bound)) harness_fail(h, "row %u: log-probability %.9g, not %.9g ± %.2g", j, (double)result->logprob, expected, bound);
    harness_ratio(h, error / bound);
}

/// The row of the next step, and the bit of the token in the seen mask.
static void check_state(harness *h, const sample_data *d, uint32_t j, uint32_t token) {
    uint32_t t = d->index[j];
    Row before = d->rows[t], after;
    uint64_t row_address = d->rows_address + t * sizeof after;
    memcpy(&after, harness_after(h, row_address), sizeof after);
    if (d->shape.advance) {
        bool right = after.position == before.position + 1 && after.sequence == before.sequence && after.expert == before.expert;
        if (!right || (token != NO_TOKEN && after.token != token))
            harness_fail(h, "row %u was not advanced: token %u at %u", j, after.token, after.position);
        harness_ignore(h, row_address, sizeof after);
    }
    if (d->shape.penalty > 0 && token != NO_TOKEN) {
        uint64_t word_address = d->seen_address[before.sequence] + token / 32 * 4;
        uint32_t word;
        memcpy(&word, harness_after(h, word_address), 4);
        if (word != (d->how[before.sequence].seen[token / 32] | 1u << (token % 32)))
            harness_fail(h, "row %u: token %u is not marked as seen", j, token);
        harness_ignore(h, word_address, 4);
    }
}

static void check(harness *h, const variant *v, void *user) {
    (void)v;
    const sample_data *d = user;
    for (uint32_t j = 0; j < d->shape.rows; j++) {
        Row row = d->rows[d->index[j]];
        uint32_t slot = row.sequence * SAMPLED_RING + (row.position + 1) % SAMPLED_RING;
        Sampled result;
        memcpy(&result, harness_after(h, d->op.results + slot * sizeof result), sizeof result);
        if (result.position != row.position + 1) harness_fail(h, "row %u: position %u, not %u", j, result.position, row.position + 1);
        check_token(h, d, j, &result);
        check_state(h, d, j, result.token);
        harness_ignore(h, d->op.results + slot * sizeof result, sizeof result);
    }
}

static void check_philox(harness *h) {
    if (!harness_case(h, "philox", "known answers")) return;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        // from Random123's kat_vectors
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        reference_philox(known[i].counter, known[i].key, out);
        if (memcmp(out, known[i].out, sizeof out)) harness_fail(h, "vector %zu", i);
    }
    harness_count(h);
}

void cases_sample(harness *h) {
    check_philox(h);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sample_case *c = &cases[i];
        if (!harness_case(h, c->temperature > 0 ? "sample" : "sample greedy",
                          "vocabulary %u, %u rows, logits %d, temperature %g, top_k %u, top_p %g, min_p %g, penalty %g, allow %u%s%s",
                          c->vocab, c->rows, (int)c->logits, (double)c->temperature, c->top_k, (double)c->top_p, (double)c->min_p,
                          (double)c->penalty, c->allow_every, c->nan ? ", NaN" : "", c->advance ? ", advance" : ""))
            continue;
        sample_data d = make_data(h, c);
        harness_run(h, record, check, &d);
    }
}
