/// How a vision model wants its images, told as keys: llama.cpp's (clip.vision.…) and, for what those do not tell, our own
/// (zsigma.vision.…).
#ifndef LOADER_IMAGE_KEYS_H
#define LOADER_IMAGE_KEYS_H

#include "loader/image_config.h"

void image_keys_write(const image_config *config, gguf_writer *keys);
/// family, tile, patch and shuffle are given; what no key tells is what transformers takes for granted in the family.
zs_status image_keys_read(const gguf_file *file, image_config *config, zs_error *error);

#endif
