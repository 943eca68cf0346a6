#include "factor/factored.h"

#include "factor/svd.h"
#include "loader/sketch.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

enum { ERROR_BLOCK = 256 }; // rows of W − U σ Vᵀ at a time

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

void factored_free(factored *f) {
    free(f->sigma);
    free(f->u);
    free(f->vt);
    f->sigma = NULL;
    f->u = f->vt = NULL;
}

/// W [out, in] in Hugging Face's row order.
static zs_status read_weights(const model_matrix *m, const char *path, float *w, zs_error *error) {
    size_t row_bytes = (size_t)(m->dense->size / m->out);
    for (uint32_t i = 0; i < m->out; i++) {
        float *row = w + (size_t)i * m->in;
        tensor_type_dequantise(m->dense->type, (const uint8_t *)m->dense->data + model_matrix_file_row(m, i) * row_bytes, row, m->in);
        for (uint32_t j = 0; j < m->in; j++) {
            if (!isfinite(row[j])) return zs_error_set(error, ZS_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at row %u, column %u: the file is damaged", path, m->dense->name, i, j);
        }
    }
    return ZS_OK;
}

/// Rounds a factor [rows, cols] into storage and brings the double back to what was stored.
static zs_status round_factor(double *values, size_t count, uint32_t type, void **stored, uint64_t bytes, zs_error *error) {
    enum { PART = 1 << 16 };
    *stored = malloc(bytes);
    float *part = malloc(PART * sizeof *part);
    zs_status status = *stored && part ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a factor of %llu bytes", (unsigned long long)bytes);
    for (size_t at = 0; at < count && !status; at += PART) {
        size_t n = count - at < PART ? count - at : PART;
        uint8_t *to = (uint8_t *)*stored + tensor_type_bytes(type, at);
        for (size_t i = 0; i < n; i++) part[i] = (float)values[at + i];
        tensor_type_quantise(type, part, to, n);
        tensor_type_dequantise(type, to, part, n);
        for (size_t i = 0; i < n; i++) values[at + i] = (double)part[i];
    }
    free(part);
    return status;
}

/// ‖W − U diag(σ) Vᵀ‖_F / ‖W‖_F, some rows at a time.
static zs_status measure_error(const svd *s, const float *w, double *result, zs_error *error) {
    double *block = malloc((size_t)ERROR_BLOCK * s->in * sizeof *block), *scaled = malloc((size_t)ERROR_BLOCK * s->rank * sizeof *scaled);
    double difference = 0, norm = 0;
    zs_status status = block && scaled ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while measuring an error");
    for (uint32_t first = 0; first < s->out && !status; first += ERROR_BLOCK) {
        uint32_t rows = s->out - first < ERROR_BLOCK ? s->out - first : ERROR_BLOCK;
        for (uint32_t i = 0; i < rows; i++) {
            for (uint32_t k = 0; k < s->rank; k++) scaled[(size_t)i * s->rank + k] = s->u[(size_t)(first + i) * s->rank + k] * (double)(float)s->sigma[k];
        }
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)s->in, (int)s->rank, 1, scaled, (int)s->rank, s->vt, (int)s->in, 0, block, (int)s->in);
        for (size_t i = 0; i < (size_t)rows * s->in; i++) {
            double value = (double)w[(size_t)first * s->in + i];
            difference += (value - block[i]) * (value - block[i]);
            norm += value * value;
        }
    }
    free(block);
    free(scaled);
    *result = norm > 0 ? sqrt(difference / norm) : 0;
    return status;
}

zs_status factored_compute(const model_matrix *m, const char *path, factored *f, zs_error *error) {
    size_t count = (size_t)m->out * m->in;
    svd s = {0};
    float *w = malloc(count * sizeof *w);
    double *copy = malloc(count * sizeof *copy);
    f->sigma = malloc(f->rank * sizeof *f->sigma);
    zs_status status = w && copy && f->sigma ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s (%u x %u)", m->canonical, m->out, m->in);
    if (!status) status = read_weights(m, path, w, error);
    if (!status) {
        sketch_matrix(w, m->out, m->in, f->sketch);
        for (size_t i = 0; i < count; i++) copy[i] = (double)w[i];
        status = svd_compute(copy, m->out, m->in, &s, error);
    }
    free(copy);
    if (!status) status = round_factor(s.u, (size_t)s.out * s.rank, f->u_type, &f->u, f->u_bytes, error);
    if (!status) status = round_factor(s.vt, (size_t)s.rank * s.in, f->vt_type, &f->vt, f->vt_bytes, error);
    for (uint32_t k = 0; k < f->rank && !status; k++) f->sigma[k] = (float)s.sigma[k];
    if (!status) status = measure_error(&s, w, &f->error, error);
    svd_free(&s);
    free(w);
    if (status) factored_free(f);
    return status;
}
