#include "loader/model_folder.h"
#include "loader/tokenizer_file.h"
#include "loader/tokenizer_folder.h"
#include "loader/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- reading -------------------------------------------------------------------------------------------------------

static bool string_is(gguf_string s, const char *text) { return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0; }

static void mark_ends(zs_tokenizer *t) {
    static const char *const spellings[] = {"<|im_end|>",    "<|eot_id|>", "<|eom_id|>",   "<|end_of_text|>",
                                            "<|endoftext|>", "</s>",       "<end_of_turn>"};
    if (t->eos < t->vocab.count) t->ends[t->eos] = 1;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        uint32_t id;
        if (tokenizer_find_special(t, spellings[i], &id)) t->ends[id] = 1;
    }
}

/// An id that must be of the vocabulary; VOCABULARY_NONE where the key is absent.
static zs_status read_id(const gguf_file *file, const zs_tokenizer *t, const char *key, uint32_t *id, zs_error *error) {
    *id = VOCABULARY_NONE;
    if (!gguf_find_value(file, key) || (gguf_get_u32(file, key, id) && *id < t->vocab.count)) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "key %s is outside the vocabulary of %u tokens", key, t->vocab.count);
}

/// The same by name where there is no id.
static zs_status read_named_id(const gguf_file *file, const zs_tokenizer *t, const char *key, const char *name_key, uint32_t *id,
                               zs_error *error) {
    gguf_string name;
    zs_status status = read_id(file, t, key, id, error);
    if (status || !gguf_get_string(file, name_key, &name)) return status;
    *id = vocabulary_find(&t->vocab, name.data, name.size); // a folder's files say it for this model, the tokenizer's own for any
    if (*id != VOCABULARY_NONE) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "key %s is %.*s, which the vocabulary lacks", name_key,
                        (int)(name.size < 60 ? name.size : 60), name.data);
}

static zs_status read_ends(const gguf_file *file, zs_tokenizer *t, zs_error *error) {
    const gguf_value *list = gguf_find_value(file, TOKENIZER_ENDS_KEY);
    for (uint64_t i = 0; list && i < list->count; i++) {
        uint64_t id;
        if (!gguf_array_u64(list, i, &id) || id >= t->vocab.count)
            return zs_error_set(error, ZS_ERROR_FORMAT, "key %s: entry %llu is outside the vocabulary of %u tokens", TOKENIZER_ENDS_KEY,
                                (unsigned long long)i, t->vocab.count);
        t->ends[id] = 1;
    }
    return ZS_OK;
}

/// Byte-level BPE: pairs of the list of merges or, as tiktoken has it, tokens by rank.
static zs_status build_byte_level(const gguf_file *file, zs_tokenizer *t, zs_error *error) {
    gguf_string pre = {"default", 7};
    bool by_rank = false;
    t->style = VOCABULARY_BYTE_LEVEL;
    zs_status status = vocabulary_create(file, t->style, &t->vocab, error);
    gguf_get_string(file, "tokenizer.ggml.pre", &pre);
    gguf_get_bool(file, TOKENIZER_BY_RANK_KEY, &by_rank);
    t->merging = by_rank ? MERGE_PIECES : MERGE_PAIRS;
    if (!status)
        status = by_rank ? piece_merge_create_by_rank(&t->vocab, &t->pieces, error) : bpe_create(file, &t->vocab, &t->merges, error);
    if (!status) status = pretokenizer_create(pre.data, pre.size, &t->splitter, error);
    if (!status && !gguf_get_bool(file, TOKENIZER_WHOLE_KEY, &t->takes_whole)) t->takes_whole = pretokenizer_ignores_merges(t->splitter);
    if (!status && !gguf_get_bool(file, TOKENIZER_NFC_KEY, &t->normalises))
        t->normalises = string_is(pre, "qwen2"); // Qwen's tokenizer.json does
    return status;
}

static zs_status read_prefix(const gguf_file *file, zs_tokenizer *t, zs_error *error) {
    static const char *const names[] = {"none", "text", "control", "special"};
    gguf_string name;
    bool added = true;
    gguf_get_bool(file, "tokenizer.ggml.add_space_prefix", &added);
    t->prefix = added ? PREFIX_SPECIAL : PREFIX_NONE;
    gguf_get_bool(file, TOKENIZER_PREFIX_ONCE_KEY, &t->prefix_once);
    gguf_get_bool(file, TOKENIZER_WHOLE_KEY, &t->takes_whole);
    if (!gguf_find_value(file, TOKENIZER_PREFIX_KEY)) return ZS_OK;
    if (gguf_get_string(file, TOKENIZER_PREFIX_KEY, &name)) {
        for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (string_is(name, names[i])) t->prefix = (space_prefix)i;
            if (string_is(name, names[i])) return ZS_OK;
        }
    }
    return zs_error_set(error, ZS_ERROR_FORMAT, "key %s is none of none, text, control, special", TOKENIZER_PREFIX_KEY);
}

/// SentencePiece's BPE: tokens by score or, as tokenizer.json has it, pairs of a list.
static zs_status build_sentencepiece(const gguf_file *file, zs_tokenizer *t, zs_error *error) {
    bool removes = false;
    t->style = VOCABULARY_SENTENCEPIECE;
    gguf_get_bool(file, "tokenizer.ggml.remove_extra_whitespaces", &removes);
    if (removes)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "key tokenizer.ggml.remove_extra_whitespaces is true: tokenizers that drop spaces are not supported");
    zs_status status = vocabulary_create(file, t->style, &t->vocab, error);
    t->merging = gguf_find_value(file, "tokenizer.ggml.scores") ? MERGE_PIECES : MERGE_PAIRS;
    if (t->merging == MERGE_PAIRS && !gguf_find_value(file, "tokenizer.ggml.merges")) t->merging = MERGE_PIECES;
    if (!status)
        status = t->merging == MERGE_PIECES ? piece_merge_create_by_score(file, &t->vocab, &t->pieces, error)
                                            : bpe_create(file, &t->vocab, &t->merges, error);
    if (!status) status = read_prefix(file, t, error);
    if (!status) status = read_id(file, t, "tokenizer.ggml.unknown_token_id", &t->unknown, error);
    for (uint32_t id = 0; id < t->vocab.count && t->unknown == VOCABULARY_NONE; id++) {
        if (t->vocab.tokens[id].kind == TOKEN_UNKNOWN) t->unknown = id;
    }
    return status;
}

/// Chat templates put the first and the last token by their spellings.
static zs_status name_tokens(zs_tokenizer *t, zs_error *error) {
    const vocabulary_token none = {0}, *bos = t->bos == VOCABULARY_NONE ? &none : &t->vocab.tokens[t->bos],
                           *eos = t->eos == VOCABULARY_NONE ? &none : &t->vocab.tokens[t->eos];
    return chat_template_set_tokens(&t->chat, bos->spelling, bos->spelling_size, eos->spelling, eos->spelling_size, error);
}

zs_status tokenizer_choose_chat(zs_tokenizer *t, const char *family, zs_error *error) {
    chat_template chosen = {0};
    zs_status status = chat_template_choose(family, &chosen, error);
    if (status) return status;
    chat_template_free(&t->chat);
    t->chat = chosen;
    return name_tokens(t, error);
}

static zs_status build(const gguf_file *file, zs_tokenizer *t, zs_error *error) {
    gguf_string model, chat;
    zs_status status;
    t->unknown = VOCABULARY_NONE;
    if (!gguf_get_string(file, "tokenizer.ggml.model", &model))
        return zs_error_set(error, ZS_ERROR_FORMAT, "key tokenizer.ggml.model is missing: the file has no tokenizer");
    if (string_is(model, "gpt2"))
        status = build_byte_level(file, t, error);
    else if (string_is(model, "llama"))
        status = build_sentencepiece(file, t, error);
    else
        status = zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                              "tokenizer.ggml.model is '%.*s'; gpt2 (byte-level BPE) and llama (SentencePiece) are supported",
                              (int)(model.size < 40 ? model.size : 40), model.data);
    if (!status && gguf_get_string(file, "tokenizer.chat_template", &chat))
        status = chat_template_read(chat.data, chat.size, &t->chat, error);
    if (!status) status = read_named_id(file, t, "tokenizer.ggml.bos_token_id", TOKENIZER_BOS_KEY, &t->bos, error);
    if (!status) status = read_named_id(file, t, "tokenizer.ggml.eos_token_id", TOKENIZER_EOS_KEY, &t->eos, error);
    if (status) return status;
    status = name_tokens(t, error);
    if (status) return status;
    t->ends = calloc(t->vocab.count + 1u, 1);
    if (!t->ends) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    mark_ends(t);
    return read_ends(file, t, error);
}

zs_status tokenizer_from_gguf(const gguf_file *file, zs_tokenizer **tokenizer, zs_error *error) {
    zs_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    zs_status status = build(file, t, error);
    if (status)
        zs_tokenizer_destroy(&t);
    else
        *tokenizer = t;
    return status;
}

/// A GGUF file's first bytes.
static bool is_gguf(const char *path) {
    char magic[4] = {0};
    FILE *file = fopen(path, "rb");
    bool found = file && fread(magic, 1, sizeof magic, file) == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
    if (file) fclose(file);
    return found;
}

/// A tokenizer's own file, or a folder with one, as a GGUF file would tell it.
static zs_status open_tokenizer_file(const char *path, gguf_file *file, zs_error *error) {
    gguf_writer *keys = NULL;
    bool found = true;
    zs_status status = gguf_writer_create_keys(&keys, error);
    if (!status) status = model_folder_is(path) ? tokenizer_folder_read(path, keys, &found, error) : tokenizer_file_read(path, keys, error);
    if (!status && !found) status = zs_error_set(error, ZS_ERROR_IO, "%s has neither tokenizer.json nor tokenizer.model", path);
    if (!status) return gguf_writer_open(&keys, path, file, error);
    gguf_writer_discard(&keys);
    return status;
}

zs_status zs_tokenizer_load(const char *path, zs_tokenizer **tokenizer, zs_error *error) {
    gguf_file file;
    zs_status status = is_gguf(path) ? gguf_open(path, &file, error) : open_tokenizer_file(path, &file, error);
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
    piece_merge_free(&t->pieces);
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

bool tokenizer_adds_space(const zs_tokenizer *t) { return t->prefix != PREFIX_NONE; }
