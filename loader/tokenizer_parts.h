/// What a tokenizer consists of. Inside of zs_tokenizer, for tokenizer.c (reading) and encoder.c (encoding).
#ifndef LOADER_TOKENIZER_PARTS_H
#define LOADER_TOKENIZER_PARTS_H

#include "loader/bpe.h"
#include "loader/chat_template.h"
#include "loader/piece_merge.h"
#include "loader/pretokenizer.h"
#include "loader/tokenizer.h"

/// What merges: pairs of a list, or whatever makes a token (by score or by rank).
typedef enum merge_kind { MERGE_PAIRS, MERGE_PIECES } merge_kind;

/// Where SentencePiece's models put a space that the text does not have: at the beginning of a text only, behind control
/// tokens too, or behind every special token.
typedef enum space_prefix { PREFIX_NONE, PREFIX_TEXT, PREFIX_CONTROL, PREFIX_SPECIAL } space_prefix;

struct zs_tokenizer {
    vocabulary vocab;
    vocabulary_style style;
    merge_kind merging;
    bpe merges;             // MERGE_PAIRS
    piece_merge pieces;     // MERGE_PIECES
    pretokenizer *splitter; // byte-level ones; NULL: a text is one piece
    bool takes_whole;       // a piece that is in the vocabulary as a whole is taken as it is
    bool normalises;        // texts to form C first
    space_prefix prefix;
    bool prefix_once; // not in front of another space
    uint32_t unknown; // what stands for characters without a token; VOCABULARY_NONE: an error
    chat_template chat;
    uint32_t bos, eos; // VOCABULARY_NONE: none
    uint8_t *ends;     // [vocab.count]: tokens that end an answer
};

#endif
