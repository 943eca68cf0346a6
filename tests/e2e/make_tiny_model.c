/// Writes the tiny model that the end-to-end tests run on: make_tiny_model OUT.gguf [SEED]
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    zs_error error;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: make_tiny_model OUT.gguf [SEED]\n");
        return 2;
    }
    const tiny_model_params params = {.seed = argc == 3 ? strtoull(argv[2], NULL, 10) : 0};
    if (tiny_model_write(argv[1], &params, &error) == ZS_OK) return 0;
    fprintf(stderr, "make_tiny_model: %s\n", error.message);
    return 1;
}
