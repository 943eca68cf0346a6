// Any bytes as a picture file: an error with a message, or an image that can be preprocessed. Size and last byte choose how.
#include "vision/image.h"
#include "vision/preprocess.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static image_config choose(uint8_t choice) {
    image_config c;
    image_config_defaults((image_family)(choice % 3), &c);
    c.filter = (image_filter)(1 + choice / 3 % 3);
    c.tile = 16;
    c.patch = 4;
    c.shuffle = choice % 3 == IMAGE_IDEFICS3 ? 2 : 1;
    c.shortest_edge = choice & 16 ? 0 : 16;
    c.pad_square = (choice & 32) != 0;
    c.split = (choice & 64) != 0;
    c.longest_edge = 48;
    c.pinpoint_count = 2;
    c.pinpoints[0][0] = c.pinpoints[1][1] = 16;
    c.pinpoints[0][1] = c.pinpoints[1][0] = 32;
    return c;
}

static void use_image(const image_config *config, const zs_image *image) {
    image_tiles tiles;
    zs_error error = {0};
    if (image_tiles_make(config, image, &tiles, &error)) {
        require(error.message[0] && !tiles.tokens && !tiles.pixels);
        return;
    }
    for (uint32_t i = 0; i < tiles.token_count; i++)
        require(tiles.tokens[i] == IMAGE_NEWLINE || tiles.tokens[i] < tiles.count * tiles.tile_tokens);
    for (size_t i = 0; i < (size_t)tiles.count * 3 * tiles.side * tiles.side; i++) require(isfinite(tiles.pixels[i]));
    image_tiles_free(&tiles);
}

static void load(const uint8_t *data, size_t size) {
    zs_image *image = NULL;
    zs_error error = {0};
    zs_status status = zs_image_load_memory(data, size, "the image", &image, &error);
    if (status) {
        require(!image && error.status == status && error.message[0] && memchr(error.message, '\0', sizeof error.message));
        return;
    }
    const image_config config = choose((uint8_t)(size ^ data[size - 1]));
    size_t pixels = (size_t)image->width * image->height;
    require(image->pixels && pixels > 0 && pixels <= IMAGE_MOST_PIXELS);
    if (image->width <= 1024 && image->height <= 1024) use_image(&config, image);
    zs_image_destroy(&image);
}

/// Makes the checksums of a PNG file's chunks right, so that inputs get beyond them.
static void mend(uint8_t *data, size_t size) {
    for (size_t at = 8; at <= size && size - at >= 12;) {
        size_t length = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
        if (length > size - at - 12) return;
        uint32_t crc = UINT32_MAX;
        for (size_t i = at + 4; i < at + 8 + length; i++) {
            crc ^= data[i];
            for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
        }
        for (int k = 0; k < 4; k++) data[at + 8 + length + (size_t)k] = (uint8_t)(~crc >> (24 - 8 * k));
        at += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    load(data, size);
    if (size < 8 || memcmp(data, "\x89PNG", 4) != 0) return 0;
    uint8_t *copy = malloc(size);
    require(copy != NULL);
    memcpy(copy, data, size);
    mend(copy, size);
    load(copy, size);
    free(copy);
    return 0;
}
