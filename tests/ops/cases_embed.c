/// x[t] = scale · embedding[rows[t].token] ⊙ columns, or a row of features. Bound: dequantising rounds at most twice (2u), the scale and
/// the columns once more each; features are copied.
#include "cases.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>

static const struct {
    uint32_t vocab, width, rows;
    uint32_t part; // rows of the embedding's parts; 0: whole
    float scale;   // 0: none
} cases[] = {{1, 1, 1, 0, 0},        {7, 31, 3, 0, 0},      {300, 33, 9, 0, 25.3f}, {65, 192, 17, 0, 0},
             {577, 576, 5, 0, 0.7f}, {40, 1536, 100, 0, 0}, {450, 64, 40, 32, 0},   {577, 33, 20, 96, 25.3f}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_embed(recorder, user);
}

enum { FEATURE_ROWS = 5 };

typedef enum embed_kind { PLAIN, FEATURES, COLUMNS, KINDS } embed_kind;

typedef struct embed_case {
    uint32_t vocab, width, rows, part;
    float scale;
} embed_case;

static void run_case(harness *h, uint32_t type, const embed_case *c, embed_kind kind) {
    const bool has_features = kind == FEATURES;
    const uint32_t vocab = c->vocab, width = c->width, row_count = c->rows;
    weights w = weights_random(h, type, vocab, width);
    w.shape.part_rows = c->part;
    weights_put(h, &w);
    uint32_t stride = (width + 31) / 32 * 32 + 32;
    size_t count = (size_t)row_count * stride;
    float *features = random_floats(h, (size_t)FEATURE_ROWS * stride, 1), *columns = random_floats(h, width, 2);
    Row *rows = harness_alloc(h, row_count, sizeof *rows);
    expect *expected = harness_alloc(h, count, sizeof *expected);
    for (uint32_t t = 0; t < row_count; t++) {
        rows[t] = (Row){.token = t == 0 ? vocab - 1 : t == 1 ? 0 : random_below(h, vocab), .position = t};
        bool feature = has_features && t % 3 != 1;
        if (feature) rows[t].token = vocab + (t == 0 ? FEATURE_ROWS - 1 : random_below(h, FEATURE_ROWS));
        // What is neither token nor feature, as after logits that are no numbers: the last token.
        if (has_features && t == 2) rows[t].token = NO_TOKEN;
        if (has_features && t == 3) rows[t].token = vocab + FEATURE_ROWS;
        bool neither = has_features && (t == 2 || t == 3);
        for (uint32_t i = 0; i < stride; i++) {
            size_t from = neither ? vocab - 1 : rows[t].token;
            bool copied = feature && !neither;
            double value = i >= width ? 0
                           : copied   ? (double)features[(rows[t].token - vocab) * (size_t)stride + i]
                                      : (double)w.values[from * w.shape.padded + i];
            if (c->scale != 0 && !copied) value *= (double)c->scale;
            if (kind == COLUMNS && i < width) value *= (double)columns[i];
            double bound = copied ? 0 : (2 + (c->scale != 0) + (kind == COLUMNS)) * U32 * fabs(value);
            expected[(size_t)t * stride + i] = i < width ? (expect){value, bound} : UNTOUCHED;
        }
    }
    op_embed op = {.embedding = &w.shape, .stride = stride, .rows = row_count, .scale = c->scale};
    if (has_features) {
        op.features = harness_put(h, features, (size_t)FEATURE_ROWS * stride * sizeof *features);
        op.feature_rows = FEATURE_ROWS;
    }
    if (kind == COLUMNS) op.columns = harness_put(h, columns, width * sizeof *columns);
    op.step = put_step(h, &(step_data){.rows = rows, .row_count = row_count}).step;
    op.x = harness_put(h, random_floats(h, count, 1), count * sizeof(float));
    harness_expect_f32(h, op.x, expected, count);
    harness_run(h, record, NULL, &op);
}

void cases_embed(harness *h) {
    for (uint32_t t = 0; t < WEIGHT_TYPES; t++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            char op[32];
            snprintf(op, sizeof op, "embed %s", tensor_type_get_info(weight_types[t])->name);
            uint32_t width = weights_inner(weight_types[t], cases[i].width);
            for (embed_kind kind = PLAIN; kind < KINDS; kind++) {
                static const char *const names[] = {"", ", features", ", columns"};
                const embed_case c = {cases[i].vocab, width, cases[i].rows, cases[i].part, cases[i].scale};
                if (harness_case(h, op, "vocabulary %u, width %u, %u rows, scale %g%s%s", c.vocab, width, c.rows, (double)c.scale,
                                 c.part ? ", parts" : "", names[kind]))
                    run_case(h, weight_types[t], &c, kind);
            }
        }
}
