#include "support/comma_locale.h"

#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/// glibc's compiled LC_NUMERIC: a magic number, the count of elements, where each lies, then the elements.
static bool write_category(const char *path) {
    static const struct {
        uint32_t magic, count, offsets[6];
        char point[4], separator[4], grouping[4];
        uint32_t point_wide, separator_wide;
        char codeset[8];
    } file = {.magic = 0x20031115u ^ LC_NUMERIC,
              .count = 6,
              .offsets = {32, 36, 40, 44, 48, 52},
              .point = ",",
              .separator = ".",
              .point_wide = ',',
              .separator_wide = '.',
              .codeset = "UTF-8"};
    FILE *stream = fopen(path, "wb");
    if (!stream) return false;
    bool written = fwrite(&file, sizeof file, 1, stream) == 1;
    return !fclose(stream) && written;
}

bool comma_locale_enter(const char *folder) {
    char path[1024], written[16];
    snprintf(path, sizeof path, "%s/zz_ZZ", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/zz_ZZ/LC_NUMERIC", folder);
    if (!write_category(path) || setenv("LOCPATH", folder, 1) || !setlocale(LC_NUMERIC, "zz_ZZ")) return false;
    snprintf(written, sizeof written, "%.1f", 0.5);
    return written[1] == ',' && strtod("0,5", NULL) == 0.5;
}

void comma_locale_leave(void) {
    setlocale(LC_NUMERIC, "C");
    unsetenv("LOCPATH");
}
