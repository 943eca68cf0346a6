/// What reinforcement needs besides data: the scorer of the task, and the engine that makes the answers.
#ifndef TOOLS_TRAIN_REWARD_H
#define TOOLS_TRAIN_REWARD_H

#include "train.h"

typedef struct train_reward {
    const train_options *options;
    const train_data *data, *valid;
    scorer *scorer;
} train_reward;

/// ZS_ERROR_UNSUPPORTED where generated code cannot be run here.
zs_status train_reward_open(const train_options *options, const train_data *data, const train_data *valid, train_reward *reward,
                            zs_error *error);
void train_reward_close(train_reward *reward);
/// zs_trainer_params.reward
zs_status train_reward_score(void *user, bool valid, size_t item, const char *answer, double *score, zs_error *error);

/// An engine with room for as many sessions as a step has answers, up to options->sessions, each of the longest prompt and answer, and for
/// a step's images.
zs_status train_open_engine(const train_options *options, const train_data *data, const train_data *valid, cli_stack *stack,
                            zs_error *error);

#endif
