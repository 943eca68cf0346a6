/// Merges by what they make: two neighbours become one when their joint spelling is a token, the best token first, leftmost
/// first among equals. SentencePiece ranks its tokens by score, tiktoken by number.
#ifndef LOADER_PIECE_MERGE_H
#define LOADER_PIECE_MERGE_H

#include "loader/merge_heap.h"
#include "loader/vocabulary.h"

typedef struct piece_merge {
    const vocabulary *vocab;
    uint32_t *ranks; // [vocab.count]: 0 is merged first; equal where scores are; VOCABULARY_NONE: never merged
    bool has_unused; // unused tokens take part in merging and are taken apart again
} piece_merge;

/// What one thread needs while merging; zero at first, kept between calls.
typedef struct piece_workspace {
    uint32_t *starts;                 // [capacity + 1]: where parts begin in the text; after merging, those of the result
    uint32_t *previous, *next, *pair; // [capacity]: neighbours, and the token that a part and its next one would make
    uint32_t capacity;
    uint32_t *left_size, *seen; // [vocab.count]: how an unused token was last put together, and in which call
    uint32_t call;
    merge_heap heap;
} piece_workspace;

/// By tokenizer.ggml.scores, highest first. Only normal, user-defined and unused tokens come out of merging.
zs_status piece_merge_create_by_score(const gguf_file *file, const vocabulary *vocab, piece_merge *table, zs_error *error);
/// By number, lowest first. Control and unused tokens do not come out of merging.
zs_status piece_merge_create_by_rank(const vocabulary *vocab, piece_merge *table, zs_error *error);
void piece_merge_free(piece_merge *table);

/// Room for count parts in workspace->starts, which the caller then fills: starts[0 … count], the last one the text's end.
zs_status piece_workspace_reserve(const piece_merge *table, piece_workspace *workspace, size_t count, zs_error *error);
/// Merges parts of text in O(n log n); returns how many are left, again in workspace->starts.
size_t piece_merge_apply(const piece_merge *table, piece_workspace *workspace, const char *text, size_t count);
void piece_workspace_free(piece_workspace *workspace);

enum { PIECE_MAX_PARTS = 1 << 30 };

#endif
