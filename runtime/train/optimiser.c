#include "train/optimiser.h"

#include <math.h>
#include <stdlib.h>

zs_status optimiser_create(const optimiser_params *params, size_t count, optimiser *o, zs_error *error) {
    *o = (optimiser){.params = *params, .count = count, .mean = calloc(count, sizeof(float)), .square = calloc(count, sizeof(float))};
    if (o->mean && o->square) return ZS_OK;
    optimiser_destroy(o);
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an optimiser");
}

void optimiser_destroy(optimiser *o) {
    free(o->mean);
    free(o->square);
    *o = (optimiser){0};
}

double optimiser_rate(const optimiser_params *p, uint32_t step) {
    if (p->constant || p->steps == 0) return p->rate;
    const double pi = 3.14159265358979323846;
    double part = step < p->steps ? (double)step / p->steps : 1;
    return p->rate * 0.5 * (1 + cos(pi * part));
}

static double norm_of(const float *values, size_t count) {
    double squares = 0;
    for (size_t i = 0; i < count; i++) squares += (double)values[i] * (double)values[i];
    return sqrt(squares);
}

double optimiser_step(optimiser *o, uint32_t step, const float *gradient, const float *centres, float *values) {
    const optimiser_params *p = &o->params;
    double norm = norm_of(gradient, o->count), scale = p->clip > 0 && norm > p->clip ? p->clip / norm : 1;
    double rate = optimiser_rate(p, step), unbias1 = 1 - pow(p->beta1, step + 1.0), unbias2 = 1 - pow(p->beta2, step + 1.0);
    for (size_t i = 0; i < o->count; i++) {
        double g = scale * (double)gradient[i], value = (double)values[i];
        o->mean[i] = (float)(p->beta1 * (double)o->mean[i] + (1 - p->beta1) * g);
        o->square[i] = (float)(p->beta2 * (double)o->square[i] + (1 - p->beta2) * g * g);
        if (centres) value -= rate * p->decay * (value - (double)centres[i]);
        value -= rate * ((double)o->mean[i] / unbias1) / (sqrt((double)o->square[i] / unbias2) + p->epsilon);
        values[i] = (float)value;
    }
    return norm;
}
