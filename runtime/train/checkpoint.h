/// A training's state as a safetensors file: the values, the best ones so far, the optimiser's averages, the counters, and the settings
/// under which they mean something. Random numbers go by counters, so there is no state of theirs.
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "loader/safetensors.h"

enum { SETTING_TEXT = 160, SETTINGS_MAX = 48 };

typedef struct setting {
    const char *name; // static, as it is told: "batch"
    char value[SETTING_TEXT];
} setting;

typedef struct setting_list {
    setting items[SETTINGS_MAX];
    size_t count;
} setting_list;

void setting_add_text(setting_list *list, const char *name, const char *value);
void setting_add(setting_list *list, const char *name, double value);
/// 64 bits, in hexadecimal digits: seeds and fingerprints.
void setting_add_bits(setting_list *list, const char *name, uint64_t value);

typedef struct checkpoint {
    float *values, *best, *mean, *square; // [count], of the training's own
    size_t count;
    uint32_t step, best_step, worse; // worse: evaluations since the best
    uint32_t evaluated;              // 1 + the step of the last evaluation; 0: there was none
    double first_valid, best_valid;
    uint64_t tokens;
} checkpoint;

/// Replaces an older one, whole or not at all.
zs_status checkpoint_save(const char *path, const checkpoint *checkpoint, const setting_list *settings, zs_error *error);
/// Fills the arrays and counters. ZS_ERROR_MISMATCH names the first setting that differs.
zs_status checkpoint_load(const char *path, const setting_list *settings, checkpoint *checkpoint, zs_error *error);
/// The same from a file that is open.
zs_status checkpoint_read(const safetensors_file *file, const char *path, const setting_list *settings, checkpoint *checkpoint,
                          zs_error *error);

#endif
