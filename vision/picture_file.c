#include "vision/picture_file.h"

#include "vision/pnm.h"
#include "vision/stb_image.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

// ---- bytes for stb, and whether it asked for more than there are -------------------------------------------------------------

typedef struct source {
    const uint8_t *data;
    size_t size, at;
    bool beyond;
} source;

static int source_read(void *user, char *data, int count) {
    source *s = user;
    size_t left = s->size - s->at, wanted = (size_t)count, got = wanted < left ? wanted : left;
    if (got == 0) s->beyond = true; // less than wanted is nothing to say: stb reads ahead
    if (got) memcpy(data, s->data + s->at, got);
    memset(data + got, 0, wanted - got); // stb looks at some of it all the same
    s->at += got;
    return (int)got;
}

static void source_skip(void *user, int count) {
    source *s = user;
    size_t left = s->size - s->at;
    if (count < 0 || (size_t)count > left) {
        s->beyond = true;
        s->at = s->size;
    } else {
        s->at += (size_t)count;
    }
}

static int source_eof(void *user) {
    const source *s = user;
    return s->at == s->size;
}

static const stbi_io_callbacks callbacks = {source_read, source_skip, source_eof};

// ---- what stb does not look at -------------------------------------------------------------------------------------

static uint32_t read_u32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static void make_crc_table(uint32_t table[256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
        table[i] = crc;
    }
}

/// The checksums of a PNG file's chunks, up to its end chunk.
static zs_status check_png(const uint8_t *data, size_t size, const char *name, zs_error *error) {
    uint32_t table[256];
    make_crc_table(table);
    size_t at = 8;
    while (size - at >= 12) {
        const uint8_t *chunk = data + at;
        size_t length = read_u32(chunk);
        if (length > size - at - 12) break;
        uint32_t crc = UINT32_MAX;
        for (size_t i = 4; i < length + 8; i++) crc = table[(crc ^ chunk[i]) & 255] ^ crc >> 8;
        if (~crc != read_u32(chunk + 8 + length))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s is damaged: the checksum of the PNG chunk at byte %zu is wrong", name, at);
        if (memcmp(chunk + 4, "IEND", 4) == 0) return ZS_OK;
        at += 12 + length;
    }
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s is truncated: its PNG chunks end at byte %zu without an end chunk", name, at);
}

/// A BMP file of 32 bits a pixel that names no bits for alpha: what the fourth byte holds is not alpha, though stb takes it for that.
static bool is_opaque_bmp(const uint8_t *data, size_t size) {
    return size >= 34 && data[0] == 'B' && data[1] == 'M' && memcmp(data + 30, "\0\0\0\0", 4) == 0;
}

static bool is_png(const uint8_t *data, size_t size) { return size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0; }

/// What the first bytes say a file is; NULL: nothing that stb reads.
static const char *recognise(const uint8_t *data, size_t size) {
    if (is_png(data, size)) return "PNG";
    if (size >= 2 && data[0] == 0xff && data[1] == 0xd8) return "JPEG";
    if (size >= 4 && memcmp(data, "GIF8", 4) == 0) return "GIF";
    return size >= 2 && memcmp(data, "BM", 2) == 0 ? "BMP" : NULL;
}

static zs_status describe(const char *name, bool beyond, zs_error *error) {
    const char *reason = stbi_failure_reason();
    if (reason && strcmp(reason, "outofmem") == 0)
        return zs_error_set(error, ZS_ERROR_MEMORY, "%s: out of memory, or more than a picture of its size can need", name);
    if (beyond) return zs_error_set(error, ZS_ERROR_FORMAT, "%s is truncated", name);
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s is damaged, or of a kind that is not read: %s", name,
                        reason ? reason : "no reason known");
}

/// From the header alone. A PNG file's is looked at here: stb tells nothing about one that is too large for it.
static zs_status read_size(const uint8_t *data, size_t size, const char *name, uint32_t *width, uint32_t *height, zs_error *error) {
    source from = {data, size, 0, false};
    int w = 0, h = 0, channels = 0;
    const char *kind = recognise(data, size);
    if (!kind) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s is no PNG, JPEG, BMP, GIF or PNM picture", name);
    if (is_png(data, size) && size >= 24) {
        zs_status status = image_check_size(name, read_u32(data + 16), read_u32(data + 20), error);
        if (status) return status;
    }
    if (!stbi_info_from_callbacks(&callbacks, &from, &w, &h, &channels)) {
        if (from.beyond) return zs_error_set(error, ZS_ERROR_FORMAT, "%s is truncated: its %s header is not whole", name, kind);
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is damaged, or of a kind that is not read: its %s header makes no sense", name,
                            kind);
    }
    // A BMP file stored from its top row has a negative height.
    *width = w < 0 ? 0u - (uint32_t)w : (uint32_t)w;
    *height = h < 0 ? 0u - (uint32_t)h : (uint32_t)h;
    return image_check_size(name, *width, *height, error);
}

zs_status picture_file_decode(const uint8_t *data, size_t size, const char *name, zs_image *image, zs_error *error) {
    enum { SMALL = 16 << 20, PER_PIXEL = 48 }; // 16-bit RGBA, interlaced, goes through 44 bytes a pixel
    if (size == 0) return zs_error_set(error, ZS_ERROR_FORMAT, "%s is empty", name);
    if (size > INT_MAX) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: picture files of more than 2 GB are not read", name);
    if (pnm_recognise(data, size)) return pnm_decode(data, size, name, image, error);
    stb_image_set_budget(SMALL);
    uint32_t width = 0, height = 0;
    zs_status status = read_size(data, size, name, &width, &height, error);
    if (!status && is_png(data, size)) status = check_png(data, size, name, error);
    if (status) return status;

    source from = {data, size, 0, false};
    int w = 0, h = 0, channels = 0;
    stb_image_set_budget(SMALL + (size_t)width * height * PER_PIXEL + 4 * size);
    uint8_t *pixels = stbi_load_from_callbacks(&callbacks, &from, &w, &h, &channels, 4);
    if (!pixels || from.beyond) {
        free(pixels);
        return describe(name, from.beyond, error);
    }
    *image = (zs_image){(uint32_t)w, (uint32_t)h, pixels};
    if (is_opaque_bmp(data, size))
        for (size_t i = 0; i < (size_t)w * (size_t)h; i++) pixels[4 * i + 3] = 255;
    return ZS_OK;
}
