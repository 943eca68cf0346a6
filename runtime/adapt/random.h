/// Random numbers by counter: the same seed and counter give the same number, so that a resumed run draws what the first one would have.
#ifndef ADAPT_RANDOM_H
#define ADAPT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

uint64_t random_bits(uint64_t seed, uint64_t counter);
/// Of mean 0 and variance 1.
double random_normal(uint64_t seed, uint64_t counter);
/// Puts 0 … count − 1 into order[count], in the order that belongs to seed and round.
void random_order(uint64_t seed, uint64_t round, size_t *order, size_t count);

#endif
