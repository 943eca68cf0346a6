/// Answers that the engine makes to many prompts: as many sessions at a time as it has, each followed by the next prompt's.
#ifndef TRAIN_ROLLOUT_H
#define TRAIN_ROLLOUT_H

#include "zsigma/zsigma_lab.h"

typedef struct rollout {
    const zs_train_item *item;
    size_t index;     // of the item, for the reward
    uint64_t stream;  // of random numbers
    uint32_t *tokens; // [count], the end token with them
    size_t count;
    bool ended; // by an end token
    bool scored;
    double score; // 0 … 1
} rollout;

typedef struct rollout_params {
    zs_engine *engine;
    const zs_expert *expert;
    bool transfer;
    float temperature; // 0: greedy
    uint64_t seed;
    uint32_t max_tokens;
    zs_progress progress;
} rollout_params;

/// Fills tokens, count and ended of rollouts[count].
zs_status rollout_run(const rollout_params *params, rollout *rollouts, size_t count, zs_error *error);
/// The answer's text without its end token; malloc'ed.
zs_status rollout_text(const zs_tokenizer *tokenizer, const rollout *rollout, char **text, zs_error *error);
void rollout_free(rollout *rollouts, size_t count);

#endif
