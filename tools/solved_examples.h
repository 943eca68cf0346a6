/// Solved examples of a task, as questions to the engine and as ids.
#ifndef TOOLS_SOLVED_EXAMPLES_H
#define TOOLS_SOLVED_EXAMPLES_H

#include "cli.h"
#include "image_shelf.h"
#include "shots.h"

typedef struct solved_example {
    shot_question question;
    const zs_image *image;     // NULL: none
    uint32_t *prompt, *answer; // the image is one mark in prompt
    size_t prompt_count, answer_count;
    size_t rows; // of the prompt, those of the image too
} solved_example;

typedef struct solved_examples {
    solved_example *items; // [count]
    size_t count;
    size_t longest; // tokens of a question and its answer
    size_t rows;    // of all prompts
    image_shelf shelf;
} solved_examples;

typedef struct solved_params {
    const char *path;        // of the file, for messages
    const char *instruction; // behind each question; NULL: nothing
    const char *system;      // NULL: the item's own, or the model's
    size_t max_tokens;       // of an answer
} solved_params;

/// Of every item of a file, which is read as long as they are, for a model with a tokenizer. Errors: an image that cannot be used, more
/// than the context holds. solved_examples_free in any case.
zs_status solved_examples_make(const data_file *file, const solved_params *params, const cli_common *common, const zs_model *model,
                               solved_examples *made, zs_error *error);
void solved_examples_free(solved_examples *examples);
/// The prompt as the engine takes it: an image in it is ids that it gives, seen under an expert. *ids is the caller's, also after an error.
zs_status solved_example_prompt(const solved_example *example, zs_engine *engine, uint32_t expert, uint32_t **ids, size_t *count,
                                zs_error *error);

#endif
