// Tasks: published formats become the same items, malformed entries are told; gzip.
#include "tools/task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

static char told[1000];

static void complain(void *user, uint32_t line, const char *reason) {
    (void)user;
    snprintf(told + strlen(told), sizeof told - strlen(told), "%u: %s\n", line, reason);
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static data_file read_task(const char *kind, const char *name, const char *text) {
    char path[300];
    data_file data;
    zs_error error;
    snprintf(path, sizeof path, "%s/%s", TEST_OUTPUT, name);
    write_file(path, text);
    *told = 0;
    if (task_read(task_find(kind), &(task_files){.data = path}, complain, NULL, &data, &error)) fail_msg("%s", error.message);
    return data;
}

static void test_gsm8k(void **state) {
    (void)state;
    data_file data = read_task("gsm8k", "gsm8k.jsonl",
                               "{\"question\": \"How many?\", \"answer\": \"48/2 = <<48/2=24>>24 clips.\\n#### 24\"}\n"
                               "{\"question\": \"How many?\", \"answer\": \"many\"}\n{\"question\": \"\", \"answer\": \"#### 1\"}\n"
                               "{\"prompt\": \"ours\", \"answer\": \"5\"}\n{\"question\": 1}\n[]\n");
    assert_int_equal(data.count, 2);
    assert_string_equal(data.items[0].messages[0].content, "How many?");
    assert_string_equal(data.items[0].answer, "48/2 = 24 clips.\n#### 24");
    assert_string_equal(data.items[1].messages[0].content, "ours");
    assert_string_equal(told, "3: \"question\" is empty\n5: \"question\" is no text\n6: no JSON object\n2: \"answer\" holds no number\n");
    data_file_free(&data);
}

static void test_math(void **state) {
    (void)state;
    data_file data = read_task(
        "math", "math.jsonl",
        "{\"problem\": \"1+1\", \"level\": \"1\", \"type\": \"A\", \"solution\": \"It is $\\\\boxed{2}$\"}\n{\"problem\": \"x\"}\n");
    assert_int_equal(data.count, 1);
    assert_string_equal(data.items[0].answer, "It is $\\boxed{2}$");
    assert_string_equal(told, "2: \"solution\" is missing\n");
    data_file_free(&data);
}

static void test_arc(void **state) {
    (void)state;
    data_file data = read_task(
        "arc-easy", "arc.jsonl",
        "{\"id\": \"M1\", \"question\": {\"stem\": \"Which?\", \"choices\": [{\"text\": \"sand\", \"label\": \"A\"}, {\"text\": "
        "\"sea\", \"label\": \"B\"}]}, \"answerKey\": \"B\"}\n"
        "{\"id\": \"M2\", \"question\": \"Which?\", \"choices\": {\"text\": [\"sand\", \"sea\"], \"label\": [\"1\", \"2\"]}, "
        "\"answerKey\": \"1\"}\n"
        "{\"question\": \"Which?\", \"choices\": {\"text\": [\"sand\"], \"label\": [\"1\", \"2\"]}, \"answerKey\": \"1\"}\n"
        "{\"question\": \"Which?\", \"choices\": {\"text\": [\"sand\", \"sea\"], \"label\": [\"1\", \"2\"]}, \"answerKey\": \"C\"}\n");
    assert_int_equal(data.count, 2);
    assert_string_equal(data.items[0].id, "M1");
    assert_string_equal(data.items[0].messages[0].content, "Which?\nA. sand\nB. sea\nAnswer with the letter of the right choice.");
    assert_string_equal(data.items[0].answer, "B");
    assert_int_equal(data.items[1].choice_count, 2);
    assert_string_equal(data.items[1].choices[1].label, "2");
    assert_string_equal(data.items[1].choices[1].text, "sea");
    assert_string_equal(told, "3: \"choices\" holds no lists \"text\" and \"label\" of one length\n4: \"answer\" is none of the choices\n");
    data_file_free(&data);
}

static void test_code(void **state) {
    (void)state;
    data_file data = read_task(
        "humaneval", "humaneval.jsonl",
        "{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f(x):\\n\", \"entry_point\": \"f\", \"canonical_solution\": \"    return x\\n\", "
        "\"test\": \"def check(g):\\n    assert g(1) == 1\"}\n{\"task_id\": \"x\", \"prompt\": \"p\", \"entry_point\": \"f\"}\n"
        "{\"prompt\": \"p\", \"answer\": \"a\"}\n");
    assert_int_equal(data.count, 1);
    const data_item *item = &data.items[0];
    assert_string_equal(item->id, "HumanEval/0");
    assert_string_equal(item->code_prefix, "def f(x):\n");
    assert_string_equal(item->entry_point, "f");
    assert_string_equal(item->tests, "def check(g):\n    assert g(1) == 1\ncheck(f)\n");
    assert_string_equal(item->answer, "    return x\n");
    assert_string_equal(told, "2: \"canonical_solution\" is missing\n3: \"tests\" is missing\n");
    data_file_free(&data);

    data = read_task(
        "mbpp", "mbpp.jsonl",
        "{\"task_id\": 11, \"text\": \"Write f.\", \"code\": \"def f(): pass\", \"test_list\": [\"assert f() is None\", \"assert 1\"], "
        "\"test_setup_code\": \"import re\"}\n{\"text\": \"t\", \"code\": \"c\", \"test_list\": []}\n{\"text\": \"t\", \"code\": \"c\", "
        "\"test_list\": [1]}\n");
    assert_int_equal(data.count, 1);
    assert_string_equal(data.items[0].tests, "import re\nassert f() is None\nassert 1\n");
    assert_non_null(strstr(data.items[0].messages[0].content, "Write f.\n"));
    assert_non_null(strstr(data.items[0].messages[0].content, "assert f() is None\nassert 1\n```"));
    assert_string_equal(told, "2: \"test_list\" is no list of texts\n3: \"test_list\" is no list of texts\n");
    data_file_free(&data);

    data = read_task("mbpp-pro", "pro.jsonl",
                     "{\"id\": 2, \"raw_problem\": \"A\", \"raw_solution\": \"a = 1\", \"new_problem\": \"B\", \"new_solution\": \"b = "
                     "a\", \"test_code\": \"assert b\"}\n{\"id\": 3}\n");
    assert_int_equal(data.count, 1);
    assert_string_equal(data.items[0].answer, "a = 1\nb = a");
    assert_string_equal(data.items[0].tests, "assert b");
    assert_string_equal(told, "2: \"raw_problem\" is missing\n");
    data_file_free(&data);
}

static void test_vqa(void **state) {
    (void)state;
    static const char questions[] = TEST_OUTPUT "/OpenEnded_mscoco_val2014_questions.json",
                      annotations[] = TEST_OUTPUT "/mscoco_val2014_annotations.json";
    write_file(questions, "{\"questions\": [{\"image_id\": 297147, \"question\": \"What sport?\", \"question_id\": 2971475}, "
                          "{\"image_id\": 1, \"question\": \"x\", "
                          "\"question_id\": 9}, {\"image_id\": \"1\", \"question\": \"x\", \"question_id\": 9}]}");
    write_file(annotations, "{\"annotations\": [{\"question_id\": 7, \"answers\": []}, {\"question_id\": 2971475, \"image_id\": 297147, "
                            "\"question_type\": \"four\", \"answer_type\": \"other\", \"answers\": [{\"answer\": \"race\", "
                            "\"raw_answer\": \"racing\", \"answer_id\": 1}, {\"answer\": \"ride\", \"answer_id\": 2}]}]}");
    data_file data;
    zs_error error;
    *told = 0;
    const task *okvqa = task_find("okvqa");
    assert_int_equal(task_read(okvqa, &(task_files){questions, annotations, "/pictures"}, complain, NULL, &data, &error), ZS_OK);
    assert_int_equal(data.count, 1);
    assert_string_equal(data.items[0].image, "/pictures/COCO_val2014_000000297147.jpg");
    assert_string_equal(data.items[0].messages[0].content, "What sport?\nAnswer the question using a single word or phrase.");
    assert_int_equal(data.items[0].answer_count, 2);
    assert_string_equal(data.items[0].answers[1], "ride");
    assert_string_equal(data.items[0].category, "four");
    assert_string_equal(
        told, "2: question 9 has no annotation\n3: \"question\", \"question_id\" or \"image_id\" is missing or of another type\n");
    data_file_free(&data);
    assert_int_equal(task_read(task_find("vqav2"), &(task_files){questions, annotations, NULL}, complain, NULL, &data, &error), ZS_OK);
    assert_string_equal(data.items[0].category, "other");
    data_file_free(&data);
    assert_int_equal(task_read(okvqa, &(task_files){.data = questions}, complain, NULL, &data, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(task_read(okvqa, &(task_files){questions, questions, NULL}, complain, NULL, &data, &error), ZS_ERROR_FORMAT);
    assert_int_equal(task_read(okvqa, &(task_files){annotations, annotations, NULL}, complain, NULL, &data, &error), ZS_ERROR_FORMAT);

    data = read_task("textvqa", "textvqa.json",
                     "{\"data\": [{\"question\": \"what?\", \"question_id\": 5, \"image_id\": \"ab\", \"answers\": [\"x\", \"y\"]}, "
                     "{\"question\": \"what?\"}, {\"question\": "
                     "\"q\", \"image_id\": \"ab\", \"answers\": []}]}");
    assert_int_equal(data.count, 1);
    assert_string_equal(data.items[0].image, TEST_OUTPUT "/ab.jpg");
    assert_string_equal(told, "2: \"question\", \"image_id\" or \"answers\" is missing or of another type\n3: \"answers\" is empty\n");
    data_file_free(&data);

    data = read_task("easy-vqa", "questions.json", "[[\"what shape?\", \"circle\", 12], [\"what?\", \"red\"], 5]");
    assert_int_equal(data.count, 1);
    assert_string_equal(data.items[0].image, TEST_OUTPUT "/images/12.png");
    assert_string_equal(data.items[0].answer, "circle");
    assert_string_equal(told, "2: [question, answer, image number] is expected\n3: [question, answer, image number] is expected\n");
    data_file_free(&data);
    write_file(TEST_OUTPUT "/bad.json", "{\"data\": ");
    assert_int_equal(task_read(task_find("textvqa"), &(task_files){.data = TEST_OUTPUT "/bad.json"}, complain, NULL, &data, &error),
                     ZS_ERROR_FORMAT);
}

// ---- gzip ----------------------------------------------------------------------------------------------------------

static void write_gzip(const char *path, const char *text, size_t size, size_t times) {
    gzFile file = gzopen(path, "wb9");
    assert_non_null(file);
    for (size_t i = 0; i < times; i++) assert_int_equal(gzwrite(file, text, (unsigned)size), size);
    gzclose(file);
}

/// What is asked in easy-VQA, as tools/train_easy_vqa.py tells it; and lines whose images lie beside them, elsewhere, or at a full path.
static void test_images(void **state) {
    (void)state;
    static const char *const types[][2] = {{"what color is the shape?", "which colour"},
                                           {"what shape is present?", "which shape"},
                                           {"is there a teal shape?", "colour present?"},
                                           {"is there not a red shape?", "colour absent?"},
                                           {"is no shape yellow?", "colour absent?"},
                                           {"is a circle present?", "shape present?"},
                                           {"does the image not contain a rectangle?", "shape absent?"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char text[160];
        snprintf(text, sizeof text, "[[\"%s\", \"yes\", 1]]", types[i][0]);
        data_file data = read_task("easy-vqa", "questions.json", text);
        assert_string_equal(data.items[0].category, types[i][1]);
        data_file_free(&data);
    }
    static const char lines[] = "{\"prompt\": \"a\", \"answer\": \"b\", \"image\": \"c/d.png\"}\n"
                                "{\"prompt\": \"a\", \"answer\": \"b\", \"image\": \"/d.png\"}\n";
    data_file data = read_task("label", "images.jsonl", lines);
    zs_error error;
    assert_string_equal(data.items[0].image, TEST_OUTPUT "/c/d.png");
    assert_string_equal(data.items[1].image, "/d.png");
    data_file_free(&data);
    const task_files elsewhere = {TEST_OUTPUT "/images.jsonl", NULL, "/e"};
    assert_int_equal(task_read(task_find("label"), &elsewhere, complain, NULL, &data, &error), ZS_OK);
    assert_string_equal(data.items[0].image, "/e/c/d.png");
    data_file_free(&data);
}

static void test_gzip(void **state) {
    (void)state;
    static const char path[] = TEST_OUTPUT "/lines.jsonl.gz", line[] = "{\"prompt\": \"a\", \"answer\": \"b\"}\n";
    data_file data;
    zs_error error;
    write_gzip(path, line, sizeof line - 1, 3);
    assert_int_equal(data_file_read(path, complain, NULL, &data, &error), ZS_OK);
    assert_int_equal(data.count, 3);
    data_file_free(&data);

    // Cut short, damaged.
    char bytes[200];
    FILE *file = fopen(path, "rb");
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (size_t cut = 11; cut < size; cut++) {
        file = fopen(path, "wb");
        fwrite(bytes, 1, cut, file);
        fclose(file);
        if (data_file_read(path, complain, NULL, &data, &error) != ZS_ERROR_FORMAT) fail_msg("cut at %zu of %zu", cut, size);
    }
    bytes[size - 6] ^= 1; // the checksum
    file = fopen(path, "wb");
    fwrite(bytes, 1, size, file);
    fclose(file);
    assert_int_equal(data_file_read(path, complain, NULL, &data, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "damaged gzip"));
}

/// Zeros without end: refused before they fill the memory.
static void test_gzip_bomb(void **state) {
    (void)state;
    static const char path[] = TEST_OUTPUT "/bomb.jsonl.gz";
    static char zeros[1 << 20];
    data_file data;
    zs_error error;
    memset(zeros, ' ', sizeof zeros);
    write_gzip(path, zeros, sizeof zeros, 160);
    assert_int_equal(data_file_read(path, complain, NULL, &data, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expands to more than 100 times"));
}

static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"gsm8k",    "math",  "arc-easy", "arc-challenge", "humaneval", "mbpp",
                                        "mbpp-pro", "okvqa", "vqav2",    "textvqa",       "easy-vqa"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_non_null(task_find(names[i]));
    assert_null(task_find("gsm"));
    for (size_t i = 0; task_get(i); i++) {
        assert_ptr_equal(task_find(task_get(i)->name), task_get(i));
        assert_true(task_get(i)->max_tokens > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gsm8k), cmocka_unit_test(test_math),      cmocka_unit_test(test_arc),
        cmocka_unit_test(test_code),  cmocka_unit_test(test_vqa),       cmocka_unit_test(test_images),
        cmocka_unit_test(test_gzip),  cmocka_unit_test(test_gzip_bomb), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
