/// Items' prompts as the engine and a gradient take them: an image in them is ids that the engine gives, for as long as it keeps the image.
#ifndef TRAIN_PROMPTS_H
#define TRAIN_PROMPTS_H

#include "zsigma/zsigma_lab.h"

typedef struct train_prompt {
    const uint32_t *ids; // [count]: the item's own, or
    size_t count;
    uint32_t *encoded; // NULL: the item has no images
} train_prompt;

/// expert: under whose z a factored tower sees; ids do not depend on it for a gradient, which encodes images itself then. Errors: those of
/// zs_engine_encode_prompt.
zs_status train_prompt_open(zs_engine *engine, const zs_train_item *item, uint32_t expert, train_prompt *prompt, zs_error *error);
void train_prompt_close(train_prompt *prompt);

/// All at once: prompts[count], zeroed before, to be closed also after an error. ZS_ERROR_CONTEXT when the engine does not hold their
/// images together.
zs_status train_prompts_open(zs_engine *engine, const zs_train_item *const *items, size_t count, train_prompt *prompts, zs_error *error);
void train_prompts_close(train_prompt *prompts, size_t count);

/// Tokens of a prompt, those of its images too. Errors: those of zs_model_count_image_tokens.
zs_status train_prompt_count(const zs_model *model, const zs_train_item *item, size_t *count, zs_error *error);

#endif
