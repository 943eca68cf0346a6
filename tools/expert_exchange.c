/// zsigma expert import and export: the PyTorch files of the paper's authors.
#include "expert.h"
#include "zsigma/zsigma_lab.h"

#include <string.h>

static void print_done(const cli_common *common, const char *output, const zs_expert *expert) {
    const zs_expert_info *info = zs_expert_get_info(expert);
    if (common->json)
        cli_print_json(
            json_pack("{s:s, s:i, s:I}", "output", output, "matrices", (int)info->matrix_count, "values", (json_int_t)info->value_count));
    else
        cli_note(common, "%s: %u matrices with %llu values", output, info->matrix_count, (unsigned long long)info->value_count);
}

int expert_import(const cli_command *command, const expert_options *options, const char *path) {
    if (!options->output) return cli_usage(command, "where to? give -o OUT.safetensors");
    if (options->model && options->like) return cli_usage(command, "-m and --like both say which base the expert has: give one");
    zs_error error;
    zs_expert *like = NULL, *expert = NULL;
    char *name = cli_name_of(options->output);
    zs_status status = name ? ZS_OK : zs_error_set(&error, ZS_ERROR_MEMORY, "out of memory for a name");
    if (!status && options->like) status = zs_expert_load(options->like, &like, &error);
    const zs_import_params params = {
        .name = options->name ? options->name : name, .description = options->description, .model = options->model, .like = like};
    if (!status) status = zs_expert_import(path, &params, &expert, &error);
    if (!status && !options->model && !like)
        cli_note(command->common, "without -m or --like the expert has no sketches, and whether a model is its base cannot be checked");
    if (!status) status = zs_expert_save(expert, options->output, command->common->force, &error);
    if (!status) print_done(command->common, options->output, expert);
    zs_expert_destroy(&expert);
    zs_expert_destroy(&like);
    free(name);
    return status ? cli_fail(&error) : CLI_DONE;
}

int expert_export(const cli_command *command, const expert_options *options, const char *path) {
    static const char *const keys[] = {[ZS_KEYS_POLICY] = "policy", [ZS_KEYS_NAMES] = "names"};
    zs_export_params params = {.rescale = options->rescale, .force = command->common->force};
    for (uint32_t i = ZS_KEYS_POLICY; options->keys && i <= ZS_KEYS_NAMES; i++) {
        if (strcmp(options->keys, keys[i]) == 0) params.keys = (zs_export_keys)i;
    }
    if (!options->output) return cli_usage(command, "where to? give -o OUT.pt");
    if (options->keys && params.keys == ZS_KEYS_AUTO) return cli_usage(command, "--keys is policy or names");
    zs_error error;
    zs_expert *expert = NULL;
    zs_status status = zs_expert_load(path, &expert, &error);
    if (!status) status = zs_expert_export(expert, options->output, &params, &error);
    if (!status) print_done(command->common, options->output, expert);
    zs_expert_destroy(&expert);
    return status ? cli_fail(&error) : CLI_DONE;
}
