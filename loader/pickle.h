/// Python pickles, as far as torch.save's go (protocol 2): read as a description. Nothing is ever looked up, called or built; a global
/// that is not on the reader's list and an opcode that such files do not have are refused by name.
#ifndef LOADER_PICKLE_H
#define LOADER_PICKLE_H

#include "zsigma/zsigma.h"

typedef enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,       // OrderedDict too
    PICKLE_GLOBAL,     // text: "module.name", one of the list's
    PICKLE_CALL,       // items: the global, the tuple of its arguments
    PICKLE_PERSISTENT, // items: what the pickle leaves to its reader
} pickle_kind;

typedef struct pickle_value {
    pickle_kind kind;
    int64_t integer; // BOOL, INT
    double number;   // FLOAT
    const char *text;
    size_t text_size;            // text is not terminated, but for a GLOBAL's
    struct pickle_value **items; // DICT: key, value, key, value …
    size_t count, capacity;
    struct pickle_value *next; // of the pickle, for its release
} pickle_value;

typedef struct pickle {
    const pickle_value *root;
    pickle_value *first;
} pickle;

/// data has to outlive the pickle. globals: the names that may occur, ended by NULL; "collections.OrderedDict" called without arguments
/// gives a DICT. path is for messages.
zs_status pickle_parse(const void *data, size_t size, const char *const *globals, const char *path, pickle *out, zs_error *error);
void pickle_free(pickle *p);

bool pickle_text_is(const pickle_value *value, const char *text);

#endif
