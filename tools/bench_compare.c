/// Figures beside those of an earlier run: its --json, read again.
#include "bench.h"

#include <errno.h>
#include <string.h>

zs_status bench_compare_read(const char *path, json_t **before, zs_error *error) {
    json_error_t problem;
    json_t *root = json_load_file(path, 0, &problem);
    if (!root)
        return zs_error_set(error, errno == ENOENT ? ZS_ERROR_IO : ZS_ERROR_FORMAT, "%s: %s (line %d)", path, problem.text, problem.line);
    *before = json_incref(json_object_get(root, "figures"));
    json_decref(root);
    if (json_is_object(*before)) return ZS_OK;
    json_decref(*before);
    *before = NULL;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s holds no \"figures\": it is not what zsigma bench --json prints", path);
}
