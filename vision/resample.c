#include "vision/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

enum { WEIGHT_BITS = 22 }; // of fixed-point weights, as many as Pillow keeps

static double lanczos(double x) {
    if (x < -3 || x >= 3) return 0;
    if (x == 0) return 1;
    double a = x * PI, b = x / 3 * PI;
    return sin(a) / a * (sin(b) / b);
}

static double bilinear(double x) {
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/// Keys' cubic with a = −1/2.
static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static const struct {
    double (*weight)(double x);
    double support;
} filters[] = {[IMAGE_LANCZOS] = {lanczos, 3}, [IMAGE_BILINEAR] = {bilinear, 1}, [IMAGE_BICUBIC] = {bicubic, 2}};

/// For each of count outputs the inputs that it sums up, [first, first + taps), and their weights.
typedef struct weights {
    uint32_t count, most; // most: taps that any output may have
    uint32_t *first, *taps;
    int32_t *values; // [count, most], in 2^-WEIGHT_BITS
} weights;

static void weights_free(weights *w) {
    free(w->first);
    free(w->taps);
    free(w->values);
    *w = (weights){0};
}

/// Weights of one output, rounded to fixed point after they were made to sum up to one.
static void weigh(image_filter filter, double centre, double scale, uint32_t first, uint32_t taps, double *exact, int32_t *values) {
    double sum = 0;
    for (uint32_t k = 0; k < taps; k++) sum += exact[k] = filters[filter].weight((k + first - centre + 0.5) * (1.0 / scale));
    for (uint32_t k = 0; k < taps; k++) {
        double value = (sum != 0 ? exact[k] / sum : exact[k]) * (1 << WEIGHT_BITS);
        values[k] = (int32_t)(value < 0 ? value - 0.5 : value + 0.5);
    }
}

/// Outputs [begin, begin + count) of `out`, made from `in` inputs.
static zs_status weights_make(image_filter filter, uint32_t in, uint32_t out, uint32_t begin, uint32_t count, weights *w, zs_error *error) {
    double step = (double)in / out, scale = step < 1 ? 1 : step, support = filters[filter].support * scale;
    double *exact = NULL;
    *w = (weights){.count = count, .most = (uint32_t)ceil(support) * 2 + 1};
    if (w->most > in) w->most = in;
    w->first = calloc(count, sizeof *w->first);
    w->taps = calloc(count, sizeof *w->taps);
    w->values = calloc((size_t)count * w->most, sizeof *w->values);
    exact = calloc(w->most, sizeof *exact);
    if (!w->first || !w->taps || !w->values || !exact) {
        free(exact);
        weights_free(w);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for resizing %u pixels to %u", in, out);
    }
    for (uint32_t i = 0; i < count; i++) {
        double centre = ((double)begin + i + 0.5) * step;
        double low = centre - support + 0.5, high = centre + support + 0.5;
        uint32_t first = low < 0 ? 0 : (uint32_t)low, end = high > in ? in : (uint32_t)high;
        w->first[i] = first;
        w->taps[i] = end - first;
        weigh(filter, centre, scale, first, end - first, exact, w->values + (size_t)i * w->most);
    }
    free(exact);
    return ZS_OK;
}

static uint8_t to_byte(int32_t sum) {
    int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/// dst[count, 4] = weighted sums of pixels of one row.
static void along_row(const uint8_t *src, const weights *w, uint8_t *dst) {
    for (uint32_t i = 0; i < w->count; i++) {
        const uint8_t *p = src + (size_t)w->first[i] * 4;
        const int32_t *values = w->values + (size_t)i * w->most;
        int32_t sums[4];
        for (int c = 0; c < 4; c++) sums[c] = 1 << (WEIGHT_BITS - 1);
        for (uint32_t k = 0; k < w->taps[i]; k++)
            for (int c = 0; c < 4; c++) sums[c] += p[4 * k + (uint32_t)c] * values[k];
        for (int c = 0; c < 4; c++) dst[4 * i + (uint32_t)c] = to_byte(sums[c]);
    }
}

/// dst[bytes] = weighted sum of `taps` rows of src, which are `bytes` apart.
static void along_column(const uint8_t *src, size_t bytes, const int32_t *values, uint32_t taps, int32_t *sums, uint8_t *dst) {
    for (size_t x = 0; x < bytes; x++) sums[x] = 1 << (WEIGHT_BITS - 1);
    for (uint32_t k = 0; k < taps; k++)
        for (size_t x = 0; x < bytes; x++) sums[x] += src[k * bytes + x] * values[k];
    for (size_t x = 0; x < bytes; x++) dst[x] = to_byte(sums[x]);
}

zs_status resample(const uint8_t *src, uint32_t src_height, uint32_t src_width, image_filter filter, const resample_window *window,
                   uint8_t *dst, size_t dst_stride, zs_error *error) {
    weights across = {0}, down = {0};
    uint8_t *middle = NULL;
    int32_t *sums = NULL;
    size_t bytes = (size_t)window->columns * 4;
    uint32_t begin, rows;
    zs_status status = weights_make(filter, src_width, window->width, window->left, window->columns, &across, error);
    if (!status) status = weights_make(filter, src_height, window->height, window->top, window->rows, &down, error);
    if (status) goto done;

    // Only rows that the second pass looks at go through the first.
    begin = down.first[0];
    rows = down.first[window->rows - 1] + down.taps[window->rows - 1] - begin;
    middle = malloc(rows * bytes);
    sums = malloc(bytes * sizeof *sums);
    if (!middle || !sums) {
        status =
            zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for resizing an image to %u × %u pixels", window->width, window->height);
        goto done;
    }
    for (uint32_t y = 0; y < rows; y++) along_row(src + (size_t)(begin + y) * src_width * 4, &across, middle + y * bytes);
    for (uint32_t y = 0; y < window->rows; y++)
        along_column(middle + (down.first[y] - begin) * bytes, bytes, down.values + (size_t)y * down.most, down.taps[y], sums,
                     dst + y * dst_stride);
done:
    free(sums);
    free(middle);
    weights_free(&down);
    weights_free(&across);
    return status;
}
