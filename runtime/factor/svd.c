#include "factor/svd.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>

void svd_use_one_thread(void) { openblas_set_num_threads(1); }

double svd_cost(uint32_t out, uint32_t in) {
    double large = out > in ? out : in, small = out > in ? in : out;
    return 8 * large * small * small + 12 * small * small * small;
}

bool svd_fix_signs(svd *s) {
    bool turned = false;
    for (uint32_t k = 0; k < s->rank; k++) {
        double *row = s->vt + (size_t)k * s->in;
        uint32_t largest = 0;
        for (uint32_t j = 1; j < s->in; j++) largest = fabs(row[j]) > fabs(row[largest]) ? j : largest;
        if (row[largest] >= 0) continue;
        turned = true;
        for (uint32_t j = 0; j < s->in; j++) row[j] = -row[j];
        for (uint32_t i = 0; i < s->out; i++) s->u[(size_t)i * s->rank + k] = -s->u[(size_t)i * s->rank + k];
    }
    return turned;
}

zs_status svd_compute(double *w, uint32_t out, uint32_t in, svd *s, zs_error *error) {
    *s = (svd){.out = out, .in = in, .rank = out < in ? out : in};
    s->u = malloc((size_t)out * s->rank * sizeof *s->u);
    s->vt = malloc((size_t)s->rank * in * sizeof *s->vt);
    s->sigma = malloc(s->rank * sizeof *s->sigma);
    if (!s->u || !s->vt || !s->sigma) {
        svd_free(s);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the SVD of a %u x %u matrix", out, in);
    }
    // Row-major W [out, in] is column-major Wᵀ [in, out] = V diag(σ) Uᵀ: LAPACK's left vectors are V, column-major [in, r],
    // which is Vᵀ row-major; its right vectors Uᵀ, column-major [r, out], are U row-major.
    lapack_int problem = LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (lapack_int)in, (lapack_int)out, w, (lapack_int)in, s->sigma, s->vt,
                                        (lapack_int)in, s->u, (lapack_int)s->rank);
    if (problem) {
        svd_free(s);
        return zs_error_set(error, ZS_ERROR_NUMERIC, "the SVD of a %u x %u matrix did not converge (%d)", out, in, (int)problem);
    }
    svd_fix_signs(s);
    return ZS_OK;
}

void svd_free(svd *s) {
    free(s->u);
    free(s->vt);
    free(s->sigma);
    *s = (svd){0};
}
