#include "vision/image.h"

#include "loader/file_map.h"
#include "vision/exif.h"
#include "vision/picture_file.h"

#include <stdlib.h>
#include <string.h>

zs_status image_check_size(const char *name, uint32_t width, uint32_t height, zs_error *error) {
    if (width == 0 || height == 0) return zs_error_set(error, ZS_ERROR_FORMAT, "%s has no pixels: it says %u × %u", name, width, height);
    if ((uint64_t)width * height > IMAGE_MOST_PIXELS || width > IMAGE_MOST_SIDE || height > IMAGE_MOST_SIDE)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s has %u × %u pixels; up to %u megapixels, %u on a side, are read: scale it down", name, width, height,
                            IMAGE_MOST_PIXELS / 1000000, IMAGE_MOST_SIDE);
    return ZS_OK;
}

/// dst[height, width] = the pixel of src [old height, old width] that belongs there under an EXIF orientation.
static void turn(const uint32_t *src, uint32_t *dst, uint32_t height, uint32_t width, uint32_t orientation) {
    bool sideways = orientation >= 5;
    size_t old_width = sideways ? height : width, old_height = sideways ? width : height;
    for (size_t y = 0; y < height; y++) {
        for (size_t x = 0; x < width; x++) {
            size_t from_x = sideways ? y : x, from_y = sideways ? x : y;
            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) from_x = old_width - 1 - from_x;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) from_y = old_height - 1 - from_y;
            dst[y * width + x] = src[from_y * old_width + from_x];
        }
    }
}

static zs_status make_upright(zs_image *image, uint32_t orientation, zs_error *error) {
    size_t count = (size_t)image->width * image->height;
    if (orientation == 1 || count == 0) return ZS_OK;
    uint32_t width = orientation >= 5 ? image->height : image->width, height = orientation >= 5 ? image->width : image->height;
    uint8_t *pixels = malloc(count * 4);
    if (!pixels) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image of %u × %u pixels", width, height);
    turn((const uint32_t *)(const void *)image->pixels, (uint32_t *)(void *)pixels, height, width, orientation);
    free(image->pixels);
    *image = (zs_image){width, height, pixels};
    return ZS_OK;
}

/// One channel over white, rounded as Pillow's alpha_composite rounds it.
static uint8_t over_white(uint32_t value, uint32_t alpha) {
    uint32_t sum = (value * alpha + 255 * (255 - alpha) + 128) << 7;
    return (uint8_t)(((sum >> 8) + sum) >> 15);
}

/// What transformers (5 and later) does with transparency, for every family.
static void put_on_white(zs_image *image) {
    size_t count = (size_t)image->width * image->height;
    for (uint8_t *p = image->pixels; count--; p += 4) {
        if (p[3] == 255) continue;
        for (int c = 0; c < 3; c++) p[c] = over_white(p[c], p[3]);
        p[3] = 255;
    }
}

zs_status zs_image_load_memory(const void *data, size_t size, const char *name, zs_image **image, zs_error *error) {
    if (!name) name = "the image";
    zs_image *made = calloc(1, sizeof *made);
    if (!made) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", name);
    zs_status status = picture_file_decode(data, size, name, made, error);
    if (!status) {
        put_on_white(made);
        status = make_upright(made, exif_orientation(data, size), error);
    }
    if (status)
        zs_image_destroy(&made);
    else
        *image = made;
    return status;
}

zs_status zs_image_load(const char *path, zs_image **image, zs_error *error) {
    file_map map;
    zs_status status = file_map_open(path, &map, error);
    if (status) return status;
    status = zs_image_load_memory(map.data, map.size, path, image, error);
    file_map_close(&map);
    return status;
}

zs_status zs_image_create(const uint8_t *pixels, uint32_t width, uint32_t height, zs_image **image, zs_error *error) {
    if (!pixels) return zs_error_set(error, ZS_ERROR_ARGUMENT, "no pixels for an image");
    zs_status status = image_check_size("the image", width, height, error);
    if (status) return status;
    size_t count = (size_t)width * height;
    zs_image *made = calloc(1, sizeof *made);
    if (made) *made = (zs_image){width, height, malloc(count * 4)};
    if (!made || !made->pixels) {
        zs_image_destroy(&made);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image of %u × %u pixels", width, height);
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(made->pixels + 4 * i, pixels + 3 * i, 3);
        made->pixels[4 * i + 3] = 255;
    }
    *image = made;
    return ZS_OK;
}

void zs_image_destroy(zs_image **image) {
    if (!image || !*image) return;
    free((*image)->pixels);
    free(*image);
    *image = NULL;
}

void zs_image_get_size(const zs_image *image, uint32_t *width, uint32_t *height) {
    *width = image->width;
    *height = image->height;
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 27;
    x *= 0x94d049bb133111eb;
    return x ^ x >> 31;
}

void image_hash(const zs_image *image, uint64_t hash[2]) {
    const uint8_t *bytes = image->pixels;
    size_t size = 4 * (size_t)image->width * image->height;
    hash[0] = mix((uint64_t)image->width << 32 | image->height);
    hash[1] = ~hash[0];
    for (size_t i = 0; i + 4 <= size; i += 4) {
        uint32_t pixel;
        memcpy(&pixel, bytes + i, 4);
        pixel &= 0xffffff; // the fourth byte means nothing
        hash[0] = mix(hash[0] + 0x9e3779b97f4a7c15 + pixel);
        hash[1] = (hash[1] ^ pixel) * 0x100000001b3;
    }
}
