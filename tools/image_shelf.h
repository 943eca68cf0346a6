/// Pictures that data name by their paths: each is looked at once, its pixels are there while they are needed.
#ifndef TOOLS_IMAGE_SHELF_H
#define TOOLS_IMAGE_SHELF_H

#include "data_file.h"

typedef struct shelved_image {
    char *path;
    uint32_t tokens; // that it takes in a prompt
    char *problem;   // why it cannot be used; NULL: it can
    zs_image *image; // NULL: not in memory
} shelved_image;

typedef struct image_shelf {
    shelved_image *images; // [count]; by path, each once, after image_shelf_measure
    size_t count, capacity;
} image_shelf;

/// Of items [count], those that name one.
zs_status image_shelf_add(image_shelf *shelf, const data_item *items, size_t count, zs_error *error);
/// Reads every picture and lets it go again. One that cannot be read is no error, its problem is kept.
zs_status image_shelf_measure(image_shelf *shelf, const zs_model *model, const zs_progress *progress, zs_error *error);
/// NULL when it was not added.
shelved_image *image_shelf_find(const image_shelf *shelf, const char *path);
/// Its pixels, until image_shelf_clear. Errors: those of zs_image_load.
zs_status image_shelf_take(const image_shelf *shelf, const char *path, const zs_image **image, zs_error *error);
/// Lets go of all pixels.
void image_shelf_clear(image_shelf *shelf);
void image_shelf_free(image_shelf *shelf);

#endif
