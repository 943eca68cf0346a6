#include "loader/tokenizer_steps.h"

#include "loader/vocabulary.h"

#include <string.h>

static const char llama3_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

zs_status tokenizer_steps_check_keys(const json_t *object, const char *where, const char *const *known, zs_error *error) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0) i++;
        if (!known[i])
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s has the key \"%.40s\", which is not known: ids could differ without it",
                                where, key);
    }
    return ZS_OK;
}

static const char *string_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool is_type(const json_t *step, const char *type) { return strcmp(string_of(step, "type"), type) == 0; }
static bool is_text(const json_t *object, const char *key, const char *text) { return strcmp(string_of(object, key), text) == 0; }

static zs_status refuse(const char *what, const json_t *step, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s \"%.40s\" (as it stands here) is not supported: ids would differ without it", what,
                        json_is_object(step) ? string_of(step, "type") : "without a type");
}

/// The steps of a Sequence, or the one step that it is not; none for null.
static size_t count_steps(const json_t *step, const char *list) {
    if (!step || json_is_null(step)) return 0;
    return is_type(step, "Sequence") ? json_array_size(json_object_get(step, list)) : 1;
}

static const json_t *get_step(const json_t *step, const char *list, size_t i) {
    return is_type(step, "Sequence") ? json_array_get(json_object_get(step, list), i) : step;
}

/// {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
static bool replaces_spaces(const json_t *step) {
    return is_type(step, "Replace") && is_text(json_object_get(step, "pattern"), "String", " ") &&
           is_text(step, "content", VOCABULARY_SPACE);
}

/// {"type": "Prepend", "prepend": "▁"}
static bool prepends_space(const json_t *step) { return is_type(step, "Prepend") && is_text(step, "prepend", VOCABULARY_SPACE); }

// ---- normalizer ----------------------------------------------------------------------------------------------------

static zs_status read_normalizer(const json_t *normalizer, tokenizer_steps *steps, zs_error *error) {
    size_t count = count_steps(normalizer, "normalizers");
    bool prepends = false;
    if (count == 1 && is_type(get_step(normalizer, "normalizers", 0), "NFC")) {
        steps->composes = true;
        return ZS_OK;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *step = get_step(normalizer, "normalizers", i);
        if (prepends_space(step) && i == 0 && count == 2)
            prepends = true;
        else if (!replaces_spaces(step) || i + 1 != count)
            return refuse("normalizer", step, error);
        steps->replaces = true;
    }
    steps->prefix = prepends ? "special" : "none";
    return ZS_OK;
}

// ---- pre_tokenizer -------------------------------------------------------------------------------------------------

static zs_status read_metaspace(const json_t *step, tokenizer_steps *steps, zs_error *error) {
    static const char *const known[] = {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", NULL};
    zs_status status = tokenizer_steps_check_keys(step, "pre_tokenizer Metaspace", known, error);
    if (status) return status;
    const json_t *scheme = json_object_get(step, "prepend_scheme");
    const char *name = scheme ? json_string_value(scheme) : json_is_false(json_object_get(step, "add_prefix_space")) ? "never" : "always";
    bool first = name && strcmp(name, "first") == 0, always = name && strcmp(name, "always") == 0,
         never = name && strcmp(name, "never") == 0;
    if (!is_text(step, "replacement", VOCABULARY_SPACE) || !(first || always || never) || steps->replaces)
        return refuse("pre_tokenizer", step, error);
    if (!json_is_false(json_object_get(step, "split")))
        return zs_error_set(
            error, ZS_ERROR_UNSUPPORTED,
            "pre_tokenizer \"Metaspace\" that splits at spaces (split is not false) is not supported: ids would differ without it");
    steps->prefix = first ? "text" : always ? "special" : "none";
    steps->prefix_once = !never;
    steps->replaces = true;
    return ZS_OK;
}

/// ByteLevel, with or without the pattern of its own.
static bool is_byte_level(const json_t *step, bool with_pattern) {
    const json_t *use = json_object_get(step, "use_regex");
    return is_type(step, "ByteLevel") && json_is_false(json_object_get(step, "add_prefix_space")) &&
           (with_pattern ? !use || json_is_true(use) : json_is_false(use));
}

/// The name of a Split's pattern, NULL when it is not known.
static const char *name_split(const json_t *step) {
    const json_t *pattern = json_object_get(step, "pattern");
    bool isolated = is_type(step, "Split") && is_text(step, "behavior", "Isolated") && !json_is_true(json_object_get(step, "invert"));
    if (isolated && is_text(pattern, "Regex", llama3_pattern)) return "llama-bpe";
    if (isolated && is_text(pattern, "Regex", qwen2_pattern)) return "qwen2";
    return NULL;
}

static zs_status read_pre_tokenizer(const json_t *pre, tokenizer_steps *steps, zs_error *error) {
    size_t count = count_steps(pre, "pretokenizers");
    const json_t *first = get_step(pre, "pretokenizers", 0), *second = count > 1 ? get_step(pre, "pretokenizers", 1) : NULL;
    if (count == 0) return ZS_OK;
    if (count == 1 && is_type(first, "Metaspace") && !steps->composes) return read_metaspace(first, steps, error);
    // A Split at spaces, of which the normalizer has left none.
    if (count == 1 && steps->replaces && is_type(first, "Split") && is_text(json_object_get(first, "pattern"), "String", " ")) return ZS_OK;
    if (count == 1 && is_byte_level(first, true)) steps->pre = "gpt-2";
    if (count == 2 && is_type(first, "Digits") && json_is_true(json_object_get(first, "individual_digits")) && is_byte_level(second, true))
        steps->pre = "smollm";
    if (count == 2 && is_byte_level(second, false)) steps->pre = name_split(first);
    if (!steps->pre || steps->replaces) return refuse("pre_tokenizer", count == 2 && is_type(first, "Digits") ? second : first, error);
    return ZS_OK;
}

zs_status tokenizer_steps_read(const json_t *root, tokenizer_steps *steps, zs_error *error) {
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    *steps = (tokenizer_steps){0};
    zs_status status = read_normalizer(json_object_get(root, "normalizer"), steps, error);
    if (!status) status = read_pre_tokenizer(pre, steps, error);
    if (!status && !steps->pre && !steps->replaces)
        status = zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                              "neither normalizer nor pre_tokenizer says how spaces are spelled: such a tokenizer is not supported");
    return status;
}
