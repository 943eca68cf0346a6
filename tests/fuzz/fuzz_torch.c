// Any bytes as a PyTorch file: an error with a message, or tensors that can be read whole, and perhaps an expert. And as a pickle.
#include "loader/authors_file.h"
#include "loader/pickle.h"
#include "loader/torch_file.h"

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

static void use_file(const uint8_t *data, size_t size) {
    torch_file file;
    zs_error error = {0};
    zs_status status = torch_open_memory(data, size, &file, &error);
    if (status) {
        require_error(status, &error);
        return;
    }
    for (size_t i = 0; i < file.count; i++) {
        const torch_tensor *t = &file.tensors[i];
        require(torch_find(&file, t->name) == t);
        float *values = malloc((size_t)t->elements * sizeof *values + 1);
        require(values != NULL);
        torch_read(t, values);
        free(values);
    }
    torch_close(&file);
}

static void use_expert(const uint8_t *data, size_t size) {
    expert_file file;
    zs_error error = {0};
    zs_status status = authors_file_load_memory(data, size, &file, &error);
    if (status) {
        require_error(status, &error);
        return;
    }
    require(file.trace && file.max_mult == 1 && file.matrix_count > 0);
    for (size_t i = 0; i < file.matrix_count; i++) {
        const expert_matrix *m = &file.matrices[i];
        require(i == 0 || strcmp(file.matrices[i - 1].name, m->name) < 0);
        for (uint32_t k = 0; k < m->rank; k++) require(isfinite(m->values[k]));
    }
    expert_file_free(&file);
}

/// The archive's checksums hide the pickle from most inputs, so the pickle is read by itself too.
static void use_pickle(const uint8_t *data, size_t size) {
    static const char *const globals[] = {"torch._utils._rebuild_tensor_v2", "collections.OrderedDict", "torch.FloatStorage", NULL};
    pickle p;
    zs_error error = {0};
    zs_status status = pickle_parse(data, size, globals, "fuzz", &p, &error);
    if (status)
        require_error(status, &error);
    else
        require(p.root != NULL);
    pickle_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    use_file(data, size);
    use_expert(data, size);
    use_pickle(data, size);
    return 0;
}
