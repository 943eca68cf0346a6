/// Another program, run to its end or to its time limit.
#ifndef TOOLS_CHILD_H
#define TOOLS_CHILD_H

#include "zsigma/zsigma.h"

typedef struct child_params {
    const char *const *argv; // ended by NULL; the program is looked for as the shell does
    const char *input;       // for its standard input
    size_t input_size;
    const char *folder;  // to run in; NULL: this process's
    uint32_t timeout_ms; // then it is killed, with what it started in its process group
    bool as_nobody;      // where this process is root's, the program is not
} child_params;

typedef struct child_result {
    int exit_status; // −1: killed by a signal
    bool timed_out;
    char output[4096], errors[1024]; // the first bytes of its standard output and error; terminated
    double ms;
} child_result;

/// Errors: ZS_ERROR_IO (no process can be made). A program that cannot be started gives exit_status 127.
zs_status child_run(const child_params *params, child_result *result, zs_error *error);

#endif
