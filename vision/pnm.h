/// Netpbm's plain and raw bitmaps, grey maps and pixel maps: P1 … P6.
#ifndef VISION_PNM_H
#define VISION_PNM_H

#include "vision/image.h"

bool pnm_recognise(const uint8_t *data, size_t size);
zs_status pnm_decode(const uint8_t *data, size_t size, const char *name, zs_image *image, zs_error *error);

#endif
