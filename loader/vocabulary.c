#include "loader/vocabulary.h"

#include "loader/byte_map.h"

#include <stdlib.h>
#include <string.h>

#define TOKENS_KEY "tokenizer.ggml.tokens"
#define TYPES_KEY "tokenizer.ggml.token_type"

// FNV-1a; the table is at most half full.
static uint32_t hash_spelling(const char *spelling, size_t size) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)spelling[i]) * 0x100000001B3u;
    return (uint32_t)(hash ^ hash >> 32);
}

// The slot that holds the spelling, or the empty one where it belongs.
static uint32_t hash_slot(const vocabulary *vocab, const char *spelling, size_t size) {
    uint32_t slot = hash_spelling(spelling, size) & vocab->hash_mask;
    while (vocab->hash[slot] != VOCABULARY_NONE) {
        const vocabulary_token *token = &vocab->tokens[vocab->hash[slot]];
        if (token->spelling_size == size && memcmp(token->spelling, spelling, size) == 0) break;
        slot = (slot + 1) & vocab->hash_mask;
    }
    return slot;
}

uint32_t vocabulary_find(const vocabulary *vocab, const char *spelling, size_t size) {
    if (size == 0 || size > vocab->longest) return VOCABULARY_NONE;
    return vocab->hash[hash_slot(vocab, spelling, size)];
}

// Checks the arrays and measures them, so that everything is allocated once.
static zs_status measure(const gguf_value *tokens, const gguf_value *types, uint64_t *total, zs_error *error) {
    if (tokens == NULL || tokens->type != GGUF_ARRAY || tokens->element_type != GGUF_STRING) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is missing or not a list of strings; this file holds no tokenizer", TOKENS_KEY);
    }
    if (tokens->count == 0 || tokens->count > VOCABULARY_MAX_TOKENS) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s has %llu entries; expected 1 to %d", TOKENS_KEY, (unsigned long long)tokens->count,
                            VOCABULARY_MAX_TOKENS);
    }
    if (types != NULL && (types->type != GGUF_ARRAY || types->count != tokens->count)) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is not a list as long as %s (%llu entries)", TYPES_KEY, TOKENS_KEY,
                            (unsigned long long)tokens->count);
    }
    size_t cursor = 0;
    gguf_string spelling;
    uint64_t walked = 0;
    for (*total = 0; walked < tokens->count && gguf_array_next_string(tokens, &cursor, &spelling); walked++) {
        if (spelling.size > VOCABULARY_MAX_SPELLING) {
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: token %llu is %zu bytes long; at most %d are allowed", TOKENS_KEY,
                                (unsigned long long)walked, spelling.size, VOCABULARY_MAX_SPELLING);
        }
        *total += spelling.size;
    }
    if (walked != tokens->count)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: the list ends at token %llu", TOKENS_KEY, (unsigned long long)walked);
    return ZS_OK;
}

static zs_status allocate(vocabulary *vocab, uint64_t total, zs_error *error) {
    uint32_t slots = 2;
    while (slots < 2 * vocab->count) slots *= 2;
    vocab->hash_mask = slots - 1;
    vocab->tokens = calloc(vocab->count, sizeof *vocab->tokens);
    vocab->special = calloc(vocab->count, sizeof *vocab->special);
    vocab->hash = malloc(slots * sizeof *vocab->hash);
    // A token's bytes are never more than its spelling: twice the spellings hold both. 2^40 at most, by measure's bounds.
    vocab->arena = total > SIZE_MAX / 2 - 1 ? NULL : malloc(2 * (size_t)total + 1);
    if (vocab->tokens == NULL || vocab->special == NULL || vocab->hash == NULL || vocab->arena == NULL) {
        return zs_error_set(error, ZS_ERROR_MEMORY, "no memory for a vocabulary of %u tokens", vocab->count);
    }
    memset(vocab->hash, 0xFF, slots * sizeof *vocab->hash);
    memset(vocab->byte_tokens, 0xFF, sizeof vocab->byte_tokens);
    return ZS_OK;
}

static zs_status read_kind(const gguf_value *types, uint32_t id, token_kind *kind, zs_error *error) {
    uint64_t value = TOKEN_NORMAL;
    if (types != NULL && (!gguf_array_u64(types, id, &value) || value < TOKEN_NORMAL || value > TOKEN_BYTE)) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: token %u has an unknown type (known: 1 to 6)", TYPES_KEY, id);
    }
    *kind = (token_kind)value;
    return ZS_OK;
}

static int hex_value(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

bool vocabulary_read_byte(const char *spelling, size_t size, uint8_t *byte) {
    if (size != 6 || memcmp(spelling, "<0x", 3) != 0 || spelling[5] != '>') return false;
    int high = hex_value(spelling[3]), low = hex_value(spelling[4]);
    if (high < 0 || low < 0) return false;
    *byte = (uint8_t)(high << 4 | low);
    return true;
}

/// Writes a SentencePiece spelling with its spaces as such; never longer than the spelling.
static size_t write_spaces(const char *spelling, size_t size, char *out) {
    size_t written = 0, mark = sizeof VOCABULARY_SPACE - 1;
    for (size_t at = 0; at < size;) {
        bool space = size - at >= mark && memcmp(spelling + at, VOCABULARY_SPACE, mark) == 0;
        out[written++] = space ? ' ' : spelling[at];
        at += space ? mark : 1;
    }
    return written;
}

/// What a token stands for, at *at in the arena where it is not the spelling itself.
static zs_status set_bytes(vocabulary *vocab, vocabulary_style style, uint32_t id, char **at, zs_error *error) {
    vocabulary_token *token = &vocab->tokens[id];
    size_t size = token->spelling_size;
    bool special = token->kind == TOKEN_CONTROL || token->kind == TOKEN_USER;
    if (style == VOCABULARY_SENTENCEPIECE && token->kind == TOKEN_BYTE) {
        uint8_t byte;
        if (!vocabulary_read_byte(token->spelling, size, &byte))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: token %u is of type byte and not spelled <0xNN>", TOKENS_KEY, id);
        if (vocab->byte_tokens[byte] == VOCABULARY_NONE) vocab->byte_tokens[byte] = id;
        **at = (char)byte;
        size = 1;
    } else if (style == VOCABULARY_SENTENCEPIECE) {
        size = write_spaces(token->spelling, size, *at);
    } else if (special || !byte_map_read(token->spelling, size, *at, &size)) {
        return ZS_OK;
    }
    if (size == token->size && memcmp(*at, token->bytes, size) == 0) return ZS_OK;
    token->bytes = *at;
    token->size = (uint32_t)size;
    *at += size;
    return ZS_OK;
}

// Copies one token into the arena at *at and enters it into the tables.
static zs_status add_token(vocabulary *vocab, vocabulary_style style, uint32_t id, gguf_string spelling, char **at, zs_error *error) {
    vocabulary_token *token = &vocab->tokens[id];
    if (spelling.size > 0) memcpy(*at, spelling.data, spelling.size);
    token->spelling = token->bytes = *at;
    token->spelling_size = token->size = (uint32_t)spelling.size;
    *at += spelling.size;
    if (spelling.size == 0) return ZS_OK;
    if (spelling.size > vocab->longest) vocab->longest = (uint32_t)spelling.size;

    uint32_t slot = hash_slot(vocab, token->spelling, token->spelling_size);
    if (vocab->hash[slot] != VOCABULARY_NONE) {
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tokens %u and %u have the same spelling", TOKENS_KEY, vocab->hash[slot], id);
    }
    vocab->hash[slot] = id;
    zs_status status = set_bytes(vocab, style, id, at, error);
    if (status == ZS_OK && (token->kind == TOKEN_CONTROL || token->kind == TOKEN_USER)) {
        vocab->special[vocab->special_count++] = id;
        vocab->special_start[(uint8_t)token->bytes[0]] = true;
    }
    return status;
}

static int compare_bytes(const vocabulary_token *a, const vocabulary_token *b) {
    uint32_t shared = a->size < b->size ? a->size : b->size;
    int order = memcmp(a->bytes, b->bytes, shared); // NOLINT(clang-analyzer-core.NonNullParamChecker): no token is without bytes
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

// Sorts special[0..count) by bytes: heapsort, since qsort could not be told where the tokens are.
static void sift_special(const vocabulary *vocab, size_t parent, size_t count) {
    uint32_t *special = vocab->special;
    for (size_t child; (child = 2 * parent + 1) < count; parent = child) {
        const vocabulary_token *tokens = vocab->tokens;
        if (child + 1 < count && compare_bytes(&tokens[special[child]], &tokens[special[child + 1]]) < 0) child++;
        if (compare_bytes(&tokens[special[parent]], &tokens[special[child]]) >= 0) return;
        uint32_t swap = special[parent];
        special[parent] = special[child];
        special[child] = swap;
    }
}

static void sort_special(const vocabulary *vocab) {
    for (size_t i = vocab->special_count / 2; i-- > 0;) sift_special(vocab, i, vocab->special_count);
    for (size_t end = vocab->special_count; end-- > 1;) {
        uint32_t swap = vocab->special[0];
        vocab->special[0] = vocab->special[end];
        vocab->special[end] = swap;
        sift_special(vocab, 0, end);
    }
}

static void find_byte_tokens(vocabulary *vocab) {
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, spelling[2];
        uint32_t id = vocabulary_find(vocab, spelling, byte_map_spell(&byte, 1, spelling));
        if (id != VOCABULARY_NONE && vocab->tokens[id].kind == TOKEN_CONTROL) id = VOCABULARY_NONE; // text never becomes a control token
        vocab->byte_tokens[i] = id;
    }
}

zs_status vocabulary_create(const gguf_file *file, vocabulary_style style, vocabulary *vocab, zs_error *error) {
    const gguf_value *tokens = gguf_find_value(file, TOKENS_KEY), *types = gguf_find_value(file, TYPES_KEY);
    uint64_t total = 0;
    memset(vocab, 0, sizeof *vocab);
    zs_status status = measure(tokens, types, &total, error);
    if (status != ZS_OK) return status;
    vocab->count = (uint32_t)tokens->count;
    status = allocate(vocab, total, error);
    if (status != ZS_OK) goto fail;

    char *at = vocab->arena;
    size_t cursor = 0;
    gguf_string spelling;
    for (uint32_t id = 0; id < vocab->count && gguf_array_next_string(tokens, &cursor, &spelling); id++) {
        status = read_kind(types, id, &vocab->tokens[id].kind, error);
        if (status == ZS_OK) status = add_token(vocab, style, id, spelling, &at, error);
        if (status != ZS_OK) goto fail;
    }
    sort_special(vocab);
    if (style == VOCABULARY_BYTE_LEVEL) find_byte_tokens(vocab);
    return ZS_OK;

fail:
    vocabulary_free(vocab);
    return status;
}

void vocabulary_free(vocabulary *vocab) {
    free(vocab->tokens);
    free(vocab->arena);
    free(vocab->hash);
    free(vocab->special);
    memset(vocab, 0, sizeof *vocab);
}

// First of special[low..high) whose byte at depth is at least value; all of them share depth bytes and are longer.
static uint32_t lower_bound(const vocabulary *vocab, uint32_t low, uint32_t high, uint32_t depth, unsigned value) {
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uint8_t)vocab->tokens[vocab->special[middle]].bytes[depth] < value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

size_t vocabulary_match_special(const vocabulary *vocab, const char *text, size_t size, bool control, uint32_t *id) {
    if (size == 0 || !vocab->special_start[(uint8_t)text[0]]) return 0;
    size_t longest = 0;
    uint32_t low = 0, high = vocab->special_count; // the tokens that begin with text[0..depth)
    for (uint32_t depth = 0; low < high; depth++) {
        // Those that end here sort before the longer ones; SentencePiece can spell a space in two ways.
        for (; low < high && vocab->tokens[vocab->special[low]].size == depth; low++) {
            if (vocab->tokens[vocab->special[low]].kind != TOKEN_USER && !control) continue;
            longest = depth;
            *id = vocab->special[low];
        }
        if (depth == size) break;
        unsigned byte = (uint8_t)text[depth];
        low = lower_bound(vocab, low, high, depth, byte);
        high = lower_bound(vocab, low, high, depth, byte + 1);
    }
    return longest;
}
