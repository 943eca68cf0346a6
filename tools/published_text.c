#include "published.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_ours(const json_t *object) { return json_object_get(object, "prompt") || json_object_get(object, "messages"); }

/// Text of a member; NULL after a reason.
static const char *text_of(const json_t *object, const char *key, char *reason, size_t size) {
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value) && json_string_length(value) > 0) return json_string_value(value);
    snprintf(reason, size, "\"%s\" %s", key, !value ? "is missing" : json_is_string(value) ? "is empty" : "is no text");
    return NULL;
}

/// Hands over what was made of an object; NULL with a reason when there was no memory or a text was no UTF-8.
static json_t *give(json_t *object, json_t *made, char *reason, size_t size) {
    json_decref(object);
    if (!made && !*reason) snprintf(reason, size, "cannot be turned into an item: out of memory");
    return made;
}

static json_t *format_text(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

static json_t *format_text(const char *format, ...) {
    va_list list;
    va_start(list, format);
    json_t *text = json_vsprintf(format, list);
    va_end(list);
    return text;
}

/// The id, if there is one of a kind that ours may have.
static json_t *id_of(const json_t *object, const char *key) {
    json_t *id = json_object_get(object, key);
    return json_is_string(id) || json_is_integer(id) ? json_incref(id) : NULL;
}

// ---- GSM8K, MATH ---------------------------------------------------------------------------------------------------

/// Without the marks <<48/2=24>> of a calculator.
static json_t *without_calculator(const char *text) {
    char *plain = malloc(strlen(text) + 1), *to = plain;
    if (!plain) return NULL;
    for (const char *at = text; *at;) {
        const char *end = at[0] == '<' && at[1] == '<' ? strstr(at, ">>") : NULL;
        if (end)
            at = end + 2;
        else
            *to++ = *at++;
    }
    *to = 0;
    json_t *result = json_string(plain);
    free(plain);
    return result;
}

json_t *published_gsm8k(void *user, json_t *object, char *reason, size_t size) {
    (void)user;
    if (is_ours(object)) return object;
    const char *question = text_of(object, "question", reason, size), *answer = question ? text_of(object, "answer", reason, size) : NULL;
    return give(object, answer ? json_pack("{s:s, s:o}", "prompt", question, "answer", without_calculator(answer)) : NULL, reason, size);
}

json_t *published_math(void *user, json_t *object, char *reason, size_t size) {
    (void)user;
    if (is_ours(object)) return object;
    const char *problem = text_of(object, "problem", reason, size), *solution = problem ? text_of(object, "solution", reason, size) : NULL;
    return give(object, solution ? json_pack("{s:s, s:s}", "prompt", problem, "answer", solution) : NULL, reason, size);
}

// ---- ARC -----------------------------------------------------------------------------------------------------------

/// [{"label", "text"}] of either form; NULL after a reason.
static json_t *arc_choices(const json_t *choices, char *reason, size_t size) {
    if (json_is_array(choices)) return json_deep_copy(choices);
    const json_t *texts = json_object_get(choices, "text"), *labels = json_object_get(choices, "label");
    size_t count = json_array_size(texts);
    if (count == 0 || json_array_size(labels) != count) {
        snprintf(reason, size, "\"choices\" holds no lists \"text\" and \"label\" of one length");
        return NULL;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:O, s:O}", "label", json_array_get(labels, i), "text", json_array_get(texts, i)));
    return list;
}

static json_t *arc_item(const json_t *object, char *reason, size_t size) {
    const json_t *question = json_object_get(object, "question");
    bool nested = json_is_object(question);
    const char *stem = nested ? text_of(question, "stem", reason, size) : text_of(object, "question", reason, size);
    const char *key = stem ? text_of(object, "answerKey", reason, size) : NULL;
    json_t *choices = key ? arc_choices(json_object_get(nested ? question : object, "choices"), reason, size) : NULL;
    if (!choices) return NULL;
    json_t *prompt = format_text("%s", stem);
    for (size_t i = 0; i < json_array_size(choices) && prompt; i++) {
        const char *label = text_of(json_array_get(choices, i), "label", reason, size);
        const char *text = label ? text_of(json_array_get(choices, i), "text", reason, size) : NULL;
        json_t *longer = text ? format_text("%s\n%s. %s", json_string_value(prompt), label, text) : NULL;
        json_decref(prompt);
        prompt = longer;
    }
    json_t *with_form = prompt ? format_text("%s\nAnswer with the letter of the right choice.", json_string_value(prompt)) : NULL;
    json_decref(prompt);
    if (!with_form) {
        json_decref(choices);
        return NULL;
    }
    return json_pack("{s:o*, s:o, s:s, s:s, s:o}", "id", id_of(object, "id"), "prompt", with_form, "stem", stem, "answer", key, "choices",
                     choices);
}

json_t *published_arc(void *user, json_t *object, char *reason, size_t size) {
    (void)user;
    if (is_ours(object)) return object;
    return give(object, arc_item(object, reason, size), reason, size);
}

// ---- HumanEval, MBPP, MBPP-Pro -------------------------------------------------------------------------------------

json_t *published_humaneval(void *user, json_t *object, char *reason, size_t size) {
    (void)user;
    if (json_object_get(object, "messages") || !json_object_get(object, "entry_point") || json_object_get(object, "tests")) return object;
    const char *prompt = text_of(object, "prompt", reason, size), *entry = prompt ? text_of(object, "entry_point", reason, size) : NULL;
    const char *solution = entry ? text_of(object, "canonical_solution", reason, size) : NULL;
    const char *test = solution ? text_of(object, "test", reason, size) : NULL;
    json_t *made = NULL;
    if (test)
        made = json_pack("{s:o*, s:o, s:s, s:s, s:s, s:o}", "id", id_of(object, "task_id"), "prompt",
                         format_text("Complete this Python function. Reply with the code only.\n```python\n%s\n```", prompt), "answer",
                         solution, "code_prefix", prompt, "entry_point", entry, "tests", format_text("%s\ncheck(%s)\n", test, entry));
    return give(object, made, reason, size);
}

/// Lines of a list of texts; NULL after a reason.
static json_t *join_lines(const json_t *list, const char *key, char *reason, size_t size) {
    json_t *text = json_string("");
    bool good = json_array_size(list) > 0;
    for (size_t i = 0; i < json_array_size(list) && text && good; i++) {
        const char *line = json_string_value(json_array_get(list, i));
        good = line != NULL;
        json_t *longer = line ? format_text("%s%s\n", json_string_value(text), line) : NULL;
        json_decref(text);
        text = longer;
    }
    if (good) return text;
    json_decref(text);
    snprintf(reason, size, "\"%s\" is no list of texts", key);
    return NULL;
}

static json_t *mbpp_item(const json_t *object, char *reason, size_t size) {
    const char *text = text_of(object, json_object_get(object, "text") ? "text" : "prompt", reason, size);
    const char *code = text ? text_of(object, "code", reason, size) : NULL;
    json_t *asserts = code ? join_lines(json_object_get(object, "test_list"), "test_list", reason, size) : NULL;
    if (!asserts) return NULL;
    const char *setup = json_string_value(json_object_get(object, "test_setup_code")), *tests = json_string_value(asserts);
    json_t *made = json_pack("{s:o*, s:o, s:s, s:o}", "id", id_of(object, "task_id"), "prompt",
                             format_text("%s\nReply with Python code only. It has to pass these tests:\n```python\n%s```", text, tests),
                             "answer", code, "tests", format_text("%s\n%s", setup ? setup : "", tests));
    json_decref(asserts);
    return made;
}

json_t *published_mbpp(void *user, json_t *object, char *reason, size_t size) {
    (void)user;
    if (!json_object_get(object, "test_list")) return object; // the sanitised set has "prompt" too
    return give(object, mbpp_item(object, reason, size), reason, size);
}

json_t *published_mbpp_pro(void *user, json_t *object, char *reason, size_t size) {
    (void)user;
    if (is_ours(object)) return object;
    const char *raw = text_of(object, "raw_problem", reason, size), *new = raw ? text_of(object, "new_problem", reason, size) : NULL;
    const char *raw_solution = new ? text_of(object, "raw_solution", reason, size) : NULL;
    const char *new_solution = raw_solution ? text_of(object, "new_solution", reason, size) : NULL;
    const char *tests = new_solution ? text_of(object, "test_code", reason, size) : NULL;
    json_t *made = NULL;
    if (tests)
        made =
            json_pack("{s:o*, s:o, s:o, s:s}", "id", id_of(object, "id"), "prompt",
                      format_text("Write Python code that solves both problems; the second solution calls the first. Reply with the code "
                                  "only.\n```python\n%s\n%s\n```",
                                  raw, new),
                      "answer", format_text("%s\n%s", raw_solution, new_solution), "tests", tests);
    return give(object, made, reason, size);
}
