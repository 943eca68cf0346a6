#include "train/prompts.h"

#include <stdlib.h>

zs_status train_prompt_open(zs_engine *engine, const zs_train_item *item, train_prompt *prompt, zs_error *error) {
    *prompt = (train_prompt){.ids = item->prompt, .count = item->prompt_count};
    if (!item->image_count) return ZS_OK;
    const zs_prompt marked = {
        .ids = item->prompt, .id_count = item->prompt_count, .images = item->images, .image_count = item->image_count};
    zs_status status = zs_engine_encode_prompt(engine, &marked, &prompt->encoded, &prompt->count, error);
    prompt->ids = prompt->encoded;
    return status;
}

void train_prompt_close(train_prompt *prompt) {
    free(prompt->encoded);
    *prompt = (train_prompt){0};
}

zs_status train_prompt_count(const zs_model *model, const zs_train_item *item, size_t *count, zs_error *error) {
    zs_status status = ZS_OK;
    *count = item->prompt_count;
    for (size_t i = 0; i < item->image_count && !status; i++) {
        uint32_t width, height, tokens = 1;
        zs_image_get_size(item->images[i], &width, &height);
        status = zs_model_count_image_tokens(model, width, height, &tokens, error);
        *count += tokens - 1; // the mark has its place already
    }
    return status;
}
