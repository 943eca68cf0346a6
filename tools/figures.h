/// Named figures of a bench, each the median of its runs, told as JSON or as a table.
#ifndef TOOLS_FIGURES_H
#define TOOLS_FIGURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { FIGURES_MAX = 64 };

typedef struct figure {
    char name[48];
    const char *unit; // static
    double value, min, max;
    uint32_t runs;
    double bar; // the value should not be above; 0: no bar
} figure;

typedef struct figures {
    figure items[FIGURES_MAX];
    uint32_t count;
} figures;

/// Adds the median, least and largest of samples[count]; sorts them. The result may be given a bar; it is valid always.
figure *figures_add(figures *list, const char *name, const char *unit, double *samples, uint32_t count);
/// Adds one number.
figure *figures_add_value(figures *list, const char *name, const char *unit, double value);
/// {name: {"value", "unit", "min", "max", "runs", "bar"?, "before"?}, …}; before: such an object of an earlier run, or NULL.
json_t *figures_json(const figures *list, const json_t *before);
/// Prints the table to stdout, as text or as Markdown.
void figures_print(const figures *list, const json_t *before, bool markdown);

/// Median of samples[count ≥ 1]; sorts them.
double median(double *samples, uint32_t count);
/// Upper end of the one-sided 95 % confidence interval of the median, by 10,000 bootstrap samples with fixed random numbers.
double median_upper_bound(const double *samples, uint32_t count);

#endif
