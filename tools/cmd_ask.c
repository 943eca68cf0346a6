#include "asking.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_answer(const asking *a, const zs_answer *answer) {
    json_t *tokens = json_array(), *categories = json_object(), *alpha = answer->alpha ? json_object() : json_null();
    for (size_t i = 0; i < answer->token_count; i++) json_array_append_new(tokens, json_integer(answer->tokens[i]));
    for (size_t i = 0; i < answer->category_count; i++)
        json_object_set_new(categories, answer->categories[i].name, json_real(answer->categories[i].probability));
    for (uint32_t i = 0; answer->alpha && i < zs_expert_set_count(a->experts); i++)
        json_object_set_new(alpha, zs_expert_get_info(zs_expert_set_get(a->experts, i))->name, json_real(answer->alpha[i]));
    cli_print_json(json_pack(
        "{s:s, s:o, s:s, s:o, s:o, s:o, s:s, s:b, s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:s, s:o}", "answer", answer->text, "tokens",
        tokens, "strategy", asking_strategy_name(a->params.strategy), "expert", *answer->expert ? json_string(answer->expert) : json_null(),
        "alpha", alpha, "categories", categories, "mode", zs_engine_get_info(a->stack.engine)->mode, "ended", answer->ended,
        "prompt_tokens", (json_int_t)answer->prompt_tokens, "pass1_ms", answer->pass1_ms, "images", (json_int_t)answer->images, "image_ms",
        answer->image_ms, "compose_ms", answer->compose_ms, "prefill_ms", answer->prefill_ms, "decode_ms", answer->decode_ms,
        "decode_tokens_per_s", answer->decode_tokens_per_s, "device", zs_device_get_info(a->stack.device)->name, "transfer",
        transfer_report(&a->transfer, a->stack.model, a->experts, a->expert)));
}

static int ask(asking *a, const cli_common *common, const char *question) {
    zs_error error;
    zs_answer answer;
    if (!common->json) asking_stream(a);
    if (common->verbose) {
        const zs_device_info *device = zs_device_get_info(a->stack.device);
        const zs_engine_info *engine = zs_engine_get_info(a->stack.engine);
        cli_note(common, "device %s (%s), mode %s, precision %s, context %u", device->name, device->driver, engine->mode,
                 cli_precision_name(engine->precision), engine->context);
    }
    zs_status status = zs_ask(a->stack.engine, question, &a->params, &answer, &error);
    asking_end_line(a);
    if (status) return cli_fail(&error);
    if (common->json) {
        print_answer(a, &answer);
    } else {
        char summary[1024];
        asking_summary(&answer, summary, sizeof summary);
        cli_note(common, cli_colour(STDERR_FILENO) ? "\033[2m%s\033[0m" : "%s", summary);
    }
    zs_answer_free(&answer);
    return CLI_DONE;
}

static bool reads_stdin(const cli_list *images) {
    for (size_t i = 0; i < images->count; i++)
        if (strcmp(images->items[i], "-") == 0) return true;
    return false;
}

static int load_images(asking *a) {
    zs_error error;
    if (pictures_load(&a->image_names, &a->images, &error)) return cli_fail(&error);
    a->params.images = (const zs_image *const *)a->images.images;
    a->params.image_count = a->images.count;
    return CLI_DONE;
}

int cmd_ask(int argc, char **argv) {
    cli_common common = {0};
    asking a = {0};
    cli_option options[ASKING_OPTIONS + 1] = {
        {"image", 0, CLI_LIST, &a.image_names, "FILE", "a picture that the question is about; may be given again; - for standard input"}};
    asking_options(&a, &common, options + 1);
    const cli_command command = {"ask",
                                 "-m MODEL [--experts DIR] \"question\"",
                                 "answers a question in two passes (\"-\": the question is read from standard input)",
                                 "zsigma ask -m smollm2.gguf --experts assets/experts \"What is 17 + 25? Reply with the number only.\"",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (a.plan) return positional ? cli_usage(&command, "with --plan nothing is asked") : asking_plan(&a, &command);
    if (positional != 1) return cli_usage(&command, positional ? "one question is expected; put it in quotes" : "what is the question?");
    char *text = NULL;
    size_t length = 0;
    bool from_stdin = strcmp(argv[0], "-") == 0;
    if (from_stdin && !(text = cli_read_stream(stdin, &length))) {
        cli_error("cannot read the question from standard input: %s", strerror(errno));
        return CLI_FAILED;
    }
    const char *question = from_stdin ? text : argv[0];
    if (text && memchr(text, 0, length))
        result = cli_usage(&command, "the question on standard input holds zero bytes");
    else if (!question[strspn(question, " \t\r\n")])
        result = cli_usage(&command, "the question is empty");
    else
        result = cli_check_utf8(&command, "the question", question);
    if (!result && from_stdin && reads_stdin(&a.image_names))
        result = cli_usage(&command, "one of question and images can be on standard input");
    if (!result) result = load_images(&a);
    if (!result) result = asking_open(&a, &command);
    if (!result) result = ask(&a, &common, question);
    asking_close(&a);
    free(text);
    return result;
}
