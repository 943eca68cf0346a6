/// A safetensors file put together in memory around any header text, sound or not.
#ifndef SUPPORT_SAFETENSORS_IMAGE_H
#define SUPPORT_SAFETENSORS_IMAGE_H

#include "support/byte_buffer.h"

/// header is taken as it is; single quotes in it stand for double ones. To be freed with byte_buffer_free.
byte_buffer safetensors_image(const char *header, const void *data, size_t size);

#endif
