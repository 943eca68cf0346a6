/// AdamW over a vector of values: gradients clipped by their global norm, a learning rate that falls along a cosine, decay towards a
/// centre of the values' own. State and values are f32, as a checkpoint keeps them; a step is calculated in double.
#ifndef TRAIN_OPTIMISER_H
#define TRAIN_OPTIMISER_H

#include "zsigma/zsigma.h"

typedef struct optimiser_params {
    double rate; // at the first step
    double beta1, beta2, epsilon;
    double decay; // share of the distance to the centre, times the rate, by which a step pulls
    double clip;  // largest norm of a gradient; 0: any
    uint32_t steps;
    bool constant; // the rate stays what it is; else it is 0 after the last step
} optimiser_params;

typedef struct optimiser {
    optimiser_params params;
    float *mean, *square; // [count]: running averages of the gradient and of its square
    size_t count;
} optimiser;

zs_status optimiser_create(const optimiser_params *params, size_t count, optimiser *optimiser, zs_error *error);
void optimiser_destroy(optimiser *optimiser);
/// Learning rate of a step, counted from 0.
double optimiser_rate(const optimiser_params *params, uint32_t step);
/// Moves values[count] downhill along gradient[count], and towards centres[count] (NULL: no decay); `step` counts from 0. Returns the
/// gradient's norm before it was clipped.
double optimiser_step(optimiser *optimiser, uint32_t step, const float *gradient, const float *centres, float *values);

#endif
