/// Expert files (DESIGN.md §4): the parsed contents, before any model is known.
#ifndef LOADER_EXPERT_FILE_H
#define LOADER_EXPERT_FILE_H

#include "zsigma/zsigma.h"

enum { SKETCH_SIZE = 8 };

typedef struct expert_matrix {
    char *name; // canonical, "model.layers.0.mlp.gate_proj"
    uint32_t rank;
    float *values; // [rank] as in the file: z, or p before the sigmoid
    bool has_sketch;
    float sketch[SKETCH_SIZE];
} expert_matrix;

typedef struct expert_file {
    char *name, *description, *base_model, *training; // never NULL, may be ""
    char *sources, *alpha;                            // of a mix: names and weights, comma separated; "" otherwise
    bool dispatcher;
    bool sigmoid;
    bool trace;
    double max_mult;
    expert_matrix *matrices; // sorted by name
    size_t matrix_count;
} expert_file;

/// Unknown versions, parameterisations, normalisations, shapes other than [r] and NaN values are errors.
zs_status expert_file_load(const char *path, expert_file *file, zs_error *error);
zs_status expert_file_load_memory(const void *data, size_t size, expert_file *file, zs_error *error);
zs_status expert_file_save(const char *path, bool force, const expert_file *file, zs_error *error);
void expert_file_free(expert_file *file);

/// multipliers[rank] = z, or sigmoid(p) · max_mult.
void expert_file_multipliers(const expert_file *file, const expert_matrix *matrix, float *multipliers);
/// s = Σσ / Σ(σ ⊙ m), by which normalise=trace keeps the sum of singular values; ZS_ERROR_NUMERIC when Σ(σ ⊙ m) is 0.
zs_status expert_file_trace_scale(const expert_file *file, const expert_matrix *matrix, const float *sigma, const float *multipliers,
                                  double *scale, zs_error *error);

#endif
