/// Images that --image names, for a prompt.
#ifndef TOOLS_PICTURES_H
#define TOOLS_PICTURES_H

#include "cli.h"

typedef struct pictures {
    zs_image *images[CLI_MOST_ITEMS];
    size_t count;
} pictures;

/// Reads them in order; "-" stands for standard input. On failure none is left.
zs_status pictures_load(const cli_list *names, pictures *p, zs_error *error);
void pictures_free(pictures *p);

#endif
