/// A conversation with images, as a session takes it.
#ifndef ADAPT_CHAT_PROMPT_H
#define ADAPT_CHAT_PROMPT_H

#include "loader/tokenizer.h"

typedef struct chat_prompt {
    const zs_message *messages; // [message_count]; the answer to the last one is opened
    size_t message_count;
    const chat_images *places; // [place_count]
    size_t place_count;
    const zs_image *const *images; // [image_count]: as many as the places have together
    size_t image_count;
    uint32_t expert; // table id: under whose z the tower sees
} chat_prompt;

/// Token ids in the chat template, a mark for each image: what zs_prompt takes. Of `prompt` images and expert are not looked at. malloc'ed,
/// the caller frees them. Errors: ZS_ERROR_ARGUMENT for images where the model has no tower.
zs_status chat_prompt_mark(const zs_model *model, const chat_prompt *prompt, uint32_t **ids, size_t *count, zs_error *error);
/// Token ids in the chat template, images encoded; malloc'ed, the caller frees them. Errors: those of zs_engine_encode_prompt.
zs_status chat_prompt_encode(zs_engine *engine, const chat_prompt *prompt, uint32_t **ids, size_t *count, zs_error *error);

#endif
