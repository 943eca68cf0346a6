#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int tokenize(const cli_common *common, const char *model, bool special) {
    zs_error error;
    zs_tokenizer *tokenizer = NULL;
    uint32_t *ids = NULL;
    size_t length = 0, count = 0;
    char *text = cli_read_stream(stdin, &length);
    zs_status status = text ? zs_tokenizer_load(model, &tokenizer, &error)
                            : zs_error_set(&error, ZS_ERROR_IO, "cannot read the text from standard input: %s", strerror(errno));
    if (!status) status = zs_tokenizer_encode(tokenizer, text, length, special, &ids, &count, &error);
    if (!status && common->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
        cli_print_json(json_pack("{s:o}", "ids", list));
    } else if (!status) {
        for (size_t i = 0; i < count; i++) printf("%s%u", i ? " " : "", ids[i]);
        fputc('\n', stdout);
    }
    zs_tokenizer_destroy(&tokenizer);
    free(ids);
    free(text);
    return status ? cli_fail(&error) : CLI_DONE;
}

int cmd_tokenize(int argc, char **argv) {
    cli_common common = {0};
    const char *model = NULL;
    bool special = false;
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &model, "FILE", "GGUF file, Hugging Face folder, or a tokenizer.json or tokenizer.model"},
        {"special", 0, CLI_FLAG, &special, NULL, "control tokens spelled in the text count as such"},
        {0},
    };
    const cli_command command = {"tokenize",
                                 "-m MODEL < TEXT",
                                 "text on standard input to token ids",
                                 "echo -n \"Hello world\" | zsigma tokenize -m smollm2.gguf",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "the text comes from standard input");
    if (!model) return cli_usage(&command, "which model? give -m FILE");
    return tokenize(&common, model, special);
}
