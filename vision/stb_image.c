// stb_image's one implementation, without the formats and the file access that nobody asks it for (stb_image.h).
#include "vision/stb_image.h"

#include <stdlib.h>

/// What one picture may take from the allocator. A deflated PNG can claim to be small and expand without end, and stb cannot be told a
/// limit in any other way.
static _Thread_local size_t budget;

void stb_image_set_budget(size_t bytes) { budget = bytes; }

static void *take(size_t size) {
    if (size > budget) return NULL;
    budget -= size;
    return malloc(size);
}

static void *resize(void *old, size_t old_size, size_t size) {
    if (size > old_size && size - old_size > budget) return NULL;
    if (size > old_size) budget -= size - old_size;
    return realloc(old, size);
}

#define STBI_MALLOC(size) take(size)
#define STBI_REALLOC_SIZED(old, old_size, size) resize(old, old_size, size)
#define STBI_FREE(old) free(old)
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
