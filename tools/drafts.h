/// Answers that were given to questions before: the likeliest is a draft of the next one to the same question (zs_question.draft).
#ifndef TOOLS_DRAFTS_H
#define TOOLS_DRAFTS_H

#include "zsigma/zsigma.h"

typedef struct drafts drafts;

/// For so many questions.
zs_status drafts_create(size_t questions, drafts **out, zs_error *error);
void drafts_destroy(drafts **drafts);
/// An answer that was given to a question, or is the right one. Copied.
zs_status drafts_add(drafts *drafts, size_t question, const uint32_t *tokens, size_t count, zs_error *error);
/// Sets the question's draft to what was answered most often of late, if that was more than half of the time, else to none; valid as long
/// as drafts.
void drafts_apply(const drafts *drafts, size_t index, zs_question *question);

#endif
