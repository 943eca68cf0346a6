/// What tokenizer.json does to a text before its pieces merge: normalizer and pre_tokenizer, recognised as a whole.
#ifndef LOADER_TOKENIZER_STEPS_H
#define LOADER_TOKENIZER_STEPS_H

#include "zsigma/zsigma.h"

#include <jansson.h>

typedef struct tokenizer_steps {
    const char *pre;    // a byte-level vocabulary's pre-tokenizer, by GGUF's name; NULL: SentencePiece's way
    const char *prefix; // SentencePiece: where a space is put in front (TOKENIZER_PREFIX_KEY)
    bool prefix_once;   // but not in front of another space
    bool composes;      // texts are normalised to form C first
    bool replaces;      // the normalizer changes texts: added tokens that are looked for behind it are refused
} tokenizer_steps;

/// Steps that are not known are ZS_ERROR_UNSUPPORTED by name.
zs_status tokenizer_steps_read(const json_t *root, tokenizer_steps *steps, zs_error *error);
/// Every key of an object must be in the list, which ends with NULL. where: the object's name, for messages.
zs_status tokenizer_steps_check_keys(const json_t *object, const char *where, const char *const *known, zs_error *error);

#endif
