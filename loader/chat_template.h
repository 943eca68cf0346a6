/// Chat templates by family, recognised from the text of the model's Jinja template.
#ifndef LOADER_CHAT_TEMPLATE_H
#define LOADER_CHAT_TEMPLATE_H

#include "zsigma/zsigma.h"

typedef enum chat_family { CHAT_UNKNOWN, CHAT_CHATML, CHAT_LLAMA3 } chat_family;

typedef struct chat_template {
    chat_family family;
    char *default_system;  // ChatML: what the template says when a conversation has no system message; NULL: nothing
    char *system_preamble; // Llama 3.1 and later: what a system message begins with, and the whole of an absent one; NULL: nothing
} chat_template;

/// Recognises a template; CHAT_UNKNOWN is no error yet.
zs_status chat_template_read(const char *text, size_t size, chat_template *tmpl, zs_error *error);
void chat_template_free(chat_template *tmpl);

/// Receives a conversation piece by piece: control tokens by their spelling, or plain text in which nothing is special.
typedef struct chat_sink {
    zs_status (*put)(void *user, const char *text, size_t size, bool control, zs_error *error);
    void *user;
} chat_sink;

/// Renders a conversation. Pieces of plain text that follow one another belong to one run (they may merge). A message
/// without role or content is ZS_ERROR_ARGUMENT, told before anything is put.
zs_status chat_template_render(const chat_template *tmpl, const zs_message *messages, size_t count, bool open_answer, const chat_sink *sink,
                               zs_error *error);

#endif
