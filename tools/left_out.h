/// Lines of a data file that cannot be used: the first twenty are told one by one, all are counted.
#ifndef TOOLS_LEFT_OUT_H
#define TOOLS_LEFT_OUT_H

#include <stdint.h>

typedef struct left_out {
    const char *path; // of the file
    uint32_t count;
} left_out;

/// A data_complain; user: a left_out.
void left_out_tell(void *user, uint32_t line, const char *reason);
/// How many they are in all, where not every one was told.
void left_out_sum_up(const left_out *lines);

#endif
