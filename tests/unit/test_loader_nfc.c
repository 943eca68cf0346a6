// Normalisation form C against Python's unicodedata (golden/nfc_table.py), and work that grows no faster than the text.
#include "loader/nfc.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void expect(const char *text, size_t size, const char *expected, size_t expected_size) {
    char *out;
    size_t out_size = size;
    assert_int_equal(nfc_normalise(text, size, &out, &out_size, NULL), ZS_OK);
    if (out_size != expected_size || memcmp(out ? out : text, expected, expected_size) != 0) fail_msg("\"%s\": not \"%s\"", text, expected);
    free(out);
}

static void test_golden(void **state) {
    (void)state;
    json_error_t problem;
    json_t *cases = json_load_file(TEST_DATA "/golden/nfc.json", 0, &problem), *pair;
    size_t i;
    if (json_array_size(cases) < 2000) fail_msg("%s", problem.text);
    json_array_foreach(cases, i, pair) {
        const json_t *from = json_array_get(pair, 0), *to = json_array_get(pair, 1);
        expect(json_string_value(from), json_string_length(from), json_string_value(to), json_string_length(to));
    }
    json_decref(cases);
    expect("", 0, "", 0);
    expect("caf\xc3\xa9", 5, "caf\xc3\xa9", 5);
}

/// Marks of falling classes would make an exchange sort quadratic.
static void test_long_text(void **state) {
    (void)state;
    enum { MARKS = 1 << 18 };
    char *text = malloc(2 * MARKS), *out;
    size_t size;
    assert_non_null(text);
    for (size_t i = 0; i < MARKS; i++) {
        text[2 * i] = '\xcc';
        text[2 * i + 1] = i < MARKS / 2 ? '\x81' : '\xa3'; // class 230, then 220
    }
    clock_t start = clock();
    assert_int_equal(nfc_normalise(text, 2 * MARKS, &out, &size, NULL), ZS_OK);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 20) fail_msg("took %.1f s", seconds);
    assert_int_equal(size, 2 * MARKS);
    assert_memory_equal(out, "\xcc\xa3", 2);
    free(out);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_long_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
