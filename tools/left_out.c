#include "left_out.h"

#include "cli.h"

enum { TOLD = 20 };

void left_out_tell(void *user, uint32_t line, const char *reason) {
    left_out *lines = user;
    if (lines->count++ < TOLD) cli_error("%s, line %u is left out: %s", lines->path, line, reason);
}

void left_out_sum_up(const left_out *lines) {
    if (lines->count > TOLD) cli_error("%s: %u lines are left out in all", lines->path, lines->count);
}
