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

const figure *figures_find(const figures *list, const char *name) {
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, name) == 0) return &list->items[i];
    }
    return NULL;
}

json_t *figures_json(const figures *list) {
    json_t *object = json_object();
    for (uint32_t i = 0; i < list->count; i++) {
        const figure *f = &list->items[i];
        json_t *entry = json_pack("{s:f, s:s, s:f, s:f, s:I}", "value", f->value, "unit", f->unit, "min", f->min, "max", f->max, "runs",
                                  (json_int_t)f->runs);
        if (f->bar > 0) json_object_set_new(entry, "bar", json_real(f->bar));
        json_object_set_new(object, f->name, entry);
    }
    return object;
}

void figures_print(const figures *list) {
    printf("%-34s %12s %12s %12s %5s  %-10s %s\n", "figure", "median", "min", "max", "runs", "unit", "bar");
    for (uint32_t i = 0; i < list->count; i++) {
        const figure *f = &list->items[i];
        printf("%-34s %12.4g %12.4g %12.4g %5u  %-10s", f->name, f->value, f->min, f->max, f->runs, f->unit);
        if (f->bar > 0) printf(" ≤ %g: %s", f->bar, f->value <= f->bar ? "held" : "missed");
        putchar('\n');
    }
}
