/// zsigma eval: what its parts share.
#ifndef TOOLS_EVAL_H
#define TOOLS_EVAL_H

#include "asking.h"
#include "scorer.h"
#include "shots.h"

enum { EVAL_STRATEGIES = 5 };

/// What counts as the answer to a question with choices.
typedef enum eval_form {
    EVAL_LETTER,      // what the model writes: a letter, or a choice's text
    EVAL_SCORED,      // the choice whose text is the likeliest
    EVAL_SCORED_MEAN, // likewise, by characters of the text
} eval_form;

/// What became of a question under a strategy.
typedef struct eval_result {
    bool done;
    double score, pass1_ms;
    char expert[64]; // "" = base
    uint32_t tokens;
    bool ended;
} eval_result;

typedef struct eval_strategy {
    zs_strategy strategy;
    char name[80];        // "fixed:math"
    eval_result *results; // [question_count]
    double pass2_ms, score_ms;
    uint64_t prefill_tokens, decode_tokens;
} eval_strategy;

typedef struct evaluation {
    asking asking;
    const cli_common *common;
    const char *task_name, *data, *annotations, *images, *strategies_text, *output, *instruction, *shots_path, *train, *reward_command,
        *form_name;
    uint32_t limit, parallel, shot_count, timeout_s;
    bool unsafe_code, blind;

    const task *task;
    eval_form form;
    scorer *scorer;
    data_file file, shots_file, train_file;
    shots around;
    shot_question *questions; // [file.count]
    size_t longest_prompt;    // in tokens
    uint32_t left_out;        // lines
    size_t overlap;           // questions that are training data
    eval_strategy strategies[EVAL_STRATEGIES];
    size_t strategy_count;
    json_t *settings;
    FILE *log; // results as they come; NULL without --output
} evaluation;

/// Reads OUTPUT.results.jsonl of an interrupted run, if there is one, and opens it to be gone on with. Refuses one of other settings,
/// naming the difference; begins it anew under --force.
zs_status eval_log_open(evaluation *e, zs_error *error);
/// One answer; and what the last questions took together, in the members after results of `times`.
zs_status eval_log_result(evaluation *e, const eval_strategy *strategy, size_t question, const zs_answer *answer, zs_error *error);
zs_status eval_log_times(evaluation *e, const eval_strategy *times, zs_error *error);

/// Everything as JSON, and as a page of Markdown, malloc'ed.
json_t *eval_report(const evaluation *e);
char *eval_table(const json_t *report);

#endif
