// tiktoken's tokenizer.model: merging by rank, whole pieces, control tokens, damaged files. The real one: golden/real_tokenizers.py.
#include "support/guarded.h"
#include "support/tokenizer_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

// a 0, b 1, c 2, bc 3, ab 4, cab 5, space 6, newline 7, é's bytes 8 and 9, abc… 10 (of no two tokens), aa 11
static const char sound[] = "YQ== 0\nYg== 1\nYw== 2\nYmM= 3\nYWI= 4\nY2Fi 5\nIA== 6\nCg== 7\r\nww== 8\nqQ== 9\nYWJjYWJj 10\nYWE= 11\n";

static void test_ranks(void **state) {
    (void)state;
    zs_tokenizer *t = tokenizer_must_read(sound, strlen(sound));
    assert_int_equal(zs_tokenizer_vocab_size(t), 12 + 256);
    tokenizer_expect(t, "", false, "");
    tokenizer_expect(t, "abc", false, "0 3");   // bc before ab
    tokenizer_expect(t, "cab", false, "5");     // whole, whatever would merge
    tokenizer_expect(t, "cabb", false, "5 1");  // ab, then cab
    tokenizer_expect(t, "abcabc", false, "10"); // whole, although no two tokens make it
    tokenizer_expect(t, "abcabcb", false, "0 3 0 3 1");
    tokenizer_expect(t, "aaa", false, "11 0"); // leftmost first
    tokenizer_expect(t, "b b\n\xc3\xa9", false, "1 6 1 7 8 9");
    zs_tokenizer_destroy(&t);
}

static void test_controls(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint32_t id;
    } cases[] = {{"<|begin_of_text|>", 12},
                 {"<|end_of_text|>", 13},
                 {"<|reserved_special_token_0|>", 14},
                 {"<|reserved_special_token_3|>", 17},
                 {"<|start_header_id|>", 18},
                 {"<|end_header_id|>", 19},
                 {"<|reserved_special_token_4|>", 20},
                 {"<|eot_id|>", 21},
                 {"<|reserved_special_token_5|>", 22},
                 {"<|reserved_special_token_250|>", 267}};
    zs_tokenizer *t = tokenizer_must_read(sound, strlen(sound));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, "%u", cases[i].id);
        tokenizer_expect(t, cases[i].text, true, expected);
        assert_int_equal(zs_tokenizer_is_end(t, cases[i].id), cases[i].id == 13 || cases[i].id == 21);
    }
    zs_tokenizer_destroy(&t);
}

static void test_damaged(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"YQ== 0\nYg== 0\n", "line 2 of a tiktoken file has a rank for the second time"},
        {"YQ== 0\nYg== 2\n", "line 2 of a tiktoken file has a rank beyond the number of lines"},
        {"YQ== 0\nYg==\n", "line 2 of a tiktoken file is not a token in base64 and its rank"},
        {"YQ== 0\nYg== \n", "line 2"},
        {"YQ== 0\n 1\n", "line 2"},
        {"YQ== 0\n\n", "line 2"},
        {"YQ== 0\nYg== x\n", "line 2"},
        {"YQ== 0\nYg== -1\n", "line 2"},
        {"YQ== 0\nYg== 99999999999999999999\n", "line 2"},
        {"YQ== 0\nYg= 1\n", "line 2"},
        {"YQ== 0\nY=== 1\n", "line 2"},
        {"YQ== 0\nY?== 1\n", "line 2"},
        {"YQ== 0\n==== 1\n", "line 2"},
        {"YQ== 0\nYQ== 1\n", "tokens 0 and 1 have the same spelling"},
        {"YQ== 0\nPHxlb3RfaWR8Pg== 1\n", "have the same spelling"}, // <|eot_id|>
        {"YQ==\n", "no GGUF file, and neither"},                    // nothing of a tiktoken file in its first line
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        tokenizer_expect_refused(cases[i].text, strlen(cases[i].text), ZS_ERROR_FORMAT, cases[i].part);
    char *longest = malloc(200000);
    assert_non_null(longest);
    int length = snprintf(longest, 200000, "YQ== 0\n%0199000d 1\n", 0); // a line of the digit 0, which is base64 too
    tokenizer_expect_refused(longest, (size_t)length, ZS_ERROR_FORMAT, "line 2 of a tiktoken file holds a token that is too long");
    free(longest);
    guarded area;
    guarded_create(&area, sizeof sound);
    for (size_t size = 0; size < sizeof sound; size++) { // cut anywhere, read within the bytes
        zs_tokenizer *t;
        if (tokenizer_from_bytes(guarded_place(&area, sound, size), size, &t, NULL) == ZS_OK) tokenizer_expect(t, "a", false, "0");
        zs_tokenizer_destroy(&t);
    }
    guarded_destroy(&area);
}

static void test_long_texts(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    zs_tokenizer *t = tokenizer_must_read(sound, strlen(sound));
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (size_t k = 0; k < 2; k++) {
        uint32_t *ids = NULL;
        size_t count = 0;
        for (size_t i = 0; i < SIZE; i++) text[i] = "ac"[k ? i % 2 : 0];
        clock_t start = clock();
        assert_int_equal(zs_tokenizer_encode(t, text, SIZE, false, &ids, &count, NULL), ZS_OK);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (seconds > 20) fail_msg("a megabyte took %.1f s", seconds);
        assert_int_equal(count, k ? SIZE : SIZE / 2);
        free(ids);
    }
    free(text);
    zs_tokenizer_destroy(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranks), cmocka_unit_test(test_controls), cmocka_unit_test(test_damaged),
                                       cmocka_unit_test(test_long_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
