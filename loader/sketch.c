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

void sketch_pairs_add(sketch_pairs *pairs, const float a[8], const float b[8]) {
    for (size_t k = 0; k < 8; k++) {
        pairs->dot += (double)a[k] * (double)b[k];
        pairs->aa += (double)a[k] * (double)a[k];
        pairs->bb += (double)b[k] * (double)b[k];
    }
    pairs->count++;
}

double sketch_pairs_cosine(const sketch_pairs *pairs) {
    return pairs->aa > 0 && pairs->bb > 0 ? pairs->dot / sqrt(pairs->aa * pairs->bb) : 0;
}
