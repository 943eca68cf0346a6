#include "loader/tiktoken_model.h"

#include "loader/byte_map.h"
#include "loader/tokenizer.h"
#include "loader/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTROLS = 256, NAMED = 10, NAME_BYTES = 40, END_OF_TEXT = 1 };

/// The file names no control tokens: Llama 3's, from the first id behind the tokens on; numbered ones follow.
static const char *const names[NAMED] = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
};

typedef struct tiktoken_model {
    gguf_string *tokens; // [count + CONTROLS], spelled
    uint32_t *types;
    char *spellings, *controls; // what tokens point into
    size_t count;
} tiktoken_model;

// ---- lines ---------------------------------------------------------------------------------------------------------

static int base64_value(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/// Bytes of a base64 text with its padding; out holds 3/4 of its size. 0 when it is none.
static size_t base64_read(const uint8_t *text, size_t size, char *out) {
    size_t written = 0, padding = 0;
    if (size == 0 || size % 4) return 0;
    while (padding < 2 && text[size - 1 - padding] == '=') padding++;
    for (size_t at = 0; at < size; at += 4) {
        uint32_t bits = 0;
        size_t missing = at + 4 == size ? padding : 0;
        for (size_t i = 0; i < 4 - missing; i++) {
            int value = base64_value(text[at + i]);
            if (value < 0) return 0;
            bits |= (uint32_t)value << (18 - 6 * i);
        }
        for (size_t i = 0; i < 3 - missing; i++) out[written++] = (char)(bits >> (16 - 8 * i));
    }
    return written;
}

/// A line's end, at its newline or the end of the file.
static size_t line_end(const uint8_t *data, size_t size, size_t at) {
    const uint8_t *newline = memchr(data + at, '\n', size - at);
    return newline ? (size_t)(newline - data) : size;
}

/// "BASE64 RANK", a carriage return behind it allowed; the base64 text's size, 0 when the line is none.
static size_t read_line(const uint8_t *line, size_t size, uint64_t *rank) {
    const uint8_t *space = size ? memchr(line, ' ', size) : NULL;
    if (size && line[size - 1] == '\r') size--;
    if (!space || (size_t)(space - line) + 1 >= size) return 0;
    *rank = 0;
    for (const uint8_t *c = space + 1; c < line + size; c++) {
        if (*c < '0' || *c > '9' || *rank > VOCABULARY_MAX_TOKENS) return 0;
        *rank = 10 * *rank + (uint64_t)(*c - '0');
    }
    return (size_t)(space - line);
}

bool tiktoken_model_is(const uint8_t *data, size_t size) {
    uint64_t rank;
    char bytes[96];
    size_t end = size ? line_end(data, size, 0) : 0, encoded = read_line(data, end, &rank);
    return encoded > 0 && encoded <= 128 && base64_read(data, encoded, bytes) > 0;
}

static zs_status line_error(size_t line, const char *what, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "line %zu of a tiktoken file %s", line, what);
}

static size_t count_lines(const uint8_t *data, size_t size) {
    size_t count = 0;
    for (size_t at = 0; at < size; count++) at = line_end(data, size, at) + 1;
    return count;
}

static zs_status read_tokens(const uint8_t *data, size_t size, tiktoken_model *m, zs_error *error) {
    char *at = m->spellings, *bytes = malloc(size + 1);
    if (!bytes) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    zs_status status = ZS_OK;
    size_t number = 1;
    for (size_t start = 0, end; start < size && !status; start = end + 1, number++) {
        end = line_end(data, size, start);
        uint64_t rank;
        size_t encoded = read_line(data + start, end - start, &rank), length = base64_read(data + start, encoded, bytes);
        if (!encoded || !length) {
            status = line_error(number, "is not a token in base64 and its rank", error);
        } else if (length > VOCABULARY_MAX_SPELLING / 2) {
            status = line_error(number, "holds a token that is too long", error);
        } else if (rank >= m->count || m->tokens[rank].data) {
            status =
                line_error(number, rank >= m->count ? "has a rank beyond the number of lines" : "has a rank for the second time", error);
        } else {
            size_t spelled = byte_map_spell(bytes, length, at);
            m->tokens[rank] = (gguf_string){at, spelled};
            m->types[rank] = TOKEN_NORMAL;
            at += spelled;
        }
    }
    free(bytes);
    return status;
}

// ---- keys ----------------------------------------------------------------------------------------------------------

static void add_controls(tiktoken_model *m) {
    for (size_t i = 0; i < CONTROLS; i++) {
        char *name = m->controls + i * NAME_BYTES;
        if (i < NAMED)
            snprintf(name, NAME_BYTES, "%s", names[i]);
        else
            snprintf(name, NAME_BYTES, "<|reserved_special_token_%zu|>", i - NAMED + 5);
        m->tokens[m->count + i] = (gguf_string){name, strlen(name)};
        m->types[m->count + i] = TOKEN_CONTROL;
    }
}

static void add_keys(const tiktoken_model *m, gguf_writer *keys) {
    gguf_writer_add_string(keys, "tokenizer.ggml.model", "gpt2");
    gguf_writer_add_string(keys, "tokenizer.ggml.pre", "llama-bpe");
    gguf_writer_add_bool(keys, TOKENIZER_BY_RANK_KEY, true);
    gguf_writer_add_texts(keys, "tokenizer.ggml.tokens", m->tokens, m->count + CONTROLS);
    gguf_writer_add_words(keys, "tokenizer.ggml.token_type", GGUF_U32, m->types, m->count + CONTROLS);
    gguf_writer_add_u32(keys, "tokenizer.ggml.bos_token_id", (uint32_t)m->count);
    gguf_writer_add_u32(keys, "tokenizer.ggml.eos_token_id", (uint32_t)m->count + END_OF_TEXT);
}

zs_status tiktoken_model_read(const uint8_t *data, size_t size, gguf_writer *keys, zs_error *error) {
    tiktoken_model m = {.count = count_lines(data, size)};
    if (m.count == 0 || m.count > VOCABULARY_MAX_TOKENS - CONTROLS)
        return zs_error_set(error, ZS_ERROR_FORMAT, "a tiktoken file of %zu lines; expected 1 to %d", m.count,
                            VOCABULARY_MAX_TOKENS - CONTROLS);
    m.tokens = calloc(m.count + CONTROLS, sizeof *m.tokens);
    m.types = calloc(m.count + CONTROLS, sizeof *m.types);
    m.controls = malloc((size_t)CONTROLS * NAME_BYTES);
    m.spellings = malloc(2 * size); // base64 shrinks by a quarter, spelling doubles at most
    zs_status status =
        m.tokens && m.types && m.controls && m.spellings ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    if (!status) status = read_tokens(data, size, &m, error);
    if (!status) {
        add_controls(&m);
        add_keys(&m, keys);
    }
    free(m.tokens);
    free(m.types);
    free(m.controls);
    free(m.spellings);
    return status;
}
