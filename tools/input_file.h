/// A whole file in memory, gzip or not.
#ifndef TOOLS_INPUT_FILE_H
#define TOOLS_INPUT_FILE_H

#include "zsigma/zsigma.h"

/// *text is malloc'ed and terminated. A gzip file is expanded, whatever its name: at most to 1 GB, and past 64 MB at most to 100 times its
/// size, which no text needs. Errors: ZS_ERROR_IO, ZS_ERROR_FORMAT (damaged or cut short; expands without end), ZS_ERROR_UNSUPPORTED (too
/// long), ZS_ERROR_MEMORY.
zs_status input_file_read(const char *path, char **text, size_t *size, zs_error *error);

#endif
