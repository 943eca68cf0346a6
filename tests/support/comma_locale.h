/// A locale that writes numbers with a comma, made on the spot: machines that build and test seldom have one installed.
#ifndef SUPPORT_COMMA_LOCALE_H
#define SUPPORT_COMMA_LOCALE_H

#include <stdbool.h>

/// Makes it the process's LC_NUMERIC; the file goes under folder. False where the C library does not read glibc's format.
bool comma_locale_enter(const char *folder);
/// Back to "C".
void comma_locale_leave(void);

#endif
