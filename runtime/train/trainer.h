/// The inside of zs_trainer: what a step of any kind of training works with.
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "train/checkpoint.h"
#include "train/gradient.h"
#include "train/optimiser.h"
#include "train/parameters.h"
#include "train/prompts.h"

struct zs_trainer {
    zs_model *model;
    zs_trainer_params params; // as chosen
    parameters parameters;
    optimiser optimiser;
    zs_gradient *gradient;
    setting_list settings;
    float *slope;            // [count]: the gradient of a step's loss by the values
    float *centres;          // [count]
    float *before;           // [count]: the values before a step
    float *best;             // [count]
    size_t *order;           // [item_count]: items in this round's order
    uint64_t round;          // whose order it is
    zs_gradient_item *batch; // [batch, or batch · rollouts]
    train_prompt *prompts;   // [batch]: of a step's items, where their answers are made
    checkpoint state;        // counters; its arrays are those above
    bool resumed, stopped;
    bool images; // items or validation have some
};

/// Items of the next step: places in params.items.
size_t trainer_item(zs_trainer *trainer, uint64_t position);
double trainer_now_ms(void);
/// The values as they are, under a name that messages may tell.
zs_status trainer_current(const zs_trainer *trainer, zs_expert **expert, zs_error *error);

/// Supervised training. The gradient of the mean log-probability of the step's answer tokens is left in trainer->gradient.
zs_status supervised_step(zs_trainer *trainer, zs_train_figures *figures, zs_error *error);
zs_status supervised_evaluate(zs_trainer *trainer, zs_train_figures *figures, zs_error *error);

/// The gradient of the mean of A log π(answer) − λ KL, over answers that are made and scored.
zs_status reinforce_step(zs_trainer *trainer, zs_train_figures *figures, zs_error *error);
zs_status reinforce_evaluate(zs_trainer *trainer, zs_train_figures *figures, zs_error *error);

#endif
