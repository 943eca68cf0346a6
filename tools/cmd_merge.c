#include "cli.h"
#include "zsigma/zsigma_lab.h"

static const char *const type_names[] = {
    [ZS_MERGE_F16] = "f16", [ZS_MERGE_F32] = "f32", [ZS_MERGE_Q8_0] = "q8_0", [ZS_MERGE_Q4_0] = "q4_0"};

int cmd_merge(int argc, char **argv) {
    cli_common common = {0};
    const char *model = NULL, *expert = NULL, *output = NULL, *type = NULL;
    bool transfer = false;
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &model, "FILE", "factored model"},
        {"expert", 0, CLI_STRING, &expert, "FILE", "expert or mix; default: none, the base"},
        {"output", 'o', CLI_STRING, &output, "FILE", "the dense model"},
        {"type", 0, CLI_STRING, &type, "TYPE", "of its matrices: f16 (default), f32, q8_0, q4_0"},
        {"transfer", 0, CLI_FLAG, &transfer, NULL, "accept an expert made for another model"},
        {0},
    };
    const cli_command command = {"merge",
                                 "-m MODEL --expert FILE -o OUT.gguf",
                                 "writes model and expert as one dense GGUF file, for any other program",
                                 "zsigma merge -m smollm2.gguf --expert assets/experts/math.safetensors -o smollm2-math.gguf",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    zs_merge_params params = {.force = common.force, .transfer = transfer, .progress = cli_progress(&common), .log = cli_log(&common)};
    if (positional) return cli_usage(&command, "no other arguments are expected");
    if (!model) return cli_usage(&command, "which model? give -m FILE");
    if (!output) return cli_usage(&command, "where to? give -o OUT.gguf");
    uint32_t chosen = params.type;
    if (!cli_choose(type, type_names, sizeof type_names / sizeof *type_names, &chosen))
        return cli_usage(&command, "--type is f16, f32, q8_0 or q4_0");
    params.type = (zs_merge_type)chosen;
    cli_watch(NULL);
    zs_error error;
    uint32_t matrices;
    if (zs_merge_file(model, expert, output, &params, &matrices, &error)) return cli_fail(&error);
    if (common.json)
        cli_print_json(json_pack("{s:s, s:i}", "output", output, "matrices", (int)matrices));
    else if (!common.quiet)
        cli_note(&common, "%s: %u matrices recomposed", output, matrices);
    return CLI_DONE;
}
