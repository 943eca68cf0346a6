/// JSON files of a model folder, and typed looks into them.
#ifndef LOADER_JSON_FILE_H
#define LOADER_JSON_FILE_H

#include "zsigma/zsigma.h"

#include <jansson.h>

/// "FOLDER/NAME", malloc'ed; NULL when memory is short.
char *json_file_path(const char *folder, const char *name);
/// Whether there is a file of that name.
bool json_file_exists(const char *folder, const char *name);
/// An object. A missing file is ZS_OK and NULL where optional; what is no object is ZS_ERROR_FORMAT.
zs_status json_file_read(const char *folder, const char *name, bool optional, json_t **root, zs_error *error);
/// A member; NULL when it is absent or null.
const json_t *json_file_get(const json_t *root, const char *key);
/// A count above zero; `missing` (0: none) stands for one that is absent.
zs_status json_file_count(const json_t *root, const char *key, uint32_t missing, uint32_t *count, zs_error *error);
/// A finite number; `missing` stands for one that is absent.
zs_status json_file_number(const json_t *root, const char *key, double missing, double *number, zs_error *error);

/// The text of a file, up to a mebibyte, malloc'ed and terminated; NULL and ZS_OK when there is none.
zs_status json_file_read_text(const char *folder, const char *name, char **text, size_t *size, zs_error *error);

#endif
