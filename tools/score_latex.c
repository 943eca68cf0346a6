/// Equality of expressions as the checker of the MATH data set has it: both texts are rewritten by the same rules, then compared.
#include "score.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/// A text that grows; after a failed allocation it stays as it is and `failed` is set.
typedef struct expression {
    char *text; // terminated
    size_t size, capacity;
    bool failed;
} expression;

static void append(expression *e, const char *text, size_t length) {
    if (e->size + length + 1 > e->capacity && !e->failed) {
        size_t capacity = 2 * (e->size + length) + 64;
        char *grown = realloc(e->text, capacity);
        e->failed = !grown;
        if (grown) {
            e->text = grown;
            e->capacity = capacity;
        }
    }
    if (e->failed) return;
    if (length) memcpy(e->text + e->size, text, length);
    e->size += length;
    e->text[e->size] = 0;
}

static void append_string(expression *e, const char *text) { append(e, text, strlen(text)); }

static expression start(const char *text, size_t length) {
    expression e = {0};
    append(&e, text, length);
    return e;
}

/// Puts a rewritten text in an expression's place.
static void become(expression *e, expression *rewritten) {
    rewritten->failed = rewritten->failed || e->failed;
    free(e->text);
    *e = *rewritten;
}

static void replace(expression *e, const char *old, const char *new) {
    if (e->failed || !strstr(e->text, old)) return;
    expression to = start("", 0);
    const char *from = e->text;
    for (const char *at; (at = strstr(from, old)); from = at + strlen(old)) {
        append(&to, from, (size_t)(at - from));
        append_string(&to, new);
    }
    append_string(&to, from);
    become(e, &to);
}

static bool starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/// "\text{ …": units on the right.
static void remove_units(expression *e) {
    char *units = e->failed ? NULL : strstr(e->text, "\\text{ ");
    if (!units || strstr(units + 1, "\\text{ ")) return; // the checker takes two for an error
    *units = 0;
    e->size = strlen(e->text);
}

/// ".5" at the beginning or behind a space or a brace becomes "0.5".
static void lead_points(expression *e) {
    replace(e, " .", " 0.");
    replace(e, "{.", "{0.");
    if (e->failed || e->text[0] != '.') return;
    expression to = start("0", 1);
    append_string(&to, e->text);
    become(e, &to);
}

/// "x = 5": what is on the left of the one sign is at most two characters long.
static void take_right_side(expression *e) {
    const char *sign = e->failed ? NULL : strchr(e->text, '=');
    if (!sign || strchr(sign + 1, '=') || sign - e->text > 2) return;
    expression to = start("", 0);
    append_string(&to, sign + 1);
    become(e, &to);
}

/// \sqrt3 becomes \sqrt{3}.
static void brace_roots(expression *e) {
    if (e->failed || !strstr(e->text, "\\sqrt")) return;
    expression to = start("", 0);
    for (const char *at = e->text; *at;) {
        if (!starts(at, "\\sqrt") || at[5] == 0 || at[5] == '{') {
            append(&to, at++, 1);
            continue;
        }
        append_string(&to, "\\sqrt{");
        append(&to, at + 5, 1);
        append_string(&to, "}");
        at += 6;
    }
    become(e, &to);
}

/// \frac12 becomes \frac{1}{2}, \frac1{72} becomes \frac{1}{72}. A \frac with less than two characters behind it leaves all as it was.
static void brace_fractions(expression *e) {
    if (e->failed || !strstr(e->text, "\\frac")) return;
    expression to = start("", 0);
    for (const char *at = e->text; *at;) {
        if (!starts(at, "\\frac") || at[5] == '{') {
            append(&to, at++, 1);
            continue;
        }
        at += 5;
        if (!at[0] || !at[1]) {
            free(to.text);
            return;
        }
        append_string(&to, "\\frac{");
        append(&to, at, 1);
        append_string(&to, "}");
        if (at[1] == '{') {
            at += 1;
            continue;
        }
        append_string(&to, "{");
        append(&to, at + 1, 1);
        append_string(&to, "}");
        at += 2;
    }
    become(e, &to);
}

static size_t integer_length(const char *text) {
    size_t sign = *text == '-', n = sign;
    while (isdigit((unsigned char)text[n])) n++;
    return n > sign ? n : 0;
}

/// 3/4, whole numbers and nothing else, becomes \frac{3}{4}.
static void turn_slash(expression *e) {
    if (e->failed) return;
    size_t above = integer_length(e->text);
    if (!above || e->text[above] != '/') return;
    const char *below = e->text + above + 1;
    size_t length = integer_length(below);
    if (!length || below[length]) return;
    expression to = start("\\frac{", 6);
    append(&to, e->text, above);
    append_string(&to, "}{");
    append(&to, below, length);
    append_string(&to, "}");
    become(e, &to);
}

static expression rewrite(const char *text) {
    static const char *const rules[][2] = {
        {"\n", ""},     {"\\!", ""},     {"\\\\", "\\"},    {"tfrac", "frac"}, {"dfrac", "frac"},
        {"\\left", ""}, {"\\right", ""}, {"^{\\circ}", ""}, {"^\\circ", ""},   {"\\$", ""},
    };
    expression e = start("", 0);
    append_string(&e, text);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) replace(&e, rules[i][0], rules[i][1]);
    remove_units(&e);
    replace(&e, "\\%", "");
    lead_points(&e);
    take_right_side(&e);
    brace_roots(&e);
    replace(&e, " ", "");
    brace_fractions(&e);
    if (!e.failed && strcmp(e.text, "0.5") == 0) replace(&e, "0.5", "\\frac{1}{2}");
    turn_slash(&e);
    return e;
}

/// Without the dollar signs, the spaces and the full stop around a whole answer that has no box.
static char *bare(const char *text) {
    size_t length = strlen(text);
    while (length > 0 && (isspace((unsigned char)text[length - 1]) || text[length - 1] == '$' || text[length - 1] == '.') &&
           !(length > 1 && text[length - 2] == '\\'))
        length--;
    while (length > 0 && (isspace((unsigned char)*text) || *text == '$')) text++, length--;
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

bool score_latex(const char *answer, const char *gold) {
    char *a = score_boxed(answer), *b = score_boxed(gold);
    if (!a) a = bare(answer);
    if (!b) b = bare(gold);
    bool same = false;
    if (a && b && *a) {
        expression x = rewrite(a), y = rewrite(b);
        same = !x.failed && !y.failed && strcmp(x.text, y.text) == 0;
        free(x.text);
        free(y.text);
    }
    free(a);
    free(b);
    return same;
}
