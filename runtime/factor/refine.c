#include "factor/refine.h"

#include <cblas.h>
#include <math.h>

/// Largest change of a singular vector, relative to its length 1.
static const double most_change = 0.02;

void refine_residual(const svd *s, const float *w, double *scratch, double *e) {
    for (uint32_t i = 0; i < s->out; i++) {
        for (uint32_t k = 0; k < s->rank; k++)
            scratch[(size_t)i * s->rank + k] = s->u[(size_t)i * s->rank + k] * (double)(float)s->sigma[k];
    }
    for (size_t i = 0; i < (size_t)s->out * s->in; i++) e[i] = (double)w[i];
    // E[out, in] −= (U Σ)[out, r] · Vᵀ[r, in]
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)s->out, (int)s->in, (int)s->rank, -1, scratch, (int)s->rank, s->vt,
                (int)s->in, 1, e, (int)s->in);
}

/// Adds d / σ[k] to `values`, both with `count` entries `stride` apart.
static void add_change(const svd *s, uint32_t k, const double *d, double *values, uint32_t count, size_t stride) {
    double sigma = s->sigma[k], square = 0;
    for (uint32_t i = 0; i < count; i++) square += d[i * stride] * d[i * stride];
    if (!(sqrt(square) <= most_change * sigma)) return;
    for (uint32_t i = 0; i < count && sigma > 0; i++) values[i * stride] += d[i * stride] / sigma;
}

void refine_u(svd *s, const double *e, double *scratch) {
    // D[out, r] = E[out, in] · V[in, r]
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)s->out, (int)s->rank, (int)s->in, 1, e, (int)s->in, s->vt, (int)s->in, 0,
                scratch, (int)s->rank);
    for (uint32_t k = 0; k < s->rank; k++) add_change(s, k, scratch + k, s->u + k, s->out, s->rank);
}

void refine_vt(svd *s, const double *e, double *scratch) {
    // D[r, in] = Uᵀ[r, out] · E[out, in]
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)s->rank, (int)s->in, (int)s->out, 1, s->u, (int)s->rank, e, (int)s->in, 0,
                scratch, (int)s->in);
    for (uint32_t k = 0; k < s->rank; k++) add_change(s, k, scratch + (size_t)k * s->in, s->vt + (size_t)k * s->in, s->in, 1);
}
