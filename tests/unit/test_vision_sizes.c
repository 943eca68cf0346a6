// Resizing, tiles and the order of tokens at many sizes, against what tests/golden/image_sizes.py took from Pillow and transformers.
#include "vision/image.h"
#include "vision/preprocess.h"
#include "vision/resample.h"

#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static json_t *golden;

static int read_golden(void **state) {
    (void)state;
    json_error_t problem;
    golden = json_load_file(TEST_DATA "/golden/image-sizes.json", 0, &problem);
    if (!golden) print_error("image-sizes.json: %s\n", problem.text);
    return golden ? 0 : 1;
}

static int drop_golden(void **state) {
    (void)state;
    json_decref(golden);
    return 0;
}

static uint32_t at(const json_t *row, size_t i) { return (uint32_t)json_integer_value(json_array_get(row, i)); }

/// zlib's.
static uint32_t crc32(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    return ~crc;
}

/// The formula of image_sizes.py.
static zs_image *make_picture(uint32_t height, uint32_t width) {
    zs_image *image = NULL;
    zs_error error = {0};
    uint8_t *pixels = malloc((size_t)height * width * 3);
    assert_non_null(pixels);
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < 3; c++) pixels[((size_t)y * width + x) * 3 + c] = (uint8_t)((7 * x + 13 * y + 29 * c) ^ (x * y >> 3));
    tiny_need(zs_image_create(pixels, width, height, &image, &error), &error);
    free(pixels);
    return image;
}

static image_config make_config(const char *name) {
    static const uint32_t pinpoints[5][2] = {{1, 2}, {2, 1}, {2, 2}, {3, 1}, {1, 3}};
    bool next = strncmp(name, "llava-next", 10) == 0, idefics3 = strncmp(name, "idefics3", 8) == 0;
    bool tiny = strcmp(name, "llava") != 0 && strcmp(name, "llava-next") != 0 && strcmp(name, "idefics3") != 0;
    image_config c;
    image_config_defaults(next ? IMAGE_LLAVA_NEXT : idefics3 ? IMAGE_IDEFICS3 : IMAGE_LLAVA, &c);
    c.tile = idefics3 ? (tiny ? 64 : 512) : tiny ? 56 : 336;
    c.patch = idefics3 ? (tiny ? 8 : 16) : 14;
    c.shuffle = idefics3 ? (tiny ? 2 : 4) : 1;
    c.shortest_edge = strcmp(name, "llava-square") == 0 ? 0 : strcmp(name, "llava-cut") == 0 ? 73 : c.tile;
    c.pad_square = strcmp(name, "llava-square") == 0;
    c.longest_edge = tiny ? 256 : 2048;
    c.split = strcmp(name, "idefics3-whole") != 0;
    c.pinpoint_count = 5;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 2; k++) c.pinpoints[i][k] = pinpoints[i][k] * c.tile;
    return c;
}

/// Byte by byte as Pillow, and a window as the same part of the whole.
static void test_resize(void **state) {
    (void)state;
    size_t index;
    json_t *row;
    json_array_foreach(json_object_get(golden, "resize"), index, row) {
        uint32_t height = at(row, 3), width = at(row, 4), crc = 0;
        image_filter filter = (image_filter)at(row, 0);
        zs_image *image = make_picture(at(row, 1), at(row, 2));
        uint8_t *made = malloc((size_t)height * width * 4), *part = calloc((size_t)height * width, 4);
        zs_error error = {0};
        const resample_window all = {height, width, 0, 0, height, width};
        const resample_window inner = {height, width, height / 3, width / 2, height - height / 3, width - width / 2};
        assert_true(made && part);
        tiny_need(resample(image->pixels, image->height, image->width, filter, &all, made, (size_t)width * 4, &error), &error);
        tiny_need(resample(image->pixels, image->height, image->width, filter, &inner, part, (size_t)width * 4, &error), &error);
        for (size_t i = 0; i < (size_t)height * width; i++) crc = crc32(crc, made + 4 * i, 3);
        if (crc != at(row, 5))
            fail_msg("filter %d, %u x %u to %u x %u: other bytes than Pillow's", (int)filter, image->height, image->width, height, width);
        for (uint32_t y = 0; y < inner.rows; y++)
            assert_memory_equal(part + (size_t)y * width * 4, made + ((size_t)(inner.top + y) * width + inner.left) * 4,
                                (size_t)inner.columns * 4);
        free(part);
        free(made);
        zs_image_destroy(&image);
    }
    assert_true(index >= 45);
}

/// The bytes are the same; normalising them in f32 in another order of steps leaves a few units in the last place of mean / deviation,
/// which is below 2, in each value.
static void test_pixels(void **state) {
    (void)state;
    const double bar = 5e-7; // a value
    size_t index;
    json_t *row;
    json_array_foreach(json_object_get(golden, "pixels"), index, row) {
        const char *name = json_string_value(json_object_get(row, "processor"));
        image_config config = make_config(name);
        zs_image *image = make_picture((uint32_t)json_integer_value(json_object_get(row, "height")),
                                       (uint32_t)json_integer_value(json_object_get(row, "width")));
        image_tiles tiles;
        zs_error error = {0};
        tiny_need(image_tiles_make(&config, image, &tiles, &error), &error);
        const json_t *shape = json_object_get(row, "shape");
        if (json_array_size(shape) == 5) assert_int_equal(tiles.count, at(shape, 1));
        size_t values = (size_t)tiles.count * 3 * tiles.side * tiles.side;
        double absolute = 0, weighted = 0, whole = json_number_value(json_object_get(row, "abs"));
        for (size_t i = 0; i < values; i++) {
            double p = tiles.pixels[i];
            absolute += fabs(p);
            weighted += p * fmod((double)i * 0.6180339887498949, 1.0);
        }
        if (fabs(weighted - json_number_value(json_object_get(row, "weighted"))) > bar * (double)values ||
            fabs(absolute - whole) > bar * (double)values)
            fail_msg("%s, %u x %u: weighted sum %.9g, absolute %.9g of %.9g", name, image->height, image->width, weighted, absolute, whole);
        image_tiles_free(&tiles);
        zs_image_destroy(&image);
    }
    assert_true(index >= 60);
}

static void check_order(const json_t *row, const image_tiles *tiles) {
    uint32_t crc = 0;
    assert_int_equal(tiles->count, at(row, 3));
    assert_int_equal(tiles->token_count, at(row, 4));
    for (uint32_t i = 0; i < tiles->token_count; i++) {
        const uint32_t t = tiles->tokens[i]; // IMAGE_NEWLINE is the script's −1
        const uint8_t bytes[4] = {(uint8_t)t, (uint8_t)(t >> 8), (uint8_t)(t >> 16), (uint8_t)(t >> 24)};
        crc = crc32(crc, bytes, 4);
    }
    assert_int_equal(crc, at(row, 5));
}

static void test_tokens(void **state) {
    (void)state;
    size_t index;
    json_t *row;
    json_array_foreach(json_object_get(golden, "tokens"), index, row) {
        const char *name = json_string_value(json_array_get(row, 0));
        image_config config = make_config(name);
        image_tiles tiles;
        zs_error error = {0};
        tiny_need(image_tiles_plan(&config, at(row, 1), at(row, 2), &tiles, &error), &error);
        if (config.family == IMAGE_LLAVA_NEXT) {
            check_order(row, &tiles);
        } else {
            if (tiles.grid_rows != at(row, 3) || tiles.grid_columns != at(row, 4))
                fail_msg("%s, %u x %u: a grid of %u x %u tiles, not %u x %u", name, at(row, 1), at(row, 2), tiles.grid_rows,
                         tiles.grid_columns, at(row, 3), at(row, 4));
            assert_int_equal(tiles.count, 1 + at(row, 3) * at(row, 4));
            assert_int_equal(tiles.token_count, tiles.count * tiles.tile_tokens);
        }
        image_tiles_free(&tiles);
    }
    assert_true(index >= 500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, read_golden, drop_golden);
}
