#include "loader/tokenizer_folder.h"

#include "loader/json_file.h"
#include "loader/tokenizer.h"
#include "loader/tokenizer_file.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ENDS = 64 };

static zs_status bad_key(const char *folder, const char *file, const char *key, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s/%s: key %s is not what it should be", folder, file, key);
}

// ---- tokenizer_config.json -----------------------------------------------------------------------------------------

/// "…" or {"content": "…"}.
static zs_status add_token_name(const char *folder, const json_t *config, const char *key, const char *name, gguf_writer *keys,
                                zs_error *error) {
    const json_t *value = json_object_get(config, key);
    if (!value || json_is_null(value)) return ZS_OK;
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (!json_is_string(value)) return bad_key(folder, "tokenizer_config.json", key, error);
    gguf_writer_add_text(keys, name, (gguf_string){json_string_value(value), json_string_length(value)});
    return ZS_OK;
}

/// A text, or a list of {"name", "template"}, of which "default" is taken.
static const json_t *find_template(const json_t *value) {
    size_t i;
    json_t *entry;
    json_array_foreach(value, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0) return json_object_get(entry, "template");
    }
    return json_is_array(value) ? NULL : value;
}

static zs_status add_template(const char *folder, const json_t *config, gguf_writer *keys, zs_error *error) {
    char *text;
    size_t size;
    zs_status status = json_file_read_text(folder, "chat_template.jinja", &text, &size, error);
    if (status) return status;
    const json_t *value = find_template(json_object_get(config, "chat_template"));
    if (text) {
        gguf_writer_add_text(keys, "tokenizer.chat_template", (gguf_string){text, size});
    } else if (value && !json_is_null(value)) {
        if (!json_is_string(value)) return bad_key(folder, "tokenizer_config.json", "chat_template", error);
        gguf_writer_add_text(keys, "tokenizer.chat_template", (gguf_string){json_string_value(value), json_string_length(value)});
    }
    free(text);
    return ZS_OK;
}

static zs_status read_config(const char *folder, gguf_writer *keys, zs_error *error) {
    json_t *config;
    zs_status status = json_file_read(folder, "tokenizer_config.json", true, &config, error);
    if (!status) status = add_token_name(folder, config, "bos_token", TOKENIZER_BOS_KEY, keys, error);
    if (!status) status = add_token_name(folder, config, "eos_token", TOKENIZER_EOS_KEY, keys, error);
    if (!status) status = add_template(folder, config, keys, error);
    json_decref(config);
    return status;
}

// ---- the tokens that end an answer ---------------------------------------------------------------------------------

static bool is_id(const json_t *value) {
    return json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) < INT32_MAX;
}

/// A number or a list of them; *told when the file has the key.
static zs_status add_ends(const char *folder, const char *file, bool *told, gguf_writer *keys, zs_error *error) {
    json_t *root, *entry;
    uint32_t ids[MOST_ENDS];
    size_t count = 0, i;
    zs_status status = json_file_read(folder, file, true, &root, error);
    const json_t *value = json_file_get(root, "eos_token_id");
    if (!value) value = json_object_get(json_object_get(root, "text_config"), "eos_token_id"); // of a decoder with a tower
    *told = value && !json_is_null(value);
    if (!status && *told && !json_is_array(value) && !is_id(value)) status = bad_key(folder, file, "eos_token_id", error);
    if (!status && is_id(value)) ids[count++] = (uint32_t)json_integer_value(value);
    json_array_foreach(value, i, entry) {
        if (!status && (!is_id(entry) || count == MOST_ENDS)) status = bad_key(folder, file, "eos_token_id", error);
        if (!status) ids[count++] = (uint32_t)json_integer_value(entry);
    }
    if (!status && count) gguf_writer_add_words(keys, TOKENIZER_ENDS_KEY, GGUF_U32, ids, count);
    json_decref(root);
    return status;
}

static zs_status read_ends(const char *folder, gguf_writer *keys, zs_error *error) {
    bool told;
    zs_status status = add_ends(folder, "generation_config.json", &told, keys, error);
    return status || told ? status : add_ends(folder, "config.json", &told, keys, error);
}

// ---- the folder ----------------------------------------------------------------------------------------------------

static zs_status read_file(const char *folder, const char *name, gguf_writer *keys, zs_error *error) {
    char *path = json_file_path(folder, name);
    zs_status status =
        path ? tokenizer_file_read(path, keys, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", folder);
    free(path);
    return status;
}

zs_status tokenizer_folder_read(const char *folder, gguf_writer *keys, bool *found, zs_error *error) {
    bool json = json_file_exists(folder, "tokenizer.json"), model = json_file_exists(folder, "tokenizer.model");
    *found = json || model;
    if (!*found) return ZS_OK;
    if (!json && json_file_exists(folder, "added_tokens.json"))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s: added_tokens.json adds to tokenizer.model, which is supported in the form of tokenizer.json only", folder);
    zs_status status = read_file(folder, json ? "tokenizer.json" : "tokenizer.model", keys, error);
    if (!status) status = read_config(folder, keys, error);
    return status ? status : read_ends(folder, keys, error);
}
