/// Sizes that preprocessing goes through, in transformers' own arithmetic: doubles, divided and cut off in the same order.
#ifndef VISION_IMAGE_GEOMETRY_H
#define VISION_IMAGE_GEOMETRY_H

#include "loader/image_config.h"

typedef struct image_size {
    uint32_t height, width;
} image_size;

/// LLaVA: the shorter side becomes `edge`, the other keeps the aspect.
image_size geometry_shortest_edge(image_size size, uint32_t edge);
/// LLaVA-NeXT: the pinpoint that keeps most of the image, of those the one that wastes least, of those the first.
image_size geometry_best_pinpoint(const image_config *config, image_size size);
/// LLaVA-NeXT: the largest size of the image's aspect within a canvas.
image_size geometry_fit(image_size size, image_size canvas);
/// LLaVA-NeXT: what is left of a canvas of features when the padding is cut off; no rows or no columns are possible.
image_size geometry_unpad(image_size size, image_size canvas);
/// Idefics3: the longer side becomes `edge`.
image_size geometry_longest_edge(image_size size, uint32_t edge);
/// Idefics3: whole tiles, about the same aspect.
image_size geometry_whole_tiles(image_size size, uint32_t tile);

#endif
