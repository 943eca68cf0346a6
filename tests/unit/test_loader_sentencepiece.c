// SentencePiece tokenizers from tokenizer.model and from GGUF: the order of merges, bytes and unknown characters, spaces in
// front, unused pieces, damaged files, and work that grows no faster than the text. Real ones: golden/real_tokenizers.py.
#include "loader/piece_merge.h"
#include "loader/protobuf.h"
#include "support/gguf_image.h"
#include "support/guarded.h"
#include "support/sentencepiece_image.h"
#include "support/tokenizer_bytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define SPACE "\xe2\x96\x81"

static zs_tokenizer *make(const sentencepiece_image_params *params) {
    byte_buffer bytes = sentencepiece_image(params);
    zs_tokenizer *tokenizer = tokenizer_must_read(bytes.data, bytes.size);
    byte_buffer_free(&bytes);
    return tokenizer;
}

// In tiny_pieces: 0 <unk>, 1 <s>, 2 </s>, 3 ▁t, 4 he, 5 ▁the, 6 er, 7 th, 8 ther, 9 ▁▁, 10 ▁o, 11 ▁, 12 t, 13 h, 14 e, 15 r, 16 o,
// 17 é, 18 a, 19 newline; best first from 3 on. Ids compared with the sentencepiece library (0.2.3).

static void test_order(void **state) {
    (void)state;
    zs_tokenizer *t = make(&(sentencepiece_image_params){.pieces = tiny_pieces});
    tokenizer_expect(t, "", false, "");
    tokenizer_expect(t, "the", false, "5");
    tokenizer_expect(t, " the", false, "11 5"); // a space of its own behind the one in front: ▁t goes before ▁▁
    tokenizer_expect(t, "   a", false, "9 9 18");
    tokenizer_expect(t, "other", false, "10 12 4 15"); // he goes before th and er
    tokenizer_expect(t, "thererer", false, "5 15 6 6");
    tokenizer_expect(t, "t\nh", false, "3 19 13");
    zs_tokenizer_destroy(&t);
}

/// Characters without a piece: their bytes, or one unknown piece for all that follow one another.
static void test_unknown(void **state) {
    (void)state;
    zs_tokenizer *t = make(&(sentencepiece_image_params){.pieces = tiny_pieces, .no_prefix = true});
    tokenizer_expect(t,
                     "a\xe4\xb8\xad"
                     "aa",
                     false, "18 0 18 18");
    tokenizer_expect(t,
                     "\xe4\xb8\xad"
                     "zz\xff"
                     "a",
                     false, "0 18");
    tokenizer_expect(t, "\xc3\xa9", false, "17");
    zs_tokenizer_destroy(&t);
    t = make(&(sentencepiece_image_params){.pieces = tiny_pieces, .bytes = true, .no_prefix = true});
    tokenizer_expect(t, "z\xe4\xb8\xad\xff\xc3", false, "123 229 185 174 256 196"); // byte b is piece 1 + b
    tokenizer_expect(t, "\xc3\xa9<s>", false, "273 61 116 63");                     // text is never a control token
    tokenizer_expect(t, "\xc3\xa9<s>", true, "273 257");
    const char *bytes = NULL;
    assert_true(zs_tokenizer_token_bytes(t, 256, false, &bytes) == 1 && (uint8_t)*bytes == 0xff);
    assert_true(zs_tokenizer_token_bytes(t, 261, false, &bytes) == 4 && memcmp(bytes, " the", 4) == 0);
    assert_int_equal(zs_tokenizer_token_bytes(t, 257, false, &bytes), 0);
    assert_true(zs_tokenizer_is_end(t, 258) && !zs_tokenizer_is_end(t, 257));
    zs_tokenizer_destroy(&t);
}

static void test_prefix(void **state) {
    (void)state;
    static const sentencepiece_piece pieces[] = {{"<unk>", 0, 2},    {"<s>", 0, 3}, {"</s>", 0, 3}, {"[u]", 0, 4},
                                                 {SPACE "a", -1, 0}, {"a", -2, 0},  {SPACE, -3, 0}, {NULL, 0, 0}};
    zs_tokenizer *t = make(&(sentencepiece_image_params){.pieces = pieces});
    tokenizer_expect(t, "a<s>a[u]a", true, "4 1 4 3 5"); // every text has a space in front, behind a control token too
    tokenizer_expect(t, "<s> a</s>", true, "1 6 4 2");
    tokenizer_expect(t, "\xff", false, "6 0");
    zs_tokenizer_destroy(&t);
    t = make(&(sentencepiece_image_params){.pieces = pieces, .no_prefix = true});
    tokenizer_expect(t, "a<s>a[u]a", true, "5 1 5 3 5");
    zs_tokenizer_destroy(&t);
}

/// Unused pieces take part in merging and are taken apart again the way they were put together.
static void test_unused(void **state) {
    (void)state;
    static const sentencepiece_piece pieces[] = {{"<unk>", 0, 2}, {"<s>", 0, 3},  {"</s>", 0, 3},  {"a", -9, 0}, {"b", -9, 0},
                                                 {"ab", -1, 5},   {"aba", -2, 0}, {"abab", -3, 5}, {"c", -9, 5}, {NULL, 0, 0}};
    zs_tokenizer *t = make(&(sentencepiece_image_params){.pieces = pieces, .no_prefix = true});
    tokenizer_expect(t, "ab", false, "3 4");
    tokenizer_expect(t, "aba", false, "6");
    tokenizer_expect(t, "abab", false, "3 4 3 4");
    tokenizer_expect(t, "cab", false, "0 3 4");
    zs_tokenizer_destroy(&t);
}

// ---- GGUF ----------------------------------------------------------------------------------------------------------

typedef struct llama_keys {
    const char *tokens[8];
    float scores[8];
    int32_t types[8];
    const char *omit, *prefix;
    int add_prefix;   // 0: no key, 1: true, 2: false
    uint32_t unknown; // 0: no key
    bool removes;
} llama_keys;

static zs_status open_keys(const llama_keys *k, zs_tokenizer **tokenizer, zs_error *error) {
    gguf_image image = {0};
    gguf_file file;
    size_t count = 0;
    const uint8_t truth = 1, added = k->add_prefix == 1;
    while (count < 8 && k->tokens[count]) count++;
    gguf_image_string(&image, "tokenizer.ggml.model", "llama");
    gguf_image_strings(&image, "tokenizer.ggml.tokens", k->tokens, count);
    if (!k->omit) gguf_image_array(&image, "tokenizer.ggml.scores", GGUF_F32, count, k->scores, count * sizeof *k->scores);
    gguf_image_array(&image, "tokenizer.ggml.token_type", GGUF_I32, count, k->types, count * sizeof *k->types);
    if (k->add_prefix) gguf_image_value(&image, "tokenizer.ggml.add_space_prefix", GGUF_BOOL, &added, 1);
    if (k->removes) gguf_image_value(&image, "tokenizer.ggml.remove_extra_whitespaces", GGUF_BOOL, &truth, 1);
    if (k->prefix) gguf_image_string(&image, "zsigma.tokenizer.space_prefix", k->prefix);
    if (k->unknown) gguf_image_u32(&image, "tokenizer.ggml.unknown_token_id", k->unknown);
    byte_buffer bytes = gguf_image_finish(&image);
    *tokenizer = NULL;
    zs_status status = gguf_open_memory(bytes.data, bytes.size, &file, error);
    if (!status) status = tokenizer_from_gguf(&file, tokenizer, error);
    gguf_close(&file);
    byte_buffer_free(&bytes);
    return status;
}

static void test_gguf(void **state) {
    (void)state;
    llama_keys k = {
        .tokens = {"<unk>", "<s>", "[u]", SPACE, "a", "\xe2\x96\x81\x61"}, .scores = {0, 0, 0, -3, -2, -1}, .types = {2, 3, 4, 1, 1, 1}};
    static const struct {
        int add;
        const char *prefix, *expected;
    } cases[] = {{0, NULL, "5 1 5 2 5"},   {1, NULL, "5 1 5 2 5"},      {2, NULL, "4 1 4 2 4"},
                 {0, "text", "5 1 4 2 4"}, {0, "control", "5 1 5 2 4"}, {0, "none", "4 1 4 2 4"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zs_tokenizer *t;
        zs_error error = {0};
        k.add_prefix = cases[i].add;
        k.prefix = cases[i].prefix;
        if (open_keys(&k, &t, &error)) fail_msg("%s", error.message);
        tokenizer_expect(t, "a<s>a[u]a", true, cases[i].expected);
        assert_int_equal(tokenizer_adds_space(t), cases[i].expected[0] == '5');
        tokenizer_expect(t, "<s>", false, cases[i].expected[0] == '5' ? "3 0" : "0"); // ▁, and one unknown for the three characters
        zs_tokenizer_destroy(&t);
    }
}

static void test_gguf_refused(void **state) {
    (void)state;
    static const struct {
        llama_keys k;
        zs_status status;
        const char *part;
    } cases[] = {
        {{.tokens = {"a"}, .types = {1}, .omit = "scores"}, ZS_ERROR_FORMAT, "tokenizer.ggml.scores is missing"},
        {{.tokens = {"a"}, .types = {1}, .scores = {NAN}}, ZS_ERROR_FORMAT, "the score of token 0"},
        {{.tokens = {"a", "b"}, .types = {1, 1}, .scores = {1, INFINITY}}, ZS_ERROR_FORMAT, "the score of token 1"},
        {{.tokens = {"<0x4G>"}, .types = {6}}, ZS_ERROR_FORMAT, "token 0 is of type byte"},
        {{.tokens = {"<0x4a>"}, .types = {6}}, ZS_ERROR_FORMAT, "token 0 is of type byte"},
        {{.tokens = {"a"}, .types = {1}, .unknown = 1}, ZS_ERROR_FORMAT, "tokenizer.ggml.unknown_token_id is outside"},
        {{.tokens = {"a"}, .types = {1}, .prefix = "some"}, ZS_ERROR_FORMAT, "zsigma.tokenizer.space_prefix is none of"},
        {{.tokens = {"a"}, .types = {1}, .removes = true}, ZS_ERROR_UNSUPPORTED, "remove_extra_whitespaces"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zs_tokenizer *t;
        zs_error error = {0};
        zs_status status = open_keys(&cases[i].k, &t, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("%s: got %d '%s'", cases[i].part, status, error.message);
        assert_null(t);
    }
}

// ---- damaged files -------------------------------------------------------------------------------------------------

static void test_options_refused(void **state) {
    (void)state;
    static const sentencepiece_piece empty[] = {{"", 0, 0}, {NULL, 0, 0}}, typed[] = {{"a", 0, 7}, {NULL, 0, 0}},
                                     twice[] = {{"a", 0, 0}, {"a", 0, 0}, {NULL, 0, 0}}, bytes[] = {{"<0x00>", 0, 6}, {NULL, 0, 0}},
                                     nan[] = {{"a", NAN, 0}, {NULL, 0, 0}};
    static const struct {
        sentencepiece_image_params params;
        zs_status status;
        const char *part;
    } cases[] = {
        {{.pieces = tiny_pieces, .model_type = 1},
         ZS_ERROR_UNSUPPORTED,
         "a model type other than bpe is not supported (its type is unigram)"},
        {{.pieces = tiny_pieces, .model_type = 9}, ZS_ERROR_UNSUPPORTED, "its type is unknown"},
        {{.pieces = tiny_pieces, .charsmap = "x"}, ZS_ERROR_UNSUPPORTED, "precompiled_charsmap"},
        {{.pieces = tiny_pieces, .removes = true}, ZS_ERROR_UNSUPPORTED, "remove_extra_whitespaces"},
        {{.pieces = tiny_pieces, .unescaped = true}, ZS_ERROR_UNSUPPORTED, "escape_whitespaces"},
        {{.pieces = tiny_pieces, .suffixed = true}, ZS_ERROR_UNSUPPORTED, "treat_whitespace_as_suffix"},
        {{.pieces = empty}, ZS_ERROR_FORMAT, "piece 0 is empty"},
        {{.pieces = typed}, ZS_ERROR_FORMAT, "piece 0 has the unknown type 7"},
        {{.pieces = twice}, ZS_ERROR_FORMAT, "tokens 0 and 1 have the same spelling"},
        {{.pieces = bytes}, ZS_ERROR_FORMAT, "1 byte pieces"},
        {{.pieces = nan}, ZS_ERROR_FORMAT, "the score of token 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        byte_buffer image = sentencepiece_image(&cases[i].params);
        tokenizer_expect_refused(image.data, image.size, cases[i].status, cases[i].part);
        byte_buffer_free(&image);
    }
}

static void test_fields(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        bool sound;
        uint64_t value;
    } cases[] = {
        {"\x08\x96\x01", 3, true, 150},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, true, UINT64_MAX},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, false, 0},     // more than 64 bits
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 12, false, 0}, // eleven bytes
        {"\x08\x96", 2, false, 0},
        {"\x08", 1, false, 0},
        {"\x0d\x01\x02\x03\x04", 5, true, 0x04030201},
        {"\x0d\x01\x02\x03", 4, false, 0},
        {"\x09\x01\x02\x03\x04\x05\x06\x07\x08", 9, true, 0x0807060504030201},
        {"\x09\x01\x02\x03\x04\x05\x06\x07", 8, false, 0},
        {"\x0a\x02xy", 4, true, 0},
        {"\x0a\x03xy", 4, false, 0},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01xy", 13, false, 0}, // a length that would wrap
        {"\x0b\x0c", 2, false, 0},                                        // a group
        {"\x0e", 1, false, 0},                                            // type 6
        {"\x00\x01", 2, false, 0},                                        // field 0
        {"\xff\xff\xff\xff\x7f\x01", 6, false, 0},                        // a field's number beyond 29 bits
    };
    guarded area;
    guarded_create(&area, 64);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        protobuf_walk walk = {.data = guarded_place(&area, cases[i].bytes, cases[i].size), .size = cases[i].size};
        protobuf_field field;
        if (protobuf_next(&walk, &field) != cases[i].sound || walk.damaged == cases[i].sound) fail_msg("case %zu", i);
        if (cases[i].sound)
            assert_true(field.value == cases[i].value && !protobuf_next(&walk, &field) && !walk.damaged);
        else
            assert_false(protobuf_next(&walk, &field));
    }
    guarded_destroy(&area);
}

/// Cut anywhere, or with any byte changed, a file is read within its bytes: refused, or a tokenizer that works.
static void test_damaged(void **state) {
    (void)state;
    byte_buffer image = sentencepiece_image(&(sentencepiece_image_params){.pieces = tiny_pieces});
    guarded area;
    guarded_create(&area, image.size);
    for (size_t size = 0; size <= image.size; size++) {
        zs_tokenizer *t;
        zs_error error = {0};
        zs_status status = tokenizer_from_bytes(guarded_place(&area, image.data, size), size, &t, &error);
        assert_true(status == ZS_OK ? size == image.size : status == ZS_ERROR_FORMAT || status == ZS_ERROR_UNSUPPORTED);
        zs_tokenizer_destroy(&t);
    }
    for (size_t at = 0; at < image.size; at++) {
        uint8_t *bytes = guarded_place(&area, image.data, image.size);
        bytes[at] ^= (uint8_t)(1u << at % 8);
        zs_tokenizer *t;
        uint32_t *ids = NULL;
        size_t count = 0;
        if (tokenizer_from_bytes(bytes, image.size, &t, NULL) == ZS_OK) {
            (void)zs_tokenizer_encode(t, "the other \xe4\xb8\xad", 13, true, &ids, &count, NULL);
            free(ids);
        }
        zs_tokenizer_destroy(&t);
    }
    guarded_destroy(&area);
    byte_buffer_free(&image);
    tokenizer_expect_refused("", 0, ZS_ERROR_FORMAT, "no GGUF file, and neither tokenizer.json nor tokenizer.model");
    zs_error error = {0};
    zs_tokenizer *t = NULL;
    assert_int_equal(zs_tokenizer_load("/nonesuch/tokenizer.model", &t, &error), ZS_ERROR_IO);
    assert_non_null(strstr(error.message, "/nonesuch/tokenizer.model"));
}

// ---- work ----------------------------------------------------------------------------------------------------------

/// A megabyte of one letter, of which pieces of 1, 2, 4 … 32 letters exist: linear work takes a fraction of a second even
/// under sanitizers, quadratic work (10^12 steps) the better part of an hour.
static void test_long_texts(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    static const char letters[] = "tttttttttttttttttttttttttttttttt";
    static const sentencepiece_piece pieces[] = {{"<unk>", 0, 2},       {letters + 31, -6, 0}, {letters + 30, -5, 0}, {letters + 28, -4, 0},
                                                 {letters + 24, -3, 0}, {letters + 16, -2, 5}, {letters, -1, 0},      {NULL, 0, 0}};
    static const char *const patterns[] = {"t", " ", "\xe4\xb8\xad", "\xff", "tz"};
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (size_t k = 0; k < 2; k++) {
        zs_tokenizer *t = make(&(sentencepiece_image_params){.pieces = pieces, .bytes = k == 1, .no_prefix = true});
        for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
            uint32_t *ids = NULL;
            size_t count = 0;
            for (size_t at = 0; at < SIZE; at++) text[at] = patterns[i][at % strlen(patterns[i])];
            clock_t start = clock();
            assert_int_equal(zs_tokenizer_encode(t, text, SIZE, false, &ids, &count, NULL), ZS_OK);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 20) fail_msg("a megabyte of \"%s\" took %.1f s", patterns[i], seconds);
            if (i == 0) assert_int_equal(count, SIZE / 32);
            free(ids);
        }
        zs_tokenizer_destroy(&t);
    }
    free(text);
    // The limit is told before anything is read or allocated.
    const piece_merge table = {0};
    piece_workspace workspace = {0};
    zs_error error = {0};
    assert_int_equal(piece_workspace_reserve(&table, &workspace, (size_t)PIECE_MAX_PARTS + 1, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "1073741825 characters"));
    assert_null(workspace.starts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),           cmocka_unit_test(test_unknown), cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_unused),          cmocka_unit_test(test_gguf),    cmocka_unit_test(test_gguf_refused),
        cmocka_unit_test(test_options_refused), cmocka_unit_test(test_fields),  cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_long_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
