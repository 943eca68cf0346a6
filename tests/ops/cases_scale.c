/// y = x ⊙ scales and its gradients, segment by segment.
///
/// A product rounds once: u |y|. A sum of T products, added to what was there: (√T + 3) u Σ|x g|, and a last rounding.
#include "cases.h"
#include "reference.h"

#include <math.h>

typedef struct scale_case {
    uint32_t segments, width[3], rows, spare;
} scale_case;

static const scale_case cases[] = {
    {1, {1}, 1, 0}, {1, {65}, 3, 32}, {1, {576}, 70, 0}, {3, {576, 192, 191}, 17, 32}, {2, {3, 130}, 9, 0}, {1, {33}, 1000, 0},
};

typedef struct scale_data {
    op_scale scale;
    op_scale_back back;
} scale_data;

static void record_scale(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_scale(recorder, &((const scale_data *)user)->scale);
}

static void record_back(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_scale_back(recorder, &((const scale_data *)user)->back);
}

static void run_case(harness *h, const scale_case *c, bool back) {
    op_scale_segment segments[3] = {{0}};
    uint32_t end = 4, scale_end = 4;
    for (uint32_t s = 0; s < c->segments; s++) { // with gaps that must stay as they are
        segments[s] = (op_scale_segment){end, c->width[s], scale_end};
        end += (c->width[s] + 31) / 32 * 32;
        scale_end += (c->width[s] + 3) / 4 * 4 + 4;
    }
    uint32_t stride = (end + 31) / 32 * 32 + c->spare;
    size_t count = (size_t)c->rows * stride;
    float *x = random_floats(h, count, 1), *g = random_floats(h, count, 2), *scales = random_floats(h, scale_end, 3),
          *sums = random_floats(h, scale_end, 1);
    expect *y_expected = harness_alloc(h, count, sizeof(expect)), *sums_expected = harness_alloc(h, scale_end, sizeof(expect));
    for (size_t i = 0; i < count; i++) y_expected[i] = UNTOUCHED;
    for (size_t i = 0; i < scale_end; i++) sums_expected[i] = UNTOUCHED;
    for (uint32_t s = 0; s < c->segments; s++)
        for (uint32_t i = 0; i < c->width[s]; i++) {
            double sum = 0, magnitude = 0, scale = (double)scales[segments[s].scale_offset + i],
                   before = (double)sums[segments[s].scale_offset + i];
            for (uint32_t t = 0; t < c->rows; t++) {
                size_t at = (size_t)t * stride + segments[s].offset + i;
                double y = (back ? (double)g[at] : (double)x[at]) * scale;
                y_expected[at] = (expect){y, U32 * fabs(y) + 1e-37};
                sum += (double)x[at] * (double)g[at];
                magnitude += fabs((double)x[at] * (double)g[at]);
            }
            sums_expected[segments[s].scale_offset + i] =
                (expect){before + sum, (sqrt(c->rows) + 3) * U32 * magnitude + U32 * fabs(before + sum)};
        }
    scale_data d = {.scale = {.segment_count = c->segments, .stride = stride, .rows = c->rows},
                    .back = {.segment_count = c->segments, .stride = stride, .rows = c->rows}};
    for (uint32_t s = 0; s < c->segments; s++) d.scale.segments[s] = d.back.segments[s] = segments[s];
    d.scale.x = d.back.x = harness_put(h, x, count * sizeof *x);
    d.scale.y = d.back.g = harness_put(h, g, count * sizeof *g);
    d.scale.scales = d.back.scales = harness_put(h, scales, scale_end * sizeof *scales);
    d.back.sums = harness_put(h, sums, scale_end * sizeof *sums);
    harness_expect_f32(h, d.back.g, y_expected, count);
    if (back) harness_expect_f32(h, d.back.sums, sums_expected, scale_end);
    harness_run(h, back ? record_back : record_scale, NULL, &d);
}

void cases_scale(harness *h) {
    for (int back = 0; back < 2; back++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            if (harness_case(h, back ? "scale_back" : "scale", "%u segments, width %u, %u rows", cases[i].segments, cases[i].width[0],
                             cases[i].rows))
                run_case(h, &cases[i], back);
}
