#include "loader/expert_file.h"
#include "loader/number.h"
#include "loader/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char z_suffix[] = ".z", sketch_suffix[] = ".sketch";

static bool ends_with(const char *text, const char *suffix) {
    size_t length = strlen(text), tail = strlen(suffix);
    return length > tail && strcmp(text + length - tail, suffix) == 0;
}

static char *copy_part(const char *text, size_t length) {
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

static const char *path_of(const safetensors_file *file) { return file->map.path ? file->map.path : "expert data"; }

static const char *meta_or(const safetensors_file *file, const char *key, const char *fallback) {
    const char *value = safetensors_find_meta(file, key);
    return value ? value : fallback;
}

/// One of two words; anything else is an error naming the key.
static zs_status choose(const safetensors_file *file, const char *key, const char *usual, const char *other, bool *is_other,
                        zs_error *error) {
    const char *value = meta_or(file, key, usual);
    *is_other = strcmp(value, other) == 0;
    if (*is_other || strcmp(value, usual) == 0) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %s is '%.40s'; %s and %s are known", path_of(file), key, value, usual, other);
}

static zs_status read_metadata(const safetensors_file *from, expert_file *to, zs_error *error) {
    if (strcmp(meta_or(from, "format", ""), "zsigma-expert") != 0)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no expert file: its metadata has no format=zsigma-expert", path_of(from));
    if (strcmp(meta_or(from, "version", ""), "1") != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: an expert of version '%.20s'; version 1 is known", path_of(from),
                            meta_or(from, "version", ""));
    zs_status status = choose(from, "role", "expert", "dispatcher", &to->dispatcher, error);
    if (!status) status = choose(from, "parameterisation", "scale", "sigmoid", &to->sigmoid, error);
    if (!status) status = choose(from, "normalise", "none", "trace", &to->trace, error);
    if (status) return status;
    const char *max_mult = meta_or(from, "max_mult", "1");
    if (!number_read(max_mult, &to->max_mult) || !isfinite(to->max_mult) || to->max_mult <= 0)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: max_mult '%.40s' is no positive number", path_of(from), max_mult);
    const struct {
        char **to;
        const char *key;
    } texts[] = {{&to->name, "name"},         {&to->description, "description"}, {&to->base_model, "base_model"},
                 {&to->training, "training"}, {&to->sources, "sources"},         {&to->alpha, "alpha"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = meta_or(from, texts[i].key, "");
        *texts[i].to = copy_part(value, strlen(value));
        if (!*texts[i].to) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(from));
    }
    return ZS_OK;
}

static zs_status read_values(const safetensors_file *from, const safetensors_tensor *tensor, expert_matrix *to, zs_error *error) {
    size_t length = strlen(tensor->name) - strlen(z_suffix);
    if (tensor->dims != 1 || tensor->elements == 0 || tensor->elements > UINT32_MAX)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is not of shape [rank]", path_of(from), tensor->name);
    to->name = copy_part(tensor->name, length);
    to->rank = (uint32_t)tensor->elements;
    to->values = malloc(to->rank * sizeof *to->values);
    if (!to->name || !to->values) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(from));
    tensor_type_dequantise(tensor->type, tensor->data, to->values, to->rank);
    for (uint32_t i = 0; i < to->rank; i++) {
        if (!isfinite(to->values[i]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %u", path_of(from), tensor->name,
                                i);
    }
    return ZS_OK;
}

static zs_status read_sketch(const safetensors_file *from, expert_matrix *to, zs_error *error) {
    size_t size = strlen(to->name) + sizeof sketch_suffix;
    char *name = malloc(size);
    if (!name) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(from));
    snprintf(name, size, "%s%s", to->name, sketch_suffix);
    const safetensors_tensor *tensor = safetensors_find(from, name);
    free(name);
    if (!tensor) return ZS_OK;
    if (tensor->dims != 1 || tensor->elements != SKETCH_SIZE)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is not of shape [8]", path_of(from), tensor->name);
    tensor_type_dequantise(tensor->type, tensor->data, to->sketch, SKETCH_SIZE);
    to->has_sketch = true;
    for (uint32_t i = 0; i < SKETCH_SIZE; i++) {
        if (!isfinite(to->sketch[i]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity", path_of(from), tensor->name);
    }
    return ZS_OK;
}

static zs_status read_expert(const safetensors_file *from, expert_file *to, zs_error *error) {
    zs_status status = read_metadata(from, to, error);
    if (status) return status;
    to->matrices = calloc(from->tensor_count + 1, sizeof *to->matrices);
    if (!to->matrices) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(from));
    for (size_t i = 0; i < from->tensor_count; i++) {
        const safetensors_tensor *tensor = &from->tensors[i];
        if (ends_with(tensor->name, sketch_suffix)) continue;
        if (!ends_with(tensor->name, z_suffix))
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is neither a .z nor a .sketch", path_of(from), tensor->name);
        expert_matrix *matrix = &to->matrices[to->matrix_count++];
        status = read_values(from, tensor, matrix, error);
        if (!status) status = read_sketch(from, matrix, error);
        if (status) return status;
    }
    if (to->matrix_count == 0) return zs_error_set(error, ZS_ERROR_FORMAT, "%s holds no .z tensor", path_of(from));
    return ZS_OK;
}

static zs_status finish(safetensors_file *from, expert_file *file, zs_error *error) {
    zs_status status = read_expert(from, file, error);
    safetensors_close(from);
    if (status) expert_file_free(file);
    return status;
}

zs_status expert_file_load(const char *path, expert_file *file, zs_error *error) {
    safetensors_file from;
    *file = (expert_file){0};
    zs_status status = safetensors_open(path, &from, error);
    return status ? status : finish(&from, file, error);
}

zs_status expert_file_load_memory(const void *data, size_t size, expert_file *file, zs_error *error) {
    safetensors_file from;
    *file = (expert_file){0};
    zs_status status = safetensors_open_memory(data, size, &from, error);
    return status ? status : finish(&from, file, error);
}

void expert_file_free(expert_file *file) {
    for (size_t i = 0; i < file->matrix_count; i++) {
        free(file->matrices[i].name);
        free(file->matrices[i].values);
    }
    free(file->matrices);
    free(file->name);
    free(file->description);
    free(file->base_model);
    free(file->training);
    free(file->sources);
    free(file->alpha);
    *file = (expert_file){0};
}

/// The name is put together in name[room].
static void add_entry(const char *matrix, const char *suffix, uint32_t count, const float *values, char *name, size_t room,
                      safetensors_entry *entry) {
    snprintf(name, room, "%s%s", matrix, suffix);
    *entry = (safetensors_entry){.name = name, .dims = 1, .shape = {count}, .data = values};
}

zs_status expert_file_save(const char *path, bool force, const expert_file *file, zs_error *error) {
    char max_mult[NUMBER_BYTES];
    number_write(file->max_mult, max_mult);
    const safetensors_meta meta[] = {
        {"format", "zsigma-expert"},
        {"version", "1"},
        {"name", file->name},
        {"description", file->description},
        {"role", file->dispatcher ? "dispatcher" : "expert"},
        {"base_model", file->base_model},
        {"parameterisation", file->sigmoid ? "sigmoid" : "scale"},
        {"max_mult", max_mult},
        {"normalise", file->trace ? "trace" : "none"},
        {"training", file->training},
        {"sources", file->sources},
        {"alpha", file->alpha},
    };
    size_t meta_count = sizeof meta / sizeof *meta - (*file->sources ? 0 : 2);
    safetensors_entry *entries = calloc(2 * file->matrix_count + 1, sizeof *entries);
    size_t longest = 0, count = 0;
    for (size_t i = 0; i < file->matrix_count; i++)
        longest = strlen(file->matrices[i].name) > longest ? strlen(file->matrices[i].name) : longest;
    size_t room = longest + sizeof sketch_suffix;
    char *names = calloc(2 * file->matrix_count + 1, room);
    zs_status status = ZS_OK;
    if (!entries || !names) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing %s", path);
    for (size_t i = 0; i < file->matrix_count && !status; i++) {
        const expert_matrix *m = &file->matrices[i];
        add_entry(m->name, z_suffix, m->rank, m->values, names + room * count, room, &entries[count]);
        count++;
        if (!m->has_sketch) continue;
        add_entry(m->name, sketch_suffix, SKETCH_SIZE, m->sketch, names + room * count, room, &entries[count]);
        count++;
    }
    if (!status) status = safetensors_save(path, force, entries, count, meta, meta_count, error);
    free(entries);
    free(names);
    return status;
}

void expert_file_multipliers(const expert_file *file, const expert_matrix *matrix, float *multipliers) {
    for (uint32_t r = 0; r < matrix->rank; r++)
        multipliers[r] = file->sigmoid ? (float)(file->max_mult / (1 + exp(-(double)matrix->values[r]))) : matrix->values[r];
}

zs_status expert_file_trace_scale(const expert_file *file, const expert_matrix *matrix, const float *sigma, const float *multipliers,
                                  double *scale, zs_error *error) {
    double sum = 0, scaled = 0;
    for (uint32_t i = 0; i < matrix->rank; i++) {
        sum += (double)sigma[i];
        scaled += (double)sigma[i] * (double)multipliers[i];
    }
    *scale = sum / scaled;
    if (isfinite(*scale)) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_NUMERIC, "expert %s: %s cannot be normalised, because the sum of its scaled singular values is 0",
                        file->name, matrix->name);
}
