#include "loader/tokenizer.h"

#include "loader/bpe.h"
#include "loader/byte_map.h"
#include "loader/chat_template.h"
#include "loader/pretokenizer.h"
#include "loader/utf8.h"
#include "loader/vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct zs_tokenizer {
    vocabulary vocab;
    bpe merges;
    pretokenizer *splitter;
    chat_template chat;
    uint32_t eos;
    uint8_t *ends; // [vocab.count]: tokens that end an answer
};

// ---- reading -------------------------------------------------------------------------------------------------------

static bool string_is(gguf_string s, const char *text) { return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0; }

static void mark_ends(zs_tokenizer *t) {
    static const char *const spellings[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>"};
    if (t->eos < t->vocab.count) t->ends[t->eos] = 1;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        uint32_t id;
        if (tokenizer_find_special(t, spellings[i], &id)) t->ends[id] = 1;
    }
}

static zs_status build(const gguf_file *file, zs_tokenizer *t, zs_error *error) {
    gguf_string model, pre = {"default", 7}, chat;
    if (!gguf_get_string(file, "tokenizer.ggml.model", &model)) return zs_error_set(error, ZS_ERROR_FORMAT, "key tokenizer.ggml.model is missing: the file has no tokenizer");
    if (!string_is(model, "gpt2"))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "tokenizer.ggml.model is '%.*s'; gpt2 (byte-level BPE) is supported", (int)(model.size < 40 ? model.size : 40), model.data);
    gguf_get_string(file, "tokenizer.ggml.pre", &pre);
    zs_status status = vocabulary_create(file, &t->vocab, error);
    if (!status) status = bpe_create(file, &t->vocab, &t->merges, error);
    if (!status) status = pretokenizer_create(pre.data, pre.size, &t->splitter, error);
    if (!status && gguf_get_string(file, "tokenizer.chat_template", &chat)) status = chat_template_read(chat.data, chat.size, &t->chat, error);
    if (status) return status;
    t->eos = VOCABULARY_NONE;
    if (gguf_find_value(file, "tokenizer.ggml.eos_token_id") && (!gguf_get_u32(file, "tokenizer.ggml.eos_token_id", &t->eos) || t->eos >= t->vocab.count))
        return zs_error_set(error, ZS_ERROR_FORMAT, "key tokenizer.ggml.eos_token_id is outside the vocabulary of %u tokens", t->vocab.count);
    t->ends = calloc(t->vocab.count + 1u, 1);
    if (!t->ends) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    mark_ends(t);
    return ZS_OK;
}

zs_status tokenizer_from_gguf(const gguf_file *file, zs_tokenizer **tokenizer, zs_error *error) {
    zs_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    zs_status status = build(file, t, error);
    if (status) zs_tokenizer_destroy(&t);
    else *tokenizer = t;
    return status;
}

zs_status zs_tokenizer_load(const char *path, zs_tokenizer **tokenizer, zs_error *error) {
    gguf_file file;
    zs_status status = gguf_open(path, &file, error);
    if (status) return status;
    zs_error inner;
    status = tokenizer_from_gguf(&file, tokenizer, &inner);
    if (status) zs_error_set(error, status, "%s: %s", path, inner.message);
    gguf_close(&file);
    return status;
}

void zs_tokenizer_destroy(zs_tokenizer **tokenizer) {
    zs_tokenizer *t = *tokenizer;
    if (!t) return;
    *tokenizer = NULL;
    vocabulary_free(&t->vocab);
    bpe_free(&t->merges);
    pretokenizer_destroy(&t->splitter);
    chat_template_free(&t->chat);
    free(t->ends);
    free(t);
}

bool tokenizer_find_special(const zs_tokenizer *t, const char *spelling, uint32_t *id) {
    *id = vocabulary_find(&t->vocab, spelling, strlen(spelling));
    return *id != VOCABULARY_NONE && t->vocab.tokens[*id].kind == TOKEN_CONTROL;
}

uint32_t zs_tokenizer_vocab_size(const zs_tokenizer *t) { return t->vocab.count; }
bool zs_tokenizer_is_end(const zs_tokenizer *t, uint32_t id) { return id < t->vocab.count && t->ends[id]; }

size_t zs_tokenizer_token_bytes(const zs_tokenizer *t, uint32_t id, bool special, const char **bytes) {
    if (id >= t->vocab.count) return 0;
    const vocabulary_token *token = &t->vocab.tokens[id];
    if (token->kind == TOKEN_CONTROL && !special) return 0;
    *bytes = token->bytes;
    return token->size;
}

// ---- encoding ------------------------------------------------------------------------------------------------------

/// Ids under construction, and what one call needs while it makes them.
typedef struct encoder {
    const zs_tokenizer *t;
    pretokenizer_walk *walk;
    bpe_workspace merging;
    uint32_t *ids;
    size_t count, capacity;
    char *spelling; // [2 · vocab.longest], where whole pieces are looked up
    char *run; // plain text of a chat message that is not encoded yet
    size_t run_size, run_capacity;
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

/// The whole piece as one token, where the pre-tokenizer asks for that; longer pieces than any token are not looked up.
static uint32_t whole_token(const encoder *e, const char *piece, size_t size) {
    const zs_tokenizer *t = e->t;
    if (!e->spelling || size > t->vocab.longest) return VOCABULARY_NONE;
    uint32_t id = vocabulary_find(&t->vocab, e->spelling, byte_map_spell(piece, size, e->spelling));
    return id != VOCABULARY_NONE && t->vocab.tokens[id].kind == TOKEN_CONTROL ? VOCABULARY_NONE : id;
}

static zs_status encode_piece(encoder *e, const char *piece, size_t size, zs_error *error) {
    zs_status status = reserve(e, size, error);
    if (status) return status;
    uint32_t whole = whole_token(e, piece, size);
    if (whole != VOCABULARY_NONE) {
        e->ids[e->count++] = whole;
        return ZS_OK;
    }
    uint32_t *ids = e->ids + e->count;
    for (size_t i = 0; i < size; i++) {
        ids[i] = e->t->vocab.byte_tokens[(uint8_t)piece[i]];
        if (ids[i] == VOCABULARY_NONE) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02x", (uint8_t)piece[i]);
    }
    status = bpe_apply(&e->t->merges, &e->merging, ids, &size, error);
    e->count += size;
    return status;
}

/// Text in which nothing is special. Bytes that are no UTF-8 become byte tokens one by one.
static zs_status encode_plain(encoder *e, const char *text, size_t size, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t at = 0; at < size && !status;) {
        size_t end = at, length;
        uint32_t point;
        while ((length = utf8_decode(text + end, size - end, &point)) > 0) end += length;
        if (end == at) {
            status = encode_piece(e, text + at++, 1, error);
            continue;
        }
        const char *piece;
        size_t piece_size;
        pretokenizer_walk_start(e->walk, text + at, end - at);
        while (!(status = pretokenizer_walk_next(e->walk, &piece, &piece_size, error)) && piece_size) {
            status = encode_piece(e, piece, piece_size, error);
            if (status) return status;
        }
        at = end;
    }
    return status;
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
        if (!status) status = reserve(e, 1, error);
        if (!status) e->ids[e->count++] = id;
        at += length;
        start = at;
    }
    return status ? status : encode_plain(e, text + start, size - start, error);
}

static zs_status encoder_start(const zs_tokenizer *t, encoder *e, zs_error *error) {
    *e = (encoder){.t = t};
    if (pretokenizer_ignores_merges(t->splitter)) {
        e->spelling = malloc(2 * (size_t)t->vocab.longest + 1);
        if (!e->spelling) return out_of_memory(error);
    }
    return pretokenizer_walk_create(t->splitter, &e->walk, error);
}

/// Hands out the ids on success.
static void encoder_finish(encoder *e, zs_status status, uint32_t **ids, size_t *count) {
    pretokenizer_walk_destroy(&e->walk);
    bpe_workspace_free(&e->merging);
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

zs_status zs_tokenizer_encode(const zs_tokenizer *t, const char *text, size_t length, bool parse_special, uint32_t **ids, size_t *count, zs_error *error) {
    encoder e;
    zs_status status = encoder_start(t, &e, error);
    if (!status) status = encode_text(&e, text, length, parse_special, error);
    encoder_finish(&e, status, ids, count);
    return status;
}

// ---- chat ----------------------------------------------------------------------------------------------------------

static zs_status flush_run(encoder *e, zs_error *error) {
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

static zs_status put_chat(void *user, const char *text, size_t size, bool is_control, zs_error *error) {
    encoder *e = user;
    if (!is_control) return append_run(e, text, size, error);
    uint32_t id;
    zs_status status = flush_run(e, error);
    if (status) return status;
    if (!tokenizer_find_special(e->t, text, &id)) return zs_error_set(error, ZS_ERROR_FORMAT, "the chat template needs the token %s, which the vocabulary lacks", text);
    status = reserve(e, 1, error);
    if (!status) e->ids[e->count++] = id;
    return status;
}

zs_status zs_tokenizer_encode_chat(const zs_tokenizer *t, const zs_message *messages, size_t message_count, bool open_answer, uint32_t **ids, size_t *count, zs_error *error) {
    encoder e;
    zs_status status = encoder_start(t, &e, error);
    if (!status) status = chat_template_render(&t->chat, messages, message_count, open_answer, &(chat_sink){put_chat, &e}, error);
    if (!status) status = flush_run(&e, error);
    encoder_finish(&e, status, ids, count);
    return status;
}
