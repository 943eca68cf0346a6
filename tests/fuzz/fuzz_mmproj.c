// Any bytes as the file of an image tower (llama.cpp's mmproj): refused with a message, or every weight of it can be read, has the shape
// that the tower computes with, and images can be planned for it.
#include "image_plans.h"
#include "loader/vision_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_HIDDEN = 4 }; // of the corpus

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile double used; // what is read is used

static void require(bool condition) {
    if (!condition) abort();
}

static void use_tensor(const gguf_tensor *tensor, uint64_t elements) {
    require(tensor && tensor->elements == elements);
    float *values = malloc((size_t)elements * sizeof *values);
    require(values != NULL);
    tensor_type_dequantise(tensor->type, tensor->data, values, (size_t)elements);
    for (size_t i = 0; i < (size_t)elements; i++) used += isfinite(values[i]) ? (double)values[i] : 0;
    free(values);
}

static void use_norm(const vision_norm_file *norm, uint32_t hidden, bool optional) {
    if (optional && !norm->weight) return;
    use_tensor(norm->weight, hidden);
    use_tensor(norm->bias, hidden);
}

static void use_matrices(const vision_file *v) {
    const gguf_tensor *bias;
    const model_matrix *m;
    for (uint32_t i = 0; (m = vision_file_matrix(v, i, &bias)); i++) {
        require(strlen(m->canonical) > 0 && m->rank > 0 && m->rank <= m->out && m->rank <= m->in);
        if (m->dense) use_tensor(m->dense, (uint64_t)m->out * m->in);
        if (!m->dense) use_tensor(m->u, (uint64_t)m->out * m->rank);
        if (!m->dense) use_tensor(m->s, m->rank);
        if (!m->dense) use_tensor(m->vt, (uint64_t)m->rank * m->in);
        if (bias) use_tensor(bias, m->out);
    }
}

static void use_tower(const vision_file *v) {
    const vision_config *c = &v->config;
    uint32_t side = vision_config_side(c), patch = c->image.patch;
    require(c->hidden % c->heads == 0 && c->layers > 0 && side > 0 && vision_config_features(c) > 0);
    use_tensor(&v->patch, (uint64_t)c->hidden * 3 * patch * patch);
    use_tensor(v->positions, ((uint64_t)side * side + c->class_token) * c->hidden);
    if (v->patch_bias) use_tensor(v->patch_bias, c->hidden);
    if (v->class_vector) use_tensor(v->class_vector, c->hidden);
    if (v->newline) use_tensor(v->newline, TEXT_HIDDEN);
    use_norm(&v->pre_norm, c->hidden, true);
    use_norm(&v->post_norm, c->hidden, true);
    for (uint32_t i = 0; i < c->layers; i++) {
        for (uint32_t n = 0; n < 2; n++) use_norm(&v->layers[i].norms[n], c->hidden, false);
    }
    use_matrices(v);
    image_plans_check(&c->image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    model_file file = {0};
    vision_file *vision = NULL;
    zs_error error = {0};
    if (gguf_open_memory(data, size, &file.gguf, &error)) return 0; // fuzz_gguf.c
    zs_status status = vision_file_read(&file, TEXT_HIDDEN, &vision, &error);
    if (status) require(!vision && error.status == status && error.message[0] && memchr(error.message, '\0', sizeof error.message));
    if (vision) use_tower(vision);
    vision_file_close(&vision);
    gguf_close(&file.gguf);
    return 0;
}
