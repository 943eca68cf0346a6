#include "data_file.h"

#include "input_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 16 << 20 }; // a longer line is no question

// ---- a line --------------------------------------------------------------------------------------------------------

/// A member that is a string with something in it. NULL after a reason.
static const char *take_text(const json_t *object, const char *key, const char *where, char *reason, size_t size) {
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value) && json_string_length(value) > 0) return json_string_value(value);
    snprintf(reason, size, "\"%s\"%s %s", key, where, !value ? "is missing" : json_is_string(value) ? "is empty" : "is no text");
    return NULL;
}

static bool take_message(const json_t *object, size_t index, zs_message *message, char *reason, size_t size) {
    char where[48];
    snprintf(where, sizeof where, " of message %zu", index + 1);
    if (!json_is_object(object)) {
        snprintf(reason, size, "message %zu is no object", index + 1);
        return false;
    }
    message->role = take_text(object, "role", where, reason, size);
    message->content = message->role ? take_text(object, "content", where, reason, size) : NULL;
    if (!message->content) return false;
    if (strcmp(message->role, "system") == 0 || strcmp(message->role, "user") == 0 || strcmp(message->role, "assistant") == 0) return true;
    snprintf(reason, size, "\"role\"%s is none of system, user, assistant", where);
    return false;
}

static bool take_messages(const json_t *list, data_item *item, char *reason, size_t size) {
    if (!json_is_array(list) || json_array_size(list) == 0) {
        snprintf(reason, size, "\"messages\" is %s", json_is_array(list) ? "empty" : "no list");
        return false;
    }
    item->message_count = json_array_size(list);
    item->messages = calloc(item->message_count, sizeof *item->messages);
    if (!item->messages) {
        snprintf(reason, size, "out of memory");
        return false;
    }
    for (size_t i = 0; i < item->message_count; i++) {
        if (!take_message(json_array_get(list, i), i, &item->messages[i], reason, size)) return false;
    }
    return true;
}

static bool take_prompt(data_item *item, char *reason, size_t size) {
    const json_t *prompt = json_object_get(item->root, "prompt"), *messages = json_object_get(item->root, "messages");
    if (!prompt == !messages) {
        snprintf(reason, size, prompt ? "\"prompt\" and \"messages\" exclude each other" : "\"prompt\" or \"messages\" is missing");
        return false;
    }
    if (messages) return take_messages(messages, item, reason, size);
    const char *text = take_text(item->root, "prompt", "", reason, size);
    if (!text) return false;
    item->message_count = 1;
    item->messages = calloc(1, sizeof *item->messages);
    if (!item->messages) {
        snprintf(reason, size, "out of memory");
        return false;
    }
    item->messages[0] = (zs_message){"user", text};
    return true;
}

/// A member that may be missing. False after a reason.
static bool take_optional(const json_t *object, const char *key, const char **text, char *reason, size_t size) {
    if (!json_object_get(object, key)) return true;
    *text = take_text(object, key, "", reason, size);
    return *text != NULL;
}

/// "answer", or "answers" that are all right.
static bool take_answers(data_item *item, char *reason, size_t size) {
    const json_t *list = json_object_get(item->root, "answers");
    if (list && json_object_get(item->root, "answer")) {
        snprintf(reason, size, "\"answer\" and \"answers\" exclude each other");
        return false;
    }
    if (list && (!json_is_array(list) || json_array_size(list) == 0)) {
        snprintf(reason, size, "\"answers\" is %s", json_is_array(list) ? "empty" : "no list");
        return false;
    }
    item->answer_count = list ? json_array_size(list) : 1;
    item->answers = calloc(item->answer_count, sizeof *item->answers);
    if (!item->answers) {
        snprintf(reason, size, "out of memory");
        return false;
    }
    for (size_t i = 0; i < item->answer_count; i++) {
        const json_t *one = list ? json_array_get(list, i) : NULL;
        if (list && (!json_is_string(one) || json_string_length(one) == 0)) {
            snprintf(reason, size, "answer %zu of \"answers\" is %s", i + 1, json_is_string(one) ? "empty" : "no text");
            return false;
        }
        item->answers[i] = list ? json_string_value(one) : take_text(item->root, "answer", "", reason, size);
        if (!item->answers[i]) return false;
    }
    item->answer = item->answers[0];
    return true;
}

/// A choice is {"label", "text"}, or its text alone: then labels are A, B, C …
static bool take_choice(const json_t *value, size_t index, data_choice *choice, char *reason, size_t size) {
    static const char letters[][2] = {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M",
                                      "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W", "X", "Y", "Z"};
    char where[48];
    snprintf(where, sizeof where, " of choice %zu", index + 1);
    if (json_is_string(value) && json_string_length(value) > 0 && index < sizeof letters / sizeof *letters) {
        *choice = (data_choice){letters[index], json_string_value(value)};
        return true;
    }
    if (!json_is_object(value)) {
        snprintf(reason, size, "choice %zu is neither text nor an object", index + 1);
        return false;
    }
    choice->label = take_text(value, "label", where, reason, size);
    choice->text = choice->label ? take_text(value, "text", where, reason, size) : NULL;
    return choice->text != NULL;
}

static bool take_choices(data_item *item, char *reason, size_t size) {
    enum { MOST_CHOICES = 64 };
    const json_t *list = json_object_get(item->root, "choices");
    if (!list) return true;
    size_t count = json_array_size(list); // 0: no list
    if (count == 0 || count > MOST_CHOICES) {
        snprintf(reason, size, "\"choices\" is %s", !json_is_array(list) ? "no list" : count ? "too long" : "empty");
        return false;
    }
    item->choices = calloc(count, sizeof *item->choices);
    if (!item->choices) {
        snprintf(reason, size, "out of memory");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!take_choice(json_array_get(list, i), i, &item->choices[i], reason, size)) return false;
        for (size_t k = 0; k < i; k++) {
            if (strcmp(item->choices[k].label, item->choices[i].label) != 0) continue;
            snprintf(reason, size, "choices %zu and %zu have one label", k + 1, i + 1);
            return false;
        }
    }
    item->choice_count = count;
    return true;
}

static bool take_members(data_item *item, char *reason, size_t size) {
    const json_t *id = json_object_get(item->root, "id");
    if (id && !json_is_string(id) && !json_is_integer(id)) {
        snprintf(reason, size, "\"id\" is neither text nor a whole number");
        return false;
    }
    item->id = json_string_value(id);
    return take_answers(item, reason, size) && take_prompt(item, reason, size) && take_choices(item, reason, size) &&
           take_optional(item->root, "stem", &item->stem, reason, size) &&
           take_optional(item->root, "category", &item->category, reason, size) &&
           take_optional(item->root, "image", &item->image, reason, size) &&
           take_optional(item->root, "tests", &item->tests, reason, size) &&
           take_optional(item->root, "code_prefix", &item->code_prefix, reason, size) &&
           take_optional(item->root, "entry_point", &item->entry_point, reason, size);
}

bool data_item_take(json_t *root, data_item *item, char *reason, size_t size) {
    *item = (data_item){.line = item->line, .root = root};
    if (!json_is_object(root))
        snprintf(reason, size, "no JSON object");
    else if (take_members(item, reason, size))
        return true;
    data_item_free(item);
    return false;
}

static json_t *parse_line(const char *text, size_t length, char *reason, size_t size) {
    json_error_t problem;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem);
    if (!root) snprintf(reason, size, "no JSON: %s", problem.text);
    return root;
}

bool data_item_parse(const char *text, size_t length, data_item *item, char *reason, size_t size) {
    *item = (data_item){.line = item->line};
    json_t *root = parse_line(text, length, reason, size);
    return root && data_item_take(root, item, reason, size);
}

void data_item_free(data_item *item) {
    free(item->messages);
    free(item->answers);
    free(item->choices);
    json_decref(item->root);
    *item = (data_item){.line = item->line};
}

// ---- a file --------------------------------------------------------------------------------------------------------

static bool is_blank(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (!strchr(" \t\r\n", text[i]) || !text[i]) return false;
    }
    return true;
}

zs_status data_file_append(data_file *data, data_item *item, size_t *capacity, zs_error *error) {
    if (data->count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 64;
        data_item *grown = realloc(data->items, more * sizeof *grown);
        if (!grown) {
            data_item_free(item);
            return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
        }
        data->items = grown;
        *capacity = more;
    }
    data->items[data->count++] = *item;
    *item = (data_item){.line = item->line};
    return ZS_OK;
}

/// A line into item by way of the conversion, if there is one.
static bool read_item(const char *text, size_t length, data_convert convert, void *convert_user, data_item *item, char *reason,
                      size_t size) {
    if (length > LINE_BYTES) {
        snprintf(reason, size, "longer than %d MB", LINE_BYTES >> 20);
        return false;
    }
    json_t *root = parse_line(text, length, reason, size);
    if (root && convert && json_is_object(root)) root = convert(convert_user, root, reason, size);
    return root && data_item_take(root, item, reason, size);
}

zs_status data_file_read_lines(const char *path, data_convert convert, void *convert_user, data_complain complain, void *user,
                               data_file *data, zs_error *error) {
    *data = (data_file){0};
    char *text = NULL, reason[256];
    size_t size = 0, capacity = 0;
    zs_status status = input_file_read(path, &text, &size, error);
    data_item item = {0};
    for (size_t at = 0; !status && at < size;) {
        const char *line = text + at, *end = memchr(line, '\n', size - at);
        size_t length = end ? (size_t)(end - line) : size - at;
        at += length + 1;
        item.line++;
        if (is_blank(line, length)) continue;
        if (read_item(line, length, convert, convert_user, &item, reason, sizeof reason))
            status = data_file_append(data, &item, &capacity, error);
        else
            complain(user, item.line, reason);
    }
    free(text);
    if (status) data_file_free(data);
    return status;
}

zs_status data_file_read(const char *path, data_complain complain, void *user, data_file *data, zs_error *error) {
    return data_file_read_lines(path, NULL, NULL, complain, user, data, error);
}

void data_file_free(data_file *data) {
    for (size_t i = 0; i < data->count; i++) data_item_free(&data->items[i]);
    free(data->items);
    *data = (data_file){0};
}
