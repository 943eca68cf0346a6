#include "task.h"

#include "published.h"
#include "score.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_FORM "Reply with the number only."
#define BOX_FORM "Put the final answer into \\boxed{}."
#define LETTER_FORM "Reply with the letter of the right choice only."
#define CODE_FORM "Reply with Python code only."
#define WORD_FORM "Answer the question using a single word or phrase."

static const task tasks[] = {
    {"gsm8k", "GSM8K: grade-school mathematics, the number after ####", SCORER_NUMERIC, 400, NULL,
     "Think step by step, then write the final number behind ####.", false},
    {"math", "MATH: competition problems, the last \\boxed{}", SCORER_LATEX, 1024, NULL, BOX_FORM, false},
    {"arc-easy", "ARC-Easy: multiple choice", SCORER_CHOICE, 64, NULL, LETTER_FORM, false},
    {"arc-challenge", "ARC-Challenge: multiple choice", SCORER_CHOICE, 64, NULL, LETTER_FORM, false},
    {"humaneval", "HumanEval: Python functions that pass tests", SCORER_CODE, 512, NULL, CODE_FORM, false},
    {"mbpp", "MBPP: short Python programs that pass tests", SCORER_CODE, 512, NULL, CODE_FORM, false},
    {"mbpp-pro", "MBPP-Pro: two Python functions, the second built on the first", SCORER_CODE, 512, NULL, CODE_FORM, false},
    {"okvqa", "OKVQA: questions about images that need knowledge (--annotations)", SCORER_VQA, 16, "\n", WORD_FORM, true},
    {"vqav2", "VQAv2: questions about images (--annotations)", SCORER_VQA, 16, "\n", WORD_FORM, true},
    {"textvqa", "TextVQA: questions about text in images", SCORER_VQA, 16, "\n", WORD_FORM, true},
    {"easy-vqa", "easy-VQA: shapes and colours in small images", SCORER_LABEL, 8, "\n", WORD_FORM, true},
    {"label", "JSON Lines: the answer's words", SCORER_LABEL, 32, NULL, "Reply with the answer only.", false},
    {"numeric", "JSON Lines: the answer's last number", SCORER_NUMERIC, 256, NULL, NUMBER_FORM, false},
    {"latex", "JSON Lines: a formula, in \\boxed{} or alone", SCORER_LATEX, 512, NULL, BOX_FORM, false},
    {"choice", "JSON Lines with \"choices\": a letter, or a choice's text", SCORER_CHOICE, 64, NULL, LETTER_FORM, false},
    {"code", "JSON Lines with \"tests\": Python that passes them", SCORER_CODE, 512, NULL, CODE_FORM, false},
    {"vqa", "JSON Lines with \"answers\" of several people", SCORER_VQA, 16, "\n", WORD_FORM, false},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

const task *task_get(size_t i) { return i < TASKS ? &tasks[i] : NULL; }

const task *task_find(const char *name) {
    for (size_t i = 0; i < TASKS; i++) {
        if (strcmp(tasks[i].name, name) == 0) return &tasks[i];
    }
    return NULL;
}

const char *task_instruction(const task *t, const char *asked) { return asked && strcmp(asked, "task") == 0 ? t->instruction : asked; }

static bool is_named(const task *t, const char *name) { return strcmp(t->name, name) == 0; }

/// How a line of the task's published format becomes one of ours; NULL: it is ours.
static data_convert conversion(const task *t) {
    static const struct {
        const char *name;
        data_convert convert;
    } conversions[] = {{"gsm8k", published_gsm8k},        {"math", published_math}, {"arc-easy", published_arc},
                       {"arc-challenge", published_arc},  {"mbpp", published_mbpp}, {"mbpp-pro", published_mbpp_pro},
                       {"humaneval", published_humaneval}};
    for (size_t i = 0; i < sizeof conversions / sizeof *conversions; i++) {
        if (is_named(t, conversions[i].name)) return conversions[i].convert;
    }
    return NULL;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

bool task_check_item(const task *t, const data_item *item, char *reason, size_t size) {
    char number[128];
    const char *problem = NULL;
    if (t->scorer == SCORER_NUMERIC && !score_number(item->answer, number, sizeof number)) problem = "\"answer\" holds no number";
    if (t->scorer == SCORER_CODE && !item->tests) problem = "\"tests\" is missing";
    if (t->scorer == SCORER_CHOICE && !item->choice_count) problem = "\"choices\" is missing";
    if (t->scorer == SCORER_CHOICE && !problem && !score_choice(item, item->answer)) problem = "\"answer\" is none of the choices";
    if (problem) snprintf(reason, size, "%s", problem);
    return !problem;
}

/// Lets go of items that the scorer cannot use.
static void check_items(const task *t, data_file *data, data_complain complain, void *user) {
    size_t kept = 0;
    char reason[256];
    for (size_t i = 0; i < data->count; i++) {
        data_item *item = &data->items[i];
        if (task_check_item(t, item, reason, sizeof reason)) {
            data->items[kept++] = *item;
        } else {
            complain(user, item->line, reason);
            data_item_free(item);
        }
    }
    data->count = kept;
}

static zs_status read_images(const task *t, const task_files *files, data_complain complain, void *user, data_file *data, zs_error *error) {
    if (is_named(t, "textvqa")) return published_textvqa(files->data, files->images, complain, user, data, error);
    if (is_named(t, "easy-vqa")) return published_easy_vqa(files->data, files->images, complain, user, data, error);
    if (!files->annotations)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is two files: give the questions by --data and the answers by --annotations",
                            t->name);
    // As both are reported: OKVQA by its kinds of knowledge, VQAv2 by yes/no, number, other.
    const char *category = is_named(t, "okvqa") ? "question_type" : "answer_type";
    return published_vqa(files->data, files->annotations, files->images, category, complain, user, data, error);
}

zs_status task_place_images(const task_files *files, data_file *data, zs_error *error) {
    const char *slash = strrchr(files->data, '/'), *folder = files->images ? files->images : files->data;
    size_t length = files->images ? strlen(files->images) : slash ? (size_t)(slash - files->data) : 0;
    for (size_t i = 0; i < data->count; i++) {
        data_item *item = &data->items[i];
        if (!item->image || item->image[0] == '/' || length == 0) continue;
        json_t *path = json_sprintf("%.*s/%s", (int)length, folder, item->image);
        if (json_object_set_new(item->root, "image", path)) {
            data_file_free(data);
            return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", files->data);
        }
        item->image = json_string_value(path);
    }
    return ZS_OK;
}

zs_status task_read(const task *t, const task_files *files, data_complain complain, void *user, data_file *data, zs_error *error) {
    bool lines = !t->images || ends_with(files->data, ".jsonl") || ends_with(files->data, ".jsonl.gz");
    zs_status status = lines ? data_file_read_lines(files->data, conversion(t), NULL, complain, user, data, error)
                             : read_images(t, files, complain, user, data, error);
    if (!status && lines) status = task_place_images(files, data, error);
    if (!status) check_items(t, data, complain, user);
    return status;
}
