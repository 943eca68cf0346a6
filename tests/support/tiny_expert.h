/// Random experts for the tiny model: the same everywhere, in memory or as a file.
#ifndef SUPPORT_TINY_EXPERT_H
#define SUPPORT_TINY_EXPERT_H

#include "loader/expert_file.h"

typedef struct tiny_expert_params {
    const char *name; // NULL: "tiny"
    uint64_t seed;
    float spread;  // values lie within ± spread of 1 (of 0 under sigmoid); 0: 0.5
    bool mlp_only; // attention's matrices are left out
    bool sigmoid, trace, dispatcher;
    float max_mult;   // 0: 1
    const char *base; // a factored model's file, whose sketches it carries; NULL: none
} tiny_expert_params;

/// To be freed with expert_file_free. No memory, or a base that cannot be read, ends the process.
void tiny_expert_make(const tiny_expert_params *params, expert_file *file);
/// Writes it, over an old file too.
zs_status tiny_expert_write(const tiny_expert_params *params, const char *path, zs_error *error);

#endif
