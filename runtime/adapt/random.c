#include "adapt/random.h"

#include <math.h>

/// splitmix64's mixing of its counter.
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

uint64_t random_bits(uint64_t seed, uint64_t counter) { return mix(mix(seed + 0x9E3779B97F4A7C15u) + (counter + 1) * 0x9E3779B97F4A7C15u); }

double random_normal(uint64_t seed, uint64_t counter) { // Box and Muller
    const double tau = 6.28318530717958647693;
    double u = ((double)(random_bits(seed, 2 * counter) >> 11) + 1) / 9007199254740993.0; // 0 < u ≤ 1
    double v = (double)(random_bits(seed, 2 * counter + 1) >> 11) / 9007199254740992.0;
    return sqrt(-2 * log(u)) * cos(tau * v);
}

void random_order(uint64_t seed, uint64_t round, size_t *order, size_t count) { // Fisher and Yates
    uint64_t key = random_bits(seed, round);
    for (size_t i = 0; i < count; i++) order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t other = (size_t)(random_bits(key, i) % i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}
