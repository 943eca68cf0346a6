/// Ids of many texts: tokens TOKENIZER TEXTS.json plain|special > IDS.json, both lists. For real_tokenizers.py and random_tokens.py.
#include "zsigma/zsigma.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *encode(const zs_tokenizer *tokenizer, const json_t *text, bool special, zs_error *error) {
    uint32_t *ids = NULL;
    size_t count = 0;
    if (zs_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), special, &ids, &count, error)) return NULL;
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
    free(ids);
    return list;
}

int main(int argc, char **argv) {
    zs_error error = {0};
    json_error_t problem = {0};
    zs_tokenizer *tokenizer = NULL;
    if (argc != 4) {
        fprintf(stderr, "usage: tokens TOKENIZER TEXTS.json plain|special\n");
        return 2;
    }
    json_t *texts = json_load_file(argv[2], JSON_ALLOW_NUL, &problem), *result = json_array(), *text;
    size_t i;
    bool failed = !json_is_array(texts) || zs_tokenizer_load(argv[1], &tokenizer, &error);
    json_array_foreach(texts, i, text) {
        json_t *ids = failed ? NULL : encode(tokenizer, text, strcmp(argv[3], "special") == 0, &error);
        failed = !ids || json_array_append_new(result, ids);
        if (failed) break;
    }
    if (failed)
        fprintf(stderr, "tokens: %s%s\n", problem.text, error.message);
    else
        json_dumpf(result, stdout, JSON_COMPACT);
    json_decref(texts);
    json_decref(result);
    zs_tokenizer_destroy(&tokenizer);
    return failed;
}
