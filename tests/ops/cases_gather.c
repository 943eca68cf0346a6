/// y[t, j · width + i] = x[index[t, j], i]: copies, to the bit. And sums of rows: the sum of n values errs by n u of their magnitudes.
#include "cases.h"

#include <math.h>

static const struct {
    uint32_t width, pieces, rows, x_rows;
} cases[] = {{1, 1, 1, 1}, {64, 1, 37, 12}, {48, 4, 16, 64}, {768, 16, 5, 90}, {33, 3, 65, 7}, {1152, 9, 2, 18}};

static void record(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_gather(recorder, user);
}

static void run_case(harness *h, uint32_t width, uint32_t pieces, uint32_t rows, uint32_t x_rows) {
    uint32_t x_stride = (width + 31) / 32 * 32 + 32, y_stride = (width * pieces + 31) / 32 * 32 + 64;
    float *x = random_floats(h, (size_t)x_rows * x_stride, 1), *y = random_floats(h, (size_t)rows * y_stride, 1);
    uint32_t *index = harness_alloc(h, (size_t)rows * pieces, sizeof *index);
    expect *expected = harness_alloc(h, (size_t)rows * y_stride, sizeof *expected);
    for (size_t i = 0; i < (size_t)rows * y_stride; i++) expected[i] = UNTOUCHED;
    for (uint32_t t = 0; t < rows; t++)
        for (uint32_t j = 0; j < pieces; j++) {
            uint32_t from = index[t * pieces + j] = t + j == 0 ? x_rows - 1 : random_below(h, x_rows);
            for (uint32_t i = 0; i < width; i++)
                expected[(size_t)t * y_stride + j * width + i] = (expect){(double)x[(size_t)from * x_stride + i], 0};
        }
    op_gather op = {.width = width, .pieces = pieces, .x_stride = x_stride, .y_stride = y_stride, .rows = rows};
    op.x = harness_put(h, x, (size_t)x_rows * x_stride * sizeof *x);
    op.y = harness_put(h, y, (size_t)rows * y_stride * sizeof *y);
    op.index = harness_put(h, index, (size_t)rows * pieces * sizeof *index);
    harness_expect_f32(h, op.y, expected, (size_t)rows * y_stride);
    harness_run(h, record, NULL, &op);
}

void cases_gather(harness *h) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (harness_case(h, "gather", "%u pieces of %u, %u rows of %u", cases[i].pieces, cases[i].width, cases[i].rows, cases[i].x_rows))
            run_case(h, cases[i].width, cases[i].pieces, cases[i].rows, cases[i].x_rows);
}

static const struct {
    uint32_t width, rows, most; // terms of a row
} sums[] = {{1, 1, 1}, {64, 37, 1}, {48, 16, 3}, {577, 9, 40}};

static void record_sum(harness *h, const op_recorder *recorder, void *user) {
    (void)h;
    op_record_gather_sum(recorder, user);
}

/// Rows of x begin at any float.
static void run_sum(harness *h, uint32_t width, uint32_t rows, uint32_t most) {
    uint32_t y_stride = (width + 31) / 32 * 32, x_count = 3 * width + 100;
    float *x = random_floats(h, x_count, 1), *y = random_floats(h, (size_t)rows * y_stride, 1);
    uint32_t *begin = harness_alloc(h, rows + 1, sizeof *begin), *from = harness_alloc(h, (size_t)rows * most, sizeof *from);
    expect *expected = harness_alloc(h, (size_t)rows * y_stride, sizeof *expected);
    for (size_t i = 0; i < (size_t)rows * y_stride; i++) expected[i] = UNTOUCHED;
    begin[0] = 0;
    for (uint32_t t = 0; t < rows; t++) {
        uint32_t terms = t == 0 ? most : random_below(h, most + 1);
        begin[t + 1] = begin[t] + terms;
        for (uint32_t k = begin[t]; k < begin[t + 1]; k++) from[k] = random_below(h, x_count - width + 1);
        for (uint32_t i = 0; i < width; i++) {
            expect *e = &expected[(size_t)t * y_stride + i];
            *e = (expect){0, 0};
            for (uint32_t k = begin[t]; k < begin[t + 1]; k++) {
                e->value += (double)x[from[k] + i];
                e->bound += terms > 1 ? terms * U32 * fabs((double)x[from[k] + i]) : 0;
            }
        }
    }
    op_gather_sum op = {.width = width, .y_stride = y_stride, .rows = rows};
    op.x = harness_put(h, x, x_count * sizeof *x);
    op.y = harness_put(h, y, (size_t)rows * y_stride * sizeof *y);
    op.begin = harness_put(h, begin, (rows + 1) * sizeof *begin);
    op.from = harness_put(h, from, (size_t)rows * most * sizeof *from);
    harness_expect_f32(h, op.y, expected, (size_t)rows * y_stride);
    harness_run(h, record_sum, NULL, &op);
}

void cases_gather_sum(harness *h) {
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++)
        if (harness_case(h, "gather_sum", "%u rows of %u, up to %u terms", sums[i].rows, sums[i].width, sums[i].most))
            run_sum(h, sums[i].width, sums[i].rows, sums[i].most);
}
