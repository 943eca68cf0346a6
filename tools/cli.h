/// What the sub-commands share: option parsing, opening device/model/engine, messages, progress, JSON output, Ctrl-C.
#ifndef TOOLS_CLI_H
#define TOOLS_CLI_H

#include "zsigma/zsigma.h"

#include <jansson.h>
#include <stdio.h>

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/// What --tier takes, from the lowest; each but the first is a bit of zs_tier, in order.
#define CLI_TIERS "strict", "subgroup", "storage", "half", "dot", "matrix", "matrix2", "chain"

typedef enum cli_kind { CLI_FLAG, CLI_STRING, CLI_UINT, CLI_COUNT /* from 1 on */, CLI_FLOAT, CLI_LIST } cli_kind;

/// What an option that may be given again was given, in order.
enum { CLI_MOST_ITEMS = 16 };
typedef struct cli_list {
    const char *items[CLI_MOST_ITEMS];
    size_t count;
} cli_list;

/// One option: "--name". value points to bool, const char *, uint32_t, float or cli_list by kind.
typedef struct cli_option {
    const char *name; // without dashes
    char letter;      // 'o' for -o; 0: none
    cli_kind kind;
    void *value;
    const char *argument; // "FILE", in the help
    const char *help;
} cli_option;

typedef struct cli_common {
    const char *device, *tier, *precision, *mode, *kv, *chat_template;
    const char *mmproj; // of commands that take CLI_MMPROJ
    uint32_t ctx;
    bool json, verbose, quiet, force, help, validate;
} cli_common;

/// An option of commands whose model may see images.
#define CLI_MMPROJ(common)                                                                                                                 \
    { "mmproj", 0, CLI_STRING, &(common)->mmproj, "FILE", "the image tower of a model whose own file has none" }

typedef struct cli_command {
    const char *name, *usage, *summary, *example;
    const cli_option *options; // the command's own, ended by name == NULL; the common ones are added
    cli_common *common;
} cli_command;

/// Parses; positional arguments are moved to the front of argv and counted. Unknown options, missing or bad values print
/// a message with the nearest option's name, or what may stand there, and give CLI_USAGE. --help prints usage, options and the example and
/// gives CLI_DONE with *stop set.
int cli_parse(const cli_command *command, int argc, char **argv, int *positional, bool *stop);

/// "zsigma: COMMAND: problem", a printf-style text, and the usage line; gives CLI_USAGE.
int cli_usage(const cli_command *command, const char *problem, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
/// A whole number of up to 64 bits, as --seed and its like take; CLI_USAGE after a message that names the option.
int cli_read_seed(const cli_command *command, const char *option, const char *text, uint64_t *seed);
/// Where a name stands in names[count], some of which may be NULL, for options that take one of a few words; *place stays as it is for no
/// name. False for another.
bool cli_choose(const char *name, const char *const *names, uint32_t count, uint32_t *place);
/// Names of kinds of matrices with commas between them, as --matrices takes them: ZS_MATRICES_* bits, 0 for NULL. False for another name.
bool cli_read_matrices(const char *list, uint32_t *matrices);
/// Edit distance of two names, for "did you mean".
size_t cli_distance(const char *a, const char *b);

/// Whether text on a file descriptor may be coloured.
bool cli_colour(int fd);
/// CLI_USAGE, with a message that names `what` and the first byte that is no UTF-8, if there is one.
int cli_check_utf8(const cli_command *command, const char *what, const char *text);
/// Reads a stream to its end; malloc'ed and terminated. NULL when it cannot be read or is too long, errno tells.
char *cli_read_stream(FILE *stream, size_t *length);

/// "zsigma: message" on stderr; in colour on a terminal.
void cli_error(const char *format, ...);
void cli_note(const cli_common *common, const char *format, ...); // nothing under --quiet
/// Prints error and gives CLI_FAILED.
int cli_fail(const zs_error *error);

/// Progress bar with time left on stderr when it is a terminal and not --quiet; returns false after Ctrl-C.
zs_progress cli_progress(const cli_common *common);
zs_log cli_log(const cli_common *common);

/// From here on Ctrl-C sets a flag and cancels the engine (NULL: none yet); a second Ctrl-C ends the program at once. One
/// that came before the engine was there cancels it now.
void cli_watch(zs_engine *engine);
/// Forgets a Ctrl-C: the engine works again.
void cli_forget_interrupt(void);
/// Whether the program was asked to end, not only to stop what it does.
bool cli_terminated(void);

/// Opens device, model and engine by the common options; destroys what was made on failure.
typedef struct cli_stack {
    zs_device *device;
    zs_model *model;
    zs_engine *engine;
    zs_plan plan; // all zero: none was made
} cli_stack;
zs_status cli_open_device(const cli_common *common, zs_device **device, zs_error *error);
/// Device and model, then the engine: for parameters that go by the model.
zs_status cli_open_model(const cli_common *common, const char *model_path, cli_stack *stack, zs_error *error);
zs_status cli_open_engine(const cli_common *common, const zs_engine_params *engine_params, cli_stack *stack, zs_error *error);
/// Texts side by side: sessions as asked for, or (0) up to 64, with images 16, and as many of them as the device's memory holds.
typedef struct cli_parallel {
    uint32_t asked;
    bool images;        // whose features take memory, too
    size_t texts;       // of which there are no more at a time
    uint64_t kv_tokens; // of one
    uint64_t kv_more;   // beside theirs
} cli_parallel;
/// As cli_open_engine; engine_params is not NULL, and its max_sessions and kv_tokens are not looked at.
zs_status cli_open_engine_parallel(const cli_common *common, const cli_parallel *parallel, const zs_engine_params *engine_params,
                                   cli_stack *stack, zs_error *error);
zs_status cli_open_model_planned(const cli_common *common, const char *model_path, const zs_plan_params *plan_params, cli_stack *stack,
                                 zs_error *error);
/// Model and engine, as planned for texts of plan_params->tokens.
zs_status cli_open_planned(const cli_common *common, const char *model_path, const zs_plan_params *plan_params, cli_stack *stack,
                           zs_error *error);
void cli_close(cli_stack *stack);
/// The context that engines have: --ctx or 4096, and not more than the model's.
uint32_t cli_context(const cli_common *common, const zs_model *model);
/// FOLDER/NAME.safetensors → NAME, malloc'ed; NULL without memory.
char *cli_name_of(const char *path);
/// Names of a mask's tiers.
json_t *cli_tiers_json(uint32_t tiers);
/// "f32", "f16", "q8_0"; static.
const char *cli_kv_name(zs_kv_type type);
/// "exact" or "fast"; static.
const char *cli_precision_name(zs_precision precision);
zs_precision cli_precision(const cli_common *common);
/// The common options that an engine has.
void cli_engine_options(const cli_common *common, zs_engine_params *params);

// planning.c
/// --mode, as an engine knows it: auto and dense leave it open.
void cli_mode(const cli_common *common, zs_engine_params *params);
/// Whether a model can have the mode that was asked for.
zs_status cli_check_mode(const cli_common *common, bool factored, const char *path, zs_error *error);
/// Plans; reasons are told under --verbose.
zs_status cli_make_plan(const cli_common *common, zs_device *device, const char *path, const zs_plan_params *params, zs_plan *plan,
                        zs_error *error);
/// Bytes per place on stdout.
void cli_print_plan(const cli_common *common, const char *model, const zs_device *device, const zs_plan *plan);
/// --plan: all of it, without loading anything.
int cli_plan(const cli_common *common, const char *path, const zs_plan_params *params);

/// Seconds of a monotonic clock.
double cli_now_seconds(void);

/// Prints one JSON object to stdout and frees it.
void cli_print_json(json_t *object);

int cmd_devices(int argc, char **argv);
int cmd_factor(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_ask(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_expert(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_adapt(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
