#include "loader/sketch.h"

#include <math.h>

static uint64_t splitmix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static double sign(uint32_t a, uint64_t b) { return splitmix64((uint64_t)a << 32 | (b & 0xffffffffu)) >> 63 ? -1.0 : 1.0; }

void sketch_matrix(const float *w, size_t out, size_t in, float sketch[8]) {
    for (uint32_t k = 0; k < 8; k++) {
        double total = 0;
        for (size_t i = 0; i < out; i++) {
            double row = 0;
            for (size_t j = 0; j < in; j++) row += (double)w[i * in + j] * sign(2 * k + 1, j);
            total += row * sign(2 * k, i);
        }
        sketch[k] = (float)(total / sqrt((double)out * (double)in));
    }
}

double sketch_cosine(const float *a, const float *b, size_t n) {
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < 8 * n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? dot / sqrt(aa * bb) : 0;
}
