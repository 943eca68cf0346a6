/// zsigma eval: what its parts share.
#ifndef TOOLS_EVAL_H
#define TOOLS_EVAL_H

#include "asking.h"
#include "image_shelf.h"
#include "left_out.h"
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
    uint64_t prefill_tokens, decode_tokens, images; // images: encoded
    double image_ms;
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
    image_shelf shelf;
    shot_question *questions; // [file.count]
    size_t *order;            // [file.count]: in which they are asked
    size_t longest_prompt;    // in tokens
    left_out left_out;
    size_t overlap; // questions that are training data
    eval_strategy strategies[EVAL_STRATEGIES];
    size_t strategy_count;
    json_t *settings;
    FILE *log; // results as they come; NULL without --output
} evaluation;

enum { EVAL_MAX_PATH = 4096 };
/// The name of an output, OUTPUT with an ending.
zs_status eval_path(const evaluation *e, const char *ending, char path[EVAL_MAX_PATH], zs_error *error);
/// Reads OUTPUT.results.jsonl of an interrupted run, if there is one, and opens it to be gone on with. Refuses one of other settings,
/// naming the difference; begins it anew under --force.
zs_status eval_log_open(evaluation *e, zs_error *error);
/// One answer; and what the last questions took together, in the members after results of `times`.
zs_status eval_log_result(evaluation *e, const eval_strategy *strategy, size_t question, const zs_answer *answer, zs_error *error);
zs_status eval_log_times(evaluation *e, const eval_strategy *times, zs_error *error);

/// Looks at all images once; nothing to do where there are none, or under --blind. Errors: ZS_ERROR_UNSUPPORTED (a model that sees none).
zs_status eval_images_open(evaluation *e, zs_error *error);
/// Adds what the question's images take to *tokens; or why one of them cannot be used.
const char *eval_images_count(const evaluation *e, const shot_question *question, size_t *tokens);
/// Questions about one image are asked one after another, so that it is encoded once.
zs_status eval_images_order(evaluation *e, zs_error *error);
/// The pixels for questions[count], those at places[count]; they are there until image_shelf_clear. *images is malloc'ed, the caller frees
/// it, after a failure too.
zs_status eval_images_take(const evaluation *e, const size_t *places, zs_question *questions, size_t count, const zs_image ***images,
                           zs_error *error);

/// {"answer", "right", "count", "share", "low", "high", "categories"}: the most frequent answer, as if it were given always; NULL where
/// answers are no words.
json_t *eval_majority(const evaluation *e);
/// A question's category, as reports name it.
const char *eval_category(const data_item *item);
/// {"right", "count", "share", "low", "high"}
json_t *eval_share(double right, size_t count);

/// Everything as JSON, and as a page of Markdown, malloc'ed.
json_t *eval_report(const evaluation *e);
char *eval_table(const json_t *report);

#endif
