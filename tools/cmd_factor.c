#include "cli.h"
#include "zsigma/zsigma_lab.h"

#include <stdio.h>

static const char *const type_names[] = {[ZS_FACTOR_F16] = "f16", [ZS_FACTOR_F32] = "f32", [ZS_FACTOR_Q8_0] = "q8_0"};

static void print_report(const cli_common *common, const char *output, const zs_factor_report *report) {
    if (common->json) {
        json_t *kinds = json_object();
        for (uint32_t i = 0; i < report->kind_count; i++) {
            const zs_factor_error *e = &report->kinds[i];
            json_object_set_new(kinds, e->kind,
                                json_pack("{s:i, s:f, s:f}", "matrices", (int)e->matrices, "mean_error", e->mean, "max_error", e->max));
        }
        cli_print_json(json_pack("{s:s, s:I, s:f, s:i, s:I, s:I, s:i, s:o}", "output", output, "bytes", (json_int_t)report->bytes,
                                 "seconds", report->seconds, "resumed", (int)report->resumed, "memory_limit_bytes",
                                 (json_int_t)report->memory, "memory_bytes", (json_int_t)report->memory_used, "side_by_side",
                                 (int)report->side_by_side, "kinds", kinds));
        return;
    }
    printf("%-12s %8s  %-23s %s\n", "matrices", "count", "mean ‖W−UσVᵀ‖/‖W‖", "max");
    for (uint32_t i = 0; i < report->kind_count; i++) {
        const zs_factor_error *e = &report->kinds[i];
        printf("%-12s %8u  %-19.2e %.2e\n", e->kind, e->matrices, e->mean, e->max);
    }
    printf("%s: %.1f MB in %.1f s; at most %u matrices at once, which took %.2f GB of %.2f (--memory)\n", output,
           (double)report->bytes / 1e6, report->seconds, report->side_by_side, (double)report->memory_used / 1e9,
           (double)report->memory / 1e9);
}

int cmd_factor(int argc, char **argv) {
    cli_common common = {0};
    const char *output = NULL, *type = NULL, *matrices = NULL;
    uint32_t threads = 0;
    float memory = 0;
    const cli_option options[] = {
        {"output", 'o', CLI_STRING, &output, "FILE", "the factored model"},
        {"type", 0, CLI_STRING, &type, "TYPE", "of the factors: f16 (default), f32, q8_0"},
        {"matrices", 0, CLI_STRING, &matrices, "LIST", "of mlp, attention, all (both; the default), tower, projector"},
        CLI_MMPROJ(&common),
        {"threads", 0, CLI_COUNT, &threads, "N", "default: one per processor"},
        {"memory", 0, CLI_FLOAT, &memory, "GB", "that matrices at work may take together; default: half of the system's, 8 at most"},
        {0},
    };
    const cli_command command = {"factor",
                                 "MODEL -o OUT.gguf",
                                 "turns a model's matrices into U, σ and Vᵀ",
                                 "zsigma factor SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2.gguf",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    zs_factor_params params = {
        .threads = threads, .mmproj = common.mmproj, .force = common.force, .progress = cli_progress(&common), .log = cli_log(&common)};
    if (memory < 0 || memory > 1e6f) return cli_usage(&command, "--memory is a number of gigabytes");
    params.memory = (uint64_t)((double)memory * 1e9);
    if (positional != 1) return cli_usage(&command, "one input file is expected");
    if (!output) return cli_usage(&command, "where to? give -o OUT.gguf");
    uint32_t chosen = params.type;
    if (!cli_choose(type, type_names, sizeof type_names / sizeof *type_names, &chosen))
        return cli_usage(&command, "--type is f16, f32 or q8_0");
    params.type = (zs_factor_type)chosen;
    if (!cli_read_matrices(matrices ? matrices : "all", &params.matrices))
        return cli_usage(&command, "--matrices is a list of mlp, attention, tower, projector; or all");
    cli_watch(NULL);
    zs_error error;
    zs_factor_report report;
    if (zs_factor_file(argv[0], output, &params, &report, &error)) return cli_fail(&error);
    if (report.resumed) cli_note(&common, "%u matrices were taken from %s.partial", report.resumed, output);
    if (!common.quiet || common.json) print_report(&common, output, &report);
    return CLI_DONE;
}
