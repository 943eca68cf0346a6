/// The log of a training: JSON Lines, an object a step; and the picture of it.
#ifndef TOOLS_TRAIN_LOG_H
#define TOOLS_TRAIN_LOG_H

#include "zsigma/zsigma_lab.h"

#include <stdio.h>

typedef struct train_log {
    const char *path;
    FILE *file;  // NULL: none is kept
    bool scored; // evaluations are scores: "valid_score" instead of "valid"
} train_log;

/// Opens the log (path NULL: none) of a training that is at `step`: what an earlier run has logged of later steps, which will be made
/// again, goes. At step 0 an older log is ZS_ERROR_EXISTS unless force, and replaced.
zs_status train_log_open(const char *path, uint32_t step, bool scored, bool force, train_log *log, zs_error *error);
/// A line, at once on its way to the file.
zs_status train_log_write(train_log *log, const zs_train_figures *figures, zs_error *error);
void train_log_close(train_log *log);

/// Draws a log's figures over its steps as an SVG file, whole or not at all.
zs_status train_plot_write(const char *log_path, const char *path, zs_error *error);

#endif
