#include "vision/preprocess.h"

#include "vision/image.h"
#include "vision/image_geometry.h"
#include "vision/resample.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PIXELS = 64 << 20 }; // of all tiles of one image: 768 MB of floats

static zs_status out_of_memory(zs_error *error) { return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image's tiles"); }

// ---- which tiles, which tokens ---------------------------------------------------------------------------------------------

/// tokens = 0, 1, 2 …
static void count_up(image_tiles *tiles) {
    for (uint32_t i = 0; i < tiles->token_count; i++) tiles->tokens[i] = i;
}

/// The grid's features as one map without its padding, a newline behind each row; in front of it the whole image's.
static void arrange_rows(image_tiles *tiles, uint32_t side, image_size left) {
    uint32_t height = tiles->grid_rows * side, width = tiles->grid_columns * side, at = tiles->tile_tokens;
    uint32_t top = (height - left.height) / 2, first = (width - left.width) / 2;
    for (uint32_t i = 0; i < at; i++) tiles->tokens[i] = i;
    for (uint32_t y = top; y < top + left.height; y++) {
        for (uint32_t x = first; x < first + left.width; x++) {
            uint32_t tile = 1 + y / side * tiles->grid_columns + x / side;
            tiles->tokens[at++] = tile * tiles->tile_tokens + y % side * side + x % side;
        }
        tiles->tokens[at++] = IMAGE_NEWLINE;
    }
}

/// The size that an Idefics3 image is cut at.
static image_size idefics3_canvas(const image_config *config, image_size size) {
    return geometry_whole_tiles(geometry_longest_edge(size, config->longest_edge), config->tile);
}

static void plan_grid(const image_config *config, image_size size, image_tiles *tiles) {
    image_size canvas = {0};
    if (config->family == IMAGE_LLAVA_NEXT) canvas = geometry_best_pinpoint(config, size);
    if (config->family == IMAGE_IDEFICS3 && config->split) canvas = idefics3_canvas(config, size);
    tiles->grid_rows = canvas.height / config->tile;
    tiles->grid_columns = canvas.width / config->tile;
    if (config->family == IMAGE_IDEFICS3 && tiles->grid_rows * tiles->grid_columns == 1) tiles->grid_rows = tiles->grid_columns = 0;
    tiles->count = 1 + tiles->grid_rows * tiles->grid_columns;
}

zs_status image_tiles_plan(const image_config *config, uint32_t height, uint32_t width, image_tiles *tiles, zs_error *error) {
    image_size size = {height, width}, left = {0};
    *tiles = (image_tiles){.side = config->tile};
    zs_status status = image_config_check(config, "the image preprocessor", error);
    if (!status) status = image_check_size("the image", width, height, error);
    if (status) return status;
    plan_grid(config, size, tiles);
    if (tiles->count > MOST_PIXELS / config->tile / config->tile)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "an image of %u × %u pixels would make %u tiles of %u × %u", width, height,
                            tiles->count, config->tile, config->tile);
    uint32_t side = config->tile / config->patch / config->shuffle;
    tiles->tile_tokens = side * side;
    tiles->token_count = tiles->count * tiles->tile_tokens;
    if (config->family == IMAGE_LLAVA_NEXT) {
        left = geometry_unpad(size, (image_size){tiles->grid_rows * side, tiles->grid_columns * side});
        tiles->token_count = tiles->tile_tokens + left.height * (left.width + 1);
    }
    tiles->tokens = malloc(tiles->token_count * sizeof *tiles->tokens);
    if (!tiles->tokens) return out_of_memory(error);
    if (config->family == IMAGE_LLAVA_NEXT)
        arrange_rows(tiles, side, left);
    else
        count_up(tiles);
    return ZS_OK;
}

// ---- pixels ----------------------------------------------------------------------------------------------------------

/// A picture under way; without pixels it is the zs_image itself.
typedef struct canvas {
    uint32_t height, width;
    uint8_t *pixels; // [height, width, 4]
} canvas;

static zs_status canvas_create(uint32_t height, uint32_t width, canvas *made, zs_error *error) {
    *made = (canvas){height, width, calloc((size_t)height * width, 4)};
    return made->pixels ? ZS_OK : out_of_memory(error);
}

/// made = src resized to height × width.
static zs_status canvas_resize(const canvas *src, image_filter filter, uint32_t height, uint32_t width, canvas *made, zs_error *error) {
    const resample_window all = {height, width, 0, 0, height, width};
    zs_status status = canvas_create(height, width, made, error);
    if (!status) status = resample(src->pixels, src->height, src->width, filter, &all, made->pixels, (size_t)width * 4, error);
    return status;
}

/// The values that a byte may take, as transformers calculates them: in f32, the factor drawn into mean and deviation.
static void make_values(const image_config *config, float values[3][256]) {
    float factor = (float)(1.0 / config->rescale);
    for (int c = 0; c < 3; c++) {
        float mean = (float)config->mean[c] * factor, deviation = (float)config->std[c] * factor;
        for (int i = 0; i < 256; i++) values[c][i] = ((float)i - mean) / deviation;
    }
}

/// dst[3, side, side] = the square of src at (top, left), normalised.
static void put_tile(const canvas *src, uint32_t top, uint32_t left, uint32_t side, float values[3][256], float *dst) {
    for (uint32_t c = 0; c < 3; c++) {
        for (uint32_t y = 0; y < side; y++) {
            const uint8_t *row = src->pixels + ((size_t)(top + y) * src->width + left) * 4 + c;
            for (uint32_t x = 0; x < side; x++) *dst++ = values[c][row[4 * (size_t)x]];
        }
    }
}

/// The grid's tiles of a canvas by rows, from tile `first` on.
static void put_grid(const canvas *src, uint32_t first, float values[3][256], image_tiles *tiles) {
    size_t floats = 3 * (size_t)tiles->side * tiles->side;
    for (uint32_t y = 0; y < tiles->grid_rows; y++)
        for (uint32_t x = 0; x < tiles->grid_columns; x++)
            put_tile(src, y * tiles->side, x * tiles->side, tiles->side, values,
                     tiles->pixels + floats * (first + y * tiles->grid_columns + x));
}

/// The image in the middle of a square in the mean colour.
static zs_status pad_to_square(const image_config *config, const canvas *src, canvas *made, zs_error *error) {
    uint32_t side = src->height > src->width ? src->height : src->width;
    if ((uint64_t)side * side > IMAGE_MOST_PIXELS)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "an image of %u × %u pixels is too long to be made a square", src->width,
                            src->height);
    zs_status status = canvas_create(side, side, made, error);
    if (status) return status;
    uint8_t colour[4] = {(uint8_t)(config->mean[0] * 255), (uint8_t)(config->mean[1] * 255), (uint8_t)(config->mean[2] * 255), 255};
    for (size_t i = 0; i < (size_t)side * side; i++) memcpy(made->pixels + 4 * i, colour, 4);
    uint32_t top = (side - src->height) / 2, left = (side - src->width) / 2;
    for (uint32_t y = 0; y < src->height; y++)
        memcpy(made->pixels + ((size_t)(top + y) * side + left) * 4, src->pixels + (size_t)y * src->width * 4, (size_t)src->width * 4);
    return ZS_OK;
}

static zs_status make_llava(const image_config *config, const canvas *image, float values[3][256], image_tiles *tiles, zs_error *error) {
    canvas square = {0}, cut = {0};
    zs_status status = ZS_OK;
    uint32_t tile = config->tile;
    resample_window window = {tile, tile, 0, 0, tile, tile};
    if (config->pad_square && image->height != image->width) {
        status = pad_to_square(config, image, &square, error);
        if (status) goto done;
        image = &square;
    }
    if (config->shortest_edge) {
        image_size size = geometry_shortest_edge((image_size){image->height, image->width}, config->shortest_edge);
        window = (resample_window){size.height, size.width, (size.height - tile) / 2, (size.width - tile) / 2, tile, tile};
    }
    status = canvas_create(tile, tile, &cut, error);
    if (!status)
        status = resample(image->pixels, image->height, image->width, config->filter, &window, cut.pixels, (size_t)tile * 4, error);
    if (!status) put_tile(&cut, 0, 0, tile, values, tiles->pixels);
done:
    free(cut.pixels);
    free(square.pixels);
    return status;
}

static zs_status make_llava_next(const image_config *config, const canvas *image, float values[3][256], image_tiles *tiles,
                                 zs_error *error) {
    canvas whole = {0}, grid = {0};
    image_size size = {tiles->grid_rows * tiles->side, tiles->grid_columns * tiles->side};
    image_size fit = geometry_fit((image_size){image->height, image->width}, size);
    const resample_window window = {fit.height, fit.width, 0, 0, fit.height, fit.width};
    uint32_t top = (size.height - fit.height) / 2, left = (size.width - fit.width) / 2;
    zs_status status = canvas_resize(image, config->filter, tiles->side, tiles->side, &whole, error);
    if (!status) status = canvas_create(size.height, size.width, &grid, error); // black around the image
    if (!status)
        status = resample(image->pixels, image->height, image->width, config->filter, &window,
                          grid.pixels + ((size_t)top * size.width + left) * 4, (size_t)size.width * 4, error);
    if (!status) {
        put_tile(&whole, 0, 0, tiles->side, values, tiles->pixels);
        put_grid(&grid, 1, values, tiles);
    }
    free(grid.pixels);
    free(whole.pixels);
    return status;
}

static zs_status make_idefics3(const image_config *config, const canvas *image, float values[3][256], image_tiles *tiles, zs_error *error) {
    canvas scaled = {0}, grid = {0}, whole = {0};
    const canvas *last = &scaled;
    image_size size = geometry_longest_edge((image_size){image->height, image->width}, config->longest_edge);
    zs_status status = canvas_resize(image, config->filter, size.height, size.width, &scaled, error);
    if (!status && config->split) {
        size = geometry_whole_tiles(size, tiles->side);
        status = canvas_resize(&scaled, config->filter, size.height, size.width, &grid, error);
        last = &grid;
    }
    if (!status) status = canvas_resize(last, config->filter, tiles->side, tiles->side, &whole, error);
    if (!status) {
        put_grid(&grid, 0, values, tiles);
        put_tile(&whole, 0, 0, tiles->side, values, tiles->pixels + (size_t)(tiles->count - 1) * 3 * tiles->side * tiles->side);
    }
    free(whole.pixels);
    free(grid.pixels);
    free(scaled.pixels);
    return status;
}

zs_status image_tiles_make(const image_config *config, const zs_image *image, image_tiles *tiles, zs_error *error) {
    float values[3][256];
    const canvas all = {image->height, image->width, image->pixels};
    zs_status status = image_tiles_plan(config, image->height, image->width, tiles, error);
    if (status) return status;
    tiles->pixels = malloc((size_t)tiles->count * 3 * tiles->side * tiles->side * sizeof *tiles->pixels);
    if (!tiles->pixels) {
        status = out_of_memory(error);
    } else {
        make_values(config, values);
        switch (config->family) {
        case IMAGE_LLAVA: status = make_llava(config, &all, values, tiles, error); break;
        case IMAGE_LLAVA_NEXT: status = make_llava_next(config, &all, values, tiles, error); break;
        case IMAGE_IDEFICS3: status = make_idefics3(config, &all, values, tiles, error); break;
        }
    }
    if (status) image_tiles_free(tiles);
    return status;
}

void image_tiles_free(image_tiles *tiles) {
    free(tiles->tokens);
    free(tiles->pixels);
    *tiles = (image_tiles){0};
}
