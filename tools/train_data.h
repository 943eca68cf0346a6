/// Data files as ids: what the library trains on.
#ifndef TOOLS_TRAIN_DATA_H
#define TOOLS_TRAIN_DATA_H

#include "image_shelf.h"
#include "left_out.h"
#include "task.h"
#include "zsigma/zsigma_lab.h"

typedef struct train_data {
    data_file file;
    zs_train_item *items;  // [count]: the lines that are used
    size_t *lines;         // [count]: places in file.items
    const char **pictures; // [count]: paths of the items' images; NULL: none
    size_t count;
    left_out left_out;               // lines
    const task *task;                // NULL: answers are learnt as they are
    const zs_expert_set *categories; // answers are these experts' names, learnt behind pass 1's prompt; NULL: none
    bool images;                     // lines about images are used
    image_shelf shelf;               // of theirs; all pixels stay in memory
    size_t longest;                  // tokens of a prompt, those of its image too
} train_data;

/// Reads and checks files->data (with what belongs to it), before any model is there; under a task, what its scorer can use.
zs_status train_data_read(const task_files *files, const task *under, train_data *data, zs_error *error);

typedef struct train_data_params {
    uint32_t context; // tokens that a line may have: prompt and answer, or under a task prompt and `room` tokens
    uint32_t room;
    bool end_token;       // it is part of the answers, where those are learnt as they are
    zs_progress progress; // "images"
} train_data_params;

/// Turns lines into ids; those that do not fit, and those about images where these are not used or cannot be read, are left out and told.
/// ZS_ERROR_FORMAT when no line is left.
zs_status train_data_encode(train_data *data, const zs_model *model, const train_data_params *params, zs_error *error);
/// Moves every fifth line, drawn by seed, to `valid`, which is empty.
zs_status train_data_split(train_data *data, uint32_t seed, train_data *valid, zs_error *error);
void train_data_free(train_data *data);
/// Lines of `data` whose prompt is one of `other`'s, about the same image.
size_t train_data_overlap(const train_data *data, const train_data *other);

#endif
