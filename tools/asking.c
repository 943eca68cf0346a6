#include "asking.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const strategies[] = {[ZS_STRATEGY_NONE] = "none",
                                         [ZS_STRATEGY_FIXED] = "fixed",
                                         [ZS_STRATEGY_PROMPT] = "prompt",
                                         [ZS_STRATEGY_CLASSIFIER] = "classifier",
                                         [ZS_STRATEGY_MIX] = "mix"};

const char *asking_strategy_name(zs_strategy strategy) { return strategies[strategy]; }

void asking_options(asking *a, cli_common *common, cli_option *options) {
    const cli_option list[ASKING_OPTIONS] = {
        {"model", 'm', CLI_STRING, &a->model, "FILE", "factored (or dense) model: GGUF file, or Hugging Face folder"},
        CLI_MMPROJ(common),
        {"experts", 0, CLI_STRING, &a->experts_folder, "DIR", "folder of experts (*.safetensors)"},
        {"strategy", 0, CLI_STRING, &a->strategy, "S", "prompt, classifier, mix, fixed or none; default: prompt with --experts"},
        {"dispatch", 0, CLI_STRING, &a->dispatch, "HOW", "pass 1 by score (default) or generate, as in the paper"},
        {"expert", 0, CLI_STRING, &a->expert_name, "NAME", "answer under this expert: a name in --experts, or a file"},
        {"alpha", 0, CLI_STRING, &a->alpha_list, "LIST", "weights of strategy mix: math=0.7,code=0.3"},
        TRANSFER_OPTIONS(&a->transfer),
        {"system", 0, CLI_STRING, &a->system, "TEXT", "system message; default: the model's"},
        {"n", 'n', CLI_COUNT, &a->max_tokens, "N", "longest answer in tokens; default 512"},
        {"temp", 0, CLI_FLOAT, &a->temperature, "T", "temperature; 0 (default): greedy"},
        {"top-k", 0, CLI_UINT, &a->top_k, "K", "sample among the K likeliest tokens"},
        {"top-p", 0, CLI_FLOAT, &a->top_p, "P", "sample among the likeliest tokens that make up P"},
        {"min-p", 0, CLI_FLOAT, &a->min_p, "P", "sample among tokens at least P as likely as the likeliest"},
        {"repetition-penalty", 0, CLI_FLOAT, &a->repetition_penalty, "R", "make tokens that occurred less likely; 1: off"},
        {"plan", 0, CLI_FLAG, &a->plan, NULL, "print what the model would take where, and load nothing"},
        {"seed", 0, CLI_STRING, &a->seed, "N", "of the random numbers; default 0"},
        {0},
    };
    memcpy(options, list, sizeof list);
}

static int check_strategy(const asking *a, const cli_command *command) {
    zs_strategy s = a->params.strategy;
    if ((s == ZS_STRATEGY_PROMPT || s == ZS_STRATEGY_CLASSIFIER || s == ZS_STRATEGY_MIX) && !a->experts_folder)
        return cli_usage(command, "this strategy needs --experts DIR");
    if (s == ZS_STRATEGY_FIXED && !a->expert_name) return cli_usage(command, "strategy fixed needs --expert NAME or FILE");
    if (s == ZS_STRATEGY_MIX && !a->alpha_list) return cli_usage(command, "strategy mix needs --alpha, e.g. --alpha math=0.7,code=0.3");
    return CLI_DONE;
}

int asking_set_strategy(asking *a, const cli_command *command, const char *name) {
    size_t i = 0;
    while (i < sizeof strategies / sizeof *strategies && strcmp(strategies[i], name) != 0) i++;
    if (i == sizeof strategies / sizeof *strategies) return cli_usage(command, "--strategy is prompt, classifier, mix, fixed or none");
    a->params.strategy = (zs_strategy)i;
    return check_strategy(a, command);
}

static int choose_strategy(asking *a, const cli_command *command) {
    zs_strategy usual = a->alpha_list       ? ZS_STRATEGY_MIX
                        : a->expert_name    ? ZS_STRATEGY_FIXED
                        : a->experts_folder ? ZS_STRATEGY_PROMPT
                                            : ZS_STRATEGY_NONE;
    a->params.strategy = usual;
    int result = a->strategy ? asking_set_strategy(a, command, a->strategy) : check_strategy(a, command);
    if (result) return result;
    if (a->params.strategy != ZS_STRATEGY_FIXED && a->expert_name) return cli_usage(command, "--expert goes with strategy fixed");
    return CLI_DONE;
}

static int read_dispatch(asking *a, const cli_command *command) {
    if (a->dispatch && strcmp(a->dispatch, "generate") == 0)
        a->params.dispatch = ZS_DISPATCH_GENERATE;
    else if (a->dispatch && strcmp(a->dispatch, "score") != 0)
        return cli_usage(command, "--dispatch is score or generate");
    return CLI_DONE;
}

static int read_sampling(asking *a, const cli_command *command) {
    if (a->top_p > 1 || a->min_p > 1) return cli_usage(command, "--top-p and --min-p are between 0 and 1");
    uint64_t seed = 0;
    int result = a->seed ? cli_read_seed(command, "seed", a->seed, &seed) : CLI_DONE;
    if (result) return result;
    a->params.sampling = (zs_sampling){a->temperature, a->top_k, a->top_p, a->min_p, a->repetition_penalty, seed};
    a->params.max_tokens = a->max_tokens;
    a->params.system = a->system;
    a->params.transfer = a->transfer.wanted;
    return CLI_DONE;
}

/// "math=0.7,code=0.3" to a weight per expert of the set; those not named get 0.
static zs_status read_alpha(asking *a, const cli_common *common, zs_error *error) {
    uint32_t count = zs_expert_set_count(a->experts);
    a->alpha = calloc(count, sizeof *a->alpha);
    double sum = 0;
    bool *named = calloc(count, sizeof *named); // so that none is named twice
    zs_status status = a->alpha && named ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    for (const char *at = a->alpha_list; !status && *(at += strspn(at, " "));) {
        const char *equals = strchr(at, '=');
        uint32_t i = 0;
        for (; equals && i < count; i++) {
            const char *name = zs_expert_get_info(zs_expert_set_get(a->experts, i))->name;
            if (strlen(name) == (size_t)(equals - at) && strncmp(name, at, strlen(name)) == 0) break;
        }
        const int length = equals ? (int)(equals - at) : 0;
        char *end = NULL;
        double weight = equals ? strtod(equals + 1, &end) : 0;
        if (!equals)
            status = zs_error_set(error, ZS_ERROR_ARGUMENT, "--alpha: '%s' is not of the form NAME=WEIGHT", at);
        else if (i == count)
            status = zs_error_set(error, ZS_ERROR_ARGUMENT, "--alpha: %s holds no expert named '%.*s'", a->experts_folder, length, at);
        else if (named[i])
            status = zs_error_set(error, ZS_ERROR_ARGUMENT, "--alpha: %.*s is named twice", length, at);
        else if (end == equals + 1 || (*end && *end != ','))
            status = zs_error_set(error, ZS_ERROR_ARGUMENT, "--alpha: the weight of %.*s is not a number", length, at);
        if (status) break;
        a->alpha[i] = weight;
        named[i] = true;
        sum += weight;
        at = *end ? end + 1 : end;
    }
    free(named);
    if (!status && fabs(sum - 1) > 0.01)
        cli_note(common, "warning: the weights of --alpha add up to %g: z is scaled by that, and experts are made for 1", sum);
    a->params.alpha = a->alpha;
    return status;
}

static zs_status no_such_expert(const asking *a, zs_error *error) {
    if (!a->experts)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "--expert: there is no file %s; a name goes with --experts DIR", a->expert_name);
    char names[512] = "";
    for (uint32_t i = 0; i < zs_expert_set_count(a->experts); i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", zs_expert_get_info(zs_expert_set_get(a->experts, i))->name);
    }
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "--expert: %s holds no expert named '%s' (it has %s), and there is no such file",
                        a->experts_folder, a->expert_name, names);
}

static zs_status find_expert(asking *a, zs_error *error) {
    a->params.expert = a->experts ? zs_expert_set_find(a->experts, a->expert_name) : NULL;
    if (a->params.expert) return ZS_OK;
    if (access(a->expert_name, F_OK)) return no_such_expert(a, error);
    zs_status status = zs_expert_load(a->expert_name, &a->expert, error);
    a->params.expert = a->expert;
    return status;
}

int asking_plan(const asking *a, const cli_command *command) {
    if (!a->model) return cli_usage(command, "which model? give -m FILE");
    return cli_plan(command->common, a->model, &(zs_plan_params){.tokens = a->max_tokens});
}

int asking_prepare(asking *a, const cli_command *command, bool several) {
    if (!a->model) return cli_usage(command, "which model? give -m FILE");
    int result = several ? CLI_DONE : choose_strategy(a, command);
    if (!result) result = read_dispatch(a, command);
    if (!result) result = read_sampling(a, command);
    if (!result) result = transfer_prepare(&a->transfer, command, a->experts_folder || a->expert_name);
    if (result) return result;
    zs_error error;
    zs_status status = a->experts_folder ? zs_expert_set_load(a->experts_folder, &a->experts, &error) : ZS_OK;
    a->params.experts = a->experts;
    if (!status && a->alpha_list && a->experts) status = read_alpha(a, command->common, &error);
    if (!status && a->expert_name) status = find_expert(a, &error);
    if (!status) status = transfer_shuffle(&a->transfer, a->experts, a->expert, &error);
    return status ? cli_fail(&error) : CLI_DONE;
}

int asking_open(asking *a, const cli_command *command) {
    int result = asking_prepare(a, command, false);
    if (result) return result;
    zs_error error;
    if (cli_open_planned(command->common, a->model, &(zs_plan_params){.tokens = a->max_tokens}, &a->stack, &error)) return cli_fail(&error);
    transfer_tell(&a->transfer, command->common, a->stack.model, a->experts, a->expert);
    return CLI_DONE;
}

void asking_close(asking *a) {
    pictures_free(&a->images);
    cli_close(&a->stack);
    zs_expert_destroy(&a->expert);
    zs_expert_set_destroy(&a->experts);
    free(a->alpha);
    a->alpha = NULL;
}

static bool write_text(void *user, const char *text, size_t length) {
    asking *a = user;
    a->open_line = true;
    fwrite(text, 1, length, stdout);
    fflush(stdout);
    return !ferror(stdout);
}

void asking_stream(asking *a) {
    a->params.on_text = write_text;
    a->params.user = a;
}

void asking_end_line(asking *a) {
    if (a->open_line) fputc('\n', stdout);
    a->open_line = false;
    fflush(stdout);
}

void asking_summary(const zs_answer *answer, char *text, size_t size) {
    int used = snprintf(text, size, "%s", *answer->expert ? answer->expert : "base");
    for (size_t i = 0; i < answer->category_count && used > 0 && (size_t)used < size; i++)
        used += snprintf(text + used, size - (size_t)used, "%s%s %.0f %%", i ? ", " : "  (", answer->categories[i].name,
                         100 * answer->categories[i].probability);
    if (answer->category_count && (size_t)used < size) used += snprintf(text + used, size - (size_t)used, ")");
    if ((size_t)used < size && answer->category_count)
        used += snprintf(text + used, size - (size_t)used, "  pass 1 %.0f ms", answer->pass1_ms);
    if ((size_t)used < size && answer->compose_ms > 0)
        used += snprintf(text + used, size - (size_t)used, "  composed in %.0f ms", answer->compose_ms);
    if ((size_t)used < size && answer->images)
        used += snprintf(text + used, size - (size_t)used, "  %llu image%s in %.0f ms", (unsigned long long)answer->images,
                         answer->images == 1 ? "" : "s", answer->image_ms);
    if ((size_t)used < size)
        used += snprintf(text + used, size - (size_t)used, "  prompt %.0f ms  %zu token%s", answer->prefill_ms, answer->token_count,
                         answer->token_count == 1 ? "" : "s");
    if ((size_t)used < size && answer->decode_tokens_per_s > 0)
        used += snprintf(text + used, size - (size_t)used, " at %.1f/s", answer->decode_tokens_per_s);
    if ((size_t)used < size && !answer->ended) snprintf(text + used, size - (size_t)used, ", cut short by -n or --ctx");
}
