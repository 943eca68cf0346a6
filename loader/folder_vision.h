/// The tower and projector of a Hugging Face folder, told as llama.cpp's files with images (mmproj) tell them.
#ifndef LOADER_FOLDER_VISION_H
#define LOADER_FOLDER_VISION_H

#include "loader/gguf.h"

#include <jansson.h>

/// The family of a class that sees images: "llava" (LlavaForConditionalGeneration), "llava_next" (LlavaNextFor…), "idefics3" (Idefics3For…,
/// SmolVLMFor…); NULL: none that is known.
const char *folder_vision_family(const char *class_name);

/// vision_config and what else of config.json and of the folder's preprocessor concerns images, as keys clip.… and VISION_…_KEY
/// (vision_file.h, image_keys.h).
zs_status folder_vision_read(const json_t *root, const char *folder, const char *family, gguf_writer *keys, zs_error *error);

/// The name without what versions of transformers put before it: "language_model.model.norm.weight", "model.language_model.norm.weight" and
/// "model.text_model.norm.weight" are "model.norm.weight". Returns a tensor of the decoder's whole, in `plain`; false: of the tower or the
/// projector, whose GGUF name is put there (empty: none, a table that every reader makes anew).
bool folder_vision_translate(const char *name, char *plain, size_t size);

#endif
