#include "adapt/chat_prompt.h"

#include "engine/engine.h"

#include <stdlib.h>

zs_status chat_prompt_encode(zs_engine *engine, const chat_prompt *p, uint32_t **ids, size_t *count, zs_error *error) {
    const zs_tokenizer *tokenizer = engine->model->tokenizer;
    if (!p->image_count) return zs_tokenizer_encode_chat(tokenizer, p->messages, p->message_count, true, ids, count, error);
    const chat_marks marks = {p->places, p->place_count, engine_image_mark(engine), engine_image_seam(engine)};
    zs_prompt prompt = {.images = p->images, .image_count = p->image_count, .expert = p->expert};
    uint32_t *marked = NULL;
    zs_status status = tokenizer_encode_chat(tokenizer, p->messages, p->message_count, true, &marks, &marked, &prompt.id_count, error);
    prompt.ids = marked;
    if (!status) status = zs_engine_encode_prompt(engine, &prompt, ids, count, error);
    free(marked);
    return status;
}
