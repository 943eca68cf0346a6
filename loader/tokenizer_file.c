#include "loader/tokenizer_file.h"

#include "loader/sentencepiece_model.h"
#include "loader/tiktoken_model.h"
#include "loader/tokenizer_json.h"

/// A sentencepiece model begins with a piece: field 1, a message.
enum { FIRST_PIECE = 1 << 3 | 2 };

zs_status tokenizer_file_read_memory(const void *data, size_t size, gguf_writer *keys, zs_error *error) {
    if (tokenizer_json_is(data, size)) return tokenizer_json_read(data, size, keys, error);
    if (tiktoken_model_is(data, size)) return tiktoken_model_read(data, size, keys, error);
    if (size == 0 || *(const uint8_t *)data != FIRST_PIECE)
        return zs_error_set(error, ZS_ERROR_FORMAT, "no GGUF file, and neither tokenizer.json nor tokenizer.model");
    return sentencepiece_model_read(data, size, keys, error);
}

zs_status tokenizer_file_read(const char *path, gguf_writer *keys, zs_error *error) {
    file_map map;
    zs_error inner = {0};
    zs_status status = file_map_open(path, &map, error);
    if (status) return status;
    status = tokenizer_file_read_memory(map.data, map.size, keys, &inner);
    if (status) zs_error_set(error, status, "%s: %s", path, inner.message);
    file_map_close(&map);
    return status;
}
