/// Data for training and evaluation: JSON Lines, {"id", "prompt" or "messages", "answer"} (DESIGN.md §4).
#ifndef TOOLS_DATA_FILE_H
#define TOOLS_DATA_FILE_H

#include "zsigma/zsigma.h"

#include <jansson.h>

/// A line of data; texts belong to root.
typedef struct data_item {
    json_t *root;
    uint32_t line;        // from 1 on
    const char *id;       // NULL: none
    zs_message *messages; // [message_count]: a prompt is one user's message
    size_t message_count;
    const char *answer;
} data_item;

typedef struct data_file {
    data_item *items;
    size_t count;
} data_file;

/// One line (without its end) into item. What is wrong goes to reason[size], and false is returned: no JSON object, a member that is
/// missing, of another type, empty or doubled, text that is no UTF-8. Members of other names are left alone. item->line is not touched.
bool data_item_parse(const char *text, size_t length, data_item *item, char *reason, size_t size);
void data_item_free(data_item *item);

/// Told of every line that is left out.
typedef void (*data_complain)(void *user, uint32_t line, const char *reason);

/// Reads a file; blank lines count as lines and are nothing else. Malformed ones are left out and told, which is no error.
zs_status data_file_read(const char *path, data_complain complain, void *user, data_file *data, zs_error *error);
void data_file_free(data_file *data);

#endif
