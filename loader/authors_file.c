#include "loader/authors_file.h"
#include "loader/number.h"
#include "loader/torch_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 96, MAX_LAYERS = 1000 };

static const char policy_prefix[] = "learnable_params_module_list.", alpha_name[] = "adaptive_weights";
static const char *const kinds[] = {"mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",   "self_attn.q_proj",
                                    "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"};
enum { KINDS = sizeof kinds / sizeof *kinds, POLICY_KINDS = 3 };

static const char *path_of(const torch_file *from) { return from->zip.map.path ? from->zip.map.path : "PyTorch data"; }

static zs_status out_of_memory(const torch_file *from, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while reading %s", path_of(from));
}

// ---- names ---------------------------------------------------------------------------------------------------------

static void canonical_name(uint32_t layer, uint32_t kind, char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, "model.layers.%u.%s", layer, kinds[kind]);
}

/// Decimal digits without a sign or leading zeros, below a limit; *end is behind them.
static bool read_index(const char *text, uint32_t limit, uint32_t *index, const char **end) {
    *index = 0;
    const char *c = text;
    for (; *c >= '0' && *c <= '9'; c++) {
        if (c > text && *index == 0) return false;
        *index = *index * 10 + (uint32_t)(*c - '0');
        if (*index >= limit) return false;
    }
    *end = c;
    return c > text;
}

/// "model.layers.3.mlp.up_proj.weight", with or without the ending; with `separator` '_' in place of its points.
static bool read_name(const char *text, char separator, char canonical[NAME_BYTES]) {
    char with_points[NAME_BYTES];
    uint32_t layer;
    const char *rest;
    if (strncmp(text, "model", 5) != 0 || text[5] != separator || strncmp(text + 6, "layers", 6) != 0 || text[12] != separator ||
        !read_index(text + 13, MAX_LAYERS, &layer, &rest) || *rest != separator)
        return false;
    for (uint32_t k = 0; k < KINDS; k++) {
        canonical_name(layer, k, canonical);
        for (int ending = 0; ending < 2; ending++) {
            int size = snprintf(with_points, sizeof with_points, "%s%s", canonical, ending ? ".weight" : "");
            for (int i = 0; i < size; i++) with_points[i] = with_points[i] == '.' ? separator : with_points[i];
            if (strcmp(with_points, text) == 0) return true;
        }
    }
    return false;
}

// ---- reading -------------------------------------------------------------------------------------------------------

static zs_status start(const torch_file *from, expert_file *to, bool sigmoid, zs_error *error) {
    char **const texts[] = {&to->name, &to->description, &to->base_model, &to->training, &to->sources, &to->alpha};
    to->sigmoid = sigmoid;
    to->trace = true;
    to->max_mult = 1;
    bool complete = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) complete &= (*texts[i] = calloc(1, 1)) != NULL;
    to->matrices = calloc(from->count + 1, sizeof *to->matrices);
    return complete && to->matrices ? ZS_OK : out_of_memory(from, error);
}

/// values[rank] of a tensor that has to be a vector of numbers.
static zs_status read_vector(const torch_file *from, const torch_tensor *tensor, float **values, zs_error *error) {
    if (tensor->dims != 1 || tensor->elements == 0 || tensor->elements > UINT32_MAX)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is not of shape [rank]", path_of(from), tensor->name);
    *values = malloc((size_t)tensor->elements * sizeof **values);
    if (!*values) return out_of_memory(from, error);
    torch_read(tensor, *values);
    for (uint64_t i = 0; i < tensor->elements; i++) {
        if (!isfinite((*values)[i]))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %llu", path_of(from), tensor->name,
                                (unsigned long long)i);
    }
    return ZS_OK;
}

static zs_status add_matrix(const torch_file *from, const torch_tensor *tensor, const char *canonical, expert_file *to, zs_error *error) {
    expert_matrix *m = &to->matrices[to->matrix_count++];
    m->name = calloc(1, NAME_BYTES);
    if (!m->name) return out_of_memory(from, error);
    snprintf(m->name, NAME_BYTES, "%s", canonical);
    zs_status status = read_vector(from, tensor, &m->values, error);
    if (!status) m->rank = (uint32_t)tensor->elements;
    return status;
}

static zs_status read_policy(const torch_file *from, expert_file *to, zs_error *error) {
    zs_status status = start(from, to, true, error);
    if (!status && from->count % POLICY_KINDS)
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: %zu vectors; gate, up and down of every layer are three each", path_of(from),
                              from->count);
    for (uint32_t i = 0; i < from->count && !status; i++) {
        char key[64], canonical[NAME_BYTES];
        snprintf(key, sizeof key, "%s%u", policy_prefix, i);
        const torch_tensor *tensor = torch_find(from, key);
        canonical_name(i / POLICY_KINDS, i % POLICY_KINDS, canonical);
        status = tensor ? add_matrix(from, tensor, canonical, to, error)
                        : zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is missing among %zu", path_of(from), key, from->count);
    }
    return status;
}

static zs_status unknown_name(const torch_file *from, const char *name, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "%s: tensor %.200s is no matrix of a decoder's layer; learnable_params_module_list.N, names as "
                        "model.layers.N.mlp.gate_proj.weight, or adaptive_weights with weights_N_k_… are expected",
                        path_of(from), name);
}

static zs_status read_names(const torch_file *from, expert_file *to, zs_error *error) {
    zs_status status = start(from, to, true, error);
    for (size_t i = 0; i < from->count && !status; i++) {
        char canonical[NAME_BYTES];
        status = read_name(from->tensors[i].name, '.', canonical) ? add_matrix(from, &from->tensors[i], canonical, to, error)
                                                                  : unknown_name(from, from->tensors[i].name, error);
    }
    return status;
}

// ---- mixes ---------------------------------------------------------------------------------------------------------

/// "weights_2_k_model_layers_0_mlp_up_proj_weight": of which expert, and which matrix.
static bool read_mix_name(const char *text, uint32_t experts, uint32_t *expert, char canonical[NAME_BYTES]) {
    const char *rest;
    return strncmp(text, "weights_", 8) == 0 && read_index(text + 8, experts, expert, &rest) && strncmp(rest, "_k_", 3) == 0 &&
           read_name(rest + 3, '_', canonical);
}

/// matrix += weight · m
static zs_status add_part(const torch_file *from, const torch_tensor *tensor, const char *canonical, double weight, expert_file *to,
                          zs_error *error) {
    size_t i = 0;
    while (i < to->matrix_count && strcmp(to->matrices[i].name, canonical) != 0) i++;
    if (i == to->matrix_count) {
        zs_status status = add_matrix(from, tensor, canonical, to, error);
        for (uint32_t r = 0; r < to->matrices[i].rank && !status; r++)
            to->matrices[i].values[r] = (float)(weight * (double)to->matrices[i].values[r]);
        return status;
    }
    expert_matrix *m = &to->matrices[i];
    float *values = NULL;
    zs_status status = read_vector(from, tensor, &values, error);
    if (!status && tensor->elements != m->rank)
        status =
            zs_error_set(error, ZS_ERROR_FORMAT, "%s: tensor %s is not as long as those of the other experts", path_of(from), tensor->name);
    for (uint32_t r = 0; r < m->rank && !status; r++) m->values[r] = (float)((double)m->values[r] + weight * (double)values[r]);
    free(values);
    return status;
}

static zs_status write_alpha(const torch_file *from, const float *alpha, uint32_t experts, expert_file *to, zs_error *error) {
    char *texts = calloc(2, (size_t)experts * (NUMBER_BYTES + 1) + 1);
    if (!texts) return out_of_memory(from, error);
    char *sources = texts, *weights = texts + (size_t)experts * (NUMBER_BYTES + 1) + 1;
    for (uint32_t i = 0; i < experts; i++) {
        char number[NUMBER_BYTES];
        number_write((double)alpha[i], number);
        strcat(weights, i ? "," : "");
        strcat(weights, number);
        snprintf(number, sizeof number, "%s%u", i ? "," : "", i);
        strcat(sources, number);
    }
    free(to->sources);
    free(to->alpha);
    to->sources = strdup(sources);
    to->alpha = strdup(weights);
    free(texts);
    return to->sources && to->alpha ? ZS_OK : out_of_memory(from, error);
}

static zs_status sum_parts(const torch_file *from, const float *alpha, uint32_t experts, expert_file *to, zs_error *error) {
    zs_status status = ZS_OK;
    uint32_t parts = 0;
    for (size_t i = 0; i < from->count && !status; i++) {
        const torch_tensor *tensor = &from->tensors[i];
        char canonical[NAME_BYTES];
        uint32_t expert;
        if (strcmp(tensor->name, alpha_name) == 0) continue;
        if (!read_mix_name(tensor->name, experts, &expert, canonical)) return unknown_name(from, tensor->name, error);
        status = add_part(from, tensor, canonical, (double)alpha[expert], to, error);
        parts++;
    }
    if (!status && parts != experts * to->matrix_count)
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%s: %u vectors of %u experts and %zu matrices: some are missing", path_of(from),
                              parts, experts, to->matrix_count);
    return status;
}

static zs_status check_sums(const torch_file *from, const expert_file *to, zs_error *error) {
    for (size_t i = 0; i < to->matrix_count; i++) {
        for (uint32_t r = 0; r < to->matrices[i].rank; r++) {
            if (!isfinite(to->matrices[i].values[r]))
                return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: the mix of %s overflows at element %u", path_of(from),
                                    to->matrices[i].name, r);
        }
    }
    return ZS_OK;
}

static zs_status read_mix(const torch_file *from, expert_file *to, zs_error *error) {
    const torch_tensor *tensor = torch_find(from, alpha_name);
    float *alpha = NULL;
    zs_status status = start(from, to, false, error);
    if (!status && (tensor->dims != 1 || tensor->elements == 0 || tensor->elements > from->count))
        status = zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: tensor %s is not of shape [experts]; one weight per expert is read",
                              path_of(from), alpha_name);
    if (!status) status = read_vector(from, tensor, &alpha, error);
    uint32_t experts = status ? 0 : (uint32_t)tensor->elements, i = 0;
    while (i < experts && alpha[i] == 0) i++;
    if (!status && i == experts) status = zs_error_set(error, ZS_ERROR_ARGUMENT, "%s: every weight of the mix is 0", path_of(from));
    if (!status) status = sum_parts(from, alpha, experts, to, error);
    if (!status) status = check_sums(from, to, error);
    if (!status) status = write_alpha(from, alpha, experts, to, error);
    free(alpha);
    return status;
}

// ---- files ---------------------------------------------------------------------------------------------------------

static int by_name(const void *a, const void *b) { return strcmp(((const expert_matrix *)a)->name, ((const expert_matrix *)b)->name); }

static zs_status read_any(const torch_file *from, expert_file *to, zs_error *error) {
    zs_status status;
    if (torch_find(from, alpha_name))
        status = read_mix(from, to, error);
    else if (from->count && strncmp(from->tensors[0].name, policy_prefix, strlen(policy_prefix)) == 0)
        status = read_policy(from, to, error);
    else
        status = read_names(from, to, error);
    if (!status && to->matrix_count == 0) status = zs_error_set(error, ZS_ERROR_FORMAT, "%s holds no tensors", path_of(from));
    if (status) return status;
    qsort(to->matrices, to->matrix_count, sizeof *to->matrices, by_name);
    for (size_t i = 1; i < to->matrix_count; i++) { // with and without ".weight"
        if (strcmp(to->matrices[i - 1].name, to->matrices[i].name) == 0)
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s: matrix %s occurs twice", path_of(from), to->matrices[i].name);
    }
    return ZS_OK;
}

static zs_status finish(torch_file *from, expert_file *expert, zs_error *error) {
    zs_status status = read_any(from, expert, error);
    torch_close(from);
    if (status) expert_file_free(expert);
    return status;
}

zs_status authors_file_load(const char *path, expert_file *expert, zs_error *error) {
    torch_file from;
    *expert = (expert_file){0};
    zs_status status = torch_open(path, &from, error);
    return status ? status : finish(&from, expert, error);
}

zs_status authors_file_load_memory(const void *data, size_t size, expert_file *expert, zs_error *error) {
    torch_file from;
    *expert = (expert_file){0};
    zs_status status = torch_open_memory(data, size, &from, error);
    return status ? status : finish(&from, expert, error);
}

static const expert_matrix *find_matrix(const expert_file *expert, const char *name) {
    for (size_t i = 0; i < expert->matrix_count; i++) {
        if (strcmp(expert->matrices[i].name, name) == 0) return &expert->matrices[i];
    }
    return NULL;
}

bool authors_file_fits_policy(const expert_file *expert) {
    char name[NAME_BYTES];
    bool fits = expert->matrix_count % POLICY_KINDS == 0 && expert->matrix_count > 0;
    for (uint32_t i = 0; i < expert->matrix_count && fits; i++) {
        canonical_name(i / POLICY_KINDS, i % POLICY_KINDS, name);
        fits = find_matrix(expert, name) != NULL;
    }
    return fits;
}

zs_status authors_file_save(const char *path, bool force, authors_format format, const expert_file *expert, zs_error *error) {
    torch_entry *entries = calloc(expert->matrix_count + 1, sizeof *entries);
    char(*names)[NAME_BYTES + 8] = calloc(expert->matrix_count + 1, sizeof *names);
    zs_status status = entries && names ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing %s", path);
    for (uint32_t i = 0; i < expert->matrix_count && !status; i++) {
        char name[NAME_BYTES];
        canonical_name(i / POLICY_KINDS, i % POLICY_KINDS, name);
        const expert_matrix *m = format == AUTHORS_POLICY ? find_matrix(expert, name) : &expert->matrices[i];
        if (!m) {
            status = zs_error_set(error, ZS_ERROR_ARGUMENT,
                                  "%s: expert %s has other matrices than gate, up and down of every layer, and a policy holds no others",
                                  path, expert->name);
        } else {
            if (format == AUTHORS_POLICY)
                snprintf(names[i], sizeof *names, "%s%u", policy_prefix, i);
            else
                snprintf(names[i], sizeof *names, "%s.weight", m->name);
            entries[i] = (torch_entry){.name = names[i], .elements = m->rank, .data = m->values};
        }
    }
    if (!status)
        status = torch_save(path, force, format == AUTHORS_POLICY ? TORCH_BFLOAT16 : TORCH_FLOAT, entries, expert->matrix_count, error);
    free(entries);
    free(names);
    return status;
}
