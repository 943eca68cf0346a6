// Conversations in the words of each family's template.
#include "loader/chat_template.h"

#include "loader/utf8.h"

#include <string.h>

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

// ---- families that tell turns apart by text and the first and last token -------------------------------------------

static zs_status words(const chat_sink *sink, const char *s, zs_error *error) { return text(sink, s, strlen(s), error); }

static zs_status trimmed(const chat_sink *sink, const char *content, bool trims, zs_error *error) {
    size_t size = strlen(content);
    if (trims) content = trim(content, &size);
    return text(sink, content, size, error);
}

static zs_status bos(const chat_template *tmpl, const chat_sink *sink, zs_error *error) {
    return control(sink, tmpl->bos ? tmpl->bos : tmpl->family == CHAT_GEMMA ? "<bos>" : "<s>", error);
}
static zs_status eos(const chat_template *tmpl, const chat_sink *sink, zs_error *error) {
    return control(sink, tmpl->eos ? tmpl->eos : "</s>", error);
}

static bool is_user(const zs_message *m) { return strcmp(m->role, "user") == 0; }

/// Three texts, of which the last one's end is trimmed, and the seam's where nothing is left of that.
static zs_status put_joined(const chat_sink *sink, const char *before, const char *seam, const char *content, bool trims, zs_error *error) {
    size_t size = strlen(content), seam_size = strlen(seam);
    if (trims) {
        const char *start = trim(content, &size);
        if (size) size += (size_t)(start - content);
        while (!size && seam_size && seam[seam_size - 1] == '\n') seam_size--;
    }
    zs_status status = words(sink, before, error);
    if (!status) status = text(sink, seam, seam_size, error);
    return status ? status : text(sink, content, size, error);
}

static zs_status put_llama2(const chat_template *tmpl, const zs_message *m, const char *system, const chat_sink *sink, zs_error *error) {
    zs_status status;
    if (!is_user(m)) {
        status = words(sink, " ", error);
        if (!status) status = trimmed(sink, m->content, true, error);
        if (!status) status = words(sink, " ", error);
        return status ? status : eos(tmpl, sink, error);
    }
    status = bos(tmpl, sink, error);
    if (!status) status = words(sink, "[INST] ", error);
    if (!status && system) status = words(sink, "<<SYS>>\n", error);
    if (!status)
        status = system ? put_joined(sink, system, "\n<</SYS>>\n\n", m->content, true, error) : trimmed(sink, m->content, true, error);
    return status ? status : words(sink, " [/INST]", error);
}

static zs_status put_mistral(const chat_template *tmpl, const zs_message *m, const char *system, const chat_sink *sink, zs_error *error) {
    zs_status status;
    if (!is_user(m)) {
        status = tmpl->answer_space ? words(sink, " ", error) : ZS_OK;
        if (!status) status = trimmed(sink, m->content, tmpl->trims_answers, error);
        return status ? status : eos(tmpl, sink, error);
    }
    status = control(sink, "[INST]", error);
    if (!status) status = words(sink, " ", error);
    if (!status) status = system ? put_joined(sink, system, "\n\n", m->content, false, error) : words(sink, m->content, error);
    return status ? status : control(sink, "[/INST]", error);
}

static zs_status put_gemma(const zs_message *m, const char *system, const chat_sink *sink, zs_error *error) {
    zs_status status = control(sink, "<start_of_turn>", error);
    if (!status) status = words(sink, is_user(m) ? "user\n" : "model\n", error);
    if (!status && system) status = put_joined(sink, system, "\n\n", "", false, error);
    if (!status) status = trimmed(sink, m->content, true, error);
    if (!status) status = control(sink, "<end_of_turn>", error);
    return status ? status : words(sink, "\n", error);
}

static zs_status put_vicuna(const chat_template *tmpl, const zs_message *m, const chat_sink *sink, zs_error *error) {
    zs_status status = words(sink, is_user(m) ? "USER: " : "ASSISTANT: ", error);
    if (!status) status = trimmed(sink, m->content, tmpl->strips, error);
    if (is_user(m)) return status ? status : words(sink, tmpl->lines ? "\n" : " ", error);
    if (!status) status = eos(tmpl, sink, error);
    return status || !tmpl->lines ? status : words(sink, "\n", error);
}

/// A system message first, if the template takes one, then user and assistant in turn: other conversations the templates
/// themselves refuse.
static zs_status check_turns(const chat_template *tmpl, const zs_message *messages, size_t count, bool has_system, zs_error *error) {
    if (has_system && !tmpl->takes_system)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "the model's chat template takes no system message: put it into the question");
    for (size_t i = has_system; i < count; i++) {
        const char *expected = (i - has_system) % 2 ? "assistant" : "user";
        if (strcmp(messages[i].role, expected) != 0)
            return zs_error_set(error, ZS_ERROR_ARGUMENT,
                                "message %zu of the conversation is of role %.20s: the model's chat template wants user and assistant in "
                                "turn, which makes it %s",
                                i, messages[i].role, expected);
    }
    return has_system && count == 1 ? zs_error_set(error, ZS_ERROR_ARGUMENT,
                                                   "a conversation of a system message alone: the model's chat template wants a question")
                                    : ZS_OK;
}

static zs_status render_in_turns(const chat_template *tmpl, const zs_message *messages, size_t count, bool has_system, bool open_answer,
                                 const chat_sink *sink, zs_error *error) {
    zs_status status = check_turns(tmpl, messages, count, has_system, error);
    const char *system = has_system ? messages[0].content : tmpl->default_system;
    if (!status && (tmpl->family == CHAT_MISTRAL || tmpl->family == CHAT_GEMMA || (tmpl->family == CHAT_VICUNA && tmpl->begins)))
        status = bos(tmpl, sink, error);
    if (!status && tmpl->family == CHAT_VICUNA && system) {
        status = words(sink, system, error);
        if (!status) status = words(sink, tmpl->lines ? "\n\n" : " ", error);
    }
    for (size_t i = has_system; i < count && !status; i++) {
        const char *first = i == has_system ? system : NULL, *last = i + 1 == count ? system : NULL;
        switch (tmpl->family) {
        case CHAT_LLAMA2: status = put_llama2(tmpl, &messages[i], first, sink, error); break;
        case CHAT_MISTRAL: status = put_mistral(tmpl, &messages[i], last, sink, error); break;
        case CHAT_GEMMA: status = put_gemma(&messages[i], first, sink, error); break;
        default: status = put_vicuna(tmpl, &messages[i], sink, error); break;
        }
    }
    if (status || !open_answer) return status;
    if (tmpl->family == CHAT_VICUNA) return words(sink, "ASSISTANT:", error);
    if (tmpl->family != CHAT_GEMMA) return ZS_OK; // [/INST] has opened it
    status = control(sink, "<start_of_turn>", error);
    return status ? status : words(sink, "model\n", error);
}

// ---- all -----------------------------------------------------------------------------------------------------------

zs_status chat_template_render(const chat_template *tmpl, const zs_message *messages, size_t count, bool open_answer, const chat_sink *sink,
                               zs_error *error) {
    if (tmpl->family == CHAT_UNKNOWN && !tmpl->beginning[0])
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "the model has no chat template: choose one by --chat-template (" CHAT_FAMILIES
                            "), or give the prompt in full and raw");
    if (tmpl->family == CHAT_UNKNOWN)
        return zs_error_set(
            error, ZS_ERROR_UNSUPPORTED,
            "the model's chat template, which begins \"%s\", is of no known family: choose one by --chat-template (" CHAT_FAMILIES
            "), or give the prompt in full and raw",
            tmpl->beginning);
    for (size_t i = 0; i < count; i++) {
        if (!messages[i].role || !messages[i].content)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "message %zu of the conversation has no %s", i,
                                messages[i].role ? "content" : "role");
    }
    bool has_system = count && strcmp(messages[0].role, "system") == 0;
    switch (tmpl->family) {
    case CHAT_CHATML: return render_chatml(tmpl, messages, count, has_system, open_answer, sink, error);
    case CHAT_LLAMA3: return render_llama3(tmpl, messages, count, has_system, open_answer, sink, error);
    default: return render_in_turns(tmpl, messages, count, has_system, open_answer, sink, error);
    }
}
