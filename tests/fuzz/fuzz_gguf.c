// Any bytes as a GGUF file: an error with a message, or a file of which everything can be read: values, tensors, the
// model's layers, the tokenizer. Reads outside the bytes are the sanitizer's to find.
#include "loader/model_file.h"
#include "loader/tokenizer.h"
#include "zsigma/zsigma.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t used; // what is read is used

static void require(bool condition) {
    if (!condition) abort();
}

static void require_error(zs_status status, const zs_error *error) {
    require(error->status == status && error->message[0] != '\0' && memchr(error->message, '\0', sizeof error->message));
}

static void read_bytes(const void *bytes, size_t size) {
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++) sum += ((const uint8_t *)bytes)[i];
    used += sum;
}

static void read_value(const gguf_value *value) {
    gguf_string text;
    size_t cursor = 0;
    uint64_t whole;
    float real;
    read_bytes(value->key.data, value->key.size);
    read_bytes(value->data, value->size);
    while (gguf_array_next_string(value, &cursor, &text)) read_bytes(text.data, text.size);
    for (uint64_t i = 0; gguf_array_u64(value, i, &whole); i++) used += whole;
    for (uint64_t i = 0; gguf_array_f32(value, i, &real); i++) used += real > 0;
}

/// Every tensor lies inside the data whole, so its elements are never many.
static void read_tensor(const gguf_file *file, const gguf_tensor *tensor) {
    require(gguf_find_tensor(file, tensor->name) == tensor);
    float *values = malloc((size_t)tensor->elements * sizeof *values);
    require(values != NULL);
    tensor_type_dequantise(tensor->type, tensor->data, values, (size_t)tensor->elements);
    read_bytes(values, (size_t)tensor->elements * sizeof *values);
    free(values);
}

static void read_file(const gguf_file *file) {
    for (size_t i = 0; i < file->value_count; i++) read_value(&file->values[i]);
    for (size_t i = 0; i < file->tensor_count; i++) read_tensor(file, &file->tensors[i]);
}

static void check_ids(const zs_tokenizer *tokenizer, zs_status status, uint32_t *ids, size_t count, const zs_error *error) {
    if (status) {
        require_error(status, error);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        require(ids[i] < zs_tokenizer_vocab_size(tokenizer));
        used += zs_tokenizer_is_end(tokenizer, ids[i]);
    }
    free(ids);
}

static void use_tokenizer(const gguf_file *file) {
    static const char text[] = "<|im_start|>the system \xff user 12345 it's\n\n  hello \xc3\xa9";
    const zs_message messages[] = {{"user", text}, {"assistant", "a"}};
    zs_tokenizer *tokenizer = NULL;
    zs_error error = {0};
    uint32_t *ids = NULL;
    size_t count = 0;
    zs_status status = tokenizer_from_gguf(file, &tokenizer, &error);
    if (status) {
        require_error(status, &error);
        require(!tokenizer);
        return;
    }
    for (uint32_t id = 0; id < zs_tokenizer_vocab_size(tokenizer); id++) {
        const char *bytes = NULL;
        size_t size = zs_tokenizer_token_bytes(tokenizer, id, true, &bytes);
        if (size) read_bytes(bytes, size);
    }
    for (int special = 0; special < 2; special++) {
        status = zs_tokenizer_encode(tokenizer, text, sizeof text - 1, special, &ids, &count, &error);
        check_ids(tokenizer, status, ids, count, &error);
    }
    status = zs_tokenizer_encode_chat(tokenizer, messages, 2, true, &ids, &count, &error);
    check_ids(tokenizer, status, ids, count, &error);
    zs_tokenizer_destroy(&tokenizer);
}

static void use_matrix(const model_file *file, const model_matrix *m) {
    require(strlen(m->canonical) > 0 && m->rank > 0 && m->rank <= m->out && m->rank <= m->in);
    if (m->dense)
        require(m->dense->elements == (uint64_t)m->out * m->in);
    else
        require(m->u->elements == (uint64_t)m->out * m->rank && m->s->elements == m->rank && m->vt->elements == (uint64_t)m->rank * m->in);
    if (m->sketch) read_bytes(m->sketch, 8 * sizeof *m->sketch);
    for (uint32_t row = 0; row < m->out; row++) require(model_matrix_file_row(m, row) < m->out);
    used += file->config.layers;
}

static void use_model(const uint8_t *data, size_t size) {
    model_file file;
    zs_error error = {0};
    zs_status status = model_file_open_memory(data, size, &file, &error);
    if (status) {
        require_error(status, &error);
        return;
    }
    for (uint32_t i = 0; i < file.config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) use_matrix(&file, &file.layers[i].matrices[m]);
        require(file.layers[i].attention_norm->elements == file.config.hidden && file.layers[i].ffn_norm->elements == file.config.hidden);
    }
    require(file.embedding->elements == (uint64_t)file.config.vocab * file.config.hidden && file.head && file.output_norm);
    model_file_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gguf_file file;
    zs_error error = {0};
    zs_status status = gguf_open_memory(data, size, &file, &error);
    if (status) {
        require_error(status, &error);
        return 0;
    }
    read_file(&file);
    use_tokenizer(&file);
    gguf_close(&file);
    use_model(data, size);
    return 0;
}
