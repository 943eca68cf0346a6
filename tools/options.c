/// Option parsing and help.
#include "cli.h"
#include "zsigma/zsigma_lab.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_OPTIONS = 64 };

typedef struct option_list {
    cli_option items[MAX_OPTIONS];
    size_t count, own; // own: the command's, first
} option_list;

static option_list collect(const cli_command *command) {
    cli_common *c = command->common;
    const cli_option common[] = {
        {"device", 0, CLI_STRING, &c->device, "NAME", "part of a device's name, its index or UUID (see zsigma devices)"},
        {"tier", 0, CLI_STRING, &c->tier, "TIER", "highest tier to use: strict, subgroup, storage, half, dot, matrix, matrix2, chain"},
        {"precision", 0, CLI_STRING, &c->precision, "P", "exact (f32) or fast (f16 where it is safe); default: fast on GPUs"},
        {"mode", 0, CLI_STRING, &c->mode, "MODE", "auto (default), factored, composed[:f16|q8_0|q4_0], or dense"},
        {"ctx", 0, CLI_COUNT, &c->ctx, "N", "context in tokens; default: the model's, at most 4096; train: at most what its lines take"},
        {"kv", 0, CLI_STRING, &c->kv, "TYPE", "keys and values as f32, f16 or q8_0; default: f16 in precision fast, else f32"},
        {"chat-template", 0, CLI_STRING, &c->chat_template, "NAME",
         "chatml, qwen2, llama2, llama3, mistral, vicuna or gemma instead of the model's own"},
        {"json", 0, CLI_FLAG, &c->json, NULL, "one JSON object on standard output, nothing else there"},
        {"verbose", 0, CLI_FLAG, &c->verbose, NULL, "say more on standard error"},
        {"quiet", 0, CLI_FLAG, &c->quiet, NULL, "say only errors"},
        {"force", 0, CLI_FLAG, &c->force, NULL, "replace output files that exist"},
        {"validate", 0, CLI_FLAG, &c->validate, NULL, "turn the Vulkan validation layer on"},
        {"help", 'h', CLI_FLAG, &c->help, NULL, "this text"},
    };
    option_list list = {0};
    for (const cli_option *o = command->options; o && o->name && list.count < MAX_OPTIONS - sizeof common / sizeof *common; o++)
        list.items[list.count++] = *o;
    list.own = list.count;
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) list.items[list.count++] = common[i];
    return list;
}

static void print_help(const cli_command *command, const option_list *list) {
    printf("zsigma %s: %s\n\nusage: zsigma %s%s%s\n", command->name, command->summary, command->name, *command->usage ? " " : "",
           command->usage);
    for (size_t i = 0; i < list->count; i++) {
        const cli_option *o = &list->items[i];
        if (i == 0 && list->own) puts("\noptions:");
        if (i == list->own) puts("\neverywhere:");
        char left[64];
        snprintf(left, sizeof left, "%s%c%s--%s %s", o->letter ? "-" : " ", o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
                 o->argument ? o->argument : "");
        printf("  %-28s %s\n", left, o->help);
    }
    printf("\nexample:\n  %s\n", command->example);
}

/// Edit distance, for the nearest name.
size_t cli_distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    size_t row[LONGEST + 1], n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return LONGEST;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[m];
}

static int unknown_option(const cli_command *command, const option_list *list, const char *text) {
    const char *name = text + strspn(text, "-");
    size_t length = strcspn(name, "="), best = length < 3 ? length : 3; // of a letter or two nothing is near
    const cli_option *nearest = NULL;
    char asked[64];
    snprintf(asked, sizeof asked, "%.*s", (int)(length < 60 ? length : 60), name);
    for (size_t i = 0; i < list->count; i++) {
        size_t distance = cli_distance(asked, list->items[i].name);
        if (distance < best) {
            best = distance;
            nearest = &list->items[i];
        }
    }
    if (nearest) return cli_usage(command, "unknown option %s; did you mean --%s?", text, nearest->name);
    return cli_usage(command, "unknown option %s (see zsigma %s --help)", text, command->name);
}

static bool store(const cli_option *option, const char *value) {
    char *end;
    errno = 0;
    switch (option->kind) {
    case CLI_FLAG: *(bool *)option->value = true; return true;
    case CLI_STRING: *(const char **)option->value = value; return true;
    case CLI_LIST: {
        cli_list *list = option->value;
        if (list->count == CLI_MOST_ITEMS) return false;
        list->items[list->count++] = value;
        return true;
    }
    case CLI_UINT:
    case CLI_COUNT: {
        unsigned long long number = strtoull(value, &end, 10);
        if (errno || *end || end == value || *value == '-' || number > UINT32_MAX) return false;
        if (number == 0 && option->kind == CLI_COUNT) return false;
        *(uint32_t *)option->value = (uint32_t)number;
        return true;
    }
    case CLI_FLOAT: {
        float number = strtof(value, &end);
        if (errno || *end || end == value || !(number >= 0 && number < 1e9f)) return false;
        *(float *)option->value = number;
        return true;
    }
    }
    return false;
}

static const cli_option *find_option(const option_list *list, const char *text) {
    if (text[1] != '-') {
        for (size_t i = 0; i < list->count; i++) {
            const cli_option *o = &list->items[i];
            if ((o->letter && text[1] == o->letter && !text[2])) return o;
        }
        return NULL;
    }
    size_t length = strcspn(text + 2, "=");
    for (size_t i = 0; i < list->count; i++) {
        if (strlen(list->items[i].name) == length && strncmp(list->items[i].name, text + 2, length) == 0) return &list->items[i];
    }
    return NULL;
}

/// One option at argv[*i]; moves *i to its last argument.
static int take_option(const cli_command *command, const option_list *list, int argc, char **argv, int *i) {
    const char *text = argv[*i], *value = NULL;
    const cli_option *option = find_option(list, text);
    if (!option) return unknown_option(command, list, text);
    const char *equals = strchr(text, '=');
    if (option->kind == CLI_FLAG && equals) return cli_usage(command, "--%s takes no value", option->name);
    if (option->kind != CLI_FLAG) {
        value = equals ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        if (!value) return cli_usage(command, "%s needs a value (%s)", text, option->argument);
    }
    if (store(option, value)) return CLI_DONE;
    if (option->kind == CLI_LIST) return cli_usage(command, "--%s can be given %d times", option->name, CLI_MOST_ITEMS);
    return cli_usage(command, "%.*s %s: %s is expected", (int)strcspn(text, "="), text, value,
                     option->kind == CLI_COUNT  ? "a whole number from 1 to 4294967295"
                     : option->kind == CLI_UINT ? "a whole number below 4294967296"
                                                : "a number from 0 on");
}

/// The common options that name one of a few things; the command's name is told, because the value alone may be a typing error.
static int check_choices(const cli_command *command) {
    static const char *const tiers[] = {CLI_TIERS, NULL}, *const precisions[] = {"exact", "fast", NULL},
                             *const kvs[] = {"f32", "f16", "q8_0", NULL}, *const modes[] = {"auto",          "factored",
                                                                                            "composed",      "composed:f16",
                                                                                            "composed:q8_0", "composed:q4_0",
                                                                                            "dense",         NULL};
    const cli_common *c = command->common;
    const struct {
        const char *option, *value, *const *allowed;
    } choices[] = {{"tier", c->tier, tiers}, {"precision", c->precision, precisions}, {"kv", c->kv, kvs}, {"mode", c->mode, modes}};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const char *const *name = choices[i].allowed;
        char list[128] = "";
        for (; choices[i].value && *name && strcmp(*name, choices[i].value) != 0; name++)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "", *name);
        if (!choices[i].value || *name) continue;
        return cli_usage(command, "--%s %s: one of %s is expected", choices[i].option, choices[i].value, list);
    }
    return CLI_DONE;
}

int cli_parse(const cli_command *command, int argc, char **argv, int *positional, bool *stop) {
    option_list list = collect(command);
    bool only_positional = false;
    *positional = 0;
    *stop = true;
    for (int i = 1; i < argc; i++) {
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else if (!only_positional && argv[i][0] == '-' && argv[i][1]) {
            int result = take_option(command, &list, argc, argv, &i);
            if (result) return result;
        } else {
            argv[(*positional)++] = argv[i];
        }
    }
    *stop = command->common->help;
    if (*stop) print_help(command, &list);
    return *stop ? CLI_DONE : check_choices(command);
}

int cli_read_seed(const cli_command *command, const char *option, const char *text, uint64_t *seed) {
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (!errno && !*end && end != text && *text != '-') return CLI_DONE;
    return cli_usage(command, "--%s is a whole number", option);
}

bool cli_choose(const char *name, const char *const *names, uint32_t count, uint32_t *place) {
    for (uint32_t i = 0; name && i < count; i++) {
        if (!names[i] || strcmp(name, names[i]) != 0) continue;
        *place = i;
        return true;
    }
    return name == NULL;
}

bool cli_read_matrices(const char *list, uint32_t *matrices) {
    static const struct {
        const char *name;
        uint32_t bits;
    } names[] = {{"all", ZS_MATRICES_ALL},
                 {"mlp", ZS_MATRICES_MLP},
                 {"attention", ZS_MATRICES_ATTENTION},
                 {"tower", ZS_MATRICES_TOWER},
                 {"projector", ZS_MATRICES_PROJECTOR}};
    *matrices = 0;
    while (list) {
        size_t size = strcspn(list, ","), i = 0;
        while (i < sizeof names / sizeof *names && (strlen(names[i].name) != size || memcmp(names[i].name, list, size) != 0)) i++;
        if (i == sizeof names / sizeof *names) return false;
        *matrices |= names[i].bits;
        list = list[size] ? list + size + 1 : NULL;
    }
    return true;
}

int cli_usage(const cli_command *command, const char *problem, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, problem);
    vsnprintf(text, sizeof text, problem, arguments);
    va_end(arguments);
    cli_error("%s: %s\nusage: zsigma %s%s%s", command->name, text, command->name, *command->usage ? " " : "", command->usage);
    return CLI_USAGE;
}
