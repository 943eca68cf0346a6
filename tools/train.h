/// `zsigma train` in parts: options, the gradient dump, the training itself.
#ifndef TOOLS_TRAIN_H
#define TOOLS_TRAIN_H

#include "cli.h"
#include "scorer.h"
#include "train_data.h"
#include "transfer.h"

typedef struct train_options {
    const cli_common *common;
    const char *model, *task, *data, *valid, *annotations, *images, *output, *init, *expert, *experts, *gradient, *log, *plot;
    const char *name, *description, *form, *matrices, *preset, *kl_direction;
    transfer transfer;
    bool constant_rate, deterministic;
    bool classify; // a dispatcher for the experts in a folder
    uint32_t batch, steps, valid_every, checkpoint_every, patience, seed;
    float rate, clip, weight_decay, max_mult;
    // Of reinforcement.
    const task *scored; // NULL: the answers as they are
    const char *reward_command;
    bool greedy, unsafe_code;
    uint32_t rollouts, max_tokens, sessions, timeout_s;
    float temperature, kl, wrong;
} train_options;

/// Tokens of prompt and answer that are used: the model's context, or less by --ctx.
uint32_t train_context(const train_options *options, const zs_model *model);

/// --dump-gradient
zs_status train_dump_gradient(const train_options *options, zs_error *error);
/// An expert into options->output.
zs_status train_expert(const train_options *options, zs_error *error);

#endif
