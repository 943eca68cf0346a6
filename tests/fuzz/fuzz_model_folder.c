// The JSON files of a model folder: config.json, the index of shards, tokenizer_config.json, generation_config.json, separated
// by bytes 0. Beside them lie two sound shards and a tokenizer. What is refused says why; what is accepted can be read.
#include "loader/model_file.h"
#include "loader/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"config.json", "model.safetensors.index.json", "tokenizer_config.json", "generation_config.json"};
static char folder[] = "/tmp/zsigma-fuzz-XXXXXX";

static void require(bool condition) {
    if (!condition) abort();
}

static void put(const char *name, const void *data, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    require(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static void put_shard(const char *name, const char *tensor) {
    char text[200];
    uint8_t file[300] = {0};
    int size = snprintf(text, sizeof text, "{\"%s\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", tensor);
    file[0] = (uint8_t)size;
    memcpy(file + 8, text, (size_t)size);
    put(name, file, 12 + (size_t)size);
}

static void clean(void) {
    static const char *const all[] = {"config.json",           "model.safetensors.index.json",
                                      "tokenizer_config.json", "generation_config.json",
                                      "a.safetensors",         "b.safetensors",
                                      "tokenizer.model"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, all[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static void prepare(void) {
    static const char tokens[] = "dA== 0\naA== 1\ndGg= 2\n";
    static bool ready;
    if (ready) return;
    require(mkdtemp(folder) != NULL);
    put_shard("a.safetensors", "x");
    put_shard("b.safetensors", "y");
    put("tokenizer.model", tokens, sizeof tokens - 1);
    require(atexit(clean) == 0);
    ready = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    prepare();
    size_t at = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const uint8_t *end = at < size ? memchr(data + at, 0, size - at) : NULL;
        size_t length = end && i < 3 ? (size_t)(end - data) - at : size - at;
        put(names[i], data + at, length);
        at += length + (end && i < 3);
    }
    model_file file;
    zs_tokenizer *tokenizer = NULL;
    zs_error error = {0};
    if (model_file_open(folder, &file, &error) == ZS_OK)
        model_file_close(&file);
    else
        require(error.message[0]);
    error = (zs_error){0};
    if (zs_tokenizer_load(folder, &tokenizer, &error)) require(error.message[0] && !tokenizer);
    zs_tokenizer_destroy(&tokenizer);
    return 0;
}
