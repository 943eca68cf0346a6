#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// ---- messages ------------------------------------------------------------------------------------------------------

bool cli_colour(int fd) {
    const char *term = getenv("TERM");
    return isatty(fd) && !getenv("NO_COLOR") && term && strcmp(term, "dumb") != 0;
}

static void clear_progress(void) {
    if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
}

void cli_error(const char *format, ...) {
    va_list arguments;
    clear_progress();
    fputs(cli_colour(STDERR_FILENO) ? "\033[1;31mzsigma:\033[0m " : "zsigma: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void cli_note(const cli_common *common, const char *format, ...) {
    if (common->quiet) return;
    va_list arguments;
    clear_progress();
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

int cli_fail(const zs_error *error) {
    cli_error("%s", error->message);
    return CLI_FAILED;
}

static void write_log(void *user, zs_log_level level, const char *message) {
    const cli_common *common = user;
    zs_log_level limit = common->verbose ? ZS_LOG_DEBUG : common->quiet ? ZS_LOG_ERROR : ZS_LOG_WARNING;
    if (level > limit) return;
    static const char *const names[] = {"error", "warning", "info", "debug"};
    clear_progress();
    fprintf(stderr, "zsigma: %s: %s\n", names[level], message);
}

zs_log cli_log(const cli_common *common) { return (zs_log){.write = write_log, .user = (void *)(uintptr_t)common}; }

// ---- Ctrl-C --------------------------------------------------------------------------------------------------------

static volatile sig_atomic_t interrupted, terminated;
static zs_engine *volatile watched;

static void on_interrupt(int number) {
    if (interrupted) _exit(128 + number);
    interrupted = 1;
    terminated = number == SIGTERM;
    zs_engine *engine = watched;
    if (engine) zs_engine_cancel(engine);
}

void cli_watch(zs_engine *engine) {
    struct sigaction action = {.sa_handler = on_interrupt};
    watched = engine;
    if (interrupted && engine) zs_engine_cancel(engine);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void cli_forget_interrupt(void) {
    interrupted = 0;
    if (watched) zs_engine_resume(watched);
}

bool cli_terminated(void) { return terminated != 0; }

// ---- progress ------------------------------------------------------------------------------------------------------

double cli_now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool report_progress(void *user, const char *what, double done, double total) {
    static double start, shown; // of the one progress bar a terminal has
    static const char *current;
    (void)user;
    double now = cli_now_seconds();
    if (current != what) {
        current = what;
        start = now;
        shown = 0;
    }
    if (interrupted) return false;
    if (now - shown < 0.1 && done < total) return true;
    shown = now;
    double fraction = total > 0 ? done / total : 1, elapsed = now - start;
    enum { WIDTH = 30 };
    int filled = (int)(fraction * WIDTH);
    fprintf(stderr, "\r\033[K%s [%.*s%*s] %3.0f %%", what, filled, "##############################", WIDTH - filled, "", fraction * 100);
    if (fraction > 0.02 && elapsed > 2) fprintf(stderr, "  %.0f s left", elapsed / fraction - elapsed);
    if (done >= total) fputs("\r\033[K", stderr);
    fflush(stderr);
    return true;
}

static bool report_nothing(void *user, const char *what, double done, double total) {
    (void)user, (void)what, (void)done, (void)total;
    return !interrupted;
}

zs_progress cli_progress(const cli_common *common) {
    return (zs_progress){.report = isatty(STDERR_FILENO) && !common->quiet ? report_progress : report_nothing};
}

// ---- opening things ------------------------------------------------------------------------------------------------

/// $XDG_CACHE_HOME/zsigma or ~/.cache/zsigma; "" when neither is known.
static void cache_folder(char *path, size_t size) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    path[0] = 0;
    if (cache && *cache)
        snprintf(path, size, "%s/zsigma", cache);
    else if (home && *home)
        snprintf(path, size, "%s/.cache/zsigma", home);
}

json_t *cli_tiers_json(uint32_t tiers) {
    static const char *const names[] = {CLI_TIERS}; // the first, strict, has no bit
    json_t *list = json_array();
    for (uint32_t i = 1; i < sizeof names / sizeof *names; i++) {
        if (tiers >> (i - 1) & 1) json_array_append_new(list, json_string(names[i]));
    }
    return list;
}

/// The tiers above the highest to be used (NULL: all may be used); cli_parse knows the name to be a tier's.
static uint32_t disabled_tiers(const char *tier) {
    static const char *const names[] = {CLI_TIERS};
    uint32_t i = 0;
    if (!tier) return 0;
    cli_choose(tier, names, sizeof names / sizeof *names, &i);
    return ZS_TIER_ALL & ~((1u << i) - 1);
}

zs_status cli_open_device(const cli_common *common, zs_device **device, zs_error *error) {
    char cache[PATH_MAX];
    cache_folder(cache, sizeof cache);
    const zs_device_params params = {.device = common->device,
                                     .disable = disabled_tiers(common->tier),
                                     .cache_dir = cache[0] ? cache : NULL,
                                     .validate = common->validate,
                                     .log = cli_log(common)};
    return zs_device_create(&params, device, error);
}

static const char *const kv_names[] = {[ZS_KV_F32] = "f32", [ZS_KV_F16] = "f16", [ZS_KV_Q8_0] = "q8_0"};

const char *cli_kv_name(zs_kv_type type) { return kv_names[type]; }

const char *cli_precision_name(zs_precision precision) { return precision == ZS_PRECISION_EXACT ? "exact" : "fast"; }

zs_precision cli_precision(const cli_common *common) {
    if (!common->precision) return ZS_PRECISION_DEFAULT;
    return strcmp(common->precision, "exact") == 0 ? ZS_PRECISION_EXACT : ZS_PRECISION_FAST;
}

void cli_engine_options(const cli_common *common, zs_engine_params *params) {
    cli_mode(common, params);
    if (common->ctx) params->context = common->ctx;
    if (params->kv_tokens && params->kv_tokens < params->context) params->kv_tokens = params->context;
    params->precision = cli_precision(common);
    uint32_t kv = params->kv;
    cli_choose(common->kv, kv_names, sizeof kv_names / sizeof *kv_names, &kv); // cli_parse knows the name to be one of them
    params->kv = (zs_kv_type)kv;
}

/// Device, and the model with its factors where the plan (NULL: on the device) has them.
static zs_status open_model(const cli_common *common, const char *path, const zs_plan_params *params, cli_stack *stack, zs_error *error) {
    *stack = (cli_stack){0};
    cli_watch(NULL);
    zs_status status = ZS_OK;
    // A wrong file should be told before a device is looked for.
    if (access(path, R_OK)) status = zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    if (!status) status = cli_open_device(common, &stack->device, error);
    if (!status && params) status = cli_make_plan(common, stack->device, path, params, &stack->plan, error);
    if (!status)
        status = zs_model_load(stack->device, path,
                               &(zs_model_params){.progress = cli_progress(common),
                                                  .factors = stack->plan.factors,
                                                  .mmproj = common->mmproj,
                                                  .chat_template = common->chat_template},
                               &stack->model, error);
    if (!status && !params) status = cli_check_mode(common, zs_model_get_info(stack->model)->factored, path, error);
    if (status) cli_close(stack);
    return status;
}

zs_status cli_open_model(const cli_common *common, const char *model_path, cli_stack *stack, zs_error *error) {
    return open_model(common, model_path, NULL, stack, error);
}

zs_status cli_open_model_planned(const cli_common *common, const char *model_path, const zs_plan_params *plan_params, cli_stack *stack,
                                 zs_error *error) {
    zs_plan_params params = *plan_params;
    params.mmproj = common->mmproj;
    cli_engine_options(common, &params.engine);
    return open_model(common, model_path, &params, stack, error);
}

/// By the common options and by what was planned.
static zs_status create_engine(const cli_common *common, const zs_engine_params *engine_params, cli_stack *stack, zs_error *error) {
    zs_engine_params params = engine_params ? *engine_params : (zs_engine_params){0};
    cli_engine_options(common, &params);
    if (stack->plan.mode) {
        params.mode = stack->plan.mode;
        params.composed = stack->plan.composed;
    }
    return zs_engine_create(stack->model, &params, &stack->engine, error);
}

static zs_status engine_opened(cli_stack *stack, zs_status status) {
    if (status)
        cli_close(stack);
    else
        cli_watch(stack->engine);
    return status;
}

zs_status cli_open_engine(const cli_common *common, const zs_engine_params *engine_params, cli_stack *stack, zs_error *error) {
    return engine_opened(stack, create_engine(common, engine_params, stack, error));
}

zs_status cli_open_engine_parallel(const cli_common *common, const cli_parallel *parallel, const zs_engine_params *engine_params,
                                   cli_stack *stack, zs_error *error) {
    enum { MOST = 64, MOST_SEEING = 16 };
    zs_engine_params params = *engine_params;
    uint32_t sessions = parallel->asked ? parallel->asked : parallel->images ? MOST_SEEING : MOST;
    if (sessions > parallel->texts) sessions = (uint32_t)parallel->texts;
    for (;; sessions /= 2) {
        const uint64_t tokens = sessions * parallel->kv_tokens + parallel->kv_more;
        params.max_sessions = sessions;
        params.kv_tokens = tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
        zs_status status = create_engine(common, &params, stack, error);
        if (status != ZS_ERROR_DEVICE_MEMORY || parallel->asked || sessions == 1) return engine_opened(stack, status);
    }
}

zs_status cli_open_planned(const cli_common *common, const char *model_path, const zs_plan_params *plan_params, cli_stack *stack,
                           zs_error *error) {
    zs_status status = cli_open_model_planned(common, model_path, plan_params, stack, error);
    return status ? status : cli_open_engine(common, &plan_params->engine, stack, error);
}

uint32_t cli_context(const cli_common *common, const zs_model *model) {
    uint32_t most = zs_model_get_info(model)->context, asked = common->ctx ? common->ctx : 4096;
    return asked < most ? asked : most;
}

char *cli_name_of(const char *path) {
    static const char suffix[] = ".safetensors";
    const char *slash = strrchr(path, '/');
    char *name = strdup(slash ? slash + 1 : path);
    size_t length = name ? strlen(name) : 0, tail = sizeof suffix - 1;
    if (length > tail && strcmp(name + length - tail, suffix) == 0) name[length - tail] = 0;
    return name;
}

void cli_close(cli_stack *stack) {
    watched = NULL;
    zs_engine_destroy(&stack->engine);
    zs_model_destroy(&stack->model);
    zs_device_destroy(&stack->device);
}

void cli_print_json(json_t *object) {
    json_dumpf(object, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    fputc('\n', stdout);
    json_decref(object);
}

/// Bytes of the character that text begins with; 0: it begins with none.
static size_t character_bytes(const char *text) {
    size_t left = strlen(text), length = 1;
    json_t *string = NULL; // refuses what is not UTF-8
    while (length <= 4 && length <= left && !(string = json_stringn(text, length))) length++;
    json_decref(string);
    return string ? length : 0;
}

int cli_check_utf8(const cli_command *command, const char *what, const char *text) {
    size_t at = 0, length;
    while (text[at] && (length = character_bytes(text + at)) > 0) at += length;
    if (!text[at]) return CLI_DONE;
    return cli_usage(command, "%s is not valid UTF-8 at byte %zu (0x%02x); convert it first, for example with iconv -t UTF-8", what, at,
                     (unsigned)(unsigned char)text[at]);
}

char *cli_read_stream(FILE *stream, size_t *length) {
    size_t capacity = 4096, size = 0;
    char *text = malloc(capacity);
    while (text) {
        size += fread(text + size, 1, capacity - size - 1, stream);
        if (ferror(stream)) {
            int problem = errno;
            free(text);
            errno = problem;
            return NULL;
        }
        if (size < capacity - 1) break;
        capacity *= 2;
        char *grown = realloc(text, capacity);
        if (!grown) free(text);
        text = grown;
    }
    if (!text) return NULL;
    text[size] = 0;
    *length = size;
    return text;
}
