// Data files: what a line may hold, what is wrong with others, and that a file's malformed lines are told, each with its number.
#include "tools/data_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static bool parse(const char *text, data_item *item, char *reason, size_t size) {
    *item = (data_item){.line = 7};
    return data_item_parse(text, strlen(text), item, reason, size);
}

static void test_prompt(void **state) {
    (void)state;
    data_item item;
    char reason[100];
    assert_true(parse("{\"id\": \"a\", \"prompt\": \"2 + 2?\", \"answer\": \" 4\", \"level\": [1]}\r", &item, reason, sizeof reason));
    assert_int_equal(item.line, 7);
    assert_string_equal(item.id, "a");
    assert_int_equal(item.message_count, 1);
    assert_string_equal(item.messages[0].role, "user");
    assert_string_equal(item.messages[0].content, "2 + 2?");
    assert_string_equal(item.answer, " 4");
    data_item_free(&item);
    assert_true(parse("{\"prompt\": \"\\u00e9\\ud83d\\ude42\", \"answer\": \"x\", \"id\": 12}", &item, reason, sizeof reason));
    assert_null(item.id);
    assert_string_equal(item.messages[0].content, "é🙂");
    data_item_free(&item);
}

static void test_messages(void **state) {
    (void)state;
    data_item item;
    char reason[100];
    assert_true(
        parse("{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}], \"answer\": \"a\"}",
              &item, reason, sizeof reason));
    assert_int_equal(item.message_count, 2);
    assert_string_equal(item.messages[1].role, "user");
    assert_string_equal(item.messages[1].content, "u");
    data_item_free(&item);
}

static void test_malformed(void **state) {
    (void)state;
    static const struct {
        const char *line, *reason;
    } cases[] = {
        {"", "no JSON: "},
        {"word", "no JSON: "},
        {"{\"prompt\": \"a\", \"answer\": \"b\"", "no JSON: "},
        {"{\"prompt\": \"a\", \"answer\": \"b\"} {}", "no JSON: "},
        {"{\"prompt\": \"a\", \"answer\": \"b\", \"answer\": \"c\"}", "no JSON: "},
        {"{\"prompt\": \"a\", \"answer\": \"\xff\"}", "no JSON: "},
        {"{\"prompt\": \"a\", \"answer\": \"\\u0000\"}", "no JSON: "},
        {"{\"prompt\": \"a\", \"answer\": \"\\ud800\"}", "no JSON: "},
        {"[\"a\", \"b\"]", "no JSON object"},
        {"{}", "\"answer\" is missing"},
        {"{\"prompt\": \"a\"}", "\"answer\" is missing"},
        {"{\"prompt\": \"a\", \"answer\": 4}", "\"answer\" is no text"},
        {"{\"prompt\": \"a\", \"answer\": null}", "\"answer\" is no text"},
        {"{\"prompt\": \"a\", \"answer\": \"\"}", "\"answer\" is empty"},
        {"{\"answer\": \"b\"}", "\"prompt\" or \"messages\" is missing"},
        {"{\"prompt\": \"\", \"answer\": \"b\"}", "\"prompt\" is empty"},
        {"{\"prompt\": [\"a\"], \"answer\": \"b\"}", "\"prompt\" is no text"},
        {"{\"prompt\": \"a\", \"messages\": [], \"answer\": \"b\"}", "\"prompt\" and \"messages\" exclude each other"},
        {"{\"messages\": \"a\", \"answer\": \"b\"}", "\"messages\" is no list"},
        {"{\"messages\": [], \"answer\": \"b\"}", "\"messages\" is empty"},
        {"{\"messages\": [\"a\"], \"answer\": \"b\"}", "message 1 is no object"},
        {"{\"messages\": [{\"content\": \"a\"}], \"answer\": \"b\"}", "\"role\" of message 1 is missing"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\"}], \"answer\": \"b\"}",
         "\"content\" of message 2 is missing"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}], \"answer\": \"b\"}",
         "\"role\" of message 1 is none of system, user, assistant"},
        {"{\"id\": 1.5, \"prompt\": \"a\", \"answer\": \"b\"}", "\"id\" is neither text nor a whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        data_item item;
        char reason[100] = "";
        if (parse(cases[i].line, &item, reason, sizeof reason)) fail_msg("accepted: %s", cases[i].line);
        if (strncmp(reason, cases[i].reason, strlen(cases[i].reason)) != 0) fail_msg("%s: %s", cases[i].line, reason);
        assert_null(item.root);
        assert_null(item.messages);
    }
}

/// Deep nesting ends in an error, not on the stack.
static void test_nested(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    static char text[DEPTH];
    char reason[100];
    data_item item = {0};
    memset(text, '[', sizeof text);
    assert_false(data_item_parse(text, sizeof text, &item, reason, sizeof reason));
}

static void complain(void *user, uint32_t line, const char *reason) {
    char *told = user;
    snprintf(told + strlen(told), 200 - strlen(told), "%u: %.12s\n", line, reason);
}

static void test_file(void **state) {
    (void)state;
    static const char path[] = TEST_OUTPUT "/lines.jsonl";
    static const char text[] = "{\"prompt\": \"a\", \"answer\": \"b\"}\n\n  \t\nbad\n{\"prompt\": \"c\", \"answer\": "
                               "\"d\"}\r\n\0\n{\"answer\": \"e\"}\n{\"prompt\": \"f\", \"answer\": \"g\"}";
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(text, 1, sizeof text - 1, file);
    fclose(file);
    data_file data;
    zs_error error;
    char told[200] = "";
    assert_int_equal(data_file_read(path, complain, told, &data, &error), ZS_OK);
    assert_int_equal(data.count, 3);
    assert_int_equal(data.items[0].line, 1);
    assert_int_equal(data.items[1].line, 5);
    assert_int_equal(data.items[2].line, 8);
    assert_string_equal(data.items[2].answer, "g");
    assert_string_equal(told, "4: no JSON: '['\n6: no JSON: '['\n7: \"prompt\" or \n");
    data_file_free(&data);
    assert_int_equal(data_file_read(TEST_OUTPUT "/none.jsonl", complain, told, &data, &error), ZS_ERROR_IO);
    assert_int_equal(data_file_read(TEST_OUTPUT, complain, told, &data, &error), ZS_ERROR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt), cmocka_unit_test(test_messages), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_nested), cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
