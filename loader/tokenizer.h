/// Inside of zs_tokenizer: byte-level and SentencePiece's BPE from GGUF metadata, which other tokenizer files are read into.
#ifndef LOADER_TOKENIZER_H
#define LOADER_TOKENIZER_H

#include "loader/gguf.h"

/// Keys of our own beside tokenizer.ggml.*: tiktoken's merging by rank (bool); whether a piece that is a token as a whole is
/// taken as it is, and whether texts are normalised first (nfc.h), both bool, else the pre-tokenizer says; where a SentencePiece model puts
/// a space that the text does not have
/// ("none"; "text": at its beginning; "control", "special": behind such tokens too), and whether a space that is there
/// already will do (bool).
/// The first and the last token by name, where no id is told; all tokens that end an answer by id.
#define TOKENIZER_BOS_KEY "zsigma.tokenizer.bos_token"
#define TOKENIZER_EOS_KEY "zsigma.tokenizer.eos_token"
#define TOKENIZER_ENDS_KEY "zsigma.tokenizer.eos_token_ids"
#define TOKENIZER_BY_RANK_KEY "zsigma.tokenizer.by_rank"
#define TOKENIZER_NFC_KEY "zsigma.tokenizer.nfc"
#define TOKENIZER_WHOLE_KEY "zsigma.tokenizer.ignore_merges"
#define TOKENIZER_PREFIX_ONCE_KEY "zsigma.tokenizer.space_prefix_once"
#define TOKENIZER_PREFIX_KEY "zsigma.tokenizer.space_prefix"

/// Images in a message's content.
typedef struct chat_images {
    const char *at; // what they stand in front of: a pointer into the content of one message, which no other message has
    size_t count;
} chat_images;

/// The images of a conversation.
typedef struct chat_marks {
    const chat_images *places; // [count], in the order of the conversation
    size_t count;
    uint32_t token;   // stands once for each image; may lie behind the vocabulary
    const char *seam; // text between the last image of a place and what is behind
} chat_marks;

/// zs_tokenizer_encode_chat with images (NULL: none).
zs_status tokenizer_encode_chat(const zs_tokenizer *tokenizer, const zs_message *messages, size_t message_count, bool open_answer,
                                const chat_marks *marks, uint32_t **ids, size_t *count, zs_error *error);
/// Builds a tokenizer from an open file; copies what it needs.
zs_status tokenizer_from_gguf(const gguf_file *file, zs_tokenizer **tokenizer, zs_error *error);
/// Another chat template than the model's own, by its family's name (chat_template.h).
zs_status tokenizer_choose_chat(zs_tokenizer *tokenizer, const char *family, zs_error *error);
/// Id of a control token by its spelling; false when absent.
bool tokenizer_find_special(const zs_tokenizer *tokenizer, const char *spelling, uint32_t *id);
/// Whether texts get a space in front that they do not have themselves (SentencePiece).
bool tokenizer_adds_space(const zs_tokenizer *tokenizer);

#endif
