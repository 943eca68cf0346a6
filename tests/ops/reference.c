#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

reference_sum reference_dot(const float *a, const float *b, size_t n) {
    reference_sum sum = {0};
    for (size_t i = 0; i < n; i++) {
        double term = (double)a[i] * (double)b[i];
        sum.value += term;
        sum.magnitude += fabs(term);
    }
    return sum;
}

double reference_silu(double x) { return x / (1 + exp(-x)); }

double reference_rms_scale(const float *x, size_t n, double eps) { return 1 / sqrt(reference_dot(x, x, n).value / (double)n + eps); }

double reference_log_sum(const float *x, size_t n) {
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) top = fmax(top, (double)x[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
    return top + log(sum);
}

/// With weights p_i = e^{s_i − m} / Σ, u = 2^−24 and d the head's size, f32 errs
///   in s_i by (√d + 4) u Σ|q_j k_j| / √d;
///   in e^x, x = s_i − m, by (3 + 2|x|) 2u (Vulkan's bound for exp), by the rounding of x, and by the same again at every
///   rescaling when the maximum grows (the |x| add up to the whole; changes are few): (32 + 3|x|) 2u relative in all;
///   in the sums over positions by √count u of their magnitudes.
/// Numerator and denominator both err so: Σ p_i (|v_i| + |out|) r_i + (√count + 8) u Σ p_i |v_i|.
void reference_attention(const float *q, const float *const *keys, const float *const *values, uint32_t count, uint32_t head_dim, bool half,
                         double *out, double *bound) {
    const double u = 1.0 / (1 << 24), h = half ? 1.0 / (1 << 11) : 0, root = sqrt((double)head_dim);
    double *scores = calloc(count, sizeof *scores), *errors = calloc(count, sizeof *errors);
    if (scores == NULL || errors == NULL) abort();
    double top = -INFINITY, total = 0;
    for (uint32_t i = 0; i < count; i++) {
        reference_sum s = reference_dot(q, keys[i], head_dim);
        scores[i] = s.value / root;
        double squares = 0; // q in f16: roundings walk at random, or all of them shorten
        for (uint32_t d = 0; d < head_dim; d++) squares += pow((double)q[d] * (double)keys[i][d], 2);
        errors[i] = ((root + 4) * u * s.magnitude + h * (4 * sqrt(squares) + 2 * fabs(s.value))) / root;
        top = fmax(top, scores[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        double x = scores[i] - top;
        errors[i] += (32 + 3 * fabs(x)) * 2 * u;
        scores[i] = exp(x);
        total += scores[i];
    }
    for (uint32_t d = 0; d < head_dim; d++) {
        double value = 0, spread = 0, magnitude = 0, rough = 0;
        for (uint32_t i = 0; i < count; i++) value += scores[i] / total * (double)values[i][d];
        for (uint32_t i = 0; i < count; i++) {
            double p = scores[i] / total, v = fabs((double)values[i][d]);
            spread += p * (v + fabs(value)) * errors[i];
            magnitude += p * v;
            rough += v;
        }
        out[d] = value;
        bound[d] = spread + (sqrt((double)count) + 8) * u * magnitude + ldexp(rough, -126) / total; // exponentials may underflow
        bound[d] += h * (2 * magnitude + ldexp(rough, -13) / total); // weights in f16, of which the smallest are multiples of 2^−24
    }
    free(scores);
    free(errors);
}

void reference_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

// ---- sampling -------------------------------------------------------------------------------------------------------

static bool has_bit(const uint32_t *bits, uint32_t i) { return bits[i / 32] >> (i % 32) & 1; }

/// Logits after penalty and temperature, in f32 as the kernel has them; −∞ where a token is not allowed.
static void scale_logits(const reference_sampler *how, const float *logits, uint32_t vocab, double *values) {
    for (uint32_t i = 0; i < vocab; i++) {
        float logit = logits[i];
        if (how->repetition_penalty != 1 && has_bit(how->seen, i))
            logit = logit > 0 ? logit / how->repetition_penalty : logit * how->repetition_penalty;
        if (how->temperature > 0) logit /= how->temperature;
        values[i] = how->allowed && !has_bit(how->allowed, i) ? -INFINITY : (double)logit;
    }
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/// The lowest value that top-k, then top-p, then min-p keep.
static double find_cut(const reference_sampler *how, const double *values, uint32_t vocab, double top_p, double min_p, double *sorted) {
    memcpy(sorted, values, vocab * sizeof *values);
    qsort(sorted, vocab, sizeof *sorted, descending);
    uint32_t kept = vocab;
    double cut = -INFINITY;
    if (how->top_k > 0 && how->top_k < vocab) {
        cut = sorted[how->top_k - 1];
        kept = how->top_k;
        while (kept < vocab && sorted[kept] == cut) kept++; // ties at the cut stay
    }
    if (how->top_p < 1) {
        double total = 0, mass = 0;
        for (uint32_t i = 0; i < kept; i++) total += exp(sorted[i] - sorted[0]);
        uint32_t i = 0;
        while (i < kept && mass < top_p * total) mass += exp(sorted[i++] - sorted[0]);
        cut = sorted[i ? i - 1 : 0];
    }
    return how->min_p > 0 ? fmax(cut, sorted[0] + log(min_p)) : cut;
}

/// Whether the draw u falls on the token, or so near that rounding decides.
static bool draw_allows(const double *values, uint32_t vocab, double cut, double u, uint32_t token, double tolerance) {
    if (!(values[token] >= cut) || values[token] == -INFINITY) return false;
    double top = -INFINITY, total = 0, before = 0;
    for (uint32_t i = 0; i < vocab; i++) top = fmax(top, values[i]);
    for (uint32_t i = 0; i < vocab; i++) {
        double mass = values[i] >= cut ? exp(values[i] - top) : 0;
        if (i < token) before += mass;
        total += mass;
    }
    double after = before + exp(values[token] - top), wanted = u * total, slack = tolerance * total;
    return before <= wanted + slack && after >= wanted - slack;
}

bool reference_sample_allows(const reference_sampler *how, const float *logits, uint32_t vocab, uint32_t position, uint32_t token,
                             double tolerance, double *scratch) {
    if (token >= vocab) return false;
    double *values = scratch, *sorted = scratch + vocab;
    scale_logits(how, logits, vocab, values);
    if (how->temperature <= 0) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < vocab; i++)
            if (values[i] > values[best]) best = i;
        bool rounded = logits[token] != logits[best] && fabs(values[token] - values[best]) <= 4e-7 * fabs(values[best]);
        return token == best || rounded;
    }
    uint32_t counter[4] = {(uint32_t)how->stream, (uint32_t)(how->stream >> 32), position, 0},
             key[2] = {(uint32_t)how->seed, (uint32_t)(how->seed >> 32)}, x[4];
    reference_philox(counter, key, x);
    double u = (double)(x[0] >> 8) / 16777216;
    // A threshold that lies within the tolerance of a token's mass or value may be taken either way.
    for (int p = -1; p <= 1; p++)
        for (int m = -1; m <= 1; m++) {
            double cut = find_cut(how, values, vocab, (double)how->top_p + p * tolerance, (double)how->min_p * (1 + m * tolerance), sorted);
            if (draw_allows(values, vocab, cut, u, token, tolerance)) return true;
        }
    return false;
}
