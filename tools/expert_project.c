/// zsigma expert project: the expert that a fine-tune comes down to.
#include "expert.h"
#include "zsigma/zsigma_lab.h"

static void take_matrix(void *user, const zs_projected_matrix *m) {
    json_array_append_new(
        user, json_pack("{s:s, s:f, s:f, s:i}", "name", m->name, "change", m->change, "share", m->share, "small", (int)m->small));
}

static void print_report(const char *output, json_t *matrices, const zs_project_report *report) {
    json_t *m;
    size_t i;
    printf("%-40s  ‖ΔW‖/‖W‖   of it z can say\n", "matrix");
    json_array_foreach(matrices, i, m) {
        printf("%-40s %10.4f %15.2f %%", json_string_value(json_object_get(m, "name")), json_real_value(json_object_get(m, "change")),
               100 * json_real_value(json_object_get(m, "share")));
        json_int_t small = json_integer_value(json_object_get(m, "small"));
        if (small) printf("  (z = 1 for %lld too small singular values)", (long long)small);
        putchar('\n');
    }
    printf("%-40s %10.4f %15.2f %%\n", "all", report->change, 100 * report->share);
    printf("%s: %u matrices", output, report->matrices);
    if (report->has_cosine) printf(", cosine of the sketches %.4f", report->cosine);
    putchar('\n');
}

int expert_project(const cli_command *command, const expert_options *options, const char *tuned) {
    const cli_common *common = command->common;
    if (!options->model) return cli_usage(command, "which model was tuned? give -m FILE, factored");
    if (!options->output) return cli_usage(command, "where to? give -o OUT.safetensors");
    zs_error error;
    zs_project_report report;
    char *name = cli_name_of(options->output);
    json_t *matrices = json_array();
    const zs_project_params params = {.name = options->name ? options->name : name,
                                      .description = options->description,
                                      .force = common->force,
                                      .on_matrix = take_matrix,
                                      .user = matrices,
                                      .progress = cli_progress(common),
                                      .log = cli_log(common)};
    cli_watch(NULL);
    zs_status status = name ? ZS_OK : zs_error_set(&error, ZS_ERROR_MEMORY, "out of memory for a name");
    if (!status) status = zs_project_file(options->model, tuned, options->output, &params, &report, &error);
    if (!status && common->json)
        cli_print_json(json_pack("{s:s, s:O, s:f, s:f, s:o, s:b}", "output", options->output, "matrices", matrices, "change", report.change,
                                 "share", report.share, "cosine", report.has_cosine ? json_real(report.cosine) : json_null(), "lora",
                                 report.lora));
    else if (!status)
        print_report(options->output, matrices, &report);
    json_decref(matrices);
    free(name);
    return status ? cli_fail(&error) : CLI_DONE;
}
