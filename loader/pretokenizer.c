#include "loader/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

// Unicode's White_Space, spelled out because PCRE2's \s also takes U+180E.
#define SPACE "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACES_AT_END "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|" SPACES_AT_END
// Llama 3's and Qwen 2's differ in how many digits stay together.
#define LLAMA3(digits)                                                                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACE                   \
    "]*[\\r\\n]+|" SPACES_AT_END
#define DIGITS_ALONE "\\p{N}|\\P{N}+"

typedef struct pretokenizer_kind {
    const char *names[4]; // NULL at the end
    const char *outer;    // cuts the text first, or NULL
    const char *inner;    // cuts each of its pieces, as if nothing followed
    bool ignores_merges;
} pretokenizer_kind;

static const pretokenizer_kind kinds[] = {
    {{"smollm"}, DIGITS_ALONE, GPT2, false},
    {{"gpt2", "gpt-2", "default"}, NULL, GPT2, false},
    {{"llama-bpe", "llama3", "llama-v3"}, NULL, LLAMA3("\\p{N}{1,3}"), true},
    {{"qwen2"}, NULL, LLAMA3("\\p{N}"), false},
};

struct pretokenizer {
    const pretokenizer_kind *kind;
    pcre2_code *outer, *inner;
    pcre2_match_context *context;
};

struct pretokenizer_walk {
    const pretokenizer *splitter;
    pcre2_match_data *match;
    const char *at, *outer_end, *end;
};

static const pretokenizer_kind *find_kind(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (size_t j = 0; j < 4 && kinds[i].names[j] != NULL; j++) {
            if (strlen(kinds[i].names[j]) == size && memcmp(kinds[i].names[j], name, size) == 0) return &kinds[i];
        }
    }
    return NULL;
}

// The patterns are constants, so only memory can be missing.
static pcre2_code *compile(const char *pattern) {
    int problem = 0;
    PCRE2_SIZE where = 0;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &problem, &where, NULL);
    if (code != NULL) (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); // where there is no JIT the interpreter serves
    return code;
}

zs_status pretokenizer_create(const char *name, size_t name_size, pretokenizer **pretokenizer_out, zs_error *error) {
    const pretokenizer_kind *kind = find_kind(name, name_size);
    if (kind == NULL) {
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not known; known are smollm, gpt-2, llama-bpe, qwen2",
                            (int)(name_size < 64 ? name_size : 64), name);
    }
    pretokenizer *made = calloc(1, sizeof *made);
    if (made == NULL) return zs_error_set(error, ZS_ERROR_MEMORY, "no memory for a pre-tokenizer");
    made->kind = kind;
    made->inner = compile(kind->inner);
    if (kind->outer != NULL) made->outer = compile(kind->outer);
    made->context = pcre2_match_context_create(NULL);
    if (made->inner == NULL || made->context == NULL || (kind->outer != NULL && made->outer == NULL)) {
        pretokenizer_destroy(&made);
        return zs_error_set(error, ZS_ERROR_MEMORY, "no memory for the patterns of a pre-tokenizer");
    }
    // Backtracking goes over one run of spaces at most, so the work is linear; the default limit would stop at ten million.
    (void)pcre2_set_match_limit(made->context, UINT32_MAX);
    *pretokenizer_out = made;
    return ZS_OK;
}

void pretokenizer_destroy(pretokenizer **splitter) {
    if (*splitter == NULL) return;
    pcre2_match_context_free((*splitter)->context);
    pcre2_code_free((*splitter)->outer);
    pcre2_code_free((*splitter)->inner);
    free(*splitter);
    *splitter = NULL;
}

bool pretokenizer_ignores_merges(const pretokenizer *splitter) { return splitter->kind->ignores_merges; }

zs_status pretokenizer_walk_create(const pretokenizer *splitter, pretokenizer_walk **walk_out, zs_error *error) {
    pretokenizer_walk *walk = calloc(1, sizeof *walk);
    if (walk != NULL) walk->match = pcre2_match_data_create(1, NULL);
    if (walk == NULL || walk->match == NULL) {
        pretokenizer_walk_destroy(&walk);
        return zs_error_set(error, ZS_ERROR_MEMORY, "no memory to match a text's pieces");
    }
    walk->splitter = splitter;
    *walk_out = walk;
    return ZS_OK;
}

void pretokenizer_walk_destroy(pretokenizer_walk **walk) {
    if (*walk == NULL) return;
    pcre2_match_data_free((*walk)->match);
    free(*walk);
    *walk = NULL;
}

void pretokenizer_walk_start(pretokenizer_walk *walk, const char *text, size_t size) {
    walk->at = walk->outer_end = text;
    walk->end = text + size;
}

// Length of the match that text[size] begins with. The caller vouches for UTF-8, else each match would check it all again.
static zs_status match_length(pretokenizer_walk *walk, const pcre2_code *code, const char *text, size_t size, size_t *length,
                              zs_error *error) {
    int found = pcre2_match(code, (PCRE2_SPTR)text, size, 0, PCRE2_NO_UTF_CHECK, walk->match, walk->splitter->context);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(walk->match);
    // Every character is a piece by some alternative, so a failure can only be one of resources.
    if (found < 0 || span[1] == 0)
        return zs_error_set(error, ZS_ERROR_MEMORY, "splitting %zu bytes of text failed with PCRE2 error %d", size, found);
    *length = span[1];
    return ZS_OK;
}

zs_status pretokenizer_walk_next(pretokenizer_walk *walk, const char **piece, size_t *size, zs_error *error) {
    *piece = walk->at;
    *size = 0;
    if (walk->at == walk->end) return ZS_OK;
    if (walk->at == walk->outer_end) {
        size_t length = (size_t)(walk->end - walk->at);
        if (walk->splitter->outer != NULL) {
            zs_status status = match_length(walk, walk->splitter->outer, walk->at, length, &length, error);
            if (status != ZS_OK) return status;
        }
        walk->outer_end = walk->at + length;
    }
    zs_status status = match_length(walk, walk->splitter->inner, walk->at, (size_t)(walk->outer_end - walk->at), size, error);
    if (status == ZS_OK) walk->at += *size;
    return status;
}
