// Picture files: what Pillow sees in them (tests/golden/pictures.py), which way is up, and that no damage does worse than an error.
#include "vision/exif.h"
#include "vision/image.h"

#include "loader/file_map.h"
#include "support/byte_buffer.h"
#include "support/guarded.h"
#include "support/tiny_runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#define FOLDER TEST_DATA "/golden/pictures/"

static byte_buffer read_picture(const char *name) {
    char path[512];
    file_map map;
    zs_error error = {0};
    byte_buffer bytes = {0};
    snprintf(path, sizeof path, FOLDER "%s", name);
    tiny_need(file_map_open(path, &map, &error), &error);
    byte_buffer_put(&bytes, map.data, map.size);
    file_map_close(&map);
    return bytes;
}

static int hex_digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/// An image against pixels [height, width, 3] in hexadecimal.
static void check_pixels(const char *name, const zs_image *image, const char *hex, int allowed) {
    assert_int_equal(strlen(hex), 6 * (size_t)image->width * image->height);
    for (size_t i = 0; i < 3 * (size_t)image->width * image->height; i++) {
        int expected = hex_digit(hex[2 * i]) * 16 + hex_digit(hex[2 * i + 1]), found = image->pixels[i / 3 * 4 + i % 3];
        if (abs(expected - found) > allowed)
            fail_msg("%s: value %zu of pixel %zu, %zu is %d, not %d", name, i % 3, i / 3 / image->width, i / 3 % image->width, found,
                     expected);
    }
}

static void test_pictures(void **state) {
    (void)state;
    json_error_t problem;
    json_t *rows = json_load_file(FOLDER "pictures.json", 0, &problem), *row;
    size_t index;
    if (!rows) fail_msg("pictures.json: %s", problem.text);
    json_array_foreach(rows, index, row) {
        const char *name = json_string_value(json_array_get(row, 0));
        char path[512];
        zs_image *image = NULL;
        zs_error error = {0};
        snprintf(path, sizeof path, FOLDER "%s", name);
        tiny_need(zs_image_load(path, &image, &error), &error);
        if (image->height != json_integer_value(json_array_get(row, 1)) || image->width != json_integer_value(json_array_get(row, 2)))
            fail_msg("%s: %u x %u pixels", name, image->height, image->width);
        check_pixels(name, image, json_string_value(json_array_get(row, 4)), (int)json_integer_value(json_array_get(row, 3)));
        zs_image_destroy(&image);
    }
    assert_true(index >= 39);
    json_decref(rows);
}

static void test_memory(void **state) {
    (void)state;
    const uint8_t pixels[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    zs_image *image = NULL;
    zs_error error = {0};
    uint32_t width, height;
    tiny_need(zs_image_create(pixels, 1, 4, &image, &error), &error);
    zs_image_get_size(image, &width, &height);
    assert_true(width == 1 && height == 4);
    assert_true(image->pixels[4] == 4 && image->pixels[6] == 6 && image->pixels[12] == 10);
    zs_image_destroy(&image);
    assert_null(image);
    zs_image_destroy(&image);
    zs_image_destroy(NULL);
    assert_int_equal(zs_image_create(NULL, 1, 1, &image, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(zs_image_create(pixels, 0, 1, &image, &error), ZS_ERROR_FORMAT);
    assert_int_equal(zs_image_create(pixels, 20000, 20000, &image, &error), ZS_ERROR_UNSUPPORTED);
    assert_int_equal(zs_image_load(FOLDER "absent.png", &image, &error), ZS_ERROR_IO);
    assert_int_equal(zs_image_load(TEST_DATA, &image, &error), ZS_ERROR_IO);
    assert_null(image);
}

static void expect_refused(const char *what, const void *data, size_t size, zs_status status, const char *part) {
    zs_image *image = NULL;
    zs_error error = {0};
    zs_status found = zs_image_load_memory(data, size, "damaged", &image, &error);
    if (found != status || !strstr(error.message, part))
        fail_msg("%s: status %d instead of %d, \"%s\"", what, (int)found, (int)status, found ? error.message : "");
    assert_null(image);
}

/// Cut off after every byte: an error, without a look beyond the end; the last bytes of some files end lists that were long enough.
static void test_truncated(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t spare; // bytes at the end that decoding does not need
    } cases[] = {{"rgb.png", 0},     {"interlaced.png", 0},  {"rgb16.png", 0},    {"palette.png", 0}, {"plain.jpg", 0},
                 {"halved.jpg", 0},  {"progressive.jpg", 0}, {"turned-6.jpg", 0}, {"plain.gif", 1},   {"plain.bmp", 0},
                 {"palette.bmp", 0}, {"fourth-byte.bmp", 0}, {"raw-4.pnm", 0},    {"raw-6.pnm", 0},   {"plain-1.pnm", 0},
                 {"plain-2.pnm", 1}, {"wide.pnm", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        byte_buffer bytes = read_picture(cases[i].name);
        guarded area;
        guarded_create(&area, bytes.size);
        for (size_t size = 0; size <= bytes.size; size++) {
            zs_image *image = NULL;
            zs_error error = {0};
            zs_status status = zs_image_load_memory(guarded_place(&area, bytes.data, size), size, cases[i].name, &image, &error);
            bool whole = size >= bytes.size - cases[i].spare;
            if (whole && status) fail_msg("%s: %s", cases[i].name, error.message);
            if (!whole && !status) fail_msg("%s is read though only %zu of its %zu bytes are there", cases[i].name, size, bytes.size);
            if (!whole) assert_true(error.status == status && strstr(error.message, cases[i].name));
            zs_image_destroy(&image);
        }
        guarded_destroy(&area);
        byte_buffer_free(&bytes);
    }
}

/// Every bit of every byte turned over: never worse than an error; where the format has checksums, always one.
static void test_bits(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool certain;
    } cases[] = {{"rgba.png", true},         {"interlaced.png", true}, {"palette-transparent.png", true}, {"turned.png", true},
                 {"progressive.jpg", false}, {"halved.jpg", false},    {"turned-5.jpg", false},           {"transparent.gif", false},
                 {"palette.bmp", false},     {"plain-3.pnm", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        byte_buffer bytes = read_picture(cases[i].name);
        guarded area;
        guarded_create(&area, bytes.size);
        for (size_t bit = 0; bit < 8 * bytes.size; bit++) {
            zs_image *image = NULL;
            zs_error error = {0};
            uint8_t *data = guarded_place(&area, bytes.data, bytes.size);
            data[bit / 8] = (uint8_t)(data[bit / 8] ^ 1u << bit % 8);
            zs_status status = zs_image_load_memory(data, bytes.size, NULL, &image, &error);
            if (cases[i].certain && !status) fail_msg("%s is read though bit %zu of byte %zu is wrong", cases[i].name, bit % 8, bit / 8);
            if (status) assert_true(error.message[0] != '\0' && !image);
            zs_image_destroy(&image);
        }
        guarded_destroy(&area);
        byte_buffer_free(&bytes);
    }
}

/// What the size says is refused before a byte is decoded: these files have no pixels.
static void test_sizes(void **state) {
    (void)state;
    static const struct {
        const char *what, *data;
        size_t size;
        zs_status status;
        const char *part;
    } cases[] = {
        {"nothing", "", 0, ZS_ERROR_FORMAT, "damaged is empty"},
        {"text", "hello, world, this is no picture", 32, ZS_ERROR_UNSUPPORTED, "no PNG, JPEG, BMP, GIF or PNM"},
        {"huge PNG", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xc3\x50\0\0\xc3\x50\x08\x02\0\0\0\0\0\0\0\0\0\0\0IDAT", 41, ZS_ERROR_UNSUPPORTED,
         "50000 × 50000"},
        {"PNG without width", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\xc3\x50\x08\x02\0\0\0\0\0\0\0\0\0\0\0IDAT", 41, ZS_ERROR_FORMAT,
         "no pixels"},
        {"huge JPEG", "\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0", 21, ZS_ERROR_UNSUPPORTED,
         "65535 × 65535"},
        {"JPEG without height", "\xff\xd8\xff\xc0\0\x11\x08\0\0\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0", 21, ZS_ERROR_FORMAT, "damaged"},
        {"huge GIF", "GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0", 23, ZS_ERROR_UNSUPPORTED, "65535 × 65535"},
        {"GIF without pixels", "GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0", 23, ZS_ERROR_FORMAT, "no pixels"},
        {"huge BMP",
         "BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\0\0\x01\0\0\0\x01\0\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 54,
         ZS_ERROR_UNSUPPORTED, "65536 × 65536"},
        {"long BMP",
         "BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\0\0\x01\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 54,
         ZS_ERROR_UNSUPPORTED, "65536 × 1"},
        {"BMP of the least height",
         "BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\0\0\0\x80\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 54,
         ZS_ERROR_UNSUPPORTED, "1 × 2147483648"},
        {"huge PNM", "P6 60000 60000 255\nabc", 22, ZS_ERROR_UNSUPPORTED, "60000 × 60000"},
        {"PNM without width", "P5 0 5 255\n", 11, ZS_ERROR_FORMAT, "no pixels"},
        {"PNM that claims", "P6 9000 9000 255\nabc", 20, ZS_ERROR_FORMAT, "truncated"},
        {"plain PNM that claims", "P3 9000 9000 255\n1 2 3", 22, ZS_ERROR_FORMAT, "truncated"},
        {"PNM without a largest value", "P5 1 1 0\na", 10, ZS_ERROR_FORMAT, "header"},
        {"PNM above its largest value", "P2 2 1 7\n3 8", 12, ZS_ERROR_FORMAT, "sample 1"},
        {"PNM that overflows", "P5 99999999999999999999 1 255\na", 31, ZS_ERROR_FORMAT, "header"},
        {"PNM of another kind", "P7 1 1 255\na", 12, ZS_ERROR_UNSUPPORTED, "no PNG"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(cases[i].what, cases[i].data, cases[i].size, cases[i].status, cases[i].part);
}

static void put_chunk(byte_buffer *png, const char *kind, const uint8_t *data, size_t size) {
    byte_buffer part = {0};
    uint32_t crc = UINT32_MAX;
    const uint8_t length[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    byte_buffer_put(&part, kind, 4);
    byte_buffer_put(&part, data, size);
    for (size_t i = 0; i < part.size; i++) {
        crc ^= part.data[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    crc = ~crc;
    const uint8_t sum[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8), (uint8_t)crc};
    byte_buffer_put(png, length, 4);
    byte_buffer_put(png, part.data, part.size);
    byte_buffer_put(png, sum, 4);
    byte_buffer_free(&part);
}

/// One pixel whose deflated data go on to hundreds of megabytes: blocks of the fixed code that repeat a byte 258 times over and over.
static void test_expansion(void **state) {
    (void)state;
    enum { BYTES = 4 << 20 };
    static const uint8_t header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 2};
    uint8_t *deflated = malloc(BYTES);
    assert_non_null(deflated);
    // 0x78 0x01, then a last block of the fixed code (bits 1, 01): literal 0 is 00110000; length 258 is 11000101, distance 1 is 00000:
    // thirteen bits a repetition, packed from the lowest bit on.
    memset(deflated, 0, BYTES);
    deflated[0] = 0x78, deflated[1] = 0x01;
    size_t bit = 16;
    static const uint8_t start[] = {1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0}, repeat[] = {1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < sizeof start; i++, bit++) deflated[bit / 8] = (uint8_t)(deflated[bit / 8] | start[i] << bit % 8);
    while (bit + sizeof repeat < 8 * (size_t)BYTES)
        for (size_t i = 0; i < sizeof repeat; i++, bit++) deflated[bit / 8] = (uint8_t)(deflated[bit / 8] | repeat[i] << bit % 8);
    byte_buffer png = {0};
    byte_buffer_put(&png, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(&png, "IHDR", header, sizeof header);
    put_chunk(&png, "IDAT", deflated, BYTES);
    put_chunk(&png, "IEND", NULL, 0);
    expect_refused("a PNG file that expands", png.data, png.size, ZS_ERROR_MEMORY, "more than a picture of its size can need");
    byte_buffer_free(&png);
    free(deflated);
}

/// Directories of any size at any place, in segments and chunks of any length.
static void test_exif(void **state) {
    (void)state;
    byte_buffer jpeg = read_picture("turned-6.jpg"), png = read_picture("turned.png");
    guarded area;
    guarded_create(&area, jpeg.size > png.size ? jpeg.size : png.size);
    assert_int_equal(exif_orientation(jpeg.data, jpeg.size), 6);
    assert_int_equal(exif_orientation(png.data, png.size), 6);
    const byte_buffer *files[] = {&jpeg, &png};
    for (int f = 0; f < 2; f++) {
        for (size_t size = 0; size < files[f]->size; size++) {
            uint32_t found = exif_orientation(guarded_place(&area, files[f]->data, size), size);
            assert_true(found == 1 || found == 6);
        }
        for (size_t at = 0; at < 100; at++) {
            for (unsigned value = 0; value < 256; value++) {
                uint8_t *data = guarded_place(&area, files[f]->data, files[f]->size);
                data[at] = (uint8_t)value;
                uint32_t found = exif_orientation(data, files[f]->size);
                assert_true(found >= 1 && found <= 8);
            }
        }
    }
    // The offset of the directory (byte 16 of a segment that begins the file): beyond the segment, and close to its end.
    for (uint32_t offset = 0; offset < 80; offset++) {
        uint8_t *data = guarded_place(&area, jpeg.data, jpeg.size);
        data[16] = data[17] = data[18] = 0;
        data[19] = (uint8_t)offset;
        uint32_t found = exif_orientation(data, jpeg.size);
        assert_true(found == (offset == 8 || offset == 20 ? 6 : 1)); // at 20, the entry before ends in what passes for a count
    }
    guarded_destroy(&area);
    byte_buffer_free(&png);
    byte_buffer_free(&jpeg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures), cmocka_unit_test(test_memory),    cmocka_unit_test(test_truncated), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_sizes),    cmocka_unit_test(test_expansion), cmocka_unit_test(test_exif),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
