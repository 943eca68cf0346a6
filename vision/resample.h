/// Pictures of another size, to the bit as Pillow makes them.
#ifndef VISION_RESAMPLE_H
#define VISION_RESAMPLE_H

#include "loader/image_config.h"

/// A part of a resized picture: the whole of it would have height × width pixels.
typedef struct resample_window {
    uint32_t height, width;            // of the whole
    uint32_t top, left, rows, columns; // of the part
} resample_window;

/// dst[rows, columns, 4] = the window of src[src_height, src_width, 4] resized; rows of dst are dst_stride bytes apart. First along rows,
/// then along columns, rounded to bytes between the two; the filter is widened where the picture shrinks. Bytes 3 of the pixels are resized
/// like the others. Only the window is computed, however large the whole.
zs_status resample(const uint8_t *src, uint32_t src_height, uint32_t src_width, image_filter filter, const resample_window *window,
                   uint8_t *dst, size_t dst_stride, zs_error *error);

#endif
