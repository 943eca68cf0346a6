/// The tokens of a vocabulary: spelling, bytes and kind of each, found by spelling or in a text.
#ifndef LOADER_VOCABULARY_H
#define LOADER_VOCABULARY_H

#include "loader/gguf.h"

enum { VOCABULARY_MAX_TOKENS = 1 << 24, VOCABULARY_MAX_SPELLING = 1 << 16 };
#define VOCABULARY_NONE UINT32_MAX

/// Values are GGUF's (tokenizer.ggml.token_type).
typedef enum token_kind { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE } token_kind;

/// How spellings stand for bytes: through the byte map, or as SentencePiece writes them, with ▁ (VOCABULARY_SPACE) for a
/// space and <0xNN> for a byte.
typedef enum vocabulary_style { VOCABULARY_BYTE_LEVEL, VOCABULARY_SENTENCEPIECE } vocabulary_style;
#define VOCABULARY_SPACE "\xe2\x96\x81"

typedef struct vocabulary_token {
    const char *spelling; // as in the file; control and user-defined tokens of a byte-level vocabulary are plain text
    const char *bytes;    // what it stands for
    uint32_t spelling_size, size;
    token_kind kind;
} vocabulary_token;

typedef struct vocabulary {
    vocabulary_token *tokens;
    uint32_t count;
    uint32_t longest; // the longest spelling in bytes
    char *arena;      // all spellings and bytes
    uint32_t *hash;   // id by spelling, open addressing
    uint32_t hash_mask;
    uint32_t *special; // ids of control and user-defined tokens, sorted by their bytes
    uint32_t special_count;
    bool special_start[256];   // bytes that a special token begins with
    uint32_t byte_tokens[256]; // VOCABULARY_NONE where the vocabulary lacks the byte
} vocabulary;

/// Copies the tokens of an open file. An empty spelling is allowed (such a token is never produced); a spelling that
/// occurs twice is an error.
zs_status vocabulary_create(const gguf_file *file, vocabulary_style style, vocabulary *vocab, zs_error *error);
void vocabulary_free(vocabulary *vocab);

/// SentencePiece's <0xNN> as a number, digits in capitals; false when the spelling is something else.
bool vocabulary_read_byte(const char *spelling, size_t size, uint8_t *byte);

/// Id by spelling, of any kind; VOCABULARY_NONE when absent.
uint32_t vocabulary_find(const vocabulary *vocab, const char *spelling, size_t size);
/// The longest special token that text[size] begins with: user-defined ones, and control tokens if asked for. Returns
/// its length in bytes, 0 when there is none.
size_t vocabulary_match_special(const vocabulary *vocab, const char *text, size_t size, bool control, uint32_t *id);

#endif
