/// What a task's name means: how its data are read, how answers are scored, how long they may get.
#ifndef TOOLS_TASK_H
#define TOOLS_TASK_H

#include "data_file.h"

typedef enum scorer_kind {
    SCORER_LABEL,   // the same words
    SCORER_NUMERIC, // the same last number
    SCORER_LATEX,   // what the last \boxed{} holds, as the Hendrycks checker compares it
    SCORER_CHOICE,  // the letter or the text of one of the choices
    SCORER_VQA,     // agreement with ten people
    SCORER_CODE,    // Python that passes tests
} scorer_kind;

typedef struct task {
    const char *name, *summary;
    scorer_kind scorer;
    uint32_t max_tokens;     // of an answer, by default
    const char *stop;        // an answer ends before the first occurrence of this text too; NULL: only at an end token
    const char *instruction; // tells the form of the answer: what --instruction puts behind questions unless another is given
    bool images;             // questions are about images
} task;

/// NULL when there is no such task.
const task *task_find(const char *name);
/// What --instruction puts behind questions: the task's own form where that is asked for as "task"; NULL: nothing.
const char *task_instruction(const task *task, const char *asked);
/// i-th task; NULL when i is out of range.
const task *task_get(size_t i);

typedef struct task_files {
    const char *data;        // JSON Lines of ours, or the task's published format; gzip too
    const char *annotations; // okvqa, vqav2: the file of answers beside the file of questions
    const char *images;      // folder of the images; NULL: as published, beside the data
} task_files;

/// Reads a task's data. Items that the task's scorer cannot use are malformed too. Malformed ones are left out and told, by the line's
/// number (or the entry's, in files that are one JSON value), which is no error.
zs_status task_read(const task *task, const task_files *files, data_complain complain, void *user, data_file *data, zs_error *error);

/// Images that items name by a relative path lie in the images' folder, or else in the data's; task_read does it too, for lines of ours.
zs_status task_place_images(const task_files *files, data_file *data, zs_error *error);

/// Whether the task's scorer can use an item; else false, after a reason.
bool task_check_item(const task *task, const data_item *item, char *reason, size_t size);

#endif
