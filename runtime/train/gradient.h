/// What the trainer sees of zs_gradient besides its public side.
#ifndef TRAIN_GRADIENT_H
#define TRAIN_GRADIENT_H

#include "zsigma/zsigma_lab.h"

/// The gradient by z, laid out like a row of scales [scale_count]; matrices that are not factored have no place in it.
const float *gradient_values(const zs_gradient *gradient);
/// Whether matrix units take part, as zs_gradient_params.precision allows.
bool gradient_is_fast(const zs_gradient *gradient);

#endif
