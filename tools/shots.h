/// Questions as they are asked: with solved examples in front and a form of the answer behind.
#ifndef TOOLS_SHOTS_H
#define TOOLS_SHOTS_H

#include "data_file.h"

/// What is put around every question.
typedef struct shots {
    const data_item *items; // [count] solved examples, as earlier turns
    size_t count;
    const char *instruction; // behind each question, the examples' too; NULL: nothing
    bool images;             // what questions and examples are about is shown
} shots;

/// One question made ready: the last message is question.text, those before are its history. Owns its arrays and texts.
typedef struct shot_question {
    zs_question question;
    zs_message *messages; // [count]
    size_t count;
    char **texts; // [text_count] made for it
    size_t text_count;
    const char **image_paths; // [question.image_count]; the pixels are the caller's to put into question.images
    size_t *history_images;   // [question.history_count]
} shot_question;

/// no_system: the item's own system message is left out, because another is given.
zs_status shots_apply(const shots *shots, const data_item *item, bool no_system, shot_question *made, zs_error *error);
void shots_free(shot_question *made);

/// Items of `data` whose question (the last message, spacing aside) is one of `other`'s.
size_t shots_overlap(const data_file *data, const data_file *other);

#endif
