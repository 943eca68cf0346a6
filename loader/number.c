#include "loader/number.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// The thread's locale becomes "C"; the old one comes back. Both are this thread's alone.
static locale_t enter_c(locale_t *c) {
    *c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return *c ? uselocale(*c) : (locale_t)0;
}

static void leave_c(locale_t c, locale_t before) {
    if (!c) return;
    uselocale(before);
    freelocale(c);
}

bool number_read(const char *text, double *value) {
    locale_t c, before = enter_c(&c);
    char *end = NULL;
    double number = strtod(text, &end);
    leave_c(c, before);
    // strtod would skip blanks and read hexadecimal numbers too.
    if (end == text || *end || strspn(text, "+-.0123456789eE") != strlen(text)) return false;
    *value = number;
    return true;
}

void number_write(double value, char text[NUMBER_BYTES]) {
    locale_t c, before = enter_c(&c);
    snprintf(text, NUMBER_BYTES, "%.17g", value);
    leave_c(c, before);
}
