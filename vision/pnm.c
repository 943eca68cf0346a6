// stb reads only P5 and P6, takes every largest value for 255, and 16 bits for the wrong end first.
#include "vision/pnm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct pnm_reader {
    const uint8_t *data;
    size_t size, at;
} pnm_reader;

bool pnm_recognise(const uint8_t *data, size_t size) { return size >= 3 && data[0] == 'P' && data[1] >= '1' && data[1] <= '6'; }

static bool is_blank(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static void skip_blanks(pnm_reader *r) {
    while (r->at < r->size && (is_blank(r->data[r->at]) || r->data[r->at] == '#')) {
        if (r->data[r->at] == '#')
            while (r->at < r->size && r->data[r->at] != '\n' && r->data[r->at] != '\r') r->at++;
        else
            r->at++;
    }
}

/// A number in decimal digits behind blanks and comments; false when there is none or it is above most.
static bool read_number(pnm_reader *r, uint32_t most, uint32_t *number) {
    skip_blanks(r);
    uint64_t value = 0;
    size_t start = r->at;
    for (; r->at < r->size && r->data[r->at] >= '0' && r->data[r->at] <= '9'; r->at++) {
        value = value * 10 + (r->data[r->at] - '0');
        if (value > most) return false;
    }
    *number = (uint32_t)value;
    return r->at > start;
}

/// A digit of a plain bitmap, which need not be set apart.
static bool read_bit(pnm_reader *r, uint32_t *bit) {
    skip_blanks(r);
    if (r->at >= r->size || (r->data[r->at] != '0' && r->data[r->at] != '1')) return false;
    *bit = r->data[r->at++] == '1';
    return true;
}

typedef struct pnm_header {
    int kind; // 1 … 6
    uint32_t width, height, largest, channels;
} pnm_header;

static zs_status read_header(pnm_reader *r, const char *name, pnm_header *h, zs_error *error) {
    *h = (pnm_header){.kind = r->data[1] - '0', .largest = 1};
    h->channels = h->kind % 3 == 0 ? 3 : 1;
    r->at = 2;
    if (!read_number(r, INT32_MAX, &h->width) || !read_number(r, INT32_MAX, &h->height) ||
        (h->kind % 3 != 1 && (!read_number(r, 65535, &h->largest) || h->largest == 0)))
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: the PNM header is damaged at byte %zu", name, r->at);
    r->at++; // the one blank in front of raw samples
    return image_check_size(name, h->width, h->height, error);
}

/// Raw samples: bits of rows that fill whole bytes, or one or two bytes a sample, big end first.
static bool read_raw(pnm_reader *r, const pnm_header *h, uint64_t i, uint32_t *sample) {
    if (h->kind == 4) {
        size_t at = r->at + (size_t)(i / h->width) * ((h->width + 7) / 8) + (i % h->width) / 8;
        *sample = r->data[at] >> (7 - i % h->width % 8) & 1;
        return true;
    }
    const uint8_t *p = r->data + r->at;
    *sample = h->largest < 256 ? p[i] : (uint32_t)p[2 * i] << 8 | p[2 * i + 1];
    if (*sample > h->largest) *sample = h->largest;
    return true;
}

static uint64_t raw_bytes(const pnm_header *h) {
    if (h->kind == 4) return (uint64_t)((h->width + 7) / 8) * h->height;
    return (uint64_t)h->width * h->height * h->channels * (h->largest < 256 ? 1 : 2);
}

static bool read_sample(pnm_reader *r, const pnm_header *h, uint64_t i, uint32_t *sample) {
    if (h->kind > 3) return read_raw(r, h, i, sample);
    return h->kind == 1 ? read_bit(r, sample) : read_number(r, h->largest, sample);
}

/// A sample as a byte, rounded as Pillow rounds it; in bitmaps 1 is black.
static uint8_t scale(const pnm_header *h, uint32_t sample) {
    if (h->kind % 3 == 1) return sample ? 0 : 255;
    return (uint8_t)rint((double)sample / h->largest * 255);
}

zs_status pnm_decode(const uint8_t *data, size_t size, const char *name, zs_image *image, zs_error *error) {
    pnm_reader reader = {data, size, 0};
    pnm_header h;
    zs_status status = read_header(&reader, name, &h, error);
    if (status) return status;
    // A plain sample takes two bytes, a bitmap's one: nothing is allocated for claims that the file has no room for.
    uint64_t samples = (uint64_t)h.width * h.height * h.channels, needed = h.kind > 3 ? raw_bytes(&h) : samples;
    if (reader.at > size || needed > size - reader.at)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is truncated: %u × %u pixels need more than its %zu bytes", name, h.width, h.height,
                            size);
    uint8_t *pixels = malloc((size_t)h.width * h.height * 4);
    if (!pixels) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %u × %u pixels of %s", h.width, h.height, name);
    for (uint64_t i = 0; i < samples; i++) {
        uint32_t sample;
        if (!read_sample(&reader, &h, i, &sample)) {
            free(pixels);
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: sample %llu is missing or damaged, at byte %zu", name, (unsigned long long)i,
                                reader.at);
        }
        uint8_t *p = pixels + i / h.channels * 4, value = scale(&h, sample);
        if (h.channels == 3)
            p[i % 3] = value;
        else
            memset(p, value, 3);
        p[3] = 255;
    }
    *image = (zs_image){h.width, h.height, pixels};
    return ZS_OK;
}
