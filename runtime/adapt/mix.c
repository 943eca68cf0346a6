/// Mixing experts: z' = Σ α z (DESIGN.md §4).
#include "adapt/expert.h"
#include "loader/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct mixing {
    const zs_model *model; // may be NULL
    const zs_expert *const *experts;
    uint32_t count;
    const double *alpha;
    bool per_matrix;
    bool all_trace;      // m is mixed and normalised afterwards; otherwise each expert becomes s · m first
    size_t matrix_count; // of the union
} mixing;

static zs_status check(const mixing *mix, zs_error *error) {
    size_t columns = mix->per_matrix ? mix->matrix_count : 1;
    for (size_t c = 0; c < columns; c++) {
        double total = 0;
        for (uint32_t e = 0; e < mix->count; e++) {
            double a = mix->alpha[e * columns + c];
            if (!(a >= -1e6 && a <= 1e6)) return zs_error_set(error, ZS_ERROR_ARGUMENT, "weight %u of the mix is not a sensible number", e);
            total += a < 0 ? -a : a;
        }
        if (total == 0) return zs_error_set(error, ZS_ERROR_ARGUMENT, "all weights of the mix are 0, which would leave no model at all");
    }
    for (uint32_t e = 1; e < mix->count; e++) {
        double cosine;
        if (zs_expert_compare(mix->experts[0], mix->experts[e], &cosine) && cosine < ZS_SAME_BASE)
            return zs_error_set(error, ZS_ERROR_MISMATCH, "experts %s and %s were made for different models (cosine of the sketches %.2f)",
                                mix->experts[0]->file.name, mix->experts[e]->file.name, cosine);
    }
    return ZS_OK;
}

static int compare_strings(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/// Names of the union, sorted.
static const char **union_names(const zs_expert *const *experts, uint32_t count, size_t *unique) {
    size_t total = 0;
    for (uint32_t e = 0; e < count; e++) total += experts[e]->file.matrix_count;
    const char **names = malloc((total + 1) * sizeof *names);
    if (!names) return NULL;
    size_t n = 0;
    for (uint32_t e = 0; e < count; e++) {
        for (size_t i = 0; i < experts[e]->file.matrix_count; i++) names[n++] = experts[e]->file.matrices[i].name;
    }
    qsort(names, n, sizeof *names, compare_strings);
    *unique = 0;
    for (size_t i = 0; i < n; i++) {
        if (*unique == 0 || strcmp(names[*unique - 1], names[i]) != 0) names[(*unique)++] = names[i];
    }
    return names;
}

/// sum[rank] += α · m of one expert, which may leave the matrix out (m = 1).
static zs_status add_expert(const mixing *mix, const zs_expert *expert, const char *name, double alpha, uint32_t rank, double *sum,
                            zs_error *error) {
    const float *m = NULL;
    double scale = 1;
    const expert_matrix *found = expert_find(expert, name, &m);
    if (found && expert->file.trace && !mix->all_trace) {
        const model_weight *w = mix->model ? expert_model_weight(mix->model, name) : NULL;
        if (!w || w->rank != rank)
            return zs_error_set(
                error, ZS_ERROR_ARGUMENT,
                "mixing expert %s (normalise=trace) with others that are not needs the factored model's singular values of %s",
                expert->file.name, name);
        zs_status status = expert_file_trace_scale(&expert->file, found, w->sigma, m, &scale, error);
        if (status) return status;
    }
    for (uint32_t r = 0; r < rank; r++) sum[r] += alpha * (m ? scale * (double)m[r] : 1);
    return ZS_OK;
}

static char *copy_name(const char *name) {
    size_t size = strlen(name) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, name, size) : NULL;
}

static zs_status mix_matrix(const mixing *mix, const char *name, size_t column, expert_matrix *to, zs_error *error) {
    for (uint32_t e = 0; e < mix->count; e++) {
        const float *unused;
        const expert_matrix *m = expert_find(mix->experts[e], name, &unused);
        if (!m) continue;
        if (to->rank && m->rank != to->rank)
            return zs_error_set(error, ZS_ERROR_MISMATCH, "experts differ in the rank of %s: %u and %u", name, to->rank, m->rank);
        to->rank = m->rank;
        if (m->has_sketch && !to->has_sketch) memcpy(to->sketch, m->sketch, sizeof to->sketch);
        to->has_sketch = to->has_sketch || m->has_sketch;
    }
    double *sum = calloc(to->rank, sizeof *sum);
    to->name = copy_name(name);
    to->values = malloc(to->rank * sizeof *to->values);
    zs_status status = sum && to->name && to->values ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a mix");
    for (uint32_t e = 0; e < mix->count && !status; e++) {
        double alpha = mix->alpha[mix->per_matrix ? e * mix->matrix_count + column : e];
        status = add_expert(mix, mix->experts[e], name, alpha, to->rank, sum, error);
    }
    for (uint32_t r = 0; r < to->rank && !status; r++) to->values[r] = (float)sum[r];
    free(sum);
    return status;
}

/// Appends to a comma-separated list that has room for it.
static void append_item(char *list, size_t size, const char *item) {
    size_t length = strlen(list);
    snprintf(list + length, size - length, "%s%s", length ? "," : "", item);
}

/// Name, sources and weights of the mix.
static zs_status describe(const mixing *mix, expert_file *file, zs_error *error) {
    size_t columns = mix->per_matrix ? mix->matrix_count : 1, sources = 1, weights = 26 * columns * mix->count + 1;
    for (uint32_t e = 0; e < mix->count; e++) sources += strlen(mix->experts[e]->file.name) + 1;
    file->name = copy_name("mix");
    file->description = copy_name("");
    file->training = copy_name("");
    file->base_model = copy_name(mix->experts[0]->file.base_model);
    file->sources = calloc(sources, 1);
    file->alpha = calloc(weights, 1);
    file->max_mult = 1;
    file->trace = mix->all_trace;
    if (!file->name || !file->description || !file->training || !file->base_model || !file->sources || !file->alpha)
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a mix");
    for (uint32_t e = 0; e < mix->count; e++) append_item(file->sources, sources, mix->experts[e]->file.name);
    for (size_t i = 0; i < columns * mix->count; i++) {
        char number[NUMBER_BYTES];
        number_write(mix->alpha[i], number);
        append_item(file->alpha, weights, number);
    }
    return ZS_OK;
}

zs_status zs_expert_mix(const zs_model *model, const zs_expert *const *experts, uint32_t count, const double *alpha, bool per_matrix,
                        zs_expert **out, zs_error *error) {
    if (count == 0) return zs_error_set(error, ZS_ERROR_ARGUMENT, "a mix needs at least one expert");
    mixing mix = {.model = model, .experts = experts, .count = count, .alpha = alpha, .per_matrix = per_matrix, .all_trace = true};
    for (uint32_t e = 0; e < count; e++) mix.all_trace = mix.all_trace && experts[e]->file.trace;
    expert_file file = {0};
    const char **names = union_names(experts, count, &mix.matrix_count);
    zs_status status = names ? check(&mix, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a mix");
    if (!status) status = describe(&mix, &file, error);
    if (!status) {
        file.matrices = calloc(mix.matrix_count, sizeof *file.matrices);
        if (!file.matrices) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a mix");
    }
    for (size_t i = 0; i < mix.matrix_count && !status; i++) {
        file.matrix_count = i + 1;
        status = mix_matrix(&mix, names[i], i, &file.matrices[i], error);
    }
    free(names);
    if (status) expert_file_free(&file);
    return status ? status : expert_from_file(&file, out, error);
}
