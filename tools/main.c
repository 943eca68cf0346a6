#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"devices", "what Vulkan sees, each device's tiers, the self-test's result", cmd_devices},
    {"factor", "turn a model (GGUF, Hugging Face folder) into a factored one", cmd_factor},
    {"ask", "answer a question in two passes", cmd_ask},
    {"chat", "the same, interactive", cmd_chat},
    {"score", "log-probability of an answer, token by token", cmd_score},
    {"tokenize", "text on standard input to token ids", cmd_tokenize},
    {"merge", "write model and expert as one dense GGUF file", cmd_merge},
    {"train", "makes an expert: from answers, or by reinforcement", cmd_train},
    {"adapt", "find the mix of experts that solves a few examples best", cmd_adapt},
    {"eval", "measure strategies on a data set, against the base model", cmd_eval},
    {"expert", "show, compare, import or export experts, or make one of a fine-tune", cmd_expert},
    {"bench", "measure this device with a model", cmd_bench},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(void) {
    puts("zsigma " ZS_VERSION ": self-adapting language models (Transformer²) on any Vulkan device\n\nusage: zsigma COMMAND …\n");
    for (size_t i = 0; i < COMMANDS; i++) printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    puts("\nzsigma COMMAND --help tells a command's options, with an example.");
}

/// Output that could not be written (a full disk) must not pass for success.
static int finish(int result) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return result;
    cli_error("standard output cannot be written%s%s", errno ? ": " : "",
              errno ? strerror(errno) : ""); // an earlier failure left no reason
    return result ? result : CLI_FAILED;
}

/// Mesa's driver for CPUs uses half of the registers of a CPU with AVX-512 unless it is told to take them whole, which makes it half as
/// fast again (tests/bench/README.md). It reads this when the Vulkan instance is made; what the user has set stays.
static void widen_cpu_driver(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        setenv("LP_NATIVE_VECTOR_WIDTH", "512", 0);
#endif
}

int main(int argc, char **argv) {
    widen_cpu_driver();
    if (argc < 2) {
        print_help();
        return CLI_USAGE;
    }
    static char help[] = "--help";
    if (argc == 3 && strcmp(argv[1], "help") == 0) { // help COMMAND: COMMAND --help
        argv[1] = argv[2];
        argv[2] = help;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help();
        return finish(CLI_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("zsigma " ZS_VERSION);
        return finish(CLI_DONE);
    }
    if (argv[1][0] == '-') {
        cli_error("options come after the command: zsigma COMMAND %s", argv[1]);
        return CLI_USAGE;
    }
    size_t nearest = 0;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) return finish(commands[i].run(argc - 1, argv + 1));
        if (cli_distance(argv[1], commands[i].name) < cli_distance(argv[1], commands[nearest].name)) nearest = i;
    }
    if (cli_distance(argv[1], commands[nearest].name) < 3)
        cli_error("unknown command %s; did you mean %s?", argv[1], commands[nearest].name);
    else
        cli_error("unknown command %s (see zsigma --help)", argv[1]);
    return CLI_USAGE;
}
