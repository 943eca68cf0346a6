// Any bytes as text, under each pre-tokenizer: the tokens of a text spell the text; text never becomes a control token
// unless asked for; a message's contents leave the structure of a conversation alone; any text is safe as a chat template.
// The first byte chooses: its lowest bits the pre-tokenizer, the next one whether control tokens count.
#include "loader/chat_template.h"
#include "loader/tokenizer.h"
#include "support/small_model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const kinds[] = {"smollm", "gpt-2", "llama-bpe"};

static void require(bool condition) {
    if (!condition) abort();
}

static zs_tokenizer *make_tokenizer(const char *pre) {
    gguf_image image = {0};
    gguf_file file;
    zs_tokenizer *tokenizer = NULL;
    small_model_add_tokenizer(&image, &(small_model_params){.pre = pre});
    byte_buffer bytes = gguf_image_finish(&image);
    require(gguf_open_memory(bytes.data, bytes.size, &file, NULL) == ZS_OK);
    require(tokenizer_from_gguf(&file, &tokenizer, NULL) == ZS_OK);
    gguf_close(&file);
    byte_buffer_free(&bytes);
    return tokenizer;
}

static size_t count_controls(const uint32_t *ids, size_t count) {
    size_t controls = 0;
    for (size_t i = 0; i < count; i++) controls += ids[i] < TINY_CONTROLS;
    return controls;
}

static void check_text(const zs_tokenizer *tokenizer, const char *text, size_t size, bool special) {
    uint32_t *ids = NULL;
    size_t count = 0, at = 0;
    require(zs_tokenizer_encode(tokenizer, text, size, special, &ids, &count, NULL) == ZS_OK);
    for (size_t i = 0; i < count; i++) {
        const char *bytes = NULL;
        size_t length = zs_tokenizer_token_bytes(tokenizer, ids[i], true, &bytes);
        require(length > 0 && length <= size - at && memcmp(text + at, bytes, length) == 0);
        at += length;
    }
    require(at == size);
    require(special || count_controls(ids, count) == 0);
    free(ids);
}

static void check_chat(const zs_tokenizer *tokenizer, const char *text) {
    const zs_message messages[] = {{"system", "s"}, {"user", text}};
    uint32_t *ids = NULL;
    size_t count = 0;
    require(zs_tokenizer_encode_chat(tokenizer, messages, 2, true, &ids, &count, NULL) == ZS_OK);
    require(count_controls(ids, count) == 5);
    free(ids);
}

static zs_status ignore_piece(void *user, const char *text, size_t size, bool control, zs_error *error) {
    (void)error;
    *(size_t *)user += control ? strlen(text) : size;
    return ZS_OK;
}

static void check_template(const char *text, size_t size) {
    chat_template tmpl;
    size_t total = 0;
    require(chat_template_read(text, size, &tmpl, NULL) == ZS_OK);
    if (tmpl.family != CHAT_UNKNOWN) {
        const zs_message message = {"user", "\xc2\xa0 "};
        require(chat_template_render(&tmpl, &message, 1, true, &(chat_sink){ignore_piece, &total}, NULL) == ZS_OK);
    }
    chat_template_free(&tmpl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static zs_tokenizer *tokenizers[3]; // reachable to the end: no leak
    if (size == 0) return 0;
    size_t kind = data[0] % 4 % 3;
    if (!tokenizers[kind]) tokenizers[kind] = make_tokenizer(kinds[kind]);
    char *text = malloc(size); // its last byte is the terminator that encoding does not need
    require(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    char *exact = malloc(size - 1 + !(size - 1)); // no byte more than the text: a read past it is found
    require(exact != NULL);
    memcpy(exact, data + 1, size - 1);
    check_text(tokenizers[kind], exact, size - 1, data[0] & 4);
    check_template(exact, size - 1);
    check_chat(tokenizers[kind], text);
    free(exact);
    free(text);
    return 0;
}
