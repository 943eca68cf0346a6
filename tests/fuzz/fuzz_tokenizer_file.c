// A tokenizer's own file, of any kind: what is accepted spells its texts again, or says which character it lacks.
#include "loader/tokenizer.h"
#include "loader/tokenizer_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static const char *const texts[] = {"the other\n  theother ", "It's 1234 \xe4\xb8\xad\xc3\xa9\xff <s>[INST]<|eot_id|>\xe2\x96\x81",
                                    "tttttttttttttttttttt"};

static void check_text(const zs_tokenizer *tokenizer, const char *text, bool special) {
    uint32_t *ids = NULL;
    size_t count = 0;
    zs_error error = {0};
    zs_status status = zs_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &count, &error);
    require(status == ZS_OK || (status == ZS_ERROR_UNSUPPORTED && error.message[0]));
    for (size_t i = 0; i < count; i++) {
        const char *bytes = NULL;
        size_t length = zs_tokenizer_token_bytes(tokenizer, ids[i], true, &bytes);
        require(ids[i] < zs_tokenizer_vocab_size(tokenizer) && length > 0);
        char *copy = malloc(length); // every byte can be read
        require(copy != NULL);
        memcpy(copy, bytes, length);
        free(copy);
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gguf_writer *keys = NULL;
    gguf_file file;
    zs_tokenizer *tokenizer = NULL;
    zs_error error = {0};
    require(gguf_writer_create_keys(&keys, &error) == ZS_OK);
    zs_status status = tokenizer_file_read_memory(data, size, keys, &error);
    if (status) {
        require(error.message[0]);
        gguf_writer_discard(&keys);
        return 0;
    }
    require(gguf_writer_open(&keys, "fuzz", &file, &error) == ZS_OK);
    status = tokenizer_from_gguf(&file, &tokenizer, &error);
    gguf_close(&file);
    require((status == ZS_OK) == (tokenizer != NULL));
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !status; i++) {
        check_text(tokenizer, texts[i], false);
        check_text(tokenizer, texts[i], true);
    }
    zs_tokenizer_destroy(&tokenizer);
    return 0;
}
