/// How right an answer is: the rewards of training and the figures of evaluation.
#ifndef TOOLS_SCORER_H
#define TOOLS_SCORER_H

#include "task.h"

typedef struct scorer scorer;

typedef struct scorer_params {
    /// A shell command that scores instead of the task's own scorer: it reads {"answer": the model's text, "item": the line of data,
    /// canonical} on standard input and prints a number from 0 to 1. NULL: the task's scorer.
    const char *command;
    uint32_t timeout_ms; // of the command or of generated code, per answer; 0: 10 s
    uint64_t memory;     // bytes that generated code may take; 0: 1 GB
    const char *python;  // interpreter of generated code; NULL: python3
    bool unsafe_code;    // run generated code without bubblewrap, where that is missing or forbidden
} scorer_params;

/// The scorer of a task (task_find). params may be NULL. Errors: ZS_ERROR_ARGUMENT (no such task), ZS_ERROR_UNSUPPORTED (generated code
/// cannot be run here; the message says why and what to do).
zs_status scorer_create(const char *task, const scorer_params *params, scorer **scorer, zs_error *error);
void scorer_destroy(scorer **scorer);

/// *score in [0, 1]. A wrong answer, code that fails or hangs too, is 0 and no error. Errors are of the surroundings: an item that the
/// task cannot use, a command that fails, hangs or prints no number in [0, 1].
zs_status scorer_score(scorer *scorer, const data_item *item, const char *answer_text, double *score, zs_error *error);

#endif
