#include "loader/sentencepiece_model.h"

#include "loader/protobuf.h"
#include "loader/tokenizer.h"
#include "loader/vocabulary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/// What of sentencepiece_model.proto concerns ids, under the defaults that the schema gives.
typedef struct sentencepiece_model {
    gguf_string *pieces;
    float *scores;
    uint32_t *types;
    size_t count;
    uint64_t model_type;
    int64_t bos, eos, unknown;
    bool has_charsmap, adds_prefix, removes_spaces, escapes_spaces, spaces_behind;
} sentencepiece_model;

enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

static zs_status damaged(size_t at, const char *what, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "no sentencepiece model, or a damaged one: %s at byte %zu", what, at);
}

static zs_status read_piece(sentencepiece_model *m, const protobuf_field *message, size_t at, zs_error *error) {
    protobuf_walk walk = {.data = message->data, .size = message->size};
    protobuf_field f;
    float score = 0;
    uint64_t type = TOKEN_NORMAL;
    gguf_string piece = {"", 0};
    while (protobuf_next(&walk, &f)) {
        if (f.number == 1 && f.type == PROTOBUF_BYTES) piece = (gguf_string){(const char *)f.data, f.size};
        if (f.number == 2 && f.type == PROTOBUF_32) score = protobuf_float(&f);
        if (f.number == 3 && f.type == PROTOBUF_VARINT) type = f.value;
    }
    if (walk.damaged) return damaged(at, "a piece", error);
    if (piece.size == 0) return zs_error_set(error, ZS_ERROR_FORMAT, "piece %zu is empty", m->count);
    if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
        return zs_error_set(error, ZS_ERROR_FORMAT, "piece %zu has the unknown type %llu", m->count, (unsigned long long)type);
    m->pieces[m->count] = piece;
    m->scores[m->count] = score;
    m->types[m->count++] = (uint32_t)type;
    return ZS_OK;
}

static zs_status read_trainer(sentencepiece_model *m, const protobuf_field *message, size_t at, zs_error *error) {
    protobuf_walk walk = {.data = message->data, .size = message->size};
    protobuf_field f;
    while (protobuf_next(&walk, &f)) {
        if (f.type != PROTOBUF_VARINT) continue;
        if (f.number == 3) m->model_type = f.value;
        if (f.number == 24) m->spaces_behind = f.value != 0;
        if (f.number == 40) m->unknown = (int64_t)f.value;
        if (f.number == 41) m->bos = (int64_t)f.value;
        if (f.number == 42) m->eos = (int64_t)f.value;
    }
    return walk.damaged ? damaged(at, "the trainer's options", error) : ZS_OK;
}

static zs_status read_normalizer(sentencepiece_model *m, const protobuf_field *message, size_t at, zs_error *error) {
    protobuf_walk walk = {.data = message->data, .size = message->size};
    protobuf_field f;
    while (protobuf_next(&walk, &f)) {
        if (f.number == 2 && f.type == PROTOBUF_BYTES) m->has_charsmap = f.size > 0;
        if (f.number == 3 && f.type == PROTOBUF_VARINT) m->adds_prefix = f.value != 0;
        if (f.number == 4 && f.type == PROTOBUF_VARINT) m->removes_spaces = f.value != 0;
        if (f.number == 5 && f.type == PROTOBUF_VARINT) m->escapes_spaces = f.value != 0;
    }
    return walk.damaged ? damaged(at, "the normalizer's options", error) : ZS_OK;
}

/// How many pieces there are, so that everything is allocated once.
static zs_status measure(const uint8_t *data, size_t size, size_t *count, zs_error *error) {
    protobuf_walk walk = {.data = data, .size = size};
    protobuf_field f;
    *count = 0;
    while (protobuf_next(&walk, &f)) *count += f.number == 1 && f.type == PROTOBUF_BYTES;
    if (walk.damaged) return damaged(walk.at, "a field", error);
    if (*count == 0 || *count > VOCABULARY_MAX_TOKENS)
        return zs_error_set(error, ZS_ERROR_FORMAT, "no sentencepiece model: %zu pieces; expected 1 to %d", *count, VOCABULARY_MAX_TOKENS);
    return ZS_OK;
}

static zs_status read_fields(const uint8_t *data, size_t size, sentencepiece_model *m, zs_error *error) {
    protobuf_walk walk = {.data = data, .size = size};
    protobuf_field f;
    zs_status status = ZS_OK;
    while (!status && protobuf_next(&walk, &f)) {
        if (f.type != PROTOBUF_BYTES) continue;
        if (f.number == 1) status = read_piece(m, &f, walk.at, error);
        if (f.number == 2) status = read_trainer(m, &f, walk.at, error);
        if (f.number == 3) status = read_normalizer(m, &f, walk.at, error);
    }
    return status;
}

static zs_status check(const sentencepiece_model *m, zs_error *error) {
    static const char *const types[] = {"0", "unigram", "bpe", "word", "char"};
    size_t bytes = 0;
    const char *refused = m->model_type != MODEL_BPE ? "a model type other than bpe"
                          : m->has_charsmap          ? "a character map (normalizer_spec.precompiled_charsmap)"
                          : m->removes_spaces        ? "normalizer_spec.remove_extra_whitespaces"
                          : !m->escapes_spaces       ? "spaces that are not escaped (normalizer_spec.escape_whitespaces)"
                          : m->spaces_behind         ? "trainer_spec.treat_whitespace_as_suffix"
                                                     : NULL;
    if (refused)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "a sentencepiece model with %s is not supported (its type is %s)", refused,
                            m->model_type < sizeof types / sizeof *types ? types[m->model_type] : "unknown");
    for (size_t i = 0; i < m->count; i++) bytes += m->types[i] == TOKEN_BYTE;
    if (bytes != 0 && bytes != 256)
        return zs_error_set(error, ZS_ERROR_FORMAT, "a sentencepiece model with %zu byte pieces; expected none or 256", bytes);
    return ZS_OK;
}

static void add_id(gguf_writer *keys, const char *key, int64_t id, size_t count) {
    if (id >= 0 && (uint64_t)id < count) gguf_writer_add_u32(keys, key, (uint32_t)id); // −1: there is none
}

static void add_keys(const sentencepiece_model *m, gguf_writer *keys) {
    gguf_writer_add_string(keys, "tokenizer.ggml.model", "llama");
    gguf_writer_add_string(keys, TOKENIZER_PREFIX_KEY, m->adds_prefix ? "control" : "none");
    gguf_writer_add_bool(keys, "tokenizer.ggml.add_space_prefix", m->adds_prefix);
    gguf_writer_add_texts(keys, "tokenizer.ggml.tokens", m->pieces, m->count);
    gguf_writer_add_words(keys, "tokenizer.ggml.scores", GGUF_F32, m->scores, m->count);
    gguf_writer_add_words(keys, "tokenizer.ggml.token_type", GGUF_U32, m->types, m->count);
    add_id(keys, "tokenizer.ggml.unknown_token_id", m->unknown, m->count);
    add_id(keys, "tokenizer.ggml.bos_token_id", m->bos, m->count);
    add_id(keys, "tokenizer.ggml.eos_token_id", m->eos, m->count);
}

zs_status sentencepiece_model_read(const uint8_t *data, size_t size, gguf_writer *keys, zs_error *error) {
    sentencepiece_model m = {
        .model_type = MODEL_UNIGRAM, .bos = 1, .eos = 2, .adds_prefix = true, .removes_spaces = true, .escapes_spaces = true};
    size_t count;
    zs_status status = measure(data, size, &count, error);
    if (status) return status;
    m.pieces = malloc(count * sizeof *m.pieces);
    m.scores = malloc(count * sizeof *m.scores);
    m.types = malloc(count * sizeof *m.types);
    if (!m.pieces || !m.scores || !m.types) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a tokenizer");
    if (!status) status = read_fields(data, size, &m, error);
    if (!status) status = check(&m, error);
    if (!status) add_keys(&m, keys);
    free(m.pieces);
    free(m.scores);
    free(m.types);
    return status;
}
