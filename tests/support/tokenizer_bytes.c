#include "support/tokenizer_bytes.h"

#include "loader/tokenizer_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

zs_status tokenizer_from_bytes(const void *data, size_t size, zs_tokenizer **tokenizer, zs_error *error) {
    gguf_writer *keys = NULL;
    gguf_file file;
    *tokenizer = NULL;
    zs_status status = gguf_writer_create_keys(&keys, error);
    if (!status) status = tokenizer_file_read_memory(data, size, keys, error);
    if (status)
        gguf_writer_discard(&keys);
    else
        status = gguf_writer_open(&keys, "memory", &file, error);
    if (status) return status;
    status = tokenizer_from_gguf(&file, tokenizer, error);
    gguf_close(&file);
    return status;
}

zs_tokenizer *tokenizer_must_read(const void *data, size_t size) {
    zs_tokenizer *tokenizer;
    zs_error error = {0};
    if (tokenizer_from_bytes(data, size, &tokenizer, &error)) fail_msg("%s", error.message);
    return tokenizer;
}

void tokenizer_expect(const zs_tokenizer *tokenizer, const char *text, bool special, const char *expected) {
    uint32_t *ids = NULL;
    size_t count = 0;
    zs_error error = {0};
    char got[256] = "";
    if (zs_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &count, &error)) fail_msg("%s: %s", text, error.message);
    for (size_t i = 0, at = 0; i < count && at < sizeof got - 12; i++) at += (size_t)sprintf(got + at, "%s%u", i ? " " : "", ids[i]);
    if (strcmp(got, expected) != 0) fail_msg("\"%s\": %s instead of %s", text, got, expected);
    free(ids);
}

void tokenizer_expect_refused(const void *data, size_t size, zs_status expected, const char *part) {
    zs_tokenizer *tokenizer;
    zs_error error = {0};
    zs_status status = tokenizer_from_bytes(data, size, &tokenizer, &error);
    if (status != expected || !strstr(error.message, part))
        fail_msg("expected %d '%s', got %d '%s'", expected, part, status, error.message);
    assert_null(tokenizer);
}
