#include "expert.h"

#include <string.h>

int cmd_expert(int argc, char **argv) {
    cli_common common = {0};
    expert_options o = {0};
    const cli_option options[] = {
        {"output", 'o', CLI_STRING, &o.output, "FILE", "what import, export and project write"},
        {"model", 'm', CLI_STRING, &o.model, "FILE", "import, project: the factored model that the expert is for"},
        {"like", 0, CLI_STRING, &o.like, "FILE", "import: an expert for the same model, in place of -m"},
        {"name", 0, CLI_STRING, &o.name, "NAME", "import, project: the expert's name; default: the output's"},
        {"description", 0, CLI_STRING, &o.description, "TEXT", "import, project: what kind of questions it is for"},
        {"keys", 0, CLI_STRING, &o.keys, "KEYS", "export: policy or names; default: policy where it holds the matrices"},
        {"svg", 0, CLI_STRING, &o.svg, "FILE", "compare: and draw it there"},
        {"rescale", 0, CLI_FLAG, &o.rescale, NULL, "export: accept that the authors' code keeps the sum of singular values"},
        {0},
    };
    const cli_command command = {
        "expert",
        "show FILE | compare FILE FILE | import FILE.pt -o OUT | export FILE -o OUT.pt | project TUNED -m MODEL -o OUT",
        "shows, compares and converts experts; makes one of a fine-tuned model or LoRA",
        "zsigma expert compare assets/experts/math.safetensors assets/experts/code.safetensors",
        options,
        &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    const char *action = positional ? argv[0] : "";
    if (positional == 2 && strcmp(action, "show") == 0) return expert_show(&common, argv[1]);
    if (positional == 3 && strcmp(action, "compare") == 0) return expert_compare(&common, argv[1], argv[2], o.svg);
    if (positional == 2 && strcmp(action, "import") == 0) return expert_import(&command, &o, argv[1]);
    if (positional == 2 && strcmp(action, "export") == 0) return expert_export(&command, &o, argv[1]);
    if (positional == 2 && strcmp(action, "project") == 0) return expert_project(&command, &o, argv[1]);
    return cli_usage(&command, "show FILE, compare FILE FILE, import FILE, export FILE or project TUNED is expected");
}
