/// Data for training and evaluation: JSON Lines, {"id", "prompt" or "messages", "answer" or "answers", "choices"?, "image"?, "tests"?}
/// (DESIGN.md §4). Published formats become the same items (tools/published.h).
#ifndef TOOLS_DATA_FILE_H
#define TOOLS_DATA_FILE_H

#include "zsigma/zsigma.h"

#include <jansson.h>

/// One option of a multiple-choice question.
typedef struct data_choice {
    const char *label, *text;
} data_choice;

/// A line of data; texts belong to root.
typedef struct data_item {
    json_t *root;
    uint32_t line;        // from 1 on; in files that are one JSON value: the entry's number
    const char *id;       // NULL: none
    zs_message *messages; // [message_count]: a prompt is one user's message
    size_t message_count;
    const char *answer;   // what is learnt, and what an answer is held against; the first of answers
    const char **answers; // [answer_count], each right; people's answers in VQA
    size_t answer_count;
    data_choice *choices; // [choice_count], labels differ; the answer is the label of one, or its text
    size_t choice_count;
    const char *stem;     // of a multiple-choice question: the question without its choices; NULL: not told
    const char *category; // what the dispatcher should find; NULL: unknown
    const char *image;    // path, as the line tells it; NULL: none

    // Generated Python, else NULL: program = what the answer holds, with code_prefix in front where it is only a function's body, then
    // tests.
    const char *tests, *code_prefix, *entry_point;
} data_item;

typedef struct data_file {
    data_item *items;
    size_t count;
} data_file;

/// Turns an object of another format, which it takes over, into one of ours; NULL after a reason. An object of ours comes back as it is.
typedef json_t *(*data_convert)(void *user, json_t *object, char *reason, size_t size);

/// An object, which it takes over, into item. What is wrong goes to reason[size], and false is returned: a member that is missing, of
/// another type or empty. Members of other names are left alone. item->line is not touched.
bool data_item_take(json_t *root, data_item *item, char *reason, size_t size);
/// One line (without its end) into item, likewise; no JSON object, doubled members and text that is no UTF-8 are reasons too.
bool data_item_parse(const char *text, size_t length, data_item *item, char *reason, size_t size);
void data_item_free(data_item *item);

/// Told of every line that is left out.
typedef void (*data_complain)(void *user, uint32_t line, const char *reason);

/// Reads a file, gzip or not; blank lines count as lines and are nothing else. Malformed ones are left out and told, which is no error.
zs_status data_file_read(const char *path, data_complain complain, void *user, data_file *data, zs_error *error);
/// The same with each object converted first; convert may be NULL.
zs_status data_file_read_lines(const char *path, data_convert convert, void *convert_user, data_complain complain, void *user,
                               data_file *data, zs_error *error);
/// Appends an item, which it takes over. capacity: of data->items, 0 at first.
zs_status data_file_append(data_file *data, data_item *item, size_t *capacity, zs_error *error);
void data_file_free(data_file *data);

#endif
