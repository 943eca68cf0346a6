// Any bytes as a safetensors file, as an expert and as a training's checkpoint: an error with a message, or tensors that can be read whole.
#include "loader/expert_file.h"
#include "loader/safetensors.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static void require_error(zs_status status, const zs_error *error) {
    require(error->status == status && error->message[0] != '\0' && memchr(error->message, '\0', sizeof error->message));
}

static void read_tensor(const safetensors_file *file, const safetensors_tensor *tensor) {
    require(safetensors_find(file, tensor->name) == tensor);
    require(tensor->size >= 2 * tensor->elements); // no type is smaller
    float *values = malloc((size_t)tensor->elements * sizeof *values + 1);
    require(values != NULL);
    tensor_type_dequantise(tensor->type, tensor->data, values, (size_t)tensor->elements);
    free(values);
}

static void use_file(const uint8_t *data, size_t size) {
    safetensors_file file;
    zs_error error = {0};
    zs_status status = safetensors_open_memory(data, size, &file, &error);
    if (status) {
        require_error(status, &error);
        return;
    }
    for (size_t i = 0; i < file.tensor_count; i++) read_tensor(&file, &file.tensors[i]);
    for (size_t i = 0; i < file.meta_count; i++) require(safetensors_find_meta(&file, file.meta[i].key) == file.meta[i].value);
    safetensors_close(&file);
}

static void use_expert(const uint8_t *data, size_t size) {
    expert_file file;
    zs_error error = {0};
    zs_status status = expert_file_load_memory(data, size, &file, &error);
    if (status) {
        require_error(status, &error);
        return;
    }
    require(file.name && file.description && file.base_model && file.training && file.sources && file.alpha);
    require(isfinite(file.max_mult) && file.max_mult > 0 && file.matrix_count > 0);
    for (size_t i = 0; i < file.matrix_count; i++) {
        const expert_matrix *m = &file.matrices[i];
        require(m->name[0] != '\0' && (i == 0 || strcmp(file.matrices[i - 1].name, m->name) != 0));
        for (uint32_t k = 0; k < m->rank; k++) require(isfinite(m->values[k]));
    }
    expert_file_free(&file);
}

/// As the checkpoint of a training of two values with one setting.
static void use_checkpoint(const uint8_t *data, size_t size) {
    safetensors_file file;
    setting_list settings = {0};
    float arrays[4][2];
    checkpoint c = {.values = arrays[0], .best = arrays[1], .mean = arrays[2], .square = arrays[3], .count = 2};
    zs_error error = {0};
    if (safetensors_open_memory(data, size, &file, &error)) return;
    setting_add(&settings, "batch", 4);
    zs_status status = checkpoint_read(&file, "fuzz", &settings, &c, &error);
    if (status) require_error(status, &error);
    for (size_t i = 0; i < 8 && !status; i++) require(isfinite(arrays[i / 2][i % 2]));
    if (!status) require(isfinite(c.first_valid) && isfinite(c.best_valid));
    safetensors_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    use_file(data, size);
    use_expert(data, size);
    use_checkpoint(data, size);
    return 0;
}
