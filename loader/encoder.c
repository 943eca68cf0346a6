// Text to ids: special tokens are found first, the text between them is cut into pieces, and within a piece parts merge.
#include "loader/tokenizer_parts.h"

#include "loader/byte_map.h"
#include "loader/nfc.h"
#include "loader/utf8.h"

#include <stdlib.h>
#include <string.h>

/// Ids under construction, and what one call needs while it makes them.
typedef struct encoder {
    const zs_tokenizer *t;
    pretokenizer_walk *walk;
    bpe_workspace merging;
    piece_workspace pieces;
    uint32_t *ids;
    size_t count, capacity;
    char *spelling; // a piece or a fragment as the vocabulary spells it
    size_t spelling_capacity;
    bool needs_prefix; // the next text gets a space in front
    bool unknown_last; // the last id stands for characters without a token
    char *run;         // plain text of a chat message that is not encoded yet
    size_t run_size, run_capacity;
    const chat_images *places, *places_end; // of a chat's images, those that were not put yet
    const chat_marks *marks;                // NULL: there are none
} encoder;

static zs_status out_of_memory(zs_error *error) { return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while tokenising"); }

static zs_status reserve(encoder *e, size_t more, zs_error *error) {
    if (e->capacity - e->count >= more) return ZS_OK;
    size_t capacity = 2 * e->capacity + more + 64;
    uint32_t *grown = realloc(e->ids, capacity * sizeof *grown);
    if (!grown) return out_of_memory(error);
    e->ids = grown;
    e->capacity = capacity;
    return ZS_OK;
}

static zs_status reserve_spelling(encoder *e, size_t size, zs_error *error) {
    if (e->spelling && e->spelling_capacity >= size) return ZS_OK;
    char *grown = realloc(e->spelling, size + 256);
    if (!grown) return out_of_memory(error);
    e->spelling = grown;
    e->spelling_capacity = size + 256;
    return ZS_OK;
}

/// Id of a spelling that text may become: never a control token's.
static uint32_t find_plain(const zs_tokenizer *t, const char *spelling, size_t size) {
    uint32_t id = vocabulary_find(&t->vocab, spelling, size);
    return id != VOCABULARY_NONE && t->vocab.tokens[id].kind == TOKEN_CONTROL ? VOCABULARY_NONE : id;
}

static zs_status put_id(encoder *e, uint32_t id, zs_error *error) {
    zs_status status = reserve(e, 1, error);
    if (!status) e->ids[e->count++] = id;
    e->unknown_last = false;
    return status;
}

/// Characters without a token of their own: byte tokens, or one unknown token for all that follow one another.
static zs_status put_unknown(encoder *e, const char *bytes, size_t size, zs_error *error) {
    const uint32_t *byte_tokens = e->t->vocab.byte_tokens;
    bool spelled = true;
    for (size_t i = 0; i < size; i++) spelled &= byte_tokens[(uint8_t)bytes[i]] != VOCABULARY_NONE;
    if (!spelled && e->t->unknown == VOCABULARY_NONE) {
        for (; byte_tokens[(uint8_t)*bytes] != VOCABULARY_NONE; bytes++) {
        }
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02x", (uint8_t)*bytes);
    }
    zs_status status = ZS_OK;
    for (size_t i = 0; i < size && spelled && !status; i++) status = put_id(e, byte_tokens[(uint8_t)bytes[i]], error);
    if (!spelled && !e->unknown_last) status = put_id(e, e->t->unknown, error);
    e->unknown_last = !spelled;
    return status;
}

// ---- merging within a piece ----------------------------------------------------------------------------------------

/// Where the characters of a spelling begin, for merging by what they make. The spelling is valid UTF-8.
static zs_status cut_characters(encoder *e, const char *spelling, size_t size, size_t *count, zs_error *error) {
    zs_status status = piece_workspace_reserve(&e->t->pieces, &e->pieces, size, error);
    *count = 0;
    for (size_t at = 0; at < size && !status; at++) {
        if (((uint8_t)spelling[at] & 0xC0) != 0x80) e->pieces.starts[(*count)++] = (uint32_t)at;
    }
    if (!status) e->pieces.starts[*count] = (uint32_t)size;
    return status;
}

static zs_status merge_pieces(encoder *e, const char *spelling, size_t size, zs_error *error) {
    size_t count;
    zs_status status = cut_characters(e, spelling, size, &count, error);
    if (status) return status;
    count = piece_merge_apply(&e->t->pieces, &e->pieces, spelling, count);
    for (size_t i = 0; i < count && !status; i++) {
        uint32_t start = e->pieces.starts[i], length = e->pieces.starts[i + 1] - start;
        uint32_t id = find_plain(e->t, spelling + start, length);
        // What is left of unused pieces is unknown; in a byte-level vocabulary single bytes always count.
        bool known = id != VOCABULARY_NONE && (e->t->style == VOCABULARY_BYTE_LEVEL ||
                                               (e->t->pieces.ranks[id] != VOCABULARY_NONE && e->t->vocab.tokens[id].kind != TOKEN_UNUSED));
        status = known ? put_id(e, id, error) : put_unknown(e, spelling + start, length, error);
    }
    return status;
}

/// Pairs of a SentencePiece spelling: its characters, or their bytes where one has no token.
static zs_status merge_characters(encoder *e, const char *spelling, size_t size, zs_error *error) {
    size_t first = e->count, length;
    uint32_t point;
    zs_status status = ZS_OK;
    for (size_t at = 0; at < size && !status; at += length) {
        length = utf8_decode(spelling + at, size - at, &point);
        uint32_t id = find_plain(e->t, spelling + at, length);
        status = id != VOCABULARY_NONE ? put_id(e, id, error) : put_unknown(e, spelling + at, length, error);
    }
    size_t count = e->count - first;
    if (!status) status = bpe_apply(&e->t->merges, &e->merging, e->ids + first, &count, error);
    e->count = first + count;
    return status;
}

/// Pairs of a piece's bytes.
static zs_status merge_bytes(encoder *e, const char *piece, size_t size, zs_error *error) {
    zs_status status = reserve(e, size, error);
    if (status) return status;
    uint32_t *ids = e->ids + e->count;
    for (size_t i = 0; i < size; i++) {
        ids[i] = e->t->vocab.byte_tokens[(uint8_t)piece[i]];
        if (ids[i] == VOCABULARY_NONE)
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02x", (uint8_t)piece[i]);
    }
    status = bpe_apply(&e->t->merges, &e->merging, ids, &size, error);
    e->count += size;
    return status;
}

/// A piece of a byte-level vocabulary. It is spelled only where the spelling is looked at.
static zs_status encode_piece(encoder *e, const char *piece, size_t size, zs_error *error) {
    bool by_pieces = e->t->merging == MERGE_PIECES, may_be_whole = e->t->takes_whole && size <= e->t->vocab.longest;
    size_t spelled = 0;
    zs_status status = ZS_OK;
    if (by_pieces || may_be_whole) {
        status = size > PIECE_MAX_PARTS ? ZS_OK : reserve_spelling(e, 2 * size, error);
        if (status) return status;
        if (size <= PIECE_MAX_PARTS) spelled = byte_map_spell(piece, size, e->spelling);
    }
    uint32_t whole = may_be_whole ? find_plain(e->t, e->spelling, spelled) : VOCABULARY_NONE;
    if (whole != VOCABULARY_NONE) return put_id(e, whole, error);
    if (!by_pieces) return merge_bytes(e, piece, size, error);
    return size > PIECE_MAX_PARTS ? piece_workspace_reserve(&e->t->pieces, &e->pieces, size, error)
                                  : merge_pieces(e, e->spelling, spelled, error);
}

/// Valid UTF-8 as SentencePiece spells it, in one piece.
static zs_status encode_spaced(encoder *e, const char *text, size_t size, zs_error *error) {
    const size_t mark = sizeof VOCABULARY_SPACE - 1;
    size_t spelled = 0;
    zs_status status = size > PIECE_MAX_PARTS ? piece_workspace_reserve(&e->t->pieces, &e->pieces, size, error)
                                              : reserve_spelling(e, mark * (size + 1), error);
    if (status) return status;
    bool spaced = e->t->prefix_once && size && (text[0] == ' ' || (size >= mark && memcmp(text, VOCABULARY_SPACE, mark) == 0));
    if (e->needs_prefix && !spaced) memcpy(e->spelling, VOCABULARY_SPACE, spelled = mark);
    e->needs_prefix = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            memcpy(e->spelling + spelled, VOCABULARY_SPACE, mark);
            spelled += mark;
        } else {
            e->spelling[spelled++] = text[i];
        }
    }
    uint32_t whole = e->t->takes_whole ? find_plain(e->t, e->spelling, spelled) : VOCABULARY_NONE;
    if (whole != VOCABULARY_NONE) return put_id(e, whole, error);
    return e->t->merging == MERGE_PIECES ? merge_pieces(e, e->spelling, spelled, error) : merge_characters(e, e->spelling, spelled, error);
}

static zs_status encode_pieces(encoder *e, const char *text, size_t size, zs_error *error) {
    const char *piece;
    size_t piece_size;
    zs_status status;
    pretokenizer_walk_start(e->walk, text, size);
    while (!(status = pretokenizer_walk_next(e->walk, &piece, &piece_size, error)) && piece_size) {
        status = encode_piece(e, piece, piece_size, error);
        if (status) return status;
    }
    return status;
}

static zs_status encode_valid(encoder *e, const char *text, size_t size, zs_error *error) {
    char *normal = NULL;
    size_t normal_size;
    if (e->t->style == VOCABULARY_SENTENCEPIECE) return encode_spaced(e, text, size, error);
    zs_status status = e->t->normalises ? nfc_normalise(text, size, &normal, &normal_size, error) : ZS_OK;
    if (!status) status = normal ? encode_pieces(e, normal, normal_size, error) : encode_pieces(e, text, size, error);
    free(normal);
    return status;
}

/// A byte that is no part of a character.
static zs_status encode_stray(encoder *e, const char *byte, zs_error *error) {
    zs_status status = ZS_OK;
    if (e->needs_prefix) status = encode_valid(e, "", 0, error);
    return status ? status : put_unknown(e, byte, 1, error);
}

// ---- texts ---------------------------------------------------------------------------------------------------------

/// Text in which nothing is special. Bytes that are no UTF-8 become byte tokens one by one.
static zs_status encode_plain(encoder *e, const char *text, size_t size, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t at = 0; at < size && !status;) {
        size_t end = at, length;
        uint32_t point;
        while ((length = utf8_decode(text + end, size - end, &point)) > 0) end += length;
        status = end == at ? encode_stray(e, text + at, error) : encode_valid(e, text + at, end - at, error);
        at = end == at ? at + 1 : end;
    }
    return status;
}

static zs_status put_special(encoder *e, uint32_t id, zs_error *error) {
    bool is_control = e->t->vocab.tokens[id].kind == TOKEN_CONTROL;
    e->needs_prefix = e->t->prefix == PREFIX_SPECIAL || (e->t->prefix == PREFIX_CONTROL && is_control);
    return put_id(e, id, error);
}

/// User-defined tokens always count; control tokens if asked for.
static zs_status encode_text(encoder *e, const char *text, size_t size, bool parse_control, zs_error *error) {
    zs_status status = ZS_OK;
    size_t start = 0;
    if (size == 0) return ZS_OK; // text may be NULL
    for (size_t at = 0; at < size && !status;) {
        uint32_t id;
        size_t length = vocabulary_match_special(&e->t->vocab, text + at, size - at, parse_control, &id);
        if (!length) {
            at++;
            continue;
        }
        status = encode_plain(e, text + start, at - start, error);
        if (!status) status = put_special(e, id, error);
        at += length;
        start = at;
    }
    return status ? status : encode_plain(e, text + start, size - start, error);
}

static zs_status encoder_start(const zs_tokenizer *t, encoder *e, zs_error *error) {
    *e = (encoder){0};
    if (!t)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "the model has no tokenizer, so text means nothing to it: put its tokenizer files beside it");
    *e = (encoder){.t = t, .needs_prefix = t->prefix != PREFIX_NONE};
    return t->splitter ? pretokenizer_walk_create(t->splitter, &e->walk, error) : ZS_OK;
}

/// Hands out the ids on success.
static void encoder_finish(encoder *e, zs_status status, uint32_t **ids, size_t *count) {
    pretokenizer_walk_destroy(&e->walk);
    bpe_workspace_free(&e->merging);
    piece_workspace_free(&e->pieces);
    free(e->spelling);
    free(e->run);
    if (status || e->count == 0) {
        free(e->ids);
        e->ids = NULL;
    }
    if (!status) {
        *ids = e->ids;
        *count = e->count;
    }
}

zs_status zs_tokenizer_encode(const zs_tokenizer *t, const char *text, size_t length, bool parse_special, uint32_t **ids, size_t *count,
                              zs_error *error) {
    encoder e;
    zs_status status = encoder_start(t, &e, error);
    if (!status) status = encode_text(&e, text, length, parse_special, error);
    encoder_finish(&e, status, ids, count);
    return status;
}

// ---- chat ----------------------------------------------------------------------------------------------------------

static zs_status flush_run(encoder *e, zs_error *error) {
    // Mistral's template spells the space that its tokenizer puts behind a control token: it is one space all the same.
    if (e->t->chat.family == CHAT_MISTRAL && e->run_size && e->run[0] == ' ') e->needs_prefix = false;
    zs_status status = encode_text(e, e->run, e->run_size, false, error);
    e->run_size = 0;
    return status;
}

static zs_status append_run(encoder *e, const char *text, size_t size, zs_error *error) {
    if (e->run_capacity - e->run_size < size) {
        size_t capacity = 2 * e->run_capacity + size + 256;
        char *grown = realloc(e->run, capacity);
        if (!grown) return out_of_memory(error);
        e->run = grown;
        e->run_capacity = capacity;
    }
    if (size) memcpy(e->run + e->run_size, text, size);
    e->run_size += size;
    return ZS_OK;
}

/// The tokens of images, and what separates them from the text behind them.
static zs_status put_images(encoder *e, zs_error *error) {
    const chat_marks *marks = e->marks;
    size_t count = e->places++->count;
    zs_status status = flush_run(e, error);
    for (size_t i = 0; i < count && !status; i++)
        status = marks->token < e->t->vocab.count ? put_special(e, marks->token, error) : put_id(e, marks->token, error);
    return status ? status : append_run(e, marks->seam, strlen(marks->seam), error);
}

/// Whether the next images belong into text[size], and how many bytes stand before them: none where the content's beginning was trimmed.
static bool images_within(const encoder *e, const char *text, size_t size, size_t *before) {
    if (e->places == e->places_end) return false;
    uintptr_t start = (uintptr_t)text, at = (uintptr_t)e->places->at;
    if (at >= start + size || start >= at + strlen(e->places->at)) return false;
    *before = at > start ? at - start : 0;
    return true;
}

static zs_status put_chat(void *user, const char *text, size_t size, bool is_control, zs_error *error) {
    encoder *e = user;
    zs_status status = ZS_OK;
    for (size_t before; !is_control && !status && images_within(e, text, size, &before); text += before, size -= before) {
        status = append_run(e, text, before, error);
        if (!status) status = put_images(e, error);
    }
    if (status || !is_control) return status ? status : append_run(e, text, size, error);
    uint32_t id;
    status = flush_run(e, error);
    if (status) return status;
    if (!tokenizer_find_special(e->t, text, &id))
        return zs_error_set(error, ZS_ERROR_FORMAT, "the chat template needs the token %s, which the vocabulary lacks", text);
    return put_special(e, id, error);
}

zs_status zs_tokenizer_encode_chat(const zs_tokenizer *t, const zs_message *messages, size_t message_count, bool open_answer,
                                   uint32_t **ids, size_t *count, zs_error *error) {
    return tokenizer_encode_chat(t, messages, message_count, open_answer, NULL, ids, count, error);
}

zs_status tokenizer_encode_chat(const zs_tokenizer *t, const zs_message *messages, size_t message_count, bool open_answer,
                                const chat_marks *marks, uint32_t **ids, size_t *count, zs_error *error) {
    encoder e;
    zs_status status = encoder_start(t, &e, error);
    e.marks = marks;
    e.places = marks ? marks->places : NULL;
    e.places_end = marks ? marks->places + marks->count : NULL;
    if (!status) status = chat_template_render(&t->chat, messages, message_count, open_answer, &(chat_sink){put_chat, &e}, error);
    if (!status) status = flush_run(&e, error);
    encoder_finish(&e, status, ids, count);
    return status;
}
