/// Writes a Hugging Face folder of a tiny model: make_tiny_folder IN.gguf OUT_FOLDER [SHARDS]
#include "support/tiny_folder.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    zs_error error;
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: make_tiny_folder IN.gguf OUT_FOLDER [SHARDS]\n");
        return 2;
    }
    const tiny_folder_params params = {.shards = argc == 4 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1};
    if (tiny_folder_write(argv[1], argv[2], &params, &error) == ZS_OK) return 0;
    fprintf(stderr, "make_tiny_folder: %s\n", error.message);
    return 1;
}
