#include "loader/chat_template.h"

#include <stdlib.h>
#include <string.h>

static const char *find(const char *text, size_t size, const char *part) {
    size_t length = strlen(part);
    for (size_t i = 0; i + length <= size; i++) {
        if (memcmp(text + i, part, length) == 0) return text + i;
    }
    return NULL;
}

/// ChatML templates with a default system message spell it out: <|im_start|>system\n…<|im_end|>. The newline is written as
/// an escape inside the template's string.
static zs_status read_default_system(const char *text, size_t size, chat_template *tmpl, zs_error *error) {
    static const char *const openings[] = {"<|im_start|>system\\n", "<|im_start|>system\n"};
    const char *end = text + size;
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++) {
        const char *start = find(text, size, openings[i]);
        if (!start) continue;
        start += strlen(openings[i]);
        const char *stop = find(start, (size_t)(end - start), "<|im_end|>");
        if (!stop || memchr(start, '\'', (size_t)(stop - start)) || memchr(start, '{', (size_t)(stop - start))) continue; // an expression, no literal
        size_t length = (size_t)(stop - start);
        tmpl->default_system = malloc(length + 1);
        if (!tmpl->default_system) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a chat template");
        memcpy(tmpl->default_system, start, length);
        tmpl->default_system[length] = 0;
        return ZS_OK;
    }
    return ZS_OK;
}

zs_status chat_template_read(const char *text, size_t size, chat_template *tmpl, zs_error *error) {
    *tmpl = (chat_template){0};
    if (find(text, size, "<|im_start|>")) tmpl->family = CHAT_CHATML;
    else if (find(text, size, "<|start_header_id|>")) tmpl->family = CHAT_LLAMA3;
    return tmpl->family == CHAT_CHATML ? read_default_system(text, size, tmpl, error) : ZS_OK;
}

void chat_template_free(chat_template *tmpl) {
    free(tmpl->default_system);
    *tmpl = (chat_template){0};
}

static zs_status text(const chat_sink *sink, const char *s, size_t size, zs_error *error) { return sink->put(sink->user, s, size, false, error); }
static zs_status control(const chat_sink *sink, const char *s, zs_error *error) { return sink->put(sink->user, s, strlen(s), true, error); }

static zs_status put_chatml(const chat_sink *sink, const char *role, const char *content, zs_error *error) {
    zs_status status = control(sink, "<|im_start|>", error);
    if (!status) status = text(sink, role, strlen(role), error);
    if (!status) status = text(sink, "\n", 1, error);
    if (!status && content) status = text(sink, content, strlen(content), error);
    if (!status && content) status = control(sink, "<|im_end|>", error);
    if (!status && content) status = text(sink, "\n", 1, error);
    return status;
}

/// The template trims a message's content.
static zs_status put_llama3(const chat_sink *sink, const char *role, const char *content, zs_error *error) {
    static const char blanks[] = " \t\n\r\v\f";
    zs_status status = control(sink, "<|start_header_id|>", error);
    if (!status) status = text(sink, role, strlen(role), error);
    if (!status) status = control(sink, "<|end_header_id|>", error);
    if (!status) status = text(sink, "\n\n", 2, error);
    if (status || !content) return status;
    content += strspn(content, blanks);
    size_t length = strlen(content);
    while (length && strchr(blanks, content[length - 1])) length--;
    status = text(sink, content, length, error);
    return status ? status : control(sink, "<|eot_id|>", error);
}

zs_status chat_template_render(const chat_template *tmpl, const zs_message *messages, size_t count, bool open_answer, const chat_sink *sink, zs_error *error) {
    zs_status status = ZS_OK;
    if (tmpl->family == CHAT_UNKNOWN)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the model's chat template is of no known family (chatml, llama3): give the prompt in full and raw");
    bool chatml = tmpl->family == CHAT_CHATML;
    zs_status (*put)(const chat_sink *, const char *, const char *, zs_error *) = chatml ? put_chatml : put_llama3;
    if (!chatml) status = control(sink, "<|begin_of_text|>", error);
    bool has_system = count && strcmp(messages[0].role, "system") == 0;
    if (!status && !has_system && tmpl->default_system) status = put(sink, "system", tmpl->default_system, error);
    for (size_t i = 0; i < count && !status; i++) status = put(sink, messages[i].role, messages[i].content, error);
    if (!status && open_answer) status = put(sink, "assistant", NULL, error);
    return status;
}
