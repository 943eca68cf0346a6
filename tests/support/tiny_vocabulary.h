/// A byte-level BPE vocabulary of 300 tokens: 3 control tokens, the 256 bytes, 41 merges of English. For tests.
#ifndef SUPPORT_TINY_VOCABULARY_H
#define SUPPORT_TINY_VOCABULARY_H

#include <stdint.h>

enum { TINY_CONTROLS = 3, TINY_MERGES = 41, TINY_VOCAB = TINY_CONTROLS + 256 + TINY_MERGES };
enum { TINY_ENDOFTEXT, TINY_IM_START, TINY_IM_END, TINY_FIRST_BYTE }; // byte b is token TINY_FIRST_BYTE + b

typedef struct tiny_vocabulary {
    char spellings[TINY_VOCAB][16];
    const char *tokens[TINY_VOCAB]; // into spellings
    uint32_t types[TINY_VOCAB];     // tokenizer.ggml.token_type
    const char *const *merges;      // [TINY_MERGES], "left right"; merge i makes token TINY_FIRST_BYTE + 256 + i
} tiny_vocabulary;

/// ChatML whose default system message is TINY_SYSTEM, in the words of the templates that models carry.
#define TINY_SYSTEM "You are a tiny model."
extern const char tiny_chat_template[];

void tiny_vocabulary_make(tiny_vocabulary *vocab);

#endif
