#include "vision/exif.h"

#include <stdbool.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12, UPRIGHT = 1 };

static uint32_t read_u16(const uint8_t *p, bool little) {
    return little ? (uint32_t)p[0] | (uint32_t)p[1] << 8 : (uint32_t)p[0] << 8 | p[1];
}

static uint32_t read_u32(const uint8_t *p, bool little) {
    return little ? read_u16(p, true) | read_u16(p + 2, true) << 16 : read_u16(p, false) << 16 | read_u16(p + 2, false);
}

/// A TIFF header and its first directory.
static uint32_t read_tiff(const uint8_t *tiff, size_t size) {
    if (size < 8) return UPRIGHT;
    bool little = memcmp(tiff, "II*\0", 4) == 0;
    if (!little && memcmp(tiff, "MM\0*", 4) != 0) return UPRIGHT;
    size_t at = read_u32(tiff + 4, little);
    if (at > size - 2) return UPRIGHT;
    uint32_t entries = read_u16(tiff + at, little);
    at += 2;
    for (uint32_t i = 0; i < entries && size - at >= ENTRY_BYTES; i++, at += ENTRY_BYTES) {
        const uint8_t *entry = tiff + at;
        if (read_u16(entry, little) != TAG_ORIENTATION) continue;
        uint32_t value = read_u16(entry + 8, little);
        bool sound = read_u16(entry + 2, little) == TYPE_SHORT && read_u32(entry + 4, little) == 1;
        return sound && value >= 1 && value <= 8 ? value : UPRIGHT;
    }
    return UPRIGHT;
}

/// The first APP1 segment that is EXIF, in front of the picture's data.
static uint32_t read_jpeg(const uint8_t *data, size_t size) {
    enum { APP1 = 0xe1, SCAN = 0xda, END = 0xd9 };
    size_t at = 2;
    while (size - at >= 4 && data[at] == 0xff) {
        uint8_t marker = data[at + 1];
        if (marker == 0xff) { // a fill byte
            at++;
            continue;
        }
        if (marker == SCAN || marker == END) break;
        size_t length = read_u16(data + at + 2, false); // of the segment, these two bytes counted
        if (length < 2 || length > size - at - 2) break;
        const uint8_t *body = data + at + 4;
        if (marker == APP1 && length >= 8 && memcmp(body, "Exif\0\0", 6) == 0) return read_tiff(body + 6, length - 8);
        at += 2 + length;
    }
    return UPRIGHT;
}

/// The chunk eXIf, wherever it stands.
static uint32_t read_png(const uint8_t *data, size_t size) {
    size_t at = 8;
    while (size - at >= 12) {
        size_t length = read_u32(data + at, false);
        if (length > size - at - 12) break;
        if (memcmp(data + at + 4, "eXIf", 4) == 0) return read_tiff(data + at + 8, length);
        at += 12 + length;
    }
    return UPRIGHT;
}

uint32_t exif_orientation(const uint8_t *data, size_t size) {
    if (size >= 2 && data[0] == 0xff && data[1] == 0xd8) return read_jpeg(data, size);
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) return read_png(data, size);
    return UPRIGHT;
}
