/// The orientation that a camera noted in a picture's EXIF data.
#ifndef VISION_EXIF_H
#define VISION_EXIF_H

#include <stddef.h>
#include <stdint.h>

/// 1 … 8 as EXIF numbers them; 1 (upright) when a JPEG or PNG file says nothing, or nothing that can be read. Any bytes are safe.
uint32_t exif_orientation(const uint8_t *data, size_t size);

#endif
