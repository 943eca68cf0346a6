#include "adapt/chat_prompt.h"

#include "engine/engine.h"

#include <stdlib.h>

/// Text that the models' chat templates put between an image and what is behind it.
static const char *image_seam(const zs_model *model) {
    return model->tower && model->tower->config.image.family == IMAGE_IDEFICS3 ? "" : "\n";
}

zs_status chat_prompt_mark(const zs_model *model, const chat_prompt *p, uint32_t **ids, size_t *count, zs_error *error) {
    if (!model->tokenizer) return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no tokenizer", model->path);
    if (p->image_count && !model->tower) return model_refuse_images(model, error);
    const chat_marks marks = {p->places, p->place_count, model->info.image_token, image_seam(model)};
    return tokenizer_encode_chat(model->tokenizer, p->messages, p->message_count, true, p->image_count ? &marks : NULL, ids, count, error);
}

zs_status chat_prompt_encode(zs_engine *engine, const chat_prompt *p, uint32_t **ids, size_t *count, zs_error *error) {
    if (!p->image_count) return chat_prompt_mark(engine->model, p, ids, count, error);
    zs_prompt prompt = {.images = p->images, .image_count = p->image_count, .expert = p->expert};
    uint32_t *marked = NULL;
    zs_status status = chat_prompt_mark(engine->model, p, &marked, &prompt.id_count, error);
    prompt.ids = marked;
    if (!status) status = zs_engine_encode_prompt(engine, &prompt, ids, count, error);
    free(marked);
    return status;
}

zs_status zs_model_encode_chat(const zs_model *model, const zs_message *messages, size_t message_count, size_t image_count, uint32_t **ids,
                               size_t *count, zs_error *error) {
    if (!message_count) return zs_error_set(error, ZS_ERROR_ARGUMENT, "a conversation needs a message");
    const chat_images place = {messages[message_count - 1].content, image_count};
    const chat_prompt prompt = {messages, message_count, &place, 1, .image_count = image_count};
    return chat_prompt_mark(model, &prompt, ids, count, error);
}
