/// Cuts text into the pieces within which byte pairs may merge: the regular expressions that tokenizer.ggml.pre names.
#ifndef LOADER_PRETOKENIZER_H
#define LOADER_PRETOKENIZER_H

#include "zsigma/zsigma.h"

typedef struct pretokenizer pretokenizer;

/// By the name in GGUF files: smollm; gpt2, gpt-2, default; llama-bpe, llama3, llama-v3; qwen2. Immutable, shareable between
/// threads. ZS_ERROR_UNSUPPORTED for another name.
zs_status pretokenizer_create(const char *name, size_t name_size, pretokenizer **splitter, zs_error *error);
void pretokenizer_destroy(pretokenizer **splitter);
/// Whether a piece that is in the vocabulary as a whole is taken as it is, whatever the merges would make of it.
bool pretokenizer_ignores_merges(const pretokenizer *splitter);

/// A walk over one text; belongs to one thread. Pieces cover the text without gaps.
typedef struct pretokenizer_walk pretokenizer_walk;
zs_status pretokenizer_walk_create(const pretokenizer *splitter, pretokenizer_walk **walk, zs_error *error);
void pretokenizer_walk_destroy(pretokenizer_walk **walk);
/// Starts over with another text: valid UTF-8, which must outlive the walk.
void pretokenizer_walk_start(pretokenizer_walk *walk, const char *text, size_t size);
/// The next piece; *size is 0 at the end.
zs_status pretokenizer_walk_next(pretokenizer_walk *walk, const char **piece, size_t *size, zs_error *error);

#endif
