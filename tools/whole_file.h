/// A text file that appears only when complete: written under another name beside it, synced, renamed.
#ifndef TOOLS_WHOLE_FILE_H
#define TOOLS_WHOLE_FILE_H

#include "zsigma/zsigma.h"

#include <stdio.h>

typedef struct whole_file whole_file;

/// Before long work: whether a file can be made under this name. ZS_ERROR_EXISTS where there is one already and it is not to be replaced.
zs_status whole_file_check(const char *path, bool replace, zs_error *error);
/// What exists under the name stays as it is until whole_file_commit.
zs_status whole_file_create(const char *path, whole_file **file, zs_error *error);
/// To be written to; errors are told by whole_file_commit.
FILE *whole_file_stream(whole_file *file);
/// Puts it in place, and frees the object either way.
zs_status whole_file_commit(whole_file **file, zs_error *error);

#endif
