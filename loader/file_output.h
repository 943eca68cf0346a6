/// An output file that appears only when complete: written under a temporary name beside it, fsync'ed, renamed.
#ifndef LOADER_FILE_OUTPUT_H
#define LOADER_FILE_OUTPUT_H

#include "zsigma/zsigma.h"

typedef struct file_output file_output;

/// What file_output_create refuses, for those who would otherwise learn of it only when their work is done.
zs_status file_output_check(const char *path, bool force, zs_error *error);
/// ZS_ERROR_EXISTS when path exists and force is false (told before any work). Only a regular file is ever replaced: a
/// device or a folder is ZS_ERROR_IO, because the rename would put a file in its place.
zs_status file_output_create(const char *path, bool force, file_output **file, zs_error *error);
zs_status file_output_write(file_output *file, const void *data, size_t size, zs_error *error);
/// Syncs and renames; on failure the temporary file is removed. Without force, a file that has appeared under the name
/// meanwhile is kept too (ZS_ERROR_EXISTS). Frees the object either way.
zs_status file_output_commit(file_output **file, zs_error *error);
/// Removes the temporary file and frees the object. NULL inside is fine.
void file_output_discard(file_output **file);

#endif
