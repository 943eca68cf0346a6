#include "factor/factored.h"

#include "factor/refine.h"
#include "factor/svd.h"
#include "loader/sketch.h"

#include <math.h>
#include <stdlib.h>

enum { TURNS = 4 }; // of rounding a factor; more gain less than 1 %

/// q8_0 goes by blocks of 32 of the inner dimension; what is no multiple stays f16.
static uint32_t storage_type(zs_factor_type type, uint32_t inner) {
    if (type == ZS_FACTOR_F32) return TENSOR_F32;
    return type == ZS_FACTOR_Q8_0 && inner % 32 == 0 ? TENSOR_Q8_0 : TENSOR_F16;
}

factored factored_plan(const model_matrix *matrix, zs_factor_type type) {
    factored f = {.out = matrix->out, .in = matrix->in, .rank = matrix->rank};
    f.u_type = storage_type(type, f.rank);
    f.vt_type = storage_type(type, f.in);
    f.u_bytes = tensor_type_bytes(f.u_type, (uint64_t)f.out * f.rank);
    f.vt_bytes = tensor_type_bytes(f.vt_type, (uint64_t)f.rank * f.in);
    return f;
}

uint64_t factored_bytes(const model_matrix *matrix, const factored *plan) {
    const uint64_t out = plan->out, in = plan->in, rank = plan->rank, count = out * in;
    const uint64_t weights = sizeof(float) * count + (matrix->dense ? matrix->dense->size : 0);
    const uint64_t doubles = sizeof(double) * (out * rank + rank * in); // U and Vᵀ
    // LAPACK's own are up to six times [r, r] (measured by tests/bench/factor_matrix; its documentation has the bounds).
    const uint64_t decomposing = sizeof(double) * (count + 6 * rank * rank);
    const uint64_t rounding = sizeof(double) * (count + (out > in ? out : in) * rank) + plan->u_bytes + plan->vt_bytes;
    return weights + doubles + (decomposing > rounding ? decomposing : rounding);
}

void factored_free(factored *f) {
    free(f->sigma);
    free(f->u);
    free(f->vt);
    f->sigma = NULL;
    f->u = f->vt = NULL;
}

zs_status factored_read_weights(const model_matrix *m, const char *path, float *w, zs_error *error) {
    size_t row_bytes = (size_t)(m->dense->size / m->out);
    for (uint32_t i = 0; i < m->out; i++) {
        float *row = w + (size_t)i * m->in;
        tensor_type_dequantise(m->dense->type, (const uint8_t *)m->dense->data + model_matrix_file_row(m, i) * row_bytes, row, m->in);
        for (uint32_t j = 0; j < m->in; j++) {
            if (!isfinite(row[j]))
                return zs_error_set(error, ZS_ERROR_NUMERIC,
                                    "%s: tensor %s holds NaN or infinity at row %u, column %u: the file is damaged", path, m->dense->name,
                                    i, j);
        }
    }
    return ZS_OK;
}

/// Rounds a factor into storage and brings the doubles back to what was stored.
static void round_factor(double *values, size_t count, uint32_t type, void *stored) {
    enum { PART = 256 }; // a multiple of every type's block
    float part[PART];
    for (size_t at = 0; at < count; at += PART) {
        size_t n = count - at < PART ? count - at : PART;
        uint8_t *to = (uint8_t *)stored + tensor_type_bytes(type, at);
        for (size_t i = 0; i < n; i++) part[i] = (float)values[at + i];
        tensor_type_quantise(type, part, to, n);
        tensor_type_dequantise(type, to, part, n);
        for (size_t i = 0; i < n; i++) values[at + i] = (double)part[i];
    }
}

/// ‖E‖_F / ‖W‖_F
static double relative_norm(const double *e, const float *w, size_t count) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += e[i] * e[i];
        norm += (double)w[i] * (double)w[i];
    }
    return norm > 0 ? sqrt(difference / norm) : 0;
}

static void round_u(svd *s, factored *f) { round_factor(s->u, (size_t)s->out * s->rank, f->u_type, f->u); }
static void round_vt(svd *s, factored *f) { round_factor(s->vt, (size_t)s->rank * s->in, f->vt_type, f->vt); }

/// Rounds U and Vᵀ, each fitted to the other as it was rounded, the square one first.
static zs_status round_both(svd *s, const float *w, factored *f, zs_error *error) {
    size_t count = (size_t)s->out * s->in, larger = s->out > s->in ? s->out : s->in;
    double *e = malloc(count * sizeof *e), *scratch = malloc(larger * s->rank * sizeof *scratch);
    f->u = malloc(f->u_bytes);
    f->vt = malloc(f->vt_bytes);
    zs_status status = e && scratch && f->u && f->vt
                           ? ZS_OK
                           : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the factors of a %u x %u matrix", s->out, s->in);
    if (!status) {
        bool turn_of_u = s->out < s->in;
        for (int turn = 0; turn < TURNS; turn++, turn_of_u = !turn_of_u) {
            if (turn_of_u) {
                if (turn > 0) refine_u(s, e, scratch);
                round_u(s, f);
            } else {
                if (turn > 0) refine_vt(s, e, scratch); // before, nothing is rounded and U Σ Vᵀ = W
                round_vt(s, f);
            }
            // Of entries about as large another may now be the largest. What is rounded already stays so with the other sign.
            if (turn == TURNS - 1 && svd_fix_signs(s)) {
                round_u(s, f);
                round_vt(s, f);
            }
            refine_residual(s, w, scratch, e);
        }
        f->error = relative_norm(e, w, count);
    }
    free(e);
    free(scratch);
    return status;
}

zs_status factored_compute(const model_matrix *m, const char *path, factored *f, zs_error *error) {
    size_t count = (size_t)m->out * m->in;
    svd s = {0};
    float *w = malloc(count * sizeof *w);
    double *copy = malloc(count * sizeof *copy);
    f->sigma = malloc(f->rank * sizeof *f->sigma);
    zs_status status =
        w && copy && f->sigma ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s (%u x %u)", m->canonical, m->out, m->in);
    if (!status) status = factored_read_weights(m, path, w, error);
    if (!status) {
        sketch_matrix(w, m->out, m->in, f->sketch);
        for (size_t i = 0; i < count; i++) copy[i] = (double)w[i];
        status = svd_compute(copy, m->out, m->in, &s, error);
    }
    free(copy);
    for (uint32_t k = 0; k < f->rank && !status; k++) f->sigma[k] = (float)s.sigma[k];
    if (!status) status = round_both(&s, w, f, error);
    svd_free(&s);
    free(w);
    if (status) factored_free(f);
    return status;
}
