/// The sketch of a matrix: eight numbers that tell which base model it belongs to, stable under quantisation.
#ifndef LOADER_SKETCH_H
#define LOADER_SKETCH_H

#include <stddef.h>
#include <stdint.h>

/// t_k = Σ_ij s(2k, i) W_ij s(2k+1, j) / √(out·in), k = 0…7; W [out, in] row-major (DESIGN.md §4).
void sketch_matrix(const float *w, size_t out, size_t in, float sketch[8]);

/// Two sets of sketches held against each other, pair by pair; begins as zero.
typedef struct sketch_pairs {
    double dot, aa, bb;
    size_t count;
} sketch_pairs;

void sketch_pairs_add(sketch_pairs *pairs, const float a[8], const float b[8]);
/// Cosine between the two sets; 0 when one is all zero.
double sketch_pairs_cosine(const sketch_pairs *pairs);

#endif
