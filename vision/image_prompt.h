/// Prompts with images: each mark <image> becomes the ids that stand for its image.
#ifndef VISION_IMAGE_PROMPT_H
#define VISION_IMAGE_PROMPT_H

#include "vision/preprocess.h"

/// A position of a prompt that is text.
#define IMAGE_PROMPT_TEXT UINT32_MAX

/// The mark in texts, which is also the image token's spelling in the vocabularies of all three families.
#define IMAGE_MARK "<image>"

typedef struct image_prompt {
    uint32_t count;
    uint32_t *ids;         // [count]; image_token where an image's token is
    uint32_t *slots;       // [count]: IMAGE_PROMPT_TEXT, or the place in the tokens of all images, one image after the other
    uint32_t image_tokens; // places there are: the images' token_count in sum
} image_prompt;

/// Puts images into ids that hold image_token once for each image, in order. Another number of marks than of images is ZS_ERROR_ARGUMENT.
/// Idefics3 gets its row and column tags, tokenised by the tokenizer.
zs_status image_prompt_expand(const zs_tokenizer *tokenizer, image_family family, uint32_t image_token, const uint32_t *ids, size_t count,
                              const image_tiles *images, size_t image_count, image_prompt *prompt, zs_error *error);
/// The same from a text in which control tokens count, and IMAGE_MARK stands for an image whether the vocabulary has it or not.
zs_status image_prompt_encode(const zs_tokenizer *tokenizer, image_family family, uint32_t image_token, const char *text, size_t length,
                              const image_tiles *images, size_t image_count, image_prompt *prompt, zs_error *error);
/// Leaves all zero.
void image_prompt_free(image_prompt *prompt);

#endif
