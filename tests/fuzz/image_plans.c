#include "image_plans.h"

#include <stdlib.h>

static void require(bool condition) {
    if (!condition) abort();
}

static void plan(const image_config *config, uint32_t height, uint32_t width) {
    image_tiles tiles;
    zs_error error = {0};
    if (image_tiles_plan(config, height, width, &tiles, &error)) {
        require(error.message[0] && !tiles.tokens);
        return;
    }
    for (uint32_t i = 0; i < tiles.token_count; i++)
        require(tiles.tokens[i] == IMAGE_NEWLINE || tiles.tokens[i] < tiles.count * tiles.tile_tokens);
    image_tiles_free(&tiles);
}

void image_plans_check(const image_config *config) {
    plan(config, 1, 1);
    plan(config, 480, 640);
    plan(config, 60000, 3);
}
