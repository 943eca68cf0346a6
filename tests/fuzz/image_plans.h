/// What must hold of any way that a model wants its images.
#ifndef FUZZ_IMAGE_PLANS_H
#define FUZZ_IMAGE_PLANS_H

#include "vision/preprocess.h"

/// Plans the tiles of an ordinary image and of two odd ones; aborts where one is neither refused with a message nor sound.
void image_plans_check(const image_config *config);

#endif
