/// --mode and --plan: how a model is to be run, decided before its weights are loaded.
#include "cli.h"

#include <string.h>

void cli_mode(const cli_common *common, zs_engine_params *params) {
    static const struct {
        const char *name;
        zs_mode mode;
        zs_composed_type type;
    } modes[] = {{"factored", ZS_MODE_FACTORED, ZS_COMPOSED_DEFAULT},
                 {"composed", ZS_MODE_COMPOSED, ZS_COMPOSED_DEFAULT},
                 {"composed:f16", ZS_MODE_COMPOSED, ZS_COMPOSED_F16},
                 {"composed:q8_0", ZS_MODE_COMPOSED, ZS_COMPOSED_Q8_0},
                 {"composed:q4_0", ZS_MODE_COMPOSED, ZS_COMPOSED_Q4_0}};
    for (size_t i = 0; common->mode && i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(common->mode, modes[i].name) != 0) continue;
        params->mode = modes[i].mode;
        params->composed = modes[i].type;
    }
}

zs_status cli_check_mode(const cli_common *common, bool factored, const char *path, zs_error *error) {
    if (!common->mode || strcmp(common->mode, "auto") == 0) return ZS_OK;
    bool dense = strcmp(common->mode, "dense") == 0;
    if (dense != factored) return ZS_OK;
    if (!factored)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "--mode %s: %s is a dense model; make it factored with: zsigma factor %s -o OUT.gguf",
                            common->mode, path, path);
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "--mode dense: %s is a factored model; dense mode needs the model that it was made from", path);
}

// ---- printing ------------------------------------------------------------------------------------------------------

static const char *place_name(const zs_plan *plan) {
    static const char *const names[] = {[ZS_PLACE_DEVICE] = "device", [ZS_PLACE_HOST] = "host", [ZS_PLACE_FILE] = "file"};
    return plan->mode == ZS_MODE_DEFAULT ? "none" : names[plan->factors];
}

static void print_plan_json(const char *model, const zs_device_info *device, const zs_plan *plan) {
    json_t *reasons = json_array();
    for (uint32_t i = 0; i < plan->reason_count; i++) json_array_append_new(reasons, json_string(plan->reasons[i]));
    json_t *on_device =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights", (json_int_t)plan->weight_bytes, "factors",
                  (json_int_t)plan->factor_bytes, "composed", (json_int_t)plan->composed_bytes, "experts", (json_int_t)plan->expert_bytes,
                  "kv", (json_int_t)plan->kv_bytes, "images", (json_int_t)plan->image_bytes, "workspace", (json_int_t)plan->workspace_bytes,
                  "total", (json_int_t)plan->device_bytes, "free", (json_int_t)plan->free_bytes);
    cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:b, s:{s:o, s:I, s:I}, s:f, s:f, s:o, s:o}", "model", model, "device", device->name,
                             "mode", plan->mode_name, "factors", place_name(plan), "fits", plan->fits, "bytes", "device", on_device, "host",
                             (json_int_t)plan->host_bytes, "file", (json_int_t)plan->file_bytes, "compose_flops", plan->compose_flops,
                             "compose_ms", plan->compose_ms, "break_even_tokens",
                             plan->break_even_tokens > 0 ? json_real(plan->break_even_tokens) : json_null(), "reasons", reasons));
}

static void print_plan(const char *model, const zs_device_info *device, const zs_plan *plan) {
    const struct {
        const char *place, *what;
        uint64_t bytes;
    } rows[] = {{"device", "weights that are not factored", plan->weight_bytes},
                {"device", "factors", plan->factor_bytes},
                {"device", "composed weights", plan->composed_bytes},
                {"device", "experts", plan->expert_bytes},
                {"device", "keys and values", plan->kv_bytes},
                {"device", "images", plan->image_bytes},
                {"device", "work space", plan->workspace_bytes},
                {"device", "total", plan->device_bytes},
                {"device", "free", plan->free_bytes},
                {"host", "factors", plan->host_bytes},
                {"file", "factors", plan->file_bytes}};
    printf("%s on %s\nmode %s%s\n\n", model, device->name, plan->mode_name, plan->fits ? "" : " (does not fit)");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("%-8s%-32s%16llu bytes%12.1f MB\n", rows[i].place, rows[i].what, (unsigned long long)rows[i].bytes,
               (double)rows[i].bytes / 1e6);
    putchar('\n');
    for (uint32_t i = 0; i < plan->reason_count; i++) printf("- %s\n", plan->reasons[i]);
}

void cli_print_plan(const cli_common *common, const char *model, const zs_device *device, const zs_plan *plan) {
    if (common->json)
        print_plan_json(model, zs_device_get_info(device), plan);
    else
        print_plan(model, zs_device_get_info(device), plan);
}

int cli_plan(const cli_common *common, const char *path, const zs_plan_params *params) {
    zs_plan_params asked = *params;
    zs_device *device = NULL;
    zs_plan plan;
    zs_error error;
    asked.mmproj = common->mmproj;
    cli_engine_options(common, &asked.engine);
    zs_status status = cli_open_device(common, &device, &error);
    if (!status) status = cli_make_plan(common, device, path, &asked, &plan, &error);
    if (!status) cli_print_plan(common, path, device, &plan);
    zs_device_destroy(&device);
    return status ? cli_fail(&error) : CLI_DONE;
}

zs_status cli_make_plan(const cli_common *common, zs_device *device, const char *path, const zs_plan_params *params, zs_plan *plan,
                        zs_error *error) {
    // A mode that the model cannot have is told below, with what to do.
    zs_plan_params asked = *params;
    asked.engine.mode = ZS_MODE_DEFAULT;
    zs_status status = zs_plan_file(device, path, &asked, plan, error);
    if (!status) status = cli_check_mode(common, plan->mode != ZS_MODE_DEFAULT, path, error);
    if (!status && params->engine.mode) status = zs_plan_file(device, path, params, plan, error);
    for (uint32_t i = 0; !status && common->verbose && i < plan->reason_count; i++) cli_note(common, "plan: %s", plan->reasons[i]);
    return status;
}
