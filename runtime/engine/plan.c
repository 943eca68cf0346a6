/// Which of the three ways to apply z, which type and which place suit a device: by bytes, operations, expected tokens and free memory.
#include "engine/engine.h"
#include "model/random.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXPECTED_TOKENS = 64 }; // of an answer that nobody says anything about: experts answer in a few words

/// What the dispatches of a matrix cost beside their work: four of up to 42 µs each on a CPU driver, and a share of a submit.
static const double matrix_ms = 0.2;

typedef struct planning {
    zs_device *device;
    const model_file *file;
    const zs_plan_params *params;
    zs_engine_params engine; // as chosen
    op_policy policy;
    bool cpu; // the device's memory is the host's
    matrix_type factor_type;
    zs_plan *plan;
} planning;

static void because(zs_plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void because(zs_plan *plan, const char *format, ...) {
    enum { REASONS = sizeof plan->reasons / sizeof *plan->reasons };
    if (plan->reason_count == REASONS) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(plan->reasons[plan->reason_count++], sizeof *plan->reasons, format, arguments);
    va_end(arguments);
}

static double mb(uint64_t bytes) { return (double)bytes / 1e6; }

// ---- what a choice takes -------------------------------------------------------------------------------------------

static uint64_t host_free_bytes(void) {
    long pages = sysconf(_SC_AVPHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

/// Fills in the plan's bytes for its mode, type and place.
static zs_status fill_bytes(const planning *p, zs_error *error) {
    zs_plan *plan = p->plan;
    zs_model *model = NULL, *running = NULL;
    uint64_t unused;
    zs_status status = model_shape_create(p->device, p->file, plan->factors, &p->policy, &model, error);
    if (!status) status = model_shape_create(p->device, p->file, plan->factors, &p->policy, &running, error);
    if (!status) {
        bool composed = plan->mode == ZS_MODE_COMPOSED;
        uint64_t scratch = 0, most = model_weight_bytes(&p->policy, p->file, ZS_PLACE_DEVICE, &unused),
                 least = model_weight_bytes(&p->policy, p->file, ZS_PLACE_FILE, &unused);
        if (composed) model_shape_compose(running, engine_composed_type(plan->composed));
        engine_bytes engine = engine_sizes(model, running, &p->engine);
        uint64_t made =
            composed ? model_composer_bytes(model, engine_composed_type(plan->composed), p->engine.precision == ZS_PRECISION_FAST, &scratch)
                     : 0;
        plan->weight_bytes = least;
        plan->factor_bytes = plan->factors == ZS_PLACE_DEVICE ? most - least : 0;
        plan->host_bytes = plan->factors == ZS_PLACE_HOST ? most - least : 0;
        plan->file_bytes = plan->factors == ZS_PLACE_FILE ? most - least : 0;
        plan->composed_bytes = made - scratch;
        plan->workspace_bytes = engine.workspace + scratch;
        plan->expert_bytes = engine.experts;
        plan->kv_bytes = engine.kv;
        plan->image_bytes = engine.images;
        plan->device_bytes = least + plan->factor_bytes + plan->composed_bytes + plan->expert_bytes + plan->kv_bytes + plan->image_bytes +
                             plan->workspace_bytes;
        plan->compose_flops = model_compose_flops(model);
        snprintf(plan->mode_name, sizeof plan->mode_name, "%s", engine_mode_name(plan->mode, plan->composed));
        plan->fits = plan->device_bytes <= plan->free_bytes && (plan->host_bytes == 0 || plan->host_bytes <= host_free_bytes() / 10 * 9);
    }
    zs_model_destroy(&model);
    zs_model_destroy(&running);
    return status;
}

/// The plan with another choice. A place or type that was asked for is kept: false.
static bool choose(const planning *p, zs_mode mode, zs_composed_type type, zs_place place, zs_status *status, zs_error *error) {
    const zs_engine_params *asked = &p->params->engine;
    if (*status || (asked->mode && asked->mode != mode) || (p->params->factors && p->params->factors != place)) return false;
    if (mode == ZS_MODE_COMPOSED && asked->composed && asked->composed != type) return false;
    // Where device memory is the host's, a copy of the factors there would be one too many.
    if (place == ZS_PLACE_HOST && p->cpu && p->params->factors != place) return false;
    p->plan->mode = mode;
    p->plan->composed = mode == ZS_MODE_COMPOSED ? type : ZS_COMPOSED_DEFAULT;
    p->plan->factors = place;
    *status = fill_bytes(p, error);
    return !*status;
}

// ---- choosing ------------------------------------------------------------------------------------------------------

/// Tokens after which composing has paid for itself, when each reads `factors` bytes otherwise and `composed` bytes now; 0: never.
static double break_even(const planning *p, uint64_t factors, uint64_t composed) {
    if (composed >= factors) return 0;
    return p->plan->compose_ms / gpu_device_estimate_ms(p->device, (double)(factors - composed), 0);
}

/// The type that loses nothing which the factors have.
static zs_composed_type faithful_type(const planning *p) {
    if (p->params->engine.composed) return p->params->engine.composed;
    return p->factor_type == MATRIX_Q8 ? ZS_COMPOSED_Q8_0 : ZS_COMPOSED_F16;
}

/// Composed weights of the best type that fits, their factors in the nearest place; what fits least badly if nothing does.
static zs_status choose_composed(const planning *p, zs_error *error) {
    static const zs_composed_type types[] = {ZS_COMPOSED_F16, ZS_COMPOSED_Q8_0, ZS_COMPOSED_Q4_0};
    static const zs_place places[] = {ZS_PLACE_DEVICE, ZS_PLACE_HOST, ZS_PLACE_FILE};
    zs_status status = ZS_OK;
    bool any = false;
    for (size_t t = 0; t < 3; t++) {
        if (types[t] < faithful_type(p)) continue; // more bytes for no more precision
        for (size_t i = 0; i < 3; i++) {
            bool tried = choose(p, ZS_MODE_COMPOSED, types[t], places[i], &status, error);
            any = any || tried;
            if (tried && p->plan->fits) return ZS_OK;
        }
    }
    if (!status && !any) return zs_error_set(error, ZS_ERROR_ARGUMENT, "no mode with these factors and composed weights is possible");
    return status;
}

static void explain_composed(const planning *p) {
    static const char *const places[] = {
        [ZS_PLACE_DEVICE] = "on the device", [ZS_PLACE_HOST] = "in host memory", [ZS_PLACE_FILE] = "in the file, read layer by layer"};
    const zs_plan *plan = p->plan;
    because(p->plan, "%s: %.0f MB of dense weights, the factors %s", plan->mode_name, mb(plan->composed_bytes), places[plan->factors]);
    if (plan->composed > faithful_type(p)) because(p->plan, "a more precise type would not fit");
}

/// Factored where it fits, unless texts are long enough for composing to pay.
static zs_status choose_mode(const planning *p, zs_error *error) {
    zs_plan *plan = p->plan;
    uint32_t tokens = p->params->tokens ? p->params->tokens : EXPECTED_TOKENS;
    zs_status status = ZS_OK;
    zs_composed_type faithful = faithful_type(p);
    bool asked = p->params->engine.mode != ZS_MODE_DEFAULT;
    if (choose(p, ZS_MODE_COMPOSED, faithful, ZS_PLACE_DEVICE, &status, error)) {
        plan->break_even_tokens = break_even(p, plan->factor_bytes, plan->composed_bytes);
        // A question in two passes changes the weights twice: for pass 1, and for its answer.
        bool pays = plan->break_even_tokens > 0 && 2 * plan->break_even_tokens <= tokens;
        if (plan->break_even_tokens > 0)
            because(
                plan,
                "composing takes %.3g GFLOP, about %.0f ms, and saves %.0f MB a token: it pays after %.0f tokens, after twice that in two "
                "passes; %u are expected",
                plan->compose_flops / 1e9, plan->compose_ms, mb(plan->factor_bytes - plan->composed_bytes), plan->break_even_tokens,
                tokens);
        else
            because(plan, "composed weights as %s are no smaller than the factors: nothing is won by them", plan->mode_name + 9);
        if (plan->fits && (pays || asked)) {
            explain_composed(p);
            return ZS_OK;
        }
    }
    if (!status && choose(p, ZS_MODE_FACTORED, faithful, ZS_PLACE_DEVICE, &status, error)) {
        because(plan, "factored: %.0f MB of factors, with all else %.0f MB, %s %.0f MB free", mb(plan->factor_bytes),
                mb(plan->device_bytes), plan->fits ? "fit in" : "do not fit in", mb(plan->free_bytes));
        if (plan->fits || asked) return ZS_OK;
    }
    if (!status) status = choose_composed(p, error);
    if (!status) explain_composed(p);
    return status;
}

static uint32_t count_factored(const zs_model *shape) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < shape->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) count += shape->layers[i].weights[m].factored;
    }
    return count;
}

static zs_status make(zs_device *device, const model_file *file, const zs_plan_params *params, zs_plan *plan, zs_error *error) {
    static const zs_plan_params defaults;
    planning p = {.device = device, .file = file, .params = params ? params : &defaults, .cpu = gpu_device_caps(device)->cpu, .plan = plan};
    zs_model *shape = NULL;
    *plan = (zs_plan){.free_bytes = gpu_device_memory_free(device), .factors = ZS_PLACE_DEVICE};
    zs_status status = model_shape_create(device, file, ZS_PLACE_DEVICE, NULL, &shape, error);
    if (status) return status;
    p.policy = shape->policy;
    engine_choose_params(shape, &p.params->engine, &p.engine);
    if (p.engine.context > file->config.context) p.engine.context = file->config.context;
    status = engine_check_kv(shape, &p.engine, error);
    if (status) {
        zs_model_destroy(&shape);
        return status;
    }
    const model_weight *w = shape->layers[0].weights;
    for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
        if (w[m].factored) p.factor_type = w[m].u.type;
    }
    plan->compose_flops = model_compose_flops(shape);
    bool factored = shape->info.factored;
    plan->compose_ms = gpu_device_estimate_ms(device, 0, plan->compose_flops) + matrix_ms * count_factored(shape);
    zs_model_destroy(&shape);
    if (!factored) {
        if (p.params->engine.mode) return zs_error_set(error, ZS_ERROR_ARGUMENT, "a dense model has no factors: its mode is dense");
        because(plan, "dense: the model has no factors");
        status = fill_bytes(&p, error);
    } else {
        status = choose_mode(&p, error);
    }
    if (!status && !plan->fits)
        because(plan, "that does not fit: %.0f MB are needed and %.0f MB free; a smaller context or another device would do",
                mb(plan->device_bytes), mb(plan->free_bytes));
    return status;
}

zs_status zs_plan_file(zs_device *device, const char *path, const zs_plan_params *params, zs_plan *plan, zs_error *error) {
    model_file file = {0};
    zs_status status = model_file_open(path, &file, error);
    if (status) return status;
    if (params && params->mmproj) status = model_file_add_images(&file, params->mmproj, error);
    if (!status) status = make(device, &file, params, plan, error);
    model_file_close(&file);
    return status;
}

zs_status zs_plan_random(zs_device *device, const zs_random_model_params *random, const zs_plan_params *params, zs_plan *plan,
                         zs_error *error) {
    random_file *file = NULL;
    zs_status status = random_file_create(random, &file, error);
    if (!status) status = make(device, random_file_get(file), params, plan, error);
    random_file_destroy(&file);
    return status;
}
