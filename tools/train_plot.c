/// Panels over the steps of a training, one below the other.
#include "train_log.h"

#include "whole_file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 760, PANEL = 200, LEFT = 80, RIGHT = 20, TOP = 34, BOTTOM = 30, TICKS = 4 };

typedef struct panel {
    const char *title;
    struct {
        const char *key, *label, *colour;
    } lines[2];
} panel;

static const panel panels[] = {
    {"score of answers", {{"score", "sampled", "#8899aa"}, {"valid_score", "validation, greedy", "#cc4411"}}},
    {"log-probability per answer token", {{"logprob", "training", "#8899aa"}, {"valid", "validation", "#cc4411"}}},
    {"KL divergence per answer token", {{"kl", NULL, "#884488"}}},
    {"norm of the gradient", {{"gradient_norm", NULL, "#336699"}}},
    {"learning rate", {{"rate", NULL, "#338844"}}},
};

typedef struct range {
    double low, high;
} range;

static void widen(range *r, double value) {
    r->low = fmin(r->low, value);
    r->high = fmax(r->high, value);
}

/// A number of the log's i-th line; false when that line has none.
static bool find_number(const json_t *lines, size_t i, const char *key, double *value) {
    const json_t *number = json_object_get(json_array_get(lines, i), key);
    if (!json_is_number(number)) return false;
    *value = json_number_value(number);
    return isfinite(*value);
}

static json_t *read_lines(const char *path, zs_error *error) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    json_t *lines = json_array(), *line;
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL))) json_array_append_new(lines, line);
    fclose(file);
    return lines;
}

static range range_of(const json_t *lines, const panel *p) {
    range r = {INFINITY, -INFINITY};
    double value;
    for (size_t l = 0; l < 2 && p->lines[l].key; l++) {
        for (size_t i = 0; i < json_array_size(lines); i++) {
            if (find_number(lines, i, p->lines[l].key, &value)) widen(&r, value);
        }
    }
    if (r.high <= r.low) { // one value: somewhere to draw it
        r.low -= fabs(r.low) * 0.1 + 1e-9;
        r.high += fabs(r.high) * 0.1 + 1e-9;
    }
    return r;
}

static double place(range r, double value, double from, double to) { return from + (value - r.low) / (r.high - r.low) * (to - from); }

static void draw_axes(FILE *out, const panel *p, range x, range y, int top) {
    fprintf(out, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", LEFT, top + 18, p->title);
    for (int i = 0; i <= TICKS; i++) {
        double value = y.low + (y.high - y.low) * i / TICKS, at = place(y, value, top + PANEL - BOTTOM, top + TOP);
        fprintf(out, "<path d=\"M%d %.1fH%d\" stroke=\"#dddddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n", LEFT, at,
                WIDTH - RIGHT, LEFT - 6, at + 4, value);
        double step = x.low + (x.high - x.low) * i / TICKS;
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n", place(x, step, LEFT, WIDTH - RIGHT),
                top + PANEL - BOTTOM + 16, step);
    }
}

static void draw_line(FILE *out, const json_t *lines, const panel *p, size_t l, range x, range y, int top) {
    double step, value;
    fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", p->lines[l].colour);
    for (size_t i = 0; i < json_array_size(lines); i++) {
        if (!find_number(lines, i, "step", &step) || !find_number(lines, i, p->lines[l].key, &value)) continue;
        fprintf(out, "%.1f,%.1f ", place(x, step, LEFT, WIDTH - RIGHT), place(y, value, top + PANEL - BOTTOM, top + TOP));
    }
    fputs("\"/>\n", out);
    if (p->lines[l].label)
        fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"%s\">%s</text>\n", WIDTH - RIGHT - 90 * (int)l, top + 18,
                p->lines[l].colour, p->lines[l].label);
}

static void draw(FILE *out, const json_t *lines) {
    range x = {INFINITY, -INFINITY};
    double step;
    int drawn[sizeof panels / sizeof *panels], count = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        if (find_number(lines, i, "step", &step)) widen(&x, step);
    }
    if (!(x.high > x.low)) x = (range){0, 1};
    for (size_t i = 0; i < sizeof panels / sizeof *panels; i++) {
        range y = range_of(lines, &panels[i]);
        if (isfinite(y.low) && isfinite(y.high)) drawn[count++] = (int)i;
    }
    int height = PANEL * (count ? count : 1);
    fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n", WIDTH,
            height);
    fprintf(out, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", WIDTH, height);
    for (int i = 0; i < count; i++) {
        const panel *p = &panels[drawn[i]];
        range y = range_of(lines, p);
        draw_axes(out, p, x, y, i * PANEL);
        for (size_t l = 0; l < 2 && p->lines[l].key; l++) draw_line(out, lines, p, l, x, y, i * PANEL);
    }
    fputs("</svg>\n", out);
}

zs_status train_plot_write(const char *log_path, const char *path, zs_error *error) {
    whole_file *file = NULL;
    json_t *lines = read_lines(log_path, error);
    if (!lines) return ZS_ERROR_IO;
    zs_status status = whole_file_create(path, &file, error);
    if (!status) {
        draw(whole_file_stream(file), lines);
        status = whole_file_commit(&file, error);
    }
    json_decref(lines);
    return status;
}
