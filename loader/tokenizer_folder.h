/// The tokenizer of a Hugging Face folder: tokenizer.json or tokenizer.model, and what the files beside it say.
#ifndef LOADER_TOKENIZER_FOLDER_H
#define LOADER_TOKENIZER_FOLDER_H

#include "loader/gguf.h"

/// Tells the tokenizer as GGUF's keys: tokens and merges, the first and last token's names (tokenizer_config.json), the chat
/// template (chat_template.jinja, else tokenizer_config.json's), the tokens that end an answer (generation_config.json, else
/// config.json). *found: false, and nothing told, when the folder holds no tokenizer.
zs_status tokenizer_folder_read(const char *folder, gguf_writer *keys, bool *found, zs_error *error);

#endif
