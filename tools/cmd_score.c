#include "pictures.h"
#include "transfer.h"

#include <stdlib.h>
#include <string.h>

typedef struct scoring {
    const char *model, *prompt, *answer, *expert;
    uint32_t top;
    cli_list image_names;
    bool raw, plan;
    transfer transfer;
    pictures images;
    const cli_common *common;
} scoring;

typedef struct scored {
    uint32_t *prompt, *answer;
    size_t prompt_count, answer_count;
    float *logprobs;
    zs_token_logprob *top;
    json_t *transfer; // what of the expert was applied; null: none was asked for
} scored;

static zs_status encode_prompt(const scoring *s, const cli_stack *stack, uint32_t expert, scored *out, zs_error *error) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(stack->model);
    if (!s->raw)
        return zs_tokenizer_encode_chat(tokenizer, &(zs_message){"user", s->prompt}, 1, true, &out->prompt, &out->prompt_count, error);
    if (!s->images.count)
        return zs_tokenizer_encode(tokenizer, s->prompt, strlen(s->prompt), true, &out->prompt, &out->prompt_count, error);
    const zs_prompt prompt = {.text = s->prompt,
                              .length = strlen(s->prompt),
                              .images = (const zs_image *const *)s->images.images,
                              .image_count = s->images.count,
                              .expert = expert};
    return zs_engine_encode_prompt(stack->engine, &prompt, &out->prompt, &out->prompt_count, error);
}

static zs_status encode(const scoring *s, const cli_stack *stack, uint32_t expert, scored *out, zs_error *error) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(stack->model);
    zs_status status = encode_prompt(s, stack, expert, out, error);
    if (!status) status = zs_tokenizer_encode(tokenizer, s->answer, strlen(s->answer), false, &out->answer, &out->answer_count, error);
    if (status) return status;
    out->logprobs = calloc(out->answer_count + 1, sizeof *out->logprobs);
    out->top = calloc(s->top + 1u, sizeof *out->top);
    return out->logprobs && out->top ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
}

static zs_status attach(const scoring *s, const cli_stack *stack, scored *out, uint32_t *id, zs_error *error) {
    zs_expert *expert = NULL;
    zs_status status = s->expert ? zs_expert_load(s->expert, &expert, error) : ZS_OK;
    if (!status) status = transfer_shuffle(&s->transfer, NULL, expert, error);
    if (!status && expert) status = zs_engine_attach_expert(stack->engine, expert, s->transfer.wanted, id, error);
    if (!status) transfer_tell(&s->transfer, s->common, stack->model, NULL, expert);
    if (!status) out->transfer = transfer_report(&s->transfer, stack->model, NULL, expert);
    zs_expert_destroy(&expert);
    return status;
}

static zs_status score(const scoring *s, const cli_stack *stack, scored *out, zs_error *error) {
    uint32_t expert = 0;
    zs_status status = attach(s, stack, out, &expert, error);
    if (!status) status = encode(s, stack, expert, out, error);
    if (status) return status;
    const zs_score_item item = {expert, out->prompt, out->prompt_count, out->answer, out->answer_count, out->logprobs};
    return zs_engine_score(stack->engine, &item, 1, out->top, s->top, error);
}

static void print_json(const scoring *s, const scored *r, double sum) {
    json_t *tokens = json_array(), *logprobs = json_array(), *top = json_array();
    for (size_t i = 0; i < r->answer_count; i++) {
        json_array_append_new(tokens, json_integer(r->answer[i]));
        json_array_append_new(logprobs, json_real((double)r->logprobs[i]));
    }
    for (uint32_t i = 0; i < s->top; i++)
        json_array_append_new(top, json_pack("{s:i, s:f}", "id", (int)r->top[i].id, "logprob", (double)r->top[i].logprob));
    cli_print_json(json_pack("{s:o, s:o, s:f, s:i, s:o, s:O}", "tokens", tokens, "logprobs", logprobs, "sum", sum, "prompt_tokens",
                             (int)r->prompt_count, "first_token_top", top, "transfer", r->transfer));
}

static void print_token(const zs_tokenizer *tokenizer, uint32_t id, float logprob) {
    const char *bytes = "";
    size_t size = zs_tokenizer_token_bytes(tokenizer, id, true, &bytes);
    printf("%10.5f  %7u  ", (double)logprob, id);
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '\n')
            fputs("\\n", stdout);
        else if ((unsigned char)bytes[i] < 0x20)
            printf("\\x%02x", (unsigned char)bytes[i]);
        else
            fputc(bytes[i], stdout);
    }
    fputc('\n', stdout);
}

static const zs_plan_params plan_params = {.engine = {.max_sessions = 1, .max_experts = 1}, .tokens = 1};

static int run(scoring *s) {
    const cli_common *common = s->common;
    zs_error error;
    cli_stack stack = {0};
    scored result = {0};
    zs_status status = pictures_load(&s->image_names, &s->images, &error);
    if (!status) status = cli_open_planned(common, s->model, &plan_params, &stack, &error);
    if (!status) status = score(s, &stack, &result, &error);
    if (!status) {
        double sum = 0;
        for (size_t i = 0; i < result.answer_count; i++) sum += (double)result.logprobs[i];
        if (common->json) {
            print_json(s, &result, sum);
        } else {
            const zs_tokenizer *tokenizer = zs_model_get_tokenizer(stack.model);
            for (size_t i = 0; i < result.answer_count; i++) print_token(tokenizer, result.answer[i], result.logprobs[i]);
            printf("%10.5f  sum over %zu tokens\n", sum, result.answer_count);
            if (s->top) puts("\nlikeliest first tokens:");
            for (uint32_t i = 0; i < s->top; i++) print_token(tokenizer, result.top[i].id, result.top[i].logprob);
        }
    }
    free(result.prompt);
    free(result.answer);
    free(result.logprobs);
    free(result.top);
    json_decref(result.transfer);
    pictures_free(&s->images);
    cli_close(&stack);
    return status ? cli_fail(&error) : CLI_DONE;
}

int cmd_score(int argc, char **argv) {
    cli_common common = {0};
    scoring s = {.common = &common};
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &s.model, "FILE", "factored or dense model: GGUF file, or Hugging Face folder"},
        CLI_MMPROJ(&common),
        {"prompt", 0, CLI_STRING, &s.prompt, "TEXT", "a user's message in the chat template"},
        {"answer", 0, CLI_STRING, &s.answer, "TEXT", "what is scored; no end token is added"},
        {"raw", 0, CLI_FLAG, &s.raw, NULL, "the prompt is taken as it is, control tokens in it count"},
        {"image", 0, CLI_LIST, &s.image_names, "FILE",
         "a picture for the next <image> of a --raw prompt; once for each, - for standard input"},
        {"top", 0, CLI_UINT, &s.top, "K", "tell the K likeliest first tokens too"},
        {"expert", 0, CLI_STRING, &s.expert, "FILE", "score under this expert"},
        {"plan", 0, CLI_FLAG, &s.plan, NULL, "print what the model would take where, and load nothing"},
        TRANSFER_OPTIONS(&s.transfer),
        {0},
    };
    const cli_command command = {"score",
                                 "-m MODEL --prompt TEXT --answer TEXT",
                                 "log-probability of an answer, token by token",
                                 "zsigma score -m smollm2.gguf --prompt \"What is the capital of France?\" --answer \"Paris\"",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "prompt and answer are given by --prompt and --answer");
    if (!s.model) return cli_usage(&command, "which model? give -m FILE");
    if ((result = transfer_prepare(&s.transfer, &command, s.expert))) return result;
    if (s.plan) return cli_plan(&common, s.model, &plan_params);
    if (!s.prompt || !s.answer) return cli_usage(&command, "give --prompt and --answer");
    if (s.image_names.count && !s.raw) return cli_usage(&command, "--image goes with --raw and a prompt that says <image> where it goes");
    if (!*s.prompt || !*s.answer) return cli_usage(&command, "prompt and answer must not be empty");
    if ((result = cli_check_utf8(&command, "the prompt", s.prompt)) || (result = cli_check_utf8(&command, "the answer", s.answer)))
        return result;
    return run(&s);
}
