/// How much of a prompt an image takes.
#include "model/model.h"
#include "vision/image_prompt.h"

zs_status model_refuse_images(const zs_model *model, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_ARGUMENT,
                        "%s reads text alone, it has no image tower: leave the image out, or give the tower's file (--mmproj)",
                        model->path);
}

zs_status zs_model_count_image_tokens(const zs_model *model, uint32_t width, uint32_t height, uint32_t *tokens, zs_error *error) {
    if (!model->tower) return model_refuse_images(model, error);
    if (!model->tokenizer) return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no tokenizer", model->path);
    const vision_config *c = &model->tower->config;
    image_tiles tiles = {0};
    image_prompt prompt = {0};
    zs_status status = image_tiles_plan(&c->image, height, width, &tiles, error);
    if (!status)
        status = image_prompt_expand(model->tokenizer, c->image.family, c->image_token, &c->image_token, 1, &tiles, 1, &prompt, error);
    *tokens = prompt.count;
    image_prompt_free(&prompt);
    image_tiles_free(&tiles);
    return status;
}
