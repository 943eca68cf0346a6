/// An image as a tower takes it: tiles of normalised pixels, and where each of the prompt's image tokens comes from.
#ifndef VISION_PREPROCESS_H
#define VISION_PREPROCESS_H

#include "loader/image_config.h"

/// An image token that is the model's newline embedding instead of a feature of the tower.
#define IMAGE_NEWLINE UINT32_MAX

typedef struct image_tiles {
    uint32_t count; // tiles. LLaVA: 1. LLaVA-NeXT: the whole image first, then the grid's tiles by rows. Idefics3: the grid's
                    // tiles by rows, then the whole image
    uint32_t side;  // of each, in pixels
    uint32_t grid_rows, grid_columns; // tiles of the grid; 0 × 0: the whole image only
    uint32_t tile_tokens;             // features that a tile becomes: (side / patch / shuffle)²
    uint32_t token_count;             // image tokens that stand for it in the prompt (tags of Idefics3 not counted)
    uint32_t *tokens;                 // [token_count]: row of the features [count · tile_tokens], or IMAGE_NEWLINE
    float *pixels;                    // [count, 3, side, side]; NULL after image_tiles_plan
} image_tiles;

/// All of it but the pixels, from an image's size alone.
zs_status image_tiles_plan(const image_config *config, uint32_t height, uint32_t width, image_tiles *tiles, zs_error *error);
/// What transformers' image processors make of the image: the same tiles and tokens, pixels as its Pillow back end's.
zs_status image_tiles_make(const image_config *config, const zs_image *image, image_tiles *tiles, zs_error *error);
/// Leaves all zero.
void image_tiles_free(image_tiles *tiles);

#endif
