#include "loader/jinja_text.h"

#include "loader/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/// A character and the one behind it.
static bool pair_is(const jinja_walk *w, size_t at, const char *pair) {
    return w->size - at >= 2 && w->source[at] == pair[0] && w->source[at + 1] == pair[1];
}

static bool opens_tag(const jinja_walk *w, size_t at) { return pair_is(w, at, "{{") || pair_is(w, at, "{%") || pair_is(w, at, "{#"); }

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/// A code point of exactly count hexadecimal digits at *at, which moves behind them; false when there is none.
static bool take_point(const char *source, size_t size, size_t *at, size_t count, uint32_t *point) {
    if (size - *at < count) return false;
    *point = 0;
    for (size_t i = 0; i < count; i++) {
        int digit = hex_digit(source[*at + i]);
        if (digit < 0) return false;
        *point = *point << 4 | (uint32_t)digit;
    }
    if (*point == 0 || *point > 0x10FFFF || (*point >= 0xD800 && *point <= 0xDFFF)) return false;
    *at += count;
    return true;
}

/// Resolves a literal's escapes as Python does. The result is never longer than the source.
static size_t resolve(const char *source, size_t size, char *out) {
    static const char from[] = "ntr'\"\\", to[] = "\n\t\r'\"\\";
    size_t written = 0;
    for (size_t at = 0; at < size;) {
        if (source[at] != '\\' || at + 1 == size) {
            out[written++] = source[at++];
            continue;
        }
        char escape = source[at + 1];
        const char *known = escape ? strchr(from, escape) : NULL;
        size_t digits = escape == 'x' ? 2 : escape == 'u' ? 4 : escape == 'U' ? 8 : 0, behind = at + 2;
        uint32_t point;
        if (known) {
            out[written++] = to[known - from];
            at += 2;
        } else if (digits && take_point(source, size, &behind, digits, &point)) {
            written += utf8_write(point, out + written);
            at = behind;
        } else { // not an escape: the backslash stays
            out[written++] = source[at++];
        }
    }
    return written;
}

static bool keep(jinja_walk *w, size_t start, size_t size) {
    if (w->capacity <= size) {
        char *grown = realloc(w->text, size + 1);
        if (!grown) return false;
        w->text = grown;
        w->capacity = size + 1;
    }
    if (w->literal) {
        w->text_size = resolve(w->source + start, size, w->text);
    } else {
        memcpy(w->text, w->source + start, size);
        w->text_size = size;
    }
    w->text[w->text_size] = '\0';
    return true;
}

/// Moves behind a comment.
static void skip_comment(jinja_walk *w) {
    while (w->at < w->size && !pair_is(w, w->at, "#}")) w->at++;
    w->at = w->size - w->at < 2 ? w->size : w->at + 2;
}

/// Inside a tag: the next literal, or out of the tag.
static bool next_literal(jinja_walk *w, bool *found) {
    char quote = w->source[w->at];
    *found = false;
    if (pair_is(w, w->at, "}}") || pair_is(w, w->at, "%}")) {
        w->inside = false;
        w->at += 2;
        return true;
    }
    if (quote != '\'' && quote != '"') {
        w->at++;
        return true;
    }
    size_t end = w->at + 1;
    while (end < w->size && w->source[end] != quote) end += w->source[end] == '\\' ? 2 : 1;
    w->start = w->at;
    w->at = end < w->size ? end + 1 : w->size;
    *found = w->literal = end < w->size;
    return !*found || keep(w, w->start + 1, end - w->start - 1);
}

bool jinja_walk_next(jinja_walk *w, bool *out_of_memory) {
    *out_of_memory = false;
    while (w->at < w->size) {
        bool found = false, kept = true;
        if (w->inside) {
            kept = next_literal(w, &found);
        } else if (pair_is(w, w->at, "{#")) {
            skip_comment(w);
        } else if (opens_tag(w, w->at)) {
            w->inside = true;
            w->at += 2;
        } else {
            w->start = w->at;
            while (w->at < w->size && !opens_tag(w, w->at)) w->at++;
            w->literal = false;
            found = true;
            kept = keep(w, w->start, w->at - w->start);
        }
        *out_of_memory = !kept;
        if (!kept) return false;
        if (found) return true;
    }
    return false;
}

void jinja_walk_free(jinja_walk *w) {
    free(w->text);
    *w = (jinja_walk){0};
}
