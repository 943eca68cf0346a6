#include "bench.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    zs_status (*run)(bench *b, zs_error *error);
} parts[] = {
    {"prefill", bench_prefill},
    {"decode", bench_decode},
    {"batch", bench_batch},
    {"kernels", bench_kernels},
};
enum { PARTS = sizeof parts / sizeof *parts };

/// Whether `name` is in the comma-separated list.
static bool listed(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; *at; at += strcspn(at, ",")) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == 0 || at[length] == ',')) return true;
    }
    return false;
}

static bool wanted(const bench *b, const char *name) {
    if (strcmp(name, "kernels") == 0 && b->kernels) return true;
    return b->only ? listed(b->only, name) : strcmp(name, "kernels") != 0;
}

static int check_only(const bench *b, const cli_command *command) {
    for (const char *at = b->only; at && *at;) {
        size_t length = strcspn(at, ","), i = 0;
        while (i < PARTS && !(strlen(parts[i].name) == length && strncmp(at, parts[i].name, length) == 0)) i++;
        if (i == PARTS) return cli_usage(command, "--only is a list of prefill, decode, batch and kernels");
        at += length + (at[length] == ',');
    }
    return CLI_DONE;
}

static zs_status open_all(bench *b, zs_error *error) {
    uint32_t deepest = b->depth > BENCH_DEPTH ? b->depth : BENCH_DEPTH, decode = deepest + b->decode_tokens + 4 * b->runs;
    uint32_t context = (b->prefill_tokens > decode ? b->prefill_tokens : decode) + 64;
    const zs_engine_params params = {.context = context,
                                     .max_sessions = BENCH_BATCH,
                                     .kv_tokens = context + BENCH_BATCH * (decode + 64),
                                     .max_rows = b->prefill_tokens > 512 ? b->prefill_tokens : 0};
    return cli_open(b->common, b->model_path, &params, &b->stack, error);
}

static zs_status run_parts(bench *b, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < PARTS && !status; i++) {
        if (!wanted(b, parts[i].name)) continue;
        cli_note(b->common, "bench: %s …", parts[i].name);
        status = parts[i].run(b, error);
    }
    return status;
}

static json_t *tier_names(const zs_device *device) {
    static const char *const names[] = {"subgroup", "storage", "half", "dot", "matrix", "matrix2"};
    json_t *list = json_array();
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (zs_device_get_tiers(device) & 1u << i) json_array_append_new(list, json_string(names[i]));
    }
    return list;
}

static void print_json(bench *b) {
    const zs_device_info *device = zs_device_get_info(b->stack.device);
    const zs_engine_info *engine = zs_engine_get_info(b->stack.engine);
    const zs_model_info *model = zs_model_get_info(b->stack.model);
    json_t *object = json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:I, s:o}", "device", device->name, "driver", device->driver, "tiers",
                               tier_names(b->stack.device), "model", model->name, "type", model->weight_type, "mode", engine->mode,
                               "precision", engine->precision == ZS_PRECISION_EXACT ? "exact" : "fast", "runs", (json_int_t)b->runs,
                               "figures", figures_json(&b->figures));
    if (b->kernel_tables) json_object_set(object, "kernels", b->kernel_tables);
    cli_print_json(object);
}

static void print_kernels(const char *step, const json_t *rows) {
    double total = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) total += json_number_value(json_object_get(row, "ms"));
    printf("\n%s step: %.3f ms over all kernels\n%-14s %-28s %6s %10s %7s %9s %9s\n", step, total, "label", "kernel", "calls", "ms",
           "share", "GB/s", "GFLOP/s");
    json_array_foreach(rows, i, row) {
        printf("%-14s %-28s %6lld %10.3f %6.1f%% %9.2f %9.2f\n", json_string_value(json_object_get(row, "label")),
               json_string_value(json_object_get(row, "kernel")), (long long)json_integer_value(json_object_get(row, "calls")),
               json_number_value(json_object_get(row, "ms")), 100 * json_number_value(json_object_get(row, "share")),
               json_number_value(json_object_get(row, "gb_per_s")), json_number_value(json_object_get(row, "gflop_per_s")));
    }
}

static void print_table(bench *b) {
    const zs_device_info *device = zs_device_get_info(b->stack.device);
    const zs_engine_info *engine = zs_engine_get_info(b->stack.engine);
    const zs_model_info *model = zs_model_get_info(b->stack.model);
    printf("%s, %s %s, precision %s\n%s (%s)\n\n", model->name, engine->mode, model->weight_type,
           engine->precision == ZS_PRECISION_EXACT ? "exact" : "fast", device->name, device->driver);
    if (b->figures.count) figures_print(&b->figures);
    const char *step;
    json_t *rows;
    json_object_foreach(b->kernel_tables, step, rows) print_kernels(step, rows);
}

static int run(bench *b) {
    zs_error error;
    zs_status status = open_all(b, &error);
    if (!status) status = run_parts(b, &error);
    if (!status && b->common->json)
        print_json(b);
    else if (!status)
        print_table(b);
    json_decref(b->kernel_tables);
    cli_close(&b->stack);
    return status ? cli_fail(&error) : CLI_DONE;
}

int cmd_bench(int argc, char **argv) {
    cli_common common = {0};
    bench b = {.runs = 5, .prefill_tokens = 512, .decode_tokens = 128, .common = &common, .random = 1};
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &b.model_path, "FILE", "factored or dense model, GGUF"},
        {"runs", 0, CLI_UINT, &b.runs, "N", "runs of each measurement, after one that warms up; default 5"},
        {"prefill-tokens", 0, CLI_UINT, &b.prefill_tokens, "N", "length of the prompt that is timed; default 512"},
        {"decode-tokens", 0, CLI_UINT, &b.decode_tokens, "N", "length of the answer that is timed; default 128"},
        {"depth", 0, CLI_UINT, &b.depth, "N", "time decoding behind N tokens too"},
        {"only", 0, CLI_STRING, &b.only, "LIST", "these parts: prefill,decode,batch,kernels"},
        {"kernels", 0, CLI_FLAG, &b.kernels, NULL, "a table of kernel times for a prefill and a decode step too"},
        {0},
    };
    const cli_command command = {
        "bench", "-m MODEL", "measures this device with a model", "zsigma bench -m smollm2.gguf --only prefill,decode --kernels",
        options, &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "nothing but options is expected");
    if (!b.model_path) return cli_usage(&command, "which model? give -m FILE");
    if (!b.runs || !b.prefill_tokens || !b.decode_tokens)
        return cli_usage(&command, "--runs, --prefill-tokens and --decode-tokens are 1 or more");
    result = check_only(&b, &command);
    return result ? result : run(&b);
}
