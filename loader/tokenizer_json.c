#include "loader/tokenizer_json.h"

#include "loader/tokenizer.h"
#include "loader/tokenizer_steps.h"
#include "loader/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GAP = 65536 }; // ids without a token, in all

typedef struct tokenizer_json {
    const json_t *root, *model, *vocab;
    tokenizer_steps steps;
    gguf_string *tokens; // [count], by id; data NULL: no token
    uint32_t *types;
    size_t count;
    gguf_string *merges;
    char *merge_texts; // of merges that are pairs
    size_t merge_count;
    json_int_t unknown; // −1: none
    bool byte_fallback, ignores_merges;
} tokenizer_json;

static zs_status format_error(zs_error *error, const char *what) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "tokenizer.json: %s", what);
}
static zs_status out_of_memory(zs_error *error) { return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer"); }

bool tokenizer_json_is(const uint8_t *data, size_t size) {
    size_t at = 0;
    while (at < size && (data[at] == ' ' || data[at] == '\n' || data[at] == '\r' || data[at] == '\t')) at++;
    return at < size && data[at] == '{';
}

// ---- the model's options -------------------------------------------------------------------------------------------

/// An option that must be off: absent, null, false, 0 or empty.
static zs_status check_off(const json_t *model, const char *key, zs_error *error) {
    const json_t *value = json_object_get(model, key);
    bool off = !value || json_is_null(value) || json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0) ||
               (json_is_string(value) && json_string_length(value) == 0);
    return off ? ZS_OK : zs_error_set(error, ZS_ERROR_UNSUPPORTED, "model.%s is not supported: ids would differ without it", key);
}

static zs_status read_model(tokenizer_json *t, zs_error *error) {
    static const char *const known[] = {
        "type",  "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges",
        "vocab", "merges",  NULL};
    static const char *const off[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *type = json_object_get(t->model, "type");
    if (!json_is_object(t->model)) return format_error(error, "it has no model");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "model.type is \"%.40s\"; BPE is supported",
                            json_is_string(type) ? json_string_value(type) : "no text");
    zs_status status = tokenizer_steps_check_keys(t->model, "model", known, error);
    for (size_t i = 0; i < sizeof off / sizeof *off && !status; i++) status = check_off(t->model, off[i], error);
    if (status) return status;
    t->byte_fallback = json_is_true(json_object_get(t->model, "byte_fallback"));
    t->ignores_merges = json_is_true(json_object_get(t->model, "ignore_merges"));
    if (t->byte_fallback == (t->steps.pre != NULL))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            t->byte_fallback ? "model.byte_fallback beside pre_tokenizer \"ByteLevel\" is not supported"
                                             : "a model with neither model.byte_fallback nor pre_tokenizer \"ByteLevel\" is not supported");
    t->vocab = json_object_get(t->model, "vocab");
    return json_is_object(t->vocab) ? ZS_OK : format_error(error, "model.vocab is missing or no object");
}

// ---- tokens --------------------------------------------------------------------------------------------------------

static zs_status check_id(const json_t *id, json_int_t most, const char *spelling, zs_error *error) {
    if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < most) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "tokenizer.json: token \"%.40s\" has no id, or one far beyond the number of tokens",
                        spelling);
}

/// The number of ids: one more than the greatest.
static zs_status measure(tokenizer_json *t, const json_t *added, zs_error *error) {
    json_int_t most = (json_int_t)(json_object_size(t->vocab) + json_array_size(added)) + MAX_GAP;
    const char *spelling;
    json_t *value;
    size_t i;
    if (most > VOCABULARY_MAX_TOKENS) return format_error(error, "more tokens than any model has");
    json_object_foreach((json_t *)(uintptr_t)t->vocab, spelling, value) {
        if (check_id(value, most, spelling, error)) return ZS_ERROR_FORMAT;
        if ((size_t)json_integer_value(value) >= t->count) t->count = (size_t)json_integer_value(value) + 1;
    }
    json_array_foreach(added, i, value) {
        const char *content = json_string_value(json_object_get(value, "content"));
        if (check_id(json_object_get(value, "id"), most, content ? content : "(added)", error)) return ZS_ERROR_FORMAT;
        size_t id = (size_t)json_integer_value(json_object_get(value, "id"));
        if (id >= t->count) t->count = id + 1;
    }
    t->tokens = calloc(t->count + 1, sizeof *t->tokens);
    t->types = calloc(t->count + 1, sizeof *t->types);
    return t->tokens && t->types ? ZS_OK : out_of_memory(error);
}

static zs_status read_vocabulary(tokenizer_json *t, zs_error *error) {
    const char *spelling;
    json_t *value;
    size_t bytes = 0;
    json_object_foreach((json_t *)(uintptr_t)t->vocab, spelling, value) {
        size_t id = (size_t)json_integer_value(value), size = strlen(spelling);
        uint8_t byte;
        bool is_byte = t->byte_fallback && vocabulary_read_byte(spelling, size, &byte);
        if (t->tokens[id].data)
            return zs_error_set(error, ZS_ERROR_FORMAT, "tokenizer.json: tokens \"%.40s\" and \"%.40s\" have the same id %zu",
                                t->tokens[id].data, spelling, id);
        t->tokens[id] = (gguf_string){spelling, size};
        t->types[id] = is_byte ? TOKEN_BYTE : TOKEN_NORMAL;
        bytes += is_byte;
    }
    if (t->byte_fallback && bytes != 256)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "model.byte_fallback with %zu byte tokens instead of 256 is not supported", bytes);
    const json_t *unknown = json_object_get(t->model, "unk_token"),
                 *id = json_is_string(unknown) ? json_object_get(t->vocab, json_string_value(unknown)) : NULL;
    t->unknown = id ? json_integer_value(id) : -1;
    if (id) t->types[t->unknown] = TOKEN_UNKNOWN;
    return ZS_OK;
}

/// An added token is found in the text before anything merges.
static zs_status read_added_token(tokenizer_json *t, const json_t *token, zs_error *error) {
    static const char *const known[] = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL};
    static const char *const off[] = {"single_word", "lstrip", "rstrip"};
    const json_t *content = json_object_get(token, "content");
    size_t id = (size_t)json_integer_value(json_object_get(token, "id"));
    if (!json_is_string(content) || json_string_length(content) == 0) return format_error(error, "an added token without content");
    zs_status status = tokenizer_steps_check_keys(token, "an added token", known, error);
    for (size_t i = 0; i < sizeof off / sizeof *off && !status; i++) {
        if (json_is_true(json_object_get(token, off[i])))
            status =
                zs_error_set(error, ZS_ERROR_UNSUPPORTED, "added token \"%.40s\" with %s is not supported: ids would differ without it",
                             json_string_value(content), off[i]);
    }
    if (!status && (t->steps.replaces || t->steps.composes) && json_is_true(json_object_get(token, "normalized")))
        status = zs_error_set(
            error, ZS_ERROR_UNSUPPORTED,
            "added token \"%.40s\" that is looked for behind the normalizer (normalized) is not supported: ids would differ without it",
            json_string_value(content));
    if (status) return status;
    gguf_string spelling = {json_string_value(content), json_string_length(content)}, *there = &t->tokens[id];
    const json_t *in_vocab = strlen(spelling.data) == spelling.size ? json_object_get(t->vocab, spelling.data) : NULL;
    bool same = there->data && there->size == spelling.size && memcmp(there->data, spelling.data, spelling.size) == 0;
    if ((there->data || in_vocab) && !same)
        return zs_error_set(error, ZS_ERROR_FORMAT, "tokenizer.json: added token \"%.40s\" with id %zu contradicts model.vocab",
                            spelling.data, id);
    *there = spelling;
    t->types[id] = json_is_true(json_object_get(token, "special")) ? TOKEN_CONTROL : TOKEN_USER;
    return ZS_OK;
}

static zs_status read_tokens(tokenizer_json *t, zs_error *error) {
    const json_t *added = json_object_get(t->root, "added_tokens");
    size_t i;
    json_t *token;
    if (added && !json_is_null(added) && !json_is_array(added)) return format_error(error, "added_tokens is no list");
    zs_status status = measure(t, added, error);
    if (!status) status = read_vocabulary(t, error);
    json_array_foreach(added, i, token) {
        if (!status) status = read_added_token(t, token, error);
    }
    for (size_t id = 0; id < t->count && !status; id++) {
        if (!t->tokens[id].data) t->types[id] = TOKEN_UNUSED;
    }
    return status;
}

// ---- merges --------------------------------------------------------------------------------------------------------

/// A merge is "left right" or ["left", "right"].
static bool pair_of(const json_t *merge, const char **left, const char **right) {
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    return json_array_size(merge) == 2 && *left && *right && !strchr(*left, ' ') && !strchr(*right, ' ');
}

static zs_status read_merges(tokenizer_json *t, zs_error *error) {
    const json_t *merges = json_object_get(t->model, "merges");
    const char *left, *right;
    size_t total = 0, i;
    json_t *merge;
    if (!json_is_array(merges)) return format_error(error, "model.merges is missing or no list");
    json_array_foreach(merges, i, merge) {
        if (!json_is_string(merge) && !pair_of(merge, &left, &right))
            return zs_error_set(error, ZS_ERROR_FORMAT, "tokenizer.json: merge %zu is no pair of tokens", i);
        if (!json_is_string(merge)) total += strlen(left) + strlen(right) + 2;
    }
    t->merges = malloc((json_array_size(merges) + 1) * sizeof *t->merges);
    t->merge_texts = malloc(total + 1);
    if (!t->merges || !t->merge_texts) return out_of_memory(error);
    char *at = t->merge_texts;
    json_array_foreach(merges, i, merge) {
        if (json_is_string(merge)) {
            t->merges[i] = (gguf_string){json_string_value(merge), json_string_length(merge)};
            continue;
        }
        (void)pair_of(merge, &left, &right);
        size_t size = (size_t)snprintf(at, strlen(left) + strlen(right) + 2, "%s %s", left, right);
        t->merges[i] = (gguf_string){at, size};
        at += size + 1;
    }
    t->merge_count = json_array_size(merges);
    return ZS_OK;
}

// ---- keys ----------------------------------------------------------------------------------------------------------

static void add_keys(const tokenizer_json *t, gguf_writer *keys) {
    gguf_writer_add_string(keys, "tokenizer.ggml.model", t->steps.pre ? "gpt2" : "llama");
    if (t->steps.pre)
        gguf_writer_add_string(keys, "tokenizer.ggml.pre", t->steps.pre);
    else
        gguf_writer_add_string(keys, TOKENIZER_PREFIX_KEY, t->steps.prefix);
    if (t->steps.prefix_once) gguf_writer_add_bool(keys, TOKENIZER_PREFIX_ONCE_KEY, true);
    gguf_writer_add_bool(keys, TOKENIZER_NFC_KEY, t->steps.composes);
    gguf_writer_add_bool(keys, TOKENIZER_WHOLE_KEY, t->ignores_merges);
    gguf_writer_add_texts(keys, "tokenizer.ggml.tokens", t->tokens, t->count);
    gguf_writer_add_words(keys, "tokenizer.ggml.token_type", GGUF_U32, t->types, t->count);
    gguf_writer_add_texts(keys, "tokenizer.ggml.merges", t->merges, t->merge_count);
    if (t->unknown >= 0) gguf_writer_add_u32(keys, "tokenizer.ggml.unknown_token_id", (uint32_t)t->unknown);
}

zs_status tokenizer_json_read(const uint8_t *data, size_t size, gguf_writer *keys, zs_error *error) {
    json_error_t problem;
    json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (!json_is_object(root)) {
        json_decref(root);
        return zs_error_set(error, ZS_ERROR_FORMAT, "tokenizer.json: %s at byte %d", root ? "no object" : problem.text,
                            root ? 0 : problem.position);
    }
    static const char *const known[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    tokenizer_json t = {.root = root, .model = json_object_get(root, "model")};
    zs_status status = tokenizer_steps_check_keys(root, "tokenizer.json", known, error);
    if (!status) status = tokenizer_steps_read(root, &t.steps, error);
    if (!status) status = read_model(&t, error);
    if (!status) status = read_tokens(&t, error);
    if (!status) status = read_merges(&t, error);
    if (!status) add_keys(&t, keys);
    free(t.tokens);
    free(t.types);
    free(t.merges);
    free(t.merge_texts);
    json_decref(root);
    return status;
}
