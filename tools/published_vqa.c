#include "published.h"

#include "input_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// A file being read: where its items go, and who is told of those left out.
typedef struct reading {
    const char *path, *images;
    data_complain complain;
    void *user;
    data_file *data;
    size_t capacity;
} reading;

static zs_status load_json(const char *path, json_t **root, zs_error *error) {
    char *text = NULL;
    size_t size = 0;
    json_error_t problem;
    zs_status status = input_file_read(path, &text, &size, error);
    if (status) return status;
    *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    free(text);
    if (*root) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no JSON: line %d: %s", path, problem.line, problem.text);
}

static bool is_text(const json_t *value) { return json_is_string(value) && json_string_length(value) > 0; }

/// The folder of the images with its slash: as given, or the one that the data are in. malloc'ed.
static char *image_folder(const char *path, const char *images, const char *below) {
    const char *slash = strrchr(path, '/');
    size_t length = images ? strlen(images) : slash ? (size_t)(slash - path + 1) : 0, room = length + strlen(below) + 2;
    char *folder = malloc(room);
    if (folder) snprintf(folder, room, "%.*s%s", (int)length, images ? images : path, images ? "/" : below);
    return folder;
}

/// Takes made (NULL: none, for the reason) as entry number `line`.
static zs_status add(reading *r, uint32_t line, json_t *made, char *reason, size_t size, zs_error *error) {
    data_item item = {.line = line};
    if (made && data_item_take(made, &item, reason, size)) return data_file_append(r->data, &item, &r->capacity, error);
    r->complain(r->user, line, reason);
    return ZS_OK;
}

static zs_status finish(reading *r, char *folder, json_t *root, zs_status status) {
    free(folder);
    json_decref(root);
    if (status) data_file_free(r->data);
    return status;
}

static json_t *question_text(const json_t *question) { return json_sprintf("%s" PUBLISHED_VQA_SUFFIX, json_string_value(question)); }

// ---- OKVQA, VQAv2 --------------------------------------------------------------------------------------------------

typedef struct id_answers {
    json_int_t id;
    const json_t *answers;
    json_t *category;
} id_answers;

static int compare_ids(const void *a, const void *b) {
    json_int_t x = ((const id_answers *)a)->id, y = ((const id_answers *)b)->id;
    return (x > y) - (x < y);
}

static zs_status index_annotations(const char *path, const json_t *root, const char *category, id_answers **index, size_t *count,
                                   zs_error *error) {
    const json_t *list = json_object_get(root, "annotations");
    if (!json_is_array(list))
        return zs_error_set(error, ZS_ERROR_FORMAT,
                            "%s holds no list \"annotations\": the file of answers that belongs to the questions is expected", path);
    *index = malloc((json_array_size(list) + 1) * sizeof **index);
    if (!*index) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    *count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i), *id = json_object_get(entry, "question_id");
        if (json_is_integer(id))
            (*index)[(*count)++] =
                (id_answers){json_integer_value(id), json_object_get(entry, "answers"), json_object_get(entry, category)};
    }
    qsort(*index, *count, sizeof **index, compare_ids);
    return ZS_OK;
}

/// Texts of [{"answer"}]; NULL when one is none.
static json_t *plain_answers(const json_t *list) {
    json_t *texts = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *text = json_object_get(json_array_get(list, i), "answer");
        if (is_text(text)) json_array_append(texts, text);
    }
    if (json_array_size(texts) > 0 && json_array_size(texts) == json_array_size(list)) return texts;
    json_decref(texts);
    return NULL;
}

/// The split that an image's name carries is that of the questions' file.
static json_t *vqa_item(const json_t *entry, const id_answers *index, size_t count, const char *folder, const char *split, char *reason,
                        size_t size) {
    const json_t *question = json_object_get(entry, "question"), *id = json_object_get(entry, "question_id"),
                 *image = json_object_get(entry, "image_id");
    if (!is_text(question) || !json_is_integer(id) || !json_is_integer(image)) {
        snprintf(reason, size, "\"question\", \"question_id\" or \"image_id\" is missing or of another type");
        return NULL;
    }
    const id_answers key = {.id = json_integer_value(id)}, *found = bsearch(&key, index, count, sizeof *index, compare_ids);
    json_t *answers = found ? plain_answers(found->answers) : NULL;
    if (!answers) {
        snprintf(reason, size,
                 found ? "the answers to question %" JSON_INTEGER_FORMAT " are no list of texts"
                       : "question %" JSON_INTEGER_FORMAT " has no annotation",
                 key.id);
        return NULL;
    }
    return json_pack("{s:I, s:o, s:o, s:O*, s:o}", "id", key.id, "prompt", question_text(question), "answers", answers, "category",
                     is_text(found->category) ? found->category : NULL, "image",
                     json_sprintf("%sCOCO_%s2014_%012" JSON_INTEGER_FORMAT ".jpg", folder, split, json_integer_value(image)));
}

zs_status published_vqa(const char *questions, const char *annotations, const char *images, const char *category, data_complain complain,
                        void *user, data_file *data, zs_error *error) {
    reading r = {questions, images, complain, user, data, 0};
    json_t *root = NULL, *answers = NULL;
    id_answers *index = NULL;
    size_t count = 0;
    char reason[256], *folder = image_folder(questions, images, "");
    *data = (data_file){0};
    zs_status status =
        folder ? load_json(questions, &root, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", questions);
    if (!status && !json_is_array(json_object_get(root, "questions")))
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s holds no list \"questions\"", questions);
    if (!status) status = load_json(annotations, &answers, error);
    if (!status) status = index_annotations(annotations, answers, category, &index, &count, error);
    const json_t *list = json_object_get(root, "questions");
    const char *name = strrchr(questions, '/'), *split = strstr(name ? name : questions, "train") ? "train" : "val";
    for (size_t i = 0; !status && i < json_array_size(list); i++) {
        json_t *made = vqa_item(json_array_get(list, i), index, count, folder, split, reason, sizeof reason);
        status = add(&r, (uint32_t)i + 1, made, reason, sizeof reason, error);
    }
    free(index);
    json_decref(answers);
    return finish(&r, folder, root, status);
}

// ---- TextVQA -------------------------------------------------------------------------------------------------------

static json_t *textvqa_item(const json_t *entry, const char *folder, char *reason, size_t size) {
    const json_t *question = json_object_get(entry, "question"), *image = json_object_get(entry, "image_id");
    json_t *answers = json_object_get(entry, "answers"), *id = json_object_get(entry, "question_id");
    if (!is_text(question) || !is_text(image) || !json_is_array(answers)) {
        snprintf(reason, size, "\"question\", \"image_id\" or \"answers\" is missing or of another type");
        return NULL;
    }
    return json_pack("{s:O*, s:o, s:O, s:o}", "id", json_is_integer(id) ? id : NULL, "prompt", question_text(question), "answers", answers,
                     "image", json_sprintf("%s%s.jpg", folder, json_string_value(image)));
}

zs_status published_textvqa(const char *path, const char *images, data_complain complain, void *user, data_file *data, zs_error *error) {
    reading r = {path, images, complain, user, data, 0};
    json_t *root = NULL;
    char reason[256], *folder = image_folder(path, images, "");
    *data = (data_file){0};
    zs_status status = folder ? load_json(path, &root, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    const json_t *list = json_object_get(root, "data");
    if (!status && !json_is_array(list)) status = zs_error_set(error, ZS_ERROR_FORMAT, "%s holds no list \"data\"", path);
    for (size_t i = 0; !status && i < json_array_size(list); i++) {
        json_t *made = textvqa_item(json_array_get(list, i), folder, reason, sizeof reason);
        status = add(&r, (uint32_t)i + 1, made, reason, sizeof reason, error);
    }
    return finish(&r, folder, root, status);
}

// ---- easy-VQA ------------------------------------------------------------------------------------------------------

static bool has_word(const char *text, const char *word) {
    size_t length = strlen(word);
    for (const char *at = text; (at = strstr(at, word)); at += length) {
        if ((at == text || at[-1] == ' ') && (!at[length] || strchr(" ?", at[length]))) return true;
    }
    return false;
}

/// What is asked, as the demo's training script tells it too: which colour or shape, or whether one is there or is absent.
static const char *easy_type(const char *question) {
    static const char *const colours[] = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"};
    if (strncmp(question, "what", 4) == 0) return strstr(question, "color") ? "which colour" : "which shape";
    bool colour = false, absent = has_word(question, "not") || has_word(question, "no");
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++) colour = colour || has_word(question, colours[i]);
    if (colour) return absent ? "colour absent?" : "colour present?";
    return absent ? "shape absent?" : "shape present?";
}

static json_t *easy_item(const json_t *entry, const char *folder, char *reason, size_t size) {
    const json_t *question = json_array_get(entry, 0), *image = json_array_get(entry, 2);
    json_t *answer = json_array_get(entry, 1);
    if (json_array_size(entry) != 3 || !is_text(question) || !is_text(answer) || !json_is_integer(image)) {
        snprintf(reason, size, "[question, answer, image number] is expected");
        return NULL;
    }
    return json_pack("{s:o, s:O, s:s, s:o}", "prompt", question_text(question), "answer", answer, "category",
                     easy_type(json_string_value(question)), "image",
                     json_sprintf("%s%" JSON_INTEGER_FORMAT ".png", folder, json_integer_value(image)));
}

zs_status published_easy_vqa(const char *path, const char *images, data_complain complain, void *user, data_file *data, zs_error *error) {
    reading r = {path, images, complain, user, data, 0};
    json_t *root = NULL;
    char reason[256], *folder = image_folder(path, images, "images/");
    *data = (data_file){0};
    zs_status status = folder ? load_json(path, &root, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    if (!status && !json_is_array(root)) status = zs_error_set(error, ZS_ERROR_FORMAT, "%s is no JSON list", path);
    for (size_t i = 0; !status && i < json_array_size(root); i++) {
        json_t *made = easy_item(json_array_get(root, i), folder, reason, sizeof reason);
        status = add(&r, (uint32_t)i + 1, made, reason, sizeof reason, error);
    }
    return finish(&r, folder, root, status);
}
