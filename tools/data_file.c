#include "data_file.h"

#include <errno.h>
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

static bool take_members(data_item *item, char *reason, size_t size) {
    const json_t *id = json_object_get(item->root, "id");
    if (id && !json_is_string(id) && !json_is_integer(id)) {
        snprintf(reason, size, "\"id\" is neither text nor a whole number");
        return false;
    }
    item->id = json_string_value(id);
    item->answer = take_text(item->root, "answer", "", reason, size);
    return item->answer && take_prompt(item, reason, size);
}

bool data_item_parse(const char *text, size_t length, data_item *item, char *reason, size_t size) {
    json_error_t problem;
    uint32_t line = item->line;
    *item = (data_item){.line = line, .root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem)};
    if (!item->root)
        snprintf(reason, size, "no JSON: %s", problem.text);
    else if (!json_is_object(item->root))
        snprintf(reason, size, "no JSON object");
    else if (take_members(item, reason, size))
        return true;
    data_item_free(item);
    return false;
}

void data_item_free(data_item *item) {
    free(item->messages);
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

static zs_status append(data_file *data, const data_item *item, size_t *capacity, zs_error *error) {
    if (data->count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 64;
        data_item *grown = realloc(data->items, more * sizeof *grown);
        if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
        data->items = grown;
        *capacity = more;
    }
    data->items[data->count++] = *item;
    return ZS_OK;
}

zs_status data_file_read(const char *path, data_complain complain, void *user, data_file *data, zs_error *error) {
    *data = (data_file){0};
    FILE *file = fopen(path, "rb");
    if (!file) return zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    char *text = NULL, reason[256];
    size_t room = 0, capacity = 0;
    zs_status status = ZS_OK;
    data_item item = {0};
    for (ssize_t length; !status && (length = getline(&text, &room, file)) >= 0;) {
        item.line++;
        if (length > 0 && text[length - 1] == '\n') length--;
        if (is_blank(text, (size_t)length)) continue;
        if (length > LINE_BYTES) {
            snprintf(reason, sizeof reason, "longer than %d MB", LINE_BYTES >> 20);
            complain(user, item.line, reason);
        } else if (!data_item_parse(text, (size_t)length, &item, reason, sizeof reason)) {
            complain(user, item.line, reason);
        } else {
            status = append(data, &item, &capacity, error);
            if (status) data_item_free(&item);
        }
    }
    if (!status && ferror(file)) status = zs_error_set(error, ZS_ERROR_IO, "cannot read %s: %s", path, strerror(errno));
    free(text);
    fclose(file);
    if (status) data_file_free(data);
    return status;
}

void data_file_free(data_file *data) {
    for (size_t i = 0; i < data->count; i++) data_item_free(&data->items[i]);
    free(data->items);
    *data = (data_file){0};
}
