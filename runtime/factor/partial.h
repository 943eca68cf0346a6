/// OUT.partial: the finished matrices of a run, so that an interrupted one can go on. A header that ties it to the parameters,
/// then records appended whole, each with a hash of the weights it was made from and one of its own contents: a record that was
/// cut off or damaged, or whose weights are other ones now, is worth nothing.
#ifndef FACTOR_PARTIAL_H
#define FACTOR_PARTIAL_H

#include "factor/factored.h"

#include <stdio.h>

typedef struct partial_file {
    char *path;
    FILE *stream;
    uint64_t *offsets; // [count]: of each matrix's record; 0: not there
    uint64_t *weights; // [count]: partial_hash of what it was made from, where there is one
    uint32_t count;
} partial_file;

/// Not for adversaries: tells changed and damaged bytes from sound ones. `hash`: of what came before, or 0.
uint64_t partial_hash(uint64_t hash, const void *data, size_t size);

/// `key` says what the records are good for (the parameters); a file with another key is started anew. Errors: ZS_ERROR_EXISTS
/// when another run is at work on the file, or when it is none of ours; ZS_ERROR_IO.
zs_status partial_open(const char *output, uint64_t key, uint32_t count, const factored *plans, partial_file *partial, zs_error *error);
zs_status partial_append(partial_file *partial, uint32_t index, uint64_t weights, const factored *f, zs_error *error);
/// Reads a record back; the caller frees it by factored_free.
zs_status partial_read(partial_file *partial, uint32_t index, factored *f, zs_error *error);
/// remove: the work is done; otherwise it stays for the next run.
void partial_close(partial_file *partial, bool remove);

#endif
