/// The bytes of a picture file as pixels: PNG, JPEG, BMP and GIF (its first frame) by stb, PNM here.
#ifndef VISION_PICTURE_FILE_H
#define VISION_PICTURE_FILE_H

#include "vision/image.h"

/// Sets size and pixels of the image, as stored: not turned, with transparency in the fourth byte. Its size is read, and refused above
/// IMAGE_MOST_PIXELS, before anything is decoded. Files that end early are ZS_ERROR_FORMAT, like PNG chunks whose checksum is wrong.
zs_status picture_file_decode(const uint8_t *data, size_t size, const char *name, zs_image *image, zs_error *error);

#endif
