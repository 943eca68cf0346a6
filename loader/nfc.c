#include "loader/nfc.h"

#include "loader/utf8.h"

#include <stdlib.h>
#include <string.h>

/// A character and its two parts, two parts and their character, or a range and its combining class.
typedef struct nfc_triple {
    uint32_t a, b, c;
} nfc_triple;

#include "loader/nfc_table.h"

enum {
    DECOMPOSITIONS = sizeof decompositions / sizeof *decompositions,
    COMPOSITIONS = sizeof compositions / sizeof *compositions,
    CLASSES = sizeof classes / sizeof *classes
};
// The Unicode Standard, section 3.12.
enum { S = 0xAC00, L = 0x1100, V = 0x1161, T = 0x11A7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };
enum { MOST_PARTS = 4, FEW = 16, FIRST_BYTE = 0xCC }; // of U+0300

// ---- tables --------------------------------------------------------------------------------------------------------

/// The last row whose first two numbers are not beyond (a, b); NULL when there is none.
static const nfc_triple *find(const nfc_triple *rows, size_t count, uint32_t a, uint32_t b) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (rows[middle].a < a || (rows[middle].a == a && rows[middle].b <= b))
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &rows[low - 1] : NULL;
}

static uint32_t class_of(uint32_t point) {
    const nfc_triple *row = find(classes, CLASSES, point, UINT32_MAX);
    return row && point <= row->b ? row->c : 0;
}

/// 0: the two do not compose.
static uint32_t compose(uint32_t first, uint32_t second) {
    if (first >= L && first < L + L_COUNT && second >= V && second < V + V_COUNT) return S + ((first - L) * V_COUNT + second - V) * T_COUNT;
    if (first >= S && first < S + S_COUNT && (first - S) % T_COUNT == 0 && second > T && second < T + T_COUNT) return first + second - T;
    const nfc_triple *row = find(compositions, COMPOSITIONS, first, second);
    return row && row->a == first && row->b == second ? row->c : 0;
}

// ---- the three steps -----------------------------------------------------------------------------------------------

/// A character's parts, all the way down.
static size_t decompose(uint32_t point, uint32_t out[MOST_PARTS]) {
    uint32_t tail[MOST_PARTS];
    size_t count = 0, written = 0;
    if (point >= S && point < S + S_COUNT) {
        uint32_t index = point - S;
        out[0] = L + index / (V_COUNT * T_COUNT);
        out[1] = V + index % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T + index % T_COUNT;
        return out[2] == T ? 2 : 3;
    }
    for (const nfc_triple *row;
         (row = find(decompositions, DECOMPOSITIONS, point, UINT32_MAX)) && row->a == point && count < MOST_PARTS - 1; point = row->b) {
        if (row->c) tail[count++] = row->c; // the second part has none of its own
    }
    out[written++] = point;
    while (count) out[written++] = tail[--count];
    return written;
}

/// Marks behind one another by class, those of one class in their order.
static void order_marks(uint32_t *points, size_t count, uint32_t *scratch) {
    if (count <= FEW) {
        for (size_t i = 1; i < count; i++) {
            uint32_t point = points[i], rank = class_of(point);
            size_t to = i;
            for (; to && class_of(points[to - 1]) > rank; to--) points[to] = points[to - 1];
            points[to] = point;
        }
        return;
    }
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++) starts[class_of(points[i]) + 1]++;
    for (size_t rank = 1; rank < 257; rank++) starts[rank] += starts[rank - 1];
    for (size_t i = 0; i < count; i++) scratch[starts[class_of(points[i])]++] = points[i];
    memcpy(points, scratch, count * sizeof *points);
}

static void order(uint32_t *points, size_t count, uint32_t *scratch) {
    for (size_t at = 0; at < count;) {
        size_t end = at;
        while (end < count && class_of(points[end])) end++;
        order_marks(points + at, end - at, scratch);
        at = end + 1;
    }
}

/// Composes in place; returns the number left.
static size_t compose_all(uint32_t *points, size_t count) {
    size_t written = 0, starter = SIZE_MAX;
    uint32_t last = 0; // class of what stands between the starter and here
    for (size_t i = 0; i < count; i++) {
        uint32_t rank = class_of(points[i]), made = 0;
        bool adjacent = starter != SIZE_MAX && starter + 1 == written;
        if (starter != SIZE_MAX && (adjacent || (last < rank && last))) made = compose(points[starter], points[i]);
        if (made) {
            points[starter] = made;
            continue;
        }
        if (rank == 0) starter = written;
        last = rank;
        points[written++] = points[i];
    }
    return written;
}

zs_status nfc_normalise(const char *text, size_t size, char **out, size_t *out_size, zs_error *error) {
    size_t safe = 0, count = 0;
    *out = NULL;
    while (safe < size && (uint8_t)text[safe] < FIRST_BYTE) safe++;
    if (safe == size) return ZS_OK;
    if (size > SIZE_MAX / 64) return zs_error_set(error, ZS_ERROR_ARGUMENT, "a text of %zu bytes is too long to normalise: cut it", size);
    uint32_t *points = malloc(MOST_PARTS * size * sizeof *points), *scratch = malloc(MOST_PARTS * size * sizeof *scratch);
    char *bytes = malloc(4 * MOST_PARTS * size);
    if (!points || !scratch || !bytes) {
        free(points);
        free(scratch);
        free(bytes);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while tokenising");
    }
    for (size_t at = 0, length; at < size; at += length) {
        uint32_t point;
        length = utf8_decode(text + at, size - at, &point);
        count += decompose(point, points + count);
    }
    order(points, count, scratch);
    count = compose_all(points, count);
    *out_size = 0;
    for (size_t i = 0; i < count; i++) *out_size += utf8_write(points[i], bytes + *out_size);
    free(points);
    free(scratch);
    *out = bytes;
    return ZS_OK;
}
