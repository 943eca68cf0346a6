/// The parts of zsigma expert: each gives the program's exit status.
#ifndef TOOLS_EXPERT_H
#define TOOLS_EXPERT_H

#include "cli.h"

typedef struct expert_options {
    const char *output, *model, *like, *name, *description, *keys, *svg;
    bool rescale;
} expert_options;

int expert_show(const cli_common *common, const char *path);
int expert_compare(const cli_common *common, const char *first, const char *second, const char *svg);
/// From and to the files of the paper's authors.
int expert_import(const cli_command *command, const expert_options *options, const char *path);
int expert_export(const cli_command *command, const expert_options *options, const char *path);
/// The expert that comes nearest to a fine-tuned model, or to a LoRA.
int expert_project(const cli_command *command, const expert_options *options, const char *tuned);

#endif
