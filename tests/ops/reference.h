/// Plain double-precision versions of the operations, written for reading. Sums come with the sum of their terms' magnitudes, which
/// error bounds are made of.
#ifndef TESTS_OPS_REFERENCE_H
#define TESTS_OPS_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct reference_sum {
    double value;     // Σ a_i b_i
    double magnitude; // Σ |a_i b_i|
} reference_sum;
reference_sum reference_dot(const float *a, const float *b, size_t n);

/// x / (1 + e^−x)
double reference_silu(double x);

/// 1 / √(mean x² + eps)
double reference_rms_scale(const float *x, size_t n, double eps);

/// Attention of one query over `count` keys and values, key i at keys[i] and value i at values[i], each [head_dim].
/// out[head_dim]; bound[head_dim]: what f32 may make of it (see reference.c), or (half) products of q and weights in f16.
void reference_attention(const float *q, const float *const *keys, const float *const *values, uint32_t count, uint32_t head_dim, bool half,
                         double *out, double *bound);

/// log Σ exp x
double reference_log_sum(const float *x, size_t n);

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011).
void reference_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

typedef struct reference_sampler {
    float temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k;
    const uint32_t *allowed, *seen; // bits, or NULL
    uint64_t seed, stream;
} reference_sampler;

/// Whether `token` may be drawn for `position` from logits[vocab]: it is the one that exact arithmetic draws, or the decision
/// (cut or draw) lies within `tolerance` of the mass. scratch[2 · vocab].
bool reference_sample_allows(const reference_sampler *how, const float *logits, uint32_t vocab, uint32_t position, uint32_t token,
                             double tolerance, double *scratch);

#endif
