/// Inside of zs_image: 8-bit pixels of one picture, upright, without transparency.
#ifndef VISION_IMAGE_H
#define VISION_IMAGE_H

#include "zsigma/zsigma.h"

/// The most that are decoded: pixels, and pixels on a side.
#ifndef IMAGE_MOST_PIXELS // fuzz targets allow less, for clearing and decoding what is claimed takes its time
#define IMAGE_MOST_PIXELS 100000000u
#endif
#define IMAGE_MOST_SIDE 65535u

struct zs_image {
    uint32_t width, height;
    uint8_t *pixels; // [height, width, 4]: red, green, blue, and a byte that nobody reads
};

/// Refuses pictures of no pixels and of too many.
zs_status image_check_size(const char *name, uint32_t width, uint32_t height, zs_error *error);

/// 128 bits that tell its size and pixels from others'.
void image_hash(const zs_image *image, uint64_t hash[2]);

#endif
