#include "cli.h"
#include "data_file.h"
#include "zsigma/zsigma_lab.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct training {
    const char *model, *task, *data, *gradient, *expert;
    bool transfer;
    const cli_common *common;

    cli_stack stack;
    data_file file;
    zs_gradient_item *items; // [item_count]: the lines that are used
    size_t item_count;
    uint32_t left_out; // lines
    zs_gradient *result;
} training;

enum { MOST_COMPLAINTS = 20 }; // told one by one; all are counted

static void leave_out(void *user, uint32_t line, const char *reason) {
    training *t = user;
    if (t->left_out++ < MOST_COMPLAINTS) cli_error("%s, line %u is left out: %s", t->data, line, reason);
}

/// Ids of a line; false after it was left out.
static bool encode(training *t, const data_item *line, zs_gradient_item *item) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(t->stack.model);
    uint32_t *prompt = NULL, *answer = NULL, context = zs_model_get_info(t->stack.model)->context;
    size_t prompt_count = 0, answer_count = 0;
    zs_error error;
    char reason[128];
    if (t->common->ctx && t->common->ctx < context) context = t->common->ctx;
    zs_status status = zs_tokenizer_encode_chat(tokenizer, line->messages, line->message_count, true, &prompt, &prompt_count, &error);
    if (!status) status = zs_tokenizer_encode(tokenizer, line->answer, strlen(line->answer), false, &answer, &answer_count, &error);
    if (!status && prompt_count + answer_count <= context) {
        *item =
            (zs_gradient_item){.prompt = prompt, .prompt_count = prompt_count, .answer = answer, .answer_count = answer_count, .weight = 1};
        return true;
    }
    free(prompt);
    free(answer);
    snprintf(reason, sizeof reason, "prompt and answer have %zu tokens, and the context holds %u", prompt_count + answer_count, context);
    leave_out(t, line->line, status ? error.message : reason);
    return false;
}

static zs_status encode_all(training *t, zs_error *error) {
    t->items = calloc(t->file.count + 1, sizeof *t->items);
    if (!t->items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    for (size_t i = 0; i < t->file.count; i++) {
        zs_gradient_item *item = &t->items[t->item_count];
        if (!encode(t, &t->file.items[i], item)) continue;
        item->logprobs = calloc(item->answer_count, sizeof *item->logprobs);
        t->item_count++;
        if (!item->logprobs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    }
    if (t->left_out > MOST_COMPLAINTS) cli_error("%s: %u lines are left out in all", t->data, t->left_out);
    if (t->item_count) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT,
                        "%s has no line that can be used: {\"prompt\": …, \"answer\": …} is expected, one object a line", t->data);
}

/// With passes long enough for every line.
static zs_status open_gradient(training *t, zs_error *error) {
    zs_gradient_params params = {.progress = cli_progress(t->common)};
    zs_status status = zs_gradient_create(t->stack.model, &params, &t->result, error);
    for (size_t i = 0; i < t->item_count; i++) {
        uint32_t rows = (uint32_t)(t->items[i].prompt_count + t->items[i].answer_count - 1);
        if (rows > params.max_rows) params.max_rows = rows;
    }
    if (status || params.max_rows <= zs_gradient_max_rows(t->result)) return status;
    zs_gradient_destroy(&t->result);
    return zs_gradient_create(t->stack.model, &params, &t->result, error);
}

static zs_status set_expert(training *t, zs_error *error) {
    if (!t->expert) return ZS_OK;
    zs_expert *expert = NULL;
    zs_status status = zs_expert_load(t->expert, &expert, error);
    if (!status) status = zs_gradient_set_expert(t->result, expert, t->transfer, error);
    zs_expert_destroy(&expert);
    return status;
}

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void report(const training *t, double seconds) {
    double sum = 0;
    size_t answer_tokens = 0, tokens = 0;
    for (size_t i = 0; i < t->item_count; i++) {
        for (size_t k = 0; k < t->items[i].answer_count; k++) sum += (double)t->items[i].logprobs[k];
        answer_tokens += t->items[i].answer_count;
        tokens += t->items[i].prompt_count + t->items[i].answer_count - 1;
    }
    if (t->common->json) {
        cli_print_json(json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:f, s:f}", "output", t->gradient, "logprob", sum, "lines",
                                 (json_int_t)t->item_count, "left_out", (json_int_t)t->left_out, "tokens", (json_int_t)tokens,
                                 "answer_tokens", (json_int_t)answer_tokens, "seconds", seconds, "tokens_per_s", (double)tokens / seconds));
    } else if (!t->common->quiet) {
        printf("%zu lines (%u left out), %zu tokens, %zu of them answers: log-probability %.5f\n", t->item_count, t->left_out, tokens,
               answer_tokens, sum);
        printf("%s: gradient of %u matrices in %.1f s, %.1f tokens/s\n", t->gradient, zs_model_get_info(t->stack.model)->matrices, seconds,
               (double)tokens / seconds);
    }
}

static zs_status train(training *t, zs_error *error) {
    if (!t->common->force && access(t->gradient, F_OK) == 0)
        return zs_error_set(error, ZS_ERROR_EXISTS, "%s exists: choose another name or give --force", t->gradient);
    zs_status status = data_file_read(t->data, leave_out, t, &t->file, error);
    if (!status) status = cli_open_model(t->common, t->model, &t->stack, error);
    if (!status) status = encode_all(t, error);
    if (!status) status = open_gradient(t, error);
    if (!status) status = set_expert(t, error);
    double start = now_seconds();
    if (!status) status = zs_gradient_add(t->result, t->items, t->item_count, error);
    double seconds = now_seconds() - start;
    if (!status) status = zs_gradient_save(t->result, t->gradient, t->common->force, error);
    if (!status) report(t, seconds);
    return status;
}

static void close_training(training *t) {
    zs_gradient_destroy(&t->result);
    for (size_t i = 0; i < t->item_count; i++) {
        free((void *)(uintptr_t)t->items[i].prompt);
        free((void *)(uintptr_t)t->items[i].answer);
        free(t->items[i].logprobs);
    }
    free(t->items);
    data_file_free(&t->file);
    cli_close(&t->stack);
}

int cmd_train(int argc, char **argv) {
    cli_common common = {0};
    training t = {.common = &common};
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &t.model, "FILE", "factored model, GGUF"},
        {"task", 0, CLI_STRING, &t.task, "TASK", "sft: the answers as they are"},
        {"data", 0, CLI_STRING, &t.data, "FILE", "JSON Lines: {\"prompt\" or \"messages\", \"answer\"}"},
        {"dump-gradient", 0, CLI_STRING, &t.gradient, "FILE", "write d Σ log π(answer | prompt) / dz there, safetensors"},
        {"expert", 0, CLI_STRING, &t.expert, "FILE", "take it at this expert; default: the base model"},
        {"transfer", 0, CLI_FLAG, &t.transfer, NULL, "accept an expert made for another model"},
        {0},
    };
    const cli_command command = {"train",
                                 "-m MODEL --task sft --data FILE --dump-gradient OUT.safetensors",
                                 "the gradient of answers' log-probabilities by an expert's z",
                                 "zsigma train -m smollm2.gguf --task sft --data lines.jsonl --dump-gradient gradient.safetensors",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "the data is given by --data");
    if (!t.model) return cli_usage(&command, "which model? give -m FILE");
    if (!t.task || strcmp(t.task, "sft") != 0) return cli_usage(&command, "--task is sft (the answers as they are); there is no other yet");
    if (!t.data) return cli_usage(&command, "which data? give --data FILE");
    if (!t.gradient) return cli_usage(&command, "where to? give --dump-gradient FILE");
    if ((common.precision && strcmp(common.precision, "exact") != 0) || (common.kv && strcmp(common.kv, "f32") != 0))
        return cli_usage(&command, "gradients are taken in precision exact, with keys and values as f32");
    zs_error error;
    zs_status status = train(&t, &error);
    close_training(&t);
    return status ? cli_fail(&error) : CLI_DONE;
}
