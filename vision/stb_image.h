/// stb_image as this project builds it. Included instead of the library's own header.
#ifndef VISION_STB_IMAGE_H
#define VISION_STB_IMAGE_H

#include <stddef.h>

#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#include <stb/stb_image.h>

/// Bytes that the next picture may allocate on this thread.
void stb_image_set_budget(size_t bytes);

#endif
