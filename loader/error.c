#include "zsigma/zsigma.h"

#include <stdarg.h>
#include <stdio.h>

zs_status(zs_error_set)(zs_error *error, zs_status status, const char *format, ...) {
    if (!error) return status;
    error->status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return status;
}
