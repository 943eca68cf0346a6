/// Generated Python, run where it can do no harm: under bubblewrap, without network, with nothing to write to but a temporary folder in
/// memory, with limits on time, memory, files and processes.
#ifndef TOOLS_SANDBOX_H
#define TOOLS_SANDBOX_H

#include "zsigma/zsigma.h"

typedef struct sandbox {
    const char *python; // NULL: /usr/bin/python3; below /usr unless unsafe_code
    uint32_t timeout_ms;
    uint64_t memory;  // bytes of address space per process
    bool unsafe_code; // without bubblewrap
    bool as_nobody;   // found out by sandbox_open: root's processes are not counted
} sandbox;

/// Fills in what is 0 (10 s, 1 GB) and tests that programs run and are kept apart. Errors: ZS_ERROR_UNSUPPORTED (bubblewrap or Python is
/// missing, or the system forbids namespaces: with the reason, and what to do).
zs_status sandbox_open(sandbox *box, zs_error *error);

/// *passed: the program ran to its last line in time. reason[size], where it did not: "timed out", "exit status 1: …".
zs_status sandbox_run(const sandbox *box, const char *program, bool *passed, char *reason, size_t size, zs_error *error);

#endif
