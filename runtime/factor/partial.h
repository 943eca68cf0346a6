/// OUT.partial: the finished matrices of a run, so that an interrupted one can go on. A header that ties it to its input and
/// parameters, then records appended whole; a record cut off by a crash is ignored.
#ifndef FACTOR_PARTIAL_H
#define FACTOR_PARTIAL_H

#include "factor/factored.h"

#include <stdio.h>

typedef struct partial_file {
    char *path;
    FILE *stream;
    uint64_t *offsets; // [count]: of each matrix's record; 0: not there
    uint32_t count;
} partial_file;

/// `key` says what the records are good for (input and parameters); a file with another key is started anew. *resumed is
/// the number of records found.
zs_status partial_open(const char *output, uint64_t key, uint32_t count, const factored *plans, partial_file *partial, uint32_t *resumed, zs_error *error);
zs_status partial_append(partial_file *partial, uint32_t index, const factored *f, zs_error *error);
/// Reads a record back; the caller frees it by factored_free.
zs_status partial_read(partial_file *partial, uint32_t index, factored *f, zs_error *error);
/// remove: the work is done; otherwise it stays for the next run.
void partial_close(partial_file *partial, bool remove);

#endif
