#include "loader/byte_map.h"

#include "loader/utf8.h"

static uint32_t point_from_byte(uint32_t byte) {
    if (byte <= 32) return 256 + byte;
    if (byte >= 127 && byte <= 160) return 256 + 33 + (byte - 127);
    if (byte == 173) return 256 + 33 + 34;
    return byte;
}

static bool byte_from_point(uint32_t point, uint32_t *byte) {
    if (point < 256) {
        *byte = point;
    } else if (point < 256 + 33) {
        *byte = point - 256;
    } else if (point < 256 + 33 + 34) {
        *byte = 127 + point - (256 + 33);
    } else {
        *byte = 173;
    }
    return point_from_byte(*byte) == point;
}

size_t byte_map_spell(const char *bytes, size_t size, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < size; i++) written += utf8_write(point_from_byte((uint8_t)bytes[i]), out + written);
    return written;
}

bool byte_map_read(const char *spelling, size_t size, char *out, size_t *out_size) {
    size_t written = 0;
    for (size_t at = 0; at < size;) {
        uint32_t point = 0, byte = 0;
        size_t length = utf8_decode(spelling + at, size - at, &point);
        if (length == 0 || !byte_from_point(point, &byte)) return false;
        out[written++] = (char)byte;
        at += length;
    }
    *out_size = written;
    return true;
}
