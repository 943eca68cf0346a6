/// Experts that mean nothing, for measurements.
#include "adapt/expert.h"
#include "zsigma/zsigma_lab.h"

#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const expert_matrix *)a)->name, ((const expert_matrix *)b)->name);
}

/// z[rank] around 1.
static zs_status fill_matrix(const model_weight *weight, uint64_t *state, expert_matrix *to, zs_error *error) {
    *to = (expert_matrix){.name = copy_text(weight->canonical), .rank = weight->rank, .values = malloc(weight->rank * sizeof(float))};
    if (!to->name || !to->values) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    to->has_sketch = weight->has_sketch;
    memcpy(to->sketch, weight->sketch, sizeof to->sketch);
    for (uint32_t i = 0; i < weight->rank; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator; its high bits
        to->values[i] = 0.9f + 0.2f * (float)(*state >> 40) / 16777216.0f;
    }
    return ZS_OK;
}

static zs_status fill_file(const zs_model *model, uint64_t seed, expert_file *file, zs_error *error) {
    *file = (expert_file){.name = copy_text("random"),
                          .description = copy_text(""),
                          .base_model = copy_text(model->config.name),
                          .training = copy_text(""),
                          .sources = copy_text(""),
                          .alpha = copy_text(""),
                          .max_mult = 1,
                          .matrices = calloc(model->info.matrices, sizeof *file->matrices)};
    if (!file->name || !file->description || !file->base_model || !file->training || !file->sources || !file->alpha || !file->matrices)
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    zs_status status = ZS_OK;
    const model_weight *weight;
    for (uint32_t i = 0; (weight = model_weight_at(model, i)) && !status; i++) {
        if (weight->factored) status = fill_matrix(weight, &seed, &file->matrices[file->matrix_count++], error);
    }
    return status;
}

zs_status zs_expert_create_random(const zs_model *model, uint64_t seed, zs_expert **expert, zs_error *error) {
    if (model->info.matrices == 0)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is a dense model, which has nothing for an expert to scale", model->path);
    expert_file file;
    zs_status status = fill_file(model, seed, &file, error);
    if (status) {
        expert_file_free(&file);
        return status;
    }
    qsort(file.matrices, file.matrix_count, sizeof *file.matrices, compare_names);
    return expert_from_file(&file, expert, error);
}
