#include "figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *samples, uint32_t count) {
    qsort(samples, count, sizeof *samples, compare);
    return count % 2 ? samples[count / 2] : (samples[count / 2 - 1] + samples[count / 2]) / 2;
}

double median_upper_bound(const double *samples, uint32_t count) {
    enum { RESAMPLES = 10000 };
    double *medians = malloc(RESAMPLES * sizeof *medians), *drawn = malloc(count * sizeof *drawn), bound = 0;
    uint64_t state = 1;
    for (uint32_t i = 0; medians && drawn && i < RESAMPLES; i++) {
        for (uint32_t j = 0; j < count; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator; its high bits
            drawn[j] = samples[(state >> 33) % count];
        }
        medians[i] = median(drawn, count);
    }
    if (medians && drawn) {
        qsort(medians, RESAMPLES, sizeof *medians, compare);
        bound = medians[RESAMPLES * 95 / 100];
    }
    free(medians);
    free(drawn);
    return bound;
}

figure *figures_add(figures *list, const char *name, const char *unit, double *samples, uint32_t count) {
    figure *f = &list->items[list->count < FIGURES_MAX ? list->count++ : FIGURES_MAX - 1];
    *f = (figure){.unit = unit, .value = median(samples, count), .min = samples[0], .max = samples[count - 1], .runs = count};
    snprintf(f->name, sizeof f->name, "%s", name);
    return f;
}

figure *figures_add_value(figures *list, const char *name, const char *unit, double value) {
    return figures_add(list, name, unit, &value, 1);
}

/// Value of the earlier run; false: it has none of this name and unit.
static bool value_before(const json_t *before, const figure *f, double *value) {
    const json_t *entry = json_object_get(before, f->name);
    const char *unit = json_string_value(json_object_get(entry, "unit"));
    *value = json_number_value(json_object_get(entry, "value"));
    return unit && strcmp(unit, f->unit) == 0;
}

json_t *figures_json(const figures *list, const json_t *before) {
    json_t *object = json_object();
    for (uint32_t i = 0; i < list->count; i++) {
        const figure *f = &list->items[i];
        json_t *entry = json_pack("{s:f, s:s, s:f, s:f, s:I}", "value", f->value, "unit", f->unit, "min", f->min, "max", f->max, "runs",
                                  (json_int_t)f->runs);
        if (f->bar > 0) json_object_set_new(entry, "bar", json_real(f->bar));
        double was;
        if (value_before(before, f, &was)) json_object_set_new(entry, "before", json_real(was));
        json_object_set_new(object, f->name, entry);
    }
    return object;
}

/// The lines of a table; Markdown's cells have bars between them.
typedef struct line_style {
    const char *head, *row, *before_head, *before, *no_before, *ratio, *no_ratio, *bar, *end;
} line_style;

static const line_style text_style = {
    .head = "%-34s %12s %12s %12s %5s  %-10s",
    .row = "%-34s %12.4g %12.4g %12.4g %5u  %-10s",
    .before_head = " %12s %8s",
    .before = " %12.4g",
    .no_before = " %12s",
    .ratio = " %8.3f",
    .no_ratio = " %8s",
    .bar = " %s",
    .end = "\n",
};
static const line_style markdown_style = {
    .head = "| %s | %s | %s | %s | %s | %s |",
    .row = "| %s | %.4g | %.4g | %.4g | %u | %s |",
    .before_head = " %s | %s |",
    .before = " %.4g |",
    .no_before = " %s |",
    .ratio = " %.3f |",
    .no_ratio = " %s |",
    .bar = " %s |",
    .end = "\n",
};

static void print_row(const figure *f, const json_t *before, const line_style *style) {
    char bar[64] = "";
    double was;
    const bool known = value_before(before, f, &was);
    printf(style->row, f->name, f->value, f->min, f->max, f->runs, f->unit);
    if (known)
        printf(style->before, was);
    else if (before)
        printf(style->no_before, "");
    if (known && was > 0)
        printf(style->ratio, f->value / was);
    else if (before)
        printf(style->no_ratio, "");
    if (f->bar > 0) snprintf(bar, sizeof bar, "≤ %g: %s", f->bar, f->value <= f->bar ? "held" : "missed");
    printf(style->bar, bar);
    printf("%s", style->end);
}

void figures_print(const figures *list, const json_t *before, bool markdown) {
    const line_style *style = markdown ? &markdown_style : &text_style;
    printf(style->head, "figure", "median", "min", "max", "runs", "unit");
    if (before) printf(style->before_head, "before", "ratio");
    printf(style->bar, "bar");
    printf("%s", style->end);
    if (markdown) printf("|---|---|---|---|---|---|%s---|\n", before ? "---|---|" : "");
    for (uint32_t i = 0; i < list->count; i++) print_row(&list->items[i], before, style);
}
