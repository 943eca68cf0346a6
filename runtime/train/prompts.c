#include "train/prompts.h"

#include "engine/engine.h"

#include <stdlib.h>

zs_status train_prompt_open(zs_engine *engine, const zs_train_item *item, uint32_t expert, train_prompt *prompt, zs_error *error) {
    *prompt = (train_prompt){.ids = item->prompt, .count = item->prompt_count};
    if (!item->image_count) return ZS_OK;
    const zs_prompt marked = {
        .ids = item->prompt, .id_count = item->prompt_count, .images = item->images, .image_count = item->image_count, .expert = expert};
    zs_status status = zs_engine_encode_prompt(engine, &marked, &prompt->encoded, &prompt->count, error);
    prompt->ids = prompt->encoded;
    return status;
}

void train_prompt_close(train_prompt *prompt) {
    free(prompt->encoded);
    *prompt = (train_prompt){0};
}

/// Whether the engine has all images still, after those that came later.
static bool are_known(const zs_engine *engine, const train_prompt *prompts, size_t count) {
    for (size_t i = 0; i < count; i++) {
        for (size_t t = 0; prompts[i].encoded && t < prompts[i].count; t++) {
            if (!engine_knows_token(engine, prompts[i].ids[t])) return false;
        }
    }
    return true;
}

static zs_status open_all(zs_engine *engine, const zs_train_item *const *items, size_t count, train_prompt *prompts, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count && !status; i++) status = train_prompt_open(engine, items[i], 0, &prompts[i], error);
    return status;
}

zs_status train_prompts_open(zs_engine *engine, const zs_train_item *const *items, size_t count, train_prompt *prompts, zs_error *error) {
    zs_status status = open_all(engine, items, count, prompts, error);
    if (status || are_known(engine, prompts, count)) return status;
    train_prompts_close(prompts, count);
    engine_drop_images(engine); // an empty store has no gaps
    status = open_all(engine, items, count, prompts, error);
    if (status || are_known(engine, prompts, count)) return status;
    return zs_error_set(error, ZS_ERROR_CONTEXT,
                        "the images of a step's %zu items take more than the %u tokens that the engine keeps: take fewer items in a step",
                        count, engine->params.kv_tokens);
}

void train_prompts_close(train_prompt *prompts, size_t count) {
    for (size_t i = 0; i < count; i++) train_prompt_close(&prompts[i]);
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
