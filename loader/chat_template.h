/// Chat templates by family, recognised from the text of the model's Jinja template.
#ifndef LOADER_CHAT_TEMPLATE_H
#define LOADER_CHAT_TEMPLATE_H

#include "zsigma/zsigma.h"

typedef enum chat_family { CHAT_UNKNOWN, CHAT_CHATML, CHAT_LLAMA2, CHAT_LLAMA3, CHAT_MISTRAL, CHAT_VICUNA, CHAT_GEMMA } chat_family;
#define CHAT_FAMILIES "chatml, qwen2, llama2, llama3, mistral, vicuna, gemma"
enum { CHAT_NAME_BYTES = 64 };

/// A family and, of the texts that templates of one family differ in, what this one says.
typedef struct chat_template {
    chat_family family;
    char beginning[CHAT_NAME_BYTES]; // of the template's text, for messages; empty: there is none
    char *default_system;            // what the template says when a conversation has no system message; NULL: nothing
    char *system_preamble; // Llama 3.1 and later: what a system message begins with, and the whole of an absent one; NULL: nothing
    char *bos, *eos;       // spellings of the first and the last token; NULL: the family's own
    bool takes_system;     // all but some of mistral's and gemma's
    bool trims_answers, answer_space; // mistral: blanks around an answer go, a space stands before it
    bool lines, strips, begins;       // vicuna: turns end in newlines instead of spaces; blanks around contents go; bos in front
} chat_template;

/// Recognises a template; CHAT_UNKNOWN is no error yet.
zs_status chat_template_read(const char *text, size_t size, chat_template *tmpl, zs_error *error);
/// A family by name (CHAT_FAMILIES), for models whose template is missing or not known: ZS_ERROR_ARGUMENT for another name.
zs_status chat_template_choose(const char *name, chat_template *tmpl, zs_error *error);
/// The model's first and last token, by their spellings; NULL: unknown.
zs_status chat_template_set_tokens(chat_template *tmpl, const char *bos, size_t bos_size, const char *eos, size_t eos_size,
                                   zs_error *error);
void chat_template_free(chat_template *tmpl);

/// Receives a conversation piece by piece: control tokens by their spelling, or plain text in which nothing is special.
typedef struct chat_sink {
    zs_status (*put)(void *user, const char *text, size_t size, bool control, zs_error *error);
    void *user;
} chat_sink;

/// Renders a conversation. Pieces of plain text that follow one another belong to one run (they may merge). A message
/// without role or content is ZS_ERROR_ARGUMENT, told before anything is put, and so are turns that the template itself
/// would refuse.
zs_status chat_template_render(const chat_template *tmpl, const zs_message *messages, size_t count, bool open_answer, const chat_sink *sink,
                               zs_error *error);

#endif
