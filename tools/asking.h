/// What ask and chat share: options, experts, and how an answer is told.
#ifndef TOOLS_ASKING_H
#define TOOLS_ASKING_H

#include "pictures.h"
#include "transfer.h"

/// The options as typed, then what they name.
typedef struct asking {
    const char *model, *experts_folder, *strategy, *dispatch, *expert_name, *alpha_list, *system, *seed;
    uint32_t max_tokens, top_k;
    float temperature, top_p, min_p, repetition_penalty;
    bool plan;
    transfer transfer;
    cli_list image_names; // ask's

    cli_stack stack;
    zs_expert_set *experts;
    zs_expert *expert; // from a file
    double *alpha;
    pictures images;
    zs_ask_params params;
    bool open_line; // part of an answer was printed
} asking;

/// What eval and adapt are told alike about a task, as lines of their options; o has members of these names.
#define TASK_OPTIONS(o)                                                                                                                    \
    {"parallel", 0, CLI_UINT, &(o)->parallel, "N", "answers side by side; default: 64, fewer where memory is short"},                      \
        {"instruction", 0, CLI_STRING, &(o)->instruction, "TEXT", "put behind each question; \"task\": the task's own form"},              \
        {"reward-command", 0, CLI_STRING, &(o)->reward_command, "CMD", "score by a command: JSON on its input, a number from 0 to 1"},     \
        {"timeout", 0, CLI_UINT, &(o)->timeout_s, "S", "of generated code or the command, per answer; default 10"}, {                      \
        "unsafe-code", 0, CLI_FLAG, &(o)->unsafe_code, NULL, "run generated code without bubblewrap"                                       \
    }

enum { ASKING_OPTIONS = 19 };
/// Fills options[ASKING_OPTIONS], ended by a zero.
void asking_options(asking *a, cli_common *common, cli_option *options);
/// Reads experts, weights and sampling; several: the strategies are the caller's, by asking_set_strategy. CLI_DONE, or CLI_FAILED and
/// CLI_USAGE after a message. asking_close in any case.
int asking_prepare(asking *a, const cli_command *command, bool several);
/// Sets params.strategy by name after checking that its options were given.
int asking_set_strategy(asking *a, const cli_command *command, const char *name);
/// --plan: prints it; the exit status.
int asking_plan(const asking *a, const cli_command *command);
/// Opens everything the options name; CLI_DONE, or CLI_FAILED and CLI_USAGE after a message. asking_close in any case.
int asking_open(asking *a, const cli_command *command);
void asking_close(asking *a);
/// Answers go to standard output as they are made; asking_end_line ends one that was begun.
void asking_stream(asking *a);
void asking_end_line(asking *a);
const char *asking_strategy_name(zs_strategy strategy);
/// One line for a person: which expert answered and how fast.
void asking_summary(const zs_answer *answer, char *text, size_t size);

#endif
