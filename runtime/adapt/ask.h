/// The steps of answering a question, for one question (ask.c) and for many (ask_batch.c).
#ifndef ADAPT_ASK_H
#define ADAPT_ASK_H

#include "adapt/text_stream.h"

/// An answer in the making.
typedef struct answering {
    const zs_ask_params *params;
    const zs_tokenizer *tokenizer;
    zs_session *session;
    text_stream text;
    bool begun;   // a token gave bytes
    bool stopped; // params->stop came
    zs_status status;
    zs_error error;
} answering;

/// What zs_ask refuses before anything is computed.
zs_status ask_check(const zs_model *model, const char *question, const zs_ask_params *params, zs_error *error);
/// Pass 1 of questions [count] together, whose params differ in expert, history and images at most: decides on z and puts it into the
/// engine's table; the caller detaches ids. Fills the answers' expert, categories, alpha, and pass1_ms with its share of the time.
zs_status ask_choose_experts(zs_engine *engine, const char *const *questions, size_t count, const zs_ask_params *params, zs_answer *answers,
                             uint32_t *ids, zs_error *error);

/// The conversation with the question, up to where the answer begins, as ids (images encoded under the expert); the caller frees them.
zs_status ask_encode(zs_engine *engine, const char *question, const zs_ask_params *params, uint32_t expert, uint32_t **ids, size_t *count,
                     zs_error *error);
/// Pass 2: a session with the question, about to answer; of it the text, stream and draft, the rest by params. After a failure, too,
/// ask_end.
zs_status ask_begin(zs_engine *engine, const zs_question *question, const zs_ask_params *params, uint32_t expert, answering *answering,
                    zs_error *error);
/// A token of its session; false: no more are wanted.
bool ask_take_token(answering *answering, uint32_t token);
/// Fills the answer's text and tokens.
zs_status ask_finish(answering *answering, zs_answer *answer, zs_error *error);
void ask_end(answering *answering);

#endif
