#include "bench.h"

#include <stdlib.h>
#include <string.h>

typedef enum bench_needs {
    NEEDS_FILE = 1 << 0,     // a model file, which brings a tokenizer
    NEEDS_FACTORED = 1 << 1, // experts work on factors
    NEEDS_EXPERTS = 1 << 2,  // --experts
    NEEDS_MIXTURE = 1 << 3,  // factored mode: experts side by side
    NEEDS_TOWER = 1 << 4,    // a model that sees images
} bench_needs;

static const struct {
    const char *name;
    zs_status (*run)(bench *b, zs_error *error);
    unsigned needs;
    bool first, by_name; // before anything is opened; only when asked for
} parts[] = {
    {.name = "start", .run = bench_start, .needs = NEEDS_FILE, .first = true},
    {.name = "memory", .run = bench_memory},
    {.name = "device", .run = bench_device},
    {.name = "prefill", .run = bench_prefill},
    {.name = "decode", .run = bench_decode},
    {.name = "batch", .run = bench_batch},
    {.name = "rollouts", .run = bench_rollouts, .by_name = true},
    {.name = "experts", .run = bench_experts, .needs = NEEDS_FACTORED | NEEDS_MIXTURE},
    {.name = "two_pass", .run = bench_two_pass, .needs = NEEDS_FILE | NEEDS_FACTORED | NEEDS_EXPERTS},
    {.name = "compose", .run = bench_compose, .needs = NEEDS_FACTORED, .by_name = true},
    {.name = "kernels", .run = bench_kernels, .by_name = true},
    {.name = "vision", .run = bench_vision, .needs = NEEDS_TOWER, .by_name = true},
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

static bool asked_for(const bench *b, size_t part) {
    if (strcmp(parts[part].name, "kernels") == 0 && b->kernels) return true;
    if (strcmp(parts[part].name, "vision") == 0 && b->vision) return true;
    return b->only && listed(b->only, parts[part].name);
}

static int check_only(const bench *b, const cli_command *command) {
    for (const char *at = b->only; at && *at;) {
        size_t length = strcspn(at, ","), i = 0;
        while (i < PARTS && !(strlen(parts[i].name) == length && strncmp(at, parts[i].name, length) == 0)) i++;
        if (i == PARTS)
            return cli_usage(
                command, "--only is a list of start, memory, device, prefill, decode, batch, rollouts, experts, two_pass, compose, kernels "
                         "and vision");
        if (parts[i].needs & NEEDS_EXPERTS && !b->experts_folder) return cli_usage(command, "--only two_pass needs --experts DIR");
        at += length + (at[length] == ',');
    }
    return CLI_DONE;
}

static bool sees_images(const bench *b) { return b->vision || (b->only && listed(b->only, "vision")); }

/// Room for the longest part: a prompt, a batch of answers, or pass 1 with its instructions. most: the model's context, where it is known.
static zs_engine_params engine_params(const bench *b, uint32_t most) {
    uint32_t deepest = b->depth > BENCH_DEPTH ? b->depth : BENCH_DEPTH, prompt = b->prefill_tokens, batch = BENCH_BATCH;
    if (b->only && listed(b->only, "rollouts")) batch = BENCH_ROLLOUTS;
    if (b->full) batch = BENCH_FULL_BATCH;
    if (b->full && deepest < BENCH_FULL_TOKENS) deepest = BENCH_FULL_TOKENS;
    if (b->full && prompt < BENCH_FULL_TOKENS) prompt = BENCH_FULL_TOKENS;
    uint32_t decode = deepest + b->decode_tokens + 4 * b->runs;
    uint32_t context = (prompt > decode ? prompt : decode) + 64;
    uint32_t shown = sees_images(b) ? BENCH_IMAGE_TOKENS + b->decode_tokens : 0;
    if (context < shown) context = shown < most ? shown : most;
    if (b->experts_folder && context < BENCH_PASS1_CONTEXT) context = BENCH_PASS1_CONTEXT < most ? BENCH_PASS1_CONTEXT : most;
    return (zs_engine_params){.context = context,
                              .max_sessions = batch,
                              .kv_tokens = context + batch * (BENCH_DEPTH + b->decode_tokens + 4 * b->runs + 64),
                              .max_rows = b->prefill_tokens > 512 ? b->prefill_tokens : 0};
}

static zs_random_model_params random_params(const bench *b, bool factored) {
    return (zs_random_model_params){
        .arch = b->arch, .type = b->type, .layers = b->layers, .factored = factored, .progress = cli_progress(b->common)};
}

/// What is planned for: the engine as the parts need it, answers of --decode-tokens.
static zs_plan_params plan_params(const bench *b) {
    zs_plan_params params = {.engine = engine_params(b, UINT32_MAX), .tokens = b->decode_tokens};
    cli_engine_options(b->common, &params.engine);
    return params;
}

/// Random weights: dense ones unless --mode says otherwise. There is no file that factors could stay in.
static zs_status make_model(bench *b, zs_error *error) {
    bool factored = b->common->mode && strcmp(b->common->mode, "dense") != 0;
    const zs_random_model_params params = random_params(b, factored);
    zs_plan_params plan = plan_params(b);
    plan.factors = ZS_PLACE_DEVICE;
    cli_watch(NULL);
    zs_status status = cli_open_device(b->common, &b->stack.device, error);
    if (!status) status = zs_plan_random(b->stack.device, &params, &plan, &b->stack.plan, error);
    if (!status) status = zs_model_create_random(b->stack.device, &params, &b->stack.model, error);
    if (status) cli_close(&b->stack);
    return status;
}

/// --tune: a figure for each kernel that was chosen.
static zs_status tune(bench *b, zs_error *error) {
    zs_tuned *tuned;
    size_t count;
    cli_note(b->common, "bench: tuning …");
    zs_status status = zs_tune(b->stack.model, &tuned, &count, error);
    if (status) return status;
    for (size_t i = 0; i < count; i++) {
        const zs_tuned *t = &tuned[i];
        char name[48];
        snprintf(name, sizeof name, "tuned_%s_%s", t->type, t->kind);
        figures_add_value(&b->figures, name, "GB/s", t->gb_per_s);
        cli_note(b->common, "%s, %s: %u rows, %u deep, %u subgroups%s: %.0f GB/s, before %.0f", t->type, t->kind, t->rows, t->depth,
                 t->subgroups, t->integers ? ", integers" : "", t->gb_per_s, t->gb_per_s_before);
    }
    free(tuned);
    return ZS_OK;
}

static zs_status open_all(bench *b, zs_error *error) {
    zs_plan_params plan = plan_params(b);
    zs_status status = b->arch ? make_model(b, error) : cli_open_model_planned(b->common, b->model_path, &plan, &b->stack, error);
    if (status) return status;
    if (b->tune) status = tune(b, error);
    if (status) {
        cli_close(&b->stack);
        return status;
    }
    zs_engine_params params = engine_params(b, zs_model_get_info(b->stack.model)->context);
    return cli_open_engine(b->common, &params, &b->stack, error);
}

/// --plan: with --arch of a factored model, unless --mode says dense.
static int print_plan(const bench *b) {
    zs_plan_params params = plan_params(b);
    if (!b->arch) return cli_plan(b->common, b->model_path, &params);
    const zs_random_model_params random = random_params(b, !b->common->mode || strcmp(b->common->mode, "dense") != 0);
    zs_device *device = NULL;
    zs_plan plan;
    zs_error error;
    zs_status status = cli_open_device(b->common, &device, &error);
    if (!status) status = zs_plan_random(device, &random, &params, &plan, &error);
    if (!status) cli_print_plan(b->common, b->arch, device, &plan);
    zs_device_destroy(&device);
    return status ? cli_fail(&error) : CLI_DONE;
}

/// What the part needs and the bench was not given; NULL when nothing is missing.
static const char *missing(const bench *b, unsigned needs) {
    if (needs & NEEDS_FILE && !b->model_path) return "a model file";
    if (needs & NEEDS_FACTORED && !zs_model_get_info(b->stack.model)->factored) return "a factored model";
    if (needs & NEEDS_MIXTURE && strcmp(zs_engine_get_info(b->stack.engine)->mode, "factored") != 0) return "factored mode";
    if (needs & NEEDS_EXPERTS && !b->experts_folder) return "--experts DIR";
    if (needs & NEEDS_TOWER && !zs_model_get_info(b->stack.model)->images) return "a model that sees images";
    return NULL;
}

/// The parts before or after opening. Without --only, one that lacks something is passed over; one that was asked for fails.
static zs_status run_parts(bench *b, bool first, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < PARTS && !status; i++) {
        bool asked = asked_for(b, i);
        if (parts[i].first != first || !(asked || (!b->only && !parts[i].by_name))) continue;
        const char *lack = missing(b, parts[i].needs);
        if (lack && asked) return zs_error_set(error, ZS_ERROR_ARGUMENT, "bench: part %s needs %s", parts[i].name, lack);
        if (lack) {
            cli_note(b->common, "bench: %s is left out, it needs %s", parts[i].name, lack);
            continue;
        }
        cli_note(b->common, "bench: %s …", parts[i].name);
        status = parts[i].run(b, error);
    }
    return status;
}

static void print_json(bench *b) {
    const zs_device_info *device = zs_device_get_info(b->stack.device);
    const zs_engine_info *engine = zs_engine_get_info(b->stack.engine);
    const zs_model_info *model = zs_model_get_info(b->stack.model);
    json_t *object = json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:I, s:o}", "device", device->name, "driver", device->driver,
                               "tiers", cli_tiers_json(zs_device_get_tiers(b->stack.device)), "model", model->name, "type",
                               model->weight_type, "mode", engine->mode, "precision", cli_precision_name(engine->precision), "kv",
                               cli_kv_name(engine->kv), "runs", (json_int_t)b->runs, "figures", figures_json(&b->figures, b->before));
    if (b->kernel_tables) json_object_set(object, "kernels", b->kernel_tables);
    cli_print_json(object);
}

static void print_kernels(const char *step, const json_t *rows) {
    double total = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) total += json_number_value(json_object_get(row, "ms"));
    printf("\n%s step: %.3f ms over all kernels\n%-14s %-28s %6s %10s %7s %9s %7s %9s %7s\n", step, total, "label", "kernel", "calls", "ms",
           "share", "GB/s", "% read", "GFLOP/s", "% peak");
    json_array_foreach(rows, i, row) {
        printf("%-14s %-28s %6lld %10.3f %6.1f%% %9.2f %6.1f%% %9.2f %6.1f%%\n", json_string_value(json_object_get(row, "label")),
               json_string_value(json_object_get(row, "kernel")), (long long)json_integer_value(json_object_get(row, "calls")),
               json_number_value(json_object_get(row, "ms")), 100 * json_number_value(json_object_get(row, "share")),
               json_number_value(json_object_get(row, "gb_per_s")), 100 * json_number_value(json_object_get(row, "of_read")),
               json_number_value(json_object_get(row, "gflop_per_s")), 100 * json_number_value(json_object_get(row, "of_peak")));
    }
}

static void print_table(bench *b) {
    const zs_device_info *device = zs_device_get_info(b->stack.device);
    const zs_engine_info *engine = zs_engine_get_info(b->stack.engine);
    const zs_model_info *model = zs_model_get_info(b->stack.model);
    printf("%s, %s %s, precision %s, keys and values as %s\n%s (%s)\n\n", model->name, engine->mode, model->weight_type,
           cli_precision_name(engine->precision), cli_kv_name(engine->kv), device->name, device->driver);
    if (b->figures.count) figures_print(&b->figures, b->before, b->markdown);
    const char *step;
    json_t *rows;
    json_object_foreach(b->kernel_tables, step, rows) print_kernels(step, rows);
}

/// Which names --arch takes.
static int check_arch(const bench *b, const cli_command *command) {
    char names[512] = "";
    const char *name;
    for (uint32_t i = 0; (name = zs_random_model_arch(i)); i++) {
        if (strcmp(name, b->arch) == 0) return CLI_DONE;
        size_t length = strlen(names);
        snprintf(names + length, sizeof names - length, "%s%s", i ? ", " : "", name);
    }
    return cli_usage(command, "--arch is one of %s", names);
}

static int run(bench *b) {
    zs_error error;
    zs_status status = b->compare ? bench_compare_read(b->compare, &b->before, &error) : ZS_OK;
    if (!status) status = run_parts(b, true, &error);
    if (!status) status = open_all(b, &error);
    if (!status) status = run_parts(b, false, &error);
    if (!status && b->common->json)
        print_json(b);
    else if (!status)
        print_table(b);
    json_decref(b->kernel_tables);
    json_decref(b->before);
    cli_close(&b->stack);
    return status ? cli_fail(&error) : CLI_DONE;
}

int cmd_bench(int argc, char **argv) {
    cli_common common = {0};
    bench b = {.runs = 5, .prefill_tokens = 512, .decode_tokens = 128, .common = &common, .random = 1, .pairs = 30};
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &b.model_path, "FILE", "factored or dense model: GGUF file, or Hugging Face folder"},
        CLI_MMPROJ(&common),
        {"arch", 0, CLI_STRING, &b.arch, "NAME", "no file: random weights in the shape of smollm2-135m, llama3-8b, …"},
        {"type", 0, CLI_STRING, &b.type, "TYPE",
         "with --arch: f32, f16 (default), bf16, q8_0, q4_0 or q4_1; --mode auto, factored and composed make factors"},
        {"layers", 0, CLI_UINT, &b.layers, "N", "with --arch: so many layers instead of the model's"},
        {"runs", 0, CLI_UINT, &b.runs, "N", "runs of each measurement, after one that warms up; default 5"},
        {"prefill-tokens", 0, CLI_UINT, &b.prefill_tokens, "N", "length of the prompt that is timed; default 512"},
        {"decode-tokens", 0, CLI_UINT, &b.decode_tokens, "N", "length of the answer that is timed; default 128"},
        {"depth", 0, CLI_UINT, &b.depth, "N", "time decoding behind N tokens too"},
        {"only", 0, CLI_STRING, &b.only, "LIST",
         "these parts: start,memory,device,prefill,decode,batch,rollouts,experts,two_pass,compose,kernels,vision"},
        {"experts", 0, CLI_STRING, &b.experts_folder, "DIR", "folder of experts: what choosing among them adds to an answer"},
        {"pairs", 0, CLI_UINT, &b.pairs, "N", "batches timed with and without experts; default 30"},
        {"full", 0, CLI_FLAG, &b.full, NULL, "also a prompt of 2048 tokens, decoding behind it, and 64 sessions together"},
        {"compare", 0, CLI_STRING, &b.compare, "FILE", "beside the figures of an earlier run, its --json"},
        {"markdown", 0, CLI_FLAG, &b.markdown, NULL, "the table of figures in Markdown"},
        {"tune", 0, CLI_FLAG, &b.tune, NULL, "find this device's fastest kernels for the model's types first, and keep them for all runs"},
        {"plan", 0, CLI_FLAG, &b.plan, NULL, "print what the model (with --arch: factored) would take where, and load nothing"},
        {"kernels", 0, CLI_FLAG, &b.kernels, NULL, "a table of kernel times for a prefill and a decode step too"},
        {"vision", 0, CLI_FLAG, &b.vision, NULL, "a model that sees images: its tower, and a prompt with an image of 672 × 672, too"},
        {0},
    };
    const cli_command command = {"bench",
                                 "-m MODEL | --arch NAME",
                                 "measures this device with a model",
                                 "zsigma bench -m smollm2.gguf --only prefill,decode --kernels",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "nothing but options is expected");
    if (!b.model_path && !b.arch) return cli_usage(&command, "which model? give -m FILE, or --arch NAME for random weights");
    if (b.model_path && b.arch) return cli_usage(&command, "-m and --arch exclude each other");
    if (b.arch && common.mmproj) return cli_usage(&command, "--mmproj goes with -m");
    if (!b.arch && (b.type || b.layers)) return cli_usage(&command, "--type and --layers go with --arch");
    if (b.arch) result = check_arch(&b, &command);
    if (result) return result;
    if (!b.runs || !b.pairs || !b.prefill_tokens || !b.decode_tokens)
        return cli_usage(&command, "--runs, --pairs, --prefill-tokens and --decode-tokens are 1 or more");
    result = check_only(&b, &command);
    if (result) return result;
    return b.plan ? print_plan(&b) : run(&b);
}
