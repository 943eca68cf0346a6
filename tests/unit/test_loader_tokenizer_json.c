// Hugging Face's tokenizer.json: both kinds, and that whatever would change ids is refused by name. Whole tokenizers are compared
// with the library by golden/random_tokens.py.
#include "support/guarded.h"
#include "support/tokenizer_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LLAMA3                                                                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "                                                 \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN2                                                                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                                                      \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define BYTE_LEVEL "{`type`: `ByteLevel`, `add_prefix_space`: false, `trim_offsets`: true}"
#define SPLIT(pattern)                                                                                                                     \
    "{`type`: `Sequence`, `pretokenizers`: [{`type`: `Split`, `pattern`: {`Regex`: `" pattern                                              \
    "`}, `behavior`: `Isolated`, `invert`: false}, "                                                                                       \
    "{`type`: `ByteLevel`, `add_prefix_space`: false, `use_regex`: false}]}"
#define DIGITS "{`type`: `Sequence`, `pretokenizers`: [{`type`: `Digits`, `individual_digits`: true}, " BYTE_LEVEL "]}"
#define VOCAB "`vocab`: {`1`: 0, `2`: 1, `12`: 2, `a`: 3, `b`: 4, `ab`: 5, `aba`: 6, `\\u0120`: 7}"
#define MERGES "`merges`: [`1 2`, [`a`, `b`]]"
#define MODEL "{`type`: `BPE`, " VOCAB ", " MERGES "}"

/// Backquotes stand for double quotes.
static char *quote(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    assert_non_null(copy);
    strcpy(copy, text);
    for (char *c = copy; *c; c++) *c = *c == '`' ? '"' : *c;
    return copy;
}

static zs_tokenizer *make(const char *text) {
    char *quoted = quote(text);
    zs_tokenizer *tokenizer = tokenizer_must_read(quoted, strlen(quoted));
    free(quoted);
    return tokenizer;
}

static void test_byte_level(void **state) {
    (void)state;
    static const struct {
        const char *text, *ids; // of "12 ab1 aba"
    } cases[] = {
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", "2 7 5 0 7 5 3"},
        {"{`pre_tokenizer`: " DIGITS ", `model`: " MODEL "}", "0 1 7 5 0 7 5 3"},
        {"{`pre_tokenizer`: " SPLIT(LLAMA3) ", `model`: " MODEL "}", "2 7 5 0 7 5 3"},
        {"{`pre_tokenizer`: " SPLIT(QWEN2) ", `model`: " MODEL "}", "0 1 7 5 0 7 5 3"},
        {"{`version`: `1.0`, `truncation`: null, `padding`: null, `normalizer`: null, `post_processor`: {`type`: `X`}, `decoder`: {}, "
         "`added_tokens`: [], `pre_tokenizer`: " SPLIT(LLAMA3) ", `model`: " MODEL "}",
         "2 7 5 0 7 5 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zs_tokenizer *t = make(cases[i].text);
        tokenizer_expect(t, "12 ab1 aba", false, cases[i].ids);
        zs_tokenizer_destroy(&t);
    }
    zs_tokenizer *composed = make("{`normalizer`: {`type`: `NFC`}, `pre_tokenizer`: " SPLIT(
        QWEN2) ", `model`: {`vocab`: {`\u00c3`: 0, `\u00a9`: 1, `a`: 2}, `merges`: []}}");
    tokenizer_expect(composed, "ae\xcc\x81", false, "2 0 1"); // as one character
    zs_tokenizer_destroy(&composed);
    // A whole piece that is a token, only where the model says so.
    zs_tokenizer *t = make("{`pre_tokenizer`: " SPLIT(LLAMA3) ", `model`: {`ignore_merges`: true, " VOCAB ", " MERGES "}}");
    tokenizer_expect(t, "aba", false, "6");
    zs_tokenizer_destroy(&t);
}

static void test_added(void **state) {
    (void)state;
    zs_tokenizer *t = make("{`added_tokens`: [{`id`: 10, `content`: `<s>`, `special`: true, `normalized`: false}, {`id`: 12, `content`: "
                           "`[u]`, `special`: false}, "
                           "{`id`: 5, `content`: `ab`, `special`: true}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}");
    assert_int_equal(zs_tokenizer_vocab_size(t), 13);
    tokenizer_expect(t, "a<s>[u]b", true, "3 10 12 4");
    tokenizer_expect(t, "a[u]1", false, "3 12 0");
    tokenizer_expect(t, "aab", true, "3 5");
    tokenizer_expect(t, "aab", false, "3 3 4"); // a control token does not come out of merging
    zs_tokenizer_destroy(&t);
}

/// A model with byte fallback: its vocabulary of 256 bytes, letters and a space is made here.
static char *make_sentencepiece(const char *steps) {
    char *text = malloc(16384);
    assert_non_null(text);
    int at = sprintf(
        text, "{%s, `model`: {`type`: `BPE`, `byte_fallback`: true, `fuse_unk`: true, `unk_token`: `<unk>`, `vocab`: {`<unk>`: 0", steps);
    for (int i = 0; i < 256; i++) at += sprintf(text + at, ", `<0x%02X>`: %d", i, i + 1);
    (void)sprintf(text + at, ", `\xe2\x96\x81`: 257, `a`: 258, `\xe2\x96\x81"
                             "a`: 259, `aa`: 260}, `merges`: [`\xe2\x96\x81 a`, `a a`]}}");
    for (char *c = text; *c; c++) *c = *c == '`' ? '"' : *c;
    return text;
}

#define PREPEND "{`type`: `Prepend`, `prepend`: `\xe2\x96\x81`}"
#define REPLACE "{`type`: `Replace`, `pattern`: {`String`: ` `}, `content`: `\xe2\x96\x81`}"
#define METASPACE(scheme)                                                                                                                  \
    "`pre_tokenizer`: {`type`: `Metaspace`, `replacement`: `\xe2\x96\x81`, `prepend_scheme`: `" scheme "`, `split`: false}"
#define ADDED "`added_tokens`: [{`id`: 261, `content`: `<s>`, `special`: true, `normalized`: false}], "

static void test_sentencepiece(void **state) {
    (void)state;
    static const struct {
        const char *steps, *ids; // of "aa<s>a<s> a"
    } cases[] = {
        {ADDED "`normalizer`: {`type`: `Sequence`, `normalizers`: [" PREPEND ", " REPLACE "]}", "259 258 261 259 261 257 259"},
        {ADDED "`normalizer`: " REPLACE, "260 261 258 261 259"},
        {ADDED "`normalizer`: " REPLACE
               ", `pre_tokenizer`: {`type`: `Split`, `pattern`: {`String`: ` `}, `behavior`: `MergedWithPrevious`}",
         "260 261 258 261 259"},
        {ADDED METASPACE("always"), "259 258 261 259 261 259"},
        {ADDED METASPACE("first"), "259 258 261 258 261 259"},
        {ADDED METASPACE("never"), "260 261 258 261 259"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = make_sentencepiece(cases[i].steps);
        zs_tokenizer *t = tokenizer_must_read(text, strlen(text));
        tokenizer_expect(t, "aa<s>a<s> a", true, cases[i].ids);
        if (i == 5) tokenizer_expect(t, "\xc3\xa9 <s>", false, "196 170 257 61 116 63"); // bytes
        zs_tokenizer_destroy(&t);
        free(text);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text;
        zs_status status;
        const char *part;
    } cases[] = {
        {"{", ZS_ERROR_FORMAT, "tokenizer.json: "},
        {"{`a`: 1, `a`: 2}", ZS_ERROR_FORMAT, "duplicate object key"},
        {"{`extra`: 1}", ZS_ERROR_UNSUPPORTED, "tokenizer.json has the key \"extra\""},
        {"{`pre_tokenizer`: " BYTE_LEVEL "}", ZS_ERROR_FORMAT, "it has no model"},
        {"{`model`: " MODEL "}", ZS_ERROR_UNSUPPORTED, "how spaces are spelled"},
        {"{`pre_tokenizer`: {`type`: `Whitespace`}, `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED, "pre_tokenizer \"Whitespace\""},
        {"{`pre_tokenizer`: 3, `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED, "pre_tokenizer \"without a type\""},
        {"{`pre_tokenizer`: {`type`: `ByteLevel`, `add_prefix_space`: true}, `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED,
         "pre_tokenizer \"ByteLevel\""},
        {"{`pre_tokenizer`: " SPLIT("x") ", `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED, "pre_tokenizer \"Split\""},
        {"{`normalizer`: {`type`: `NFKC`}, `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED,
         "normalizer \"NFKC\""},
        {"{`normalizer`: {`type`: `Sequence`, `normalizers`: [" REPLACE ", {`type`: `Lowercase`}]}, `model`: " MODEL "}",
         ZS_ERROR_UNSUPPORTED, "normalizer \"Replace\""},
        {"{`normalizer`: " REPLACE ", `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED,
         "pre_tokenizer \"ByteLevel\""},
        {"{`pre_tokenizer`: {`type`: `Metaspace`, `replacement`: `\xe2\x96\x81`, `prepend_scheme`: `always`}, `model`: " MODEL "}",
         ZS_ERROR_UNSUPPORTED, "splits at spaces"},
        {"{`pre_tokenizer`: {`type`: `Metaspace`, `replacement`: `_`, `split`: false}, `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED,
         "pre_tokenizer \"Metaspace\""},
        {"{" METASPACE("always") ", `model`: " MODEL "}", ZS_ERROR_UNSUPPORTED, "neither model.byte_fallback"},
        {"{" METASPACE("always") ", `model`: {`byte_fallback`: true, " VOCAB ", " MERGES "}}", ZS_ERROR_UNSUPPORTED,
         "0 byte tokens instead of 256"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`type`: `Unigram`}}", ZS_ERROR_UNSUPPORTED, "model.type is \"Unigram\""},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`dropout`: 0.1, " VOCAB ", " MERGES "}}", ZS_ERROR_UNSUPPORTED, "model.dropout"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`end_of_word_suffix`: `x`, " VOCAB ", " MERGES "}}", ZS_ERROR_UNSUPPORTED,
         "model.end_of_word_suffix"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`new`: 1, " VOCAB ", " MERGES "}}", ZS_ERROR_UNSUPPORTED,
         "model has the key \"new\""},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {" MERGES "}}", ZS_ERROR_FORMAT, "model.vocab is missing"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {" VOCAB "}}", ZS_ERROR_FORMAT, "model.merges is missing"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`vocab`: {`a`: 0, `b`: 0}, `merges`: []}}", ZS_ERROR_FORMAT, "have the same id 0"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`vocab`: {`a`: -1}, `merges`: []}}", ZS_ERROR_FORMAT, "token \"a\" has no id"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`vocab`: {`a`: 99999999}, `merges`: []}}", ZS_ERROR_FORMAT,
         "far beyond the number of tokens"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {`vocab`: {`a`: `0`}, `merges`: []}}", ZS_ERROR_FORMAT, "token \"a\" has no id"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {" VOCAB ", `merges`: [3]}}", ZS_ERROR_FORMAT, "merge 0 is no pair"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {" VOCAB ", `merges`: [[`a`]]}}", ZS_ERROR_FORMAT, "merge 0 is no pair"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {" VOCAB ", `merges`: [[`a `, `b`]]}}", ZS_ERROR_FORMAT, "merge 0 is no pair"},
        {"{`pre_tokenizer`: " BYTE_LEVEL ", `model`: {" VOCAB ", `merges`: [`b a`]}}", ZS_ERROR_FORMAT,
         "merge 0 names tokens that the vocabulary lacks"},
        {"{`added_tokens`: {}, `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_FORMAT, "added_tokens is no list"},
        {"{`added_tokens`: [{`id`: 9, `content`: ``}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_FORMAT,
         "an added token without content"},
        {"{`added_tokens`: [{`content`: `x`}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_FORMAT,
         "token \"x\" has no id"},
        {"{`added_tokens`: [{`id`: 3, `content`: `x`}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_FORMAT,
         "\"x\" with id 3 contradicts"},
        {"{`added_tokens`: [{`id`: 9, `content`: `a`}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}", ZS_ERROR_FORMAT,
         "\"a\" with id 9 contradicts"},
        {"{`added_tokens`: [{`id`: 9, `content`: `x`, `lstrip`: true}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}",
         ZS_ERROR_UNSUPPORTED, "\"x\" with lstrip"},
        {"{`added_tokens`: [{`id`: 9, `content`: `x`, `rstrip`: true}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}",
         ZS_ERROR_UNSUPPORTED, "\"x\" with rstrip"},
        {"{`added_tokens`: [{`id`: 9, `content`: `x`, `single_word`: true}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}",
         ZS_ERROR_UNSUPPORTED, "\"x\" with single_word"},
        {"{`added_tokens`: [{`id`: 9, `content`: `x`, `odd`: 1}], `pre_tokenizer`: " BYTE_LEVEL ", `model`: " MODEL "}",
         ZS_ERROR_UNSUPPORTED, "the key \"odd\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = quote(cases[i].text);
        tokenizer_expect_refused(text, strlen(text), cases[i].status, cases[i].part);
        free(text);
    }
    char *text = make_sentencepiece("`added_tokens`: [{`id`: 261, `content`: `<s>`, `normalized`: true}], `normalizer`: " REPLACE);
    tokenizer_expect_refused(text, strlen(text), ZS_ERROR_UNSUPPORTED, "\"<s>\" that is looked for behind the normalizer");
    free(text);
}

static void test_cut_everywhere(void **state) {
    (void)state;
    char *text =
        quote("{`added_tokens`: [{`id`: 10, `content`: `<s>`, `special`: true}], `pre_tokenizer`: " DIGITS ", `model`: " MODEL "}");
    size_t whole = strlen(text);
    guarded area;
    guarded_create(&area, whole);
    for (size_t size = 0; size < whole; size++) {
        zs_tokenizer *t;
        assert_int_equal(tokenizer_from_bytes(guarded_place(&area, text, size), size, &t, NULL), ZS_ERROR_FORMAT);
    }
    guarded_destroy(&area);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_byte_level), cmocka_unit_test(test_added),
                                       cmocka_unit_test(test_sentencepiece), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_cut_everywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
