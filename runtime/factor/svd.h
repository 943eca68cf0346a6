/// Singular value decomposition in double precision.
#ifndef FACTOR_SVD_H
#define FACTOR_SVD_H

#include "zsigma/zsigma.h"

/// W [out, in] = U [out, r] diag(σ) Vᵀ [r, in], r = min(out, in), σ descending; the largest |entry| of each row of Vᵀ is
/// positive. All row-major, malloc'ed, freed by svd_free.
typedef struct svd {
    uint32_t out, in, rank;
    double *u, *sigma, *vt;
} svd;

/// Overwrites w. Errors: ZS_ERROR_MEMORY, ZS_ERROR_NUMERIC (no convergence).
zs_status svd_compute(double *w, uint32_t out, uint32_t in, svd *result, zs_error *error);
/// The sign of a pair is free: turns pairs around until the largest |entry| of each row of Vᵀ is positive. false when none had to be.
bool svd_fix_signs(svd *s);
void svd_free(svd *result);
/// Keeps LAPACK to one thread: work is parallel over matrices.
void svd_use_one_thread(void);
/// Floating-point operations, roughly: for progress and shares of work.
double svd_cost(uint32_t out, uint32_t in);

#endif
