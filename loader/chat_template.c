#include "loader/chat_template.h"

#include "loader/jinja_text.h"
#include "loader/utf8.h"

#include <stdlib.h>
#include <string.h>

// ---- reading -------------------------------------------------------------------------------------------------------

static const char *find(const char *text, size_t size, const char *part) {
    size_t length = strlen(part);
    for (size_t i = 0; i + length <= size; i++) {
        if (memcmp(text + i, part, length) == 0) return text + i;
    }
    return NULL;
}

static bool starts_with(const char *text, size_t size, const char *part) {
    return size >= strlen(part) && memcmp(text, part, strlen(part)) == 0;
}

static bool copy(const char *text, size_t size, char **to) {
    free(*to);
    *to = malloc(size + 1);
    if (!*to) return false;
    memcpy(*to, text, size);
    (*to)[size] = 0;
    return true;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/// The first character behind a literal and its blanks; 0 at the template's end, '}' at the tag's, whatever it trims.
static char follower(const jinja_walk *walk) {
    size_t at = walk->at;
    while (at < walk->size && is_space(walk->source[at])) at++;
    size_t end = at < walk->size && (walk->source[at] == '-' || walk->source[at] == '+') ? at + 1 : at;
    if (walk->size - end >= 2 && (walk->source[end] == '%' || walk->source[end] == '}') && walk->source[end + 1] == '}') return '}';
    return at < walk->size ? walk->source[at] : '\0';
}

/// Whether the text is a literal that a filter, a method, a format or a slice changes before it is seen.
static bool is_changed(const jinja_walk *walk) {
    char next = walk->literal ? follower(walk) : '\0';
    return next == '|' || next == '.' || next == '%' || next == '[' || next == '*';
}

/// Whether the template has `{% set NAME = LITERAL %}`: the whole value, not a part of an expression.
static bool is_assigned_to(const jinja_walk *walk, const char *name) {
    size_t at = walk->start, length = strlen(name);
    if (!walk->literal || follower(walk) != '}') return false;
    while (at && is_space(walk->source[at - 1])) at--;
    if (!at || walk->source[--at] != '=') return false;
    while (at && is_space(walk->source[at - 1])) at--;
    return at >= length && memcmp(walk->source + at - length, name, length) == 0;
}

/// ChatML templates with a default system message spell the whole turn out, <|im_start|>system\n…<|im_end|>, or give its
/// content to the variable system_message. What they put together from parts is an expression, no default.
static bool read_default_system(const jinja_walk *walk, chat_template *tmpl) {
    static const char opening[] = "<|im_start|>system\n";
    if (tmpl->default_system || is_changed(walk)) return true;
    if (is_assigned_to(walk, "system_message") && walk->text_size) return copy(walk->text, walk->text_size, &tmpl->default_system);
    const char *start = find(walk->text, walk->text_size, opening);
    if (!start) return true;
    start += strlen(opening);
    const char *stop = find(start, walk->text_size - (size_t)(start - walk->text), "<|im_end|>");
    return !stop || copy(start, (size_t)(stop - start), &tmpl->default_system);
}

/// Llama 3.1's templates open the system message with "Cutting Knowledge Date: …\nToday Date: …\n\n"; the day is the one
/// they name for when nobody tells another. Llama 3's have nothing of it.
static bool read_preamble(const jinja_walk *walk, char **knowledge, char **date) {
    if (!*knowledge && starts_with(walk->text, walk->text_size, "Cutting Knowledge Date: "))
        return copy(walk->text, walk->text_size, knowledge);
    if (!*date && is_assigned_to(walk, "date_string")) return copy(walk->text, walk->text_size, date);
    return true;
}

static bool join_preamble(const char *knowledge, const char *date, chat_template *tmpl) {
    static const char today[] = "Today Date: ";
    if (!knowledge || !date) return true;
    size_t size = strlen(knowledge) + strlen(today) + strlen(date) + 3;
    tmpl->system_preamble = calloc(size, 1);
    if (!tmpl->system_preamble) return false;
    strcat(strcat(strcat(strcat(tmpl->system_preamble, knowledge), today), date), "\n\n");
    return true;
}

zs_status chat_template_read(const char *text, size_t size, chat_template *tmpl, zs_error *error) {
    *tmpl = (chat_template){0};
    if (find(text, size, "<|im_start|>"))
        tmpl->family = CHAT_CHATML;
    else if (find(text, size, "<|start_header_id|>"))
        tmpl->family = CHAT_LLAMA3;
    else
        return ZS_OK;
    char *knowledge = NULL, *date = NULL;
    jinja_walk walk = {.source = text, .size = size};
    bool failed = false;
    while (!failed && jinja_walk_next(&walk, &failed)) {
        failed = tmpl->family == CHAT_CHATML ? !read_default_system(&walk, tmpl) : !read_preamble(&walk, &knowledge, &date);
    }
    failed = failed || !join_preamble(knowledge, date, tmpl);
    jinja_walk_free(&walk);
    free(knowledge);
    free(date);
    if (!failed) return ZS_OK;
    chat_template_free(tmpl);
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a chat template");
}

void chat_template_free(chat_template *tmpl) {
    free(tmpl->default_system);
    free(tmpl->system_preamble);
    *tmpl = (chat_template){0};
}

// ---- rendering -----------------------------------------------------------------------------------------------------

static zs_status text(const chat_sink *sink, const char *s, size_t size, zs_error *error) {
    return sink->put(sink->user, s, size, false, error);
}
static zs_status control(const chat_sink *sink, const char *s, zs_error *error) { return sink->put(sink->user, s, strlen(s), true, error); }

/// content NULL: an open turn, header only.
static zs_status put_chatml(const chat_sink *sink, const char *role, const char *content, zs_error *error) {
    zs_status status = control(sink, "<|im_start|>", error);
    if (!status) status = text(sink, role, strlen(role), error);
    if (!status) status = text(sink, "\n", 1, error);
    if (!status && content) status = text(sink, content, strlen(content), error);
    if (!status && content) status = control(sink, "<|im_end|>", error);
    if (!status && content) status = text(sink, "\n", 1, error);
    return status;
}

/// What Python's str.strip takes away.
static bool is_blank(uint32_t point) {
    return (point >= 0x9 && point <= 0xd) || (point >= 0x1c && point <= 0x20) || point == 0x85 || point == 0xa0 || point == 0x1680 ||
           (point >= 0x2000 && point <= 0x200a) || point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f ||
           point == 0x3000;
}

/// The part of text[*size] between its blanks.
static const char *trim(const char *text, size_t *size) {
    uint32_t point;
    for (size_t length; (length = utf8_decode(text, *size, &point)) > 0 && is_blank(point); *size -= length) text += length;
    for (size_t length = 1; length <= 3 && length <= *size;) { // the last character's length is not known beforehand
        bool last = utf8_decode(text + *size - length, length, &point) == length;
        if (last && !is_blank(point)) break;
        if (last) *size -= length;
        length = last ? 1 : length + 1;
    }
    return text;
}

/// The template trims a message's content. preamble: what comes before it, or NULL. content NULL: an open turn.
static zs_status put_llama3(const chat_sink *sink, const char *role, const char *preamble, const char *content, zs_error *error) {
    zs_status status = control(sink, "<|start_header_id|>", error);
    if (!status) status = text(sink, role, strlen(role), error);
    if (!status) status = control(sink, "<|end_header_id|>", error);
    if (!status) status = text(sink, "\n\n", 2, error);
    if (!status && preamble) status = text(sink, preamble, strlen(preamble), error);
    if (status || !content) return status;
    size_t size = strlen(content);
    content = trim(content, &size);
    status = text(sink, content, size, error);
    return status ? status : control(sink, "<|eot_id|>", error);
}

static zs_status render_chatml(const chat_template *tmpl, const zs_message *messages, size_t count, bool has_system, bool open_answer,
                               const chat_sink *sink, zs_error *error) {
    zs_status status = ZS_OK;
    if (!has_system && tmpl->default_system) status = put_chatml(sink, "system", tmpl->default_system, error);
    for (size_t i = 0; i < count && !status; i++) status = put_chatml(sink, messages[i].role, messages[i].content, error);
    return !status && open_answer ? put_chatml(sink, "assistant", NULL, error) : status;
}

static zs_status render_llama3(const chat_template *tmpl, const zs_message *messages, size_t count, bool has_system, bool open_answer,
                               const chat_sink *sink, zs_error *error) {
    zs_status status = control(sink, "<|begin_of_text|>", error);
    size_t i = 0;
    if (!status && tmpl->system_preamble) {
        status = put_llama3(sink, "system", tmpl->system_preamble, has_system ? messages[i++].content : "", error);
    }
    for (; i < count && !status; i++) status = put_llama3(sink, messages[i].role, NULL, messages[i].content, error);
    return !status && open_answer ? put_llama3(sink, "assistant", NULL, NULL, error) : status;
}

zs_status chat_template_render(const chat_template *tmpl, const zs_message *messages, size_t count, bool open_answer, const chat_sink *sink,
                               zs_error *error) {
    if (tmpl->family == CHAT_UNKNOWN)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "the model's chat template is of no known family (chatml, llama3): give the prompt in full and raw");
    for (size_t i = 0; i < count; i++) {
        if (!messages[i].role || !messages[i].content)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "message %zu of the conversation has no %s", i,
                                messages[i].role ? "content" : "role");
    }
    bool has_system = count && strcmp(messages[0].role, "system") == 0;
    return tmpl->family == CHAT_CHATML ? render_chatml(tmpl, messages, count, has_system, open_answer, sink, error)
                                       : render_llama3(tmpl, messages, count, has_system, open_answer, sink, error);
}
