#include "loader/chat_template.h"

#include "loader/jinja_text.h"

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

/// What the template's texts say about families that come in variants.
static void read_variant(const jinja_walk *walk, chat_template *tmpl) {
    if (!walk->literal) return;
    if (strcmp(walk->text, "</s>\n") == 0) tmpl->lines = true;
    if (strcmp(walk->text, " ") == 0) tmpl->answer_space = true;
}

/// By the control tokens and marks that a template is made of.
static chat_family recognise(const char *text, size_t size) {
    if (find(text, size, "<|im_start|>")) return CHAT_CHATML;
    if (find(text, size, "<|start_header_id|>")) return CHAT_LLAMA3;
    if (find(text, size, "<start_of_turn>")) return CHAT_GEMMA;
    if (find(text, size, "[INST]") && find(text, size, "<<SYS>>")) return CHAT_LLAMA2;
    // Mistral's other versions put their spaces elsewhere.
    if (find(text, size, "[INST] ") && find(text, size, "[/INST]") && !find(text, size, " [/INST]") && !find(text, size, "[SYSTEM_PROMPT]"))
        return CHAT_MISTRAL;
    if (find(text, size, "USER: ") && find(text, size, "ASSISTANT:") && !find(text, size, "SYSTEM:")) return CHAT_VICUNA;
    return CHAT_UNKNOWN;
}

/// The beginning of a template, on one line: what an error calls it.
static void remember(const char *text, size_t size, char name[CHAT_NAME_BYTES]) {
    size_t used = 0;
    for (size_t i = 0; i < size && used < CHAT_NAME_BYTES - 1; i++) {
        if ((unsigned char)text[i] >= ' ' && (unsigned char)text[i] < 0x7f) name[used++] = text[i];
    }
    name[used] = '\0';
}

zs_status chat_template_read(const char *text, size_t size, chat_template *tmpl, zs_error *error) {
    *tmpl = (chat_template){.family = recognise(text, size)};
    remember(text, size, tmpl->beginning);
    if (tmpl->family == CHAT_UNKNOWN) return ZS_OK;
    tmpl->takes_system = tmpl->family != CHAT_GEMMA || find(text, size, "first_user_prefix");
    if (tmpl->family == CHAT_MISTRAL) tmpl->takes_system = find(text, size, "system_message") != NULL;
    tmpl->trims_answers = find(text, size, "[\"content\"]|trim") || find(text, size, "['content']|trim") ||
                          find(text, size, "['content'] | trim") || find(text, size, "[\"content\"] | trim");
    tmpl->strips = find(text, size, ".strip()") != NULL;
    tmpl->begins = find(text, size, "bos_token") != NULL;
    char *knowledge = NULL, *date = NULL;
    jinja_walk walk = {.source = text, .size = size};
    bool failed = false;
    while (!failed && jinja_walk_next(&walk, &failed)) {
        failed = tmpl->family == CHAT_LLAMA3 ? !read_preamble(&walk, &knowledge, &date) : !read_default_system(&walk, tmpl);
        read_variant(&walk, tmpl);
    }
    failed = failed || !join_preamble(knowledge, date, tmpl);
    jinja_walk_free(&walk);
    free(knowledge);
    free(date);
    if (!failed) return ZS_OK;
    chat_template_free(tmpl);
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a chat template");
}

zs_status chat_template_choose(const char *name, chat_template *tmpl, zs_error *error) {
    static const struct {
        const char *name;
        chat_template tmpl;
        const char *system;
    } families[] = {
        {"chatml", {.family = CHAT_CHATML}, NULL},
        {"qwen2", {.family = CHAT_CHATML}, "You are a helpful assistant."},
        {"llama2", {.family = CHAT_LLAMA2, .takes_system = true}, NULL},
        {"llama3", {.family = CHAT_LLAMA3}, NULL},
        {"mistral", {.family = CHAT_MISTRAL, .takes_system = true, .answer_space = true, .trims_answers = true}, NULL},
        {"vicuna",
         {.family = CHAT_VICUNA, .takes_system = true, .begins = true},
         "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
         "answers to the user's questions."},
        {"gemma", {.family = CHAT_GEMMA, .takes_system = true}, NULL},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].name, name) != 0) continue;
        *tmpl = families[i].tmpl;
        if (!families[i].system || copy(families[i].system, strlen(families[i].system), &tmpl->default_system)) return ZS_OK;
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a chat template");
    }
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "there is no family of chat templates named %.40s; there are " CHAT_FAMILIES, name);
}

zs_status chat_template_set_tokens(chat_template *tmpl, const char *bos, size_t bos_size, const char *eos, size_t eos_size,
                                   zs_error *error) {
    if ((!bos || copy(bos, bos_size, &tmpl->bos)) && (!eos || copy(eos, eos_size, &tmpl->eos))) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a chat template");
}

void chat_template_free(chat_template *tmpl) {
    free(tmpl->default_system);
    free(tmpl->system_preamble);
    free(tmpl->bos);
    free(tmpl->eos);
    *tmpl = (chat_template){0};
}
