/// The sketch of a matrix: eight numbers that tell which base model it belongs to, stable under quantisation.
#ifndef LOADER_SKETCH_H
#define LOADER_SKETCH_H

#include <stddef.h>
#include <stdint.h>

/// t_k = Σ_ij s(2k, i) W_ij s(2k+1, j) / √(out·in), k = 0…7; W [out, in] row-major (DESIGN.md §4).
void sketch_matrix(const float *w, size_t out, size_t in, float sketch[8]);
/// Cosine between two stacks of n sketches [n, 8]; 0 when one is all zero.
double sketch_cosine(const float *a, const float *b, size_t n);

#endif
