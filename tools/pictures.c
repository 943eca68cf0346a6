#include "pictures.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static zs_status load_stdin(zs_image **image, zs_error *error) {
    size_t size;
    char *bytes = cli_read_stream(stdin, &size);
    if (!bytes) return zs_error_set(error, ZS_ERROR_IO, "cannot read the image from standard input: %s", strerror(errno));
    zs_status status = zs_image_load_memory(bytes, size, "the image on standard input", image, error);
    free(bytes);
    return status;
}

zs_status pictures_load(const cli_list *names, pictures *p, zs_error *error) {
    *p = (pictures){0};
    zs_status status = ZS_OK;
    for (size_t i = 0; i < names->count && !status; i++) {
        status =
            strcmp(names->items[i], "-") == 0 ? load_stdin(&p->images[i], error) : zs_image_load(names->items[i], &p->images[i], error);
        p->count += !status;
    }
    if (status) pictures_free(p);
    return status;
}

void pictures_free(pictures *p) {
    while (p->count) zs_image_destroy(&p->images[--p->count]);
}
