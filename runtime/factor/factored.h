/// One matrix, factored and rounded as it goes into the file.
#ifndef FACTOR_FACTORED_H
#define FACTOR_FACTORED_H

#include "loader/model_file.h"
#include "zsigma/zsigma_lab.h"

typedef struct factored {
    uint32_t out, in, rank;
    uint32_t u_type, vt_type; // tensor types
    uint64_t u_bytes, vt_bytes;
    double error; // ‖W − U diag(σ) Vᵀ‖_F / ‖W‖_F with the factors as stored; 0 for a zero matrix
    float sketch[8];
    float *sigma; // [rank]
    void *u, *vt; // [out, rank], [rank, in]
} factored;

/// Shapes and types before any work: what a matrix will take in the file.
factored factored_plan(const model_matrix *matrix, zs_factor_type type);
/// W [out, in] of a dense matrix, in Hugging Face's row order. Errors: ZS_ERROR_NUMERIC (a weight is no number, named).
zs_status factored_read_weights(const model_matrix *matrix, const char *path, float *w, zs_error *error);
/// The most memory that the work takes, its result and the matrix as read from the file among it.
uint64_t factored_bytes(const model_matrix *matrix, const factored *plan);
/// Does the work. Errors: ZS_ERROR_NUMERIC (a weight is no number, named), ZS_ERROR_MEMORY.
zs_status factored_compute(const model_matrix *matrix, const char *path, factored *result, zs_error *error);
void factored_free(factored *result);

#endif
