/// Rounding U and Vᵀ to their storage types so that the two errors cancel instead of adding up. What rounding the square factor
/// ([r, r], orthogonal) costs can be made up for by the other one before that is rounded, since W = (W V Σ⁻¹) Σ Vᵀ for any
/// invertible V. After that each factor in turn moves to the grid point nearest to what fits the other best; as the other's columns
/// are orthogonal, that is the best point there is, and no turn makes the error larger.
#ifndef ZS_FACTOR_REFINE_H
#define ZS_FACTOR_REFINE_H

#include "factor/svd.h"

/// E[out, in] = W − U diag(σ) Vᵀ, σ as the floats that are stored. scratch: [out, r].
void refine_residual(const svd *s, const float *w, double *scratch, double *e);

/// U += E V Σ⁻¹: to first order the U that fits Vᵀ as it was rounded. A column is left alone where that would be more than a small
/// change (σ near 0). scratch: [out, r].
void refine_u(svd *s, const double *e, double *scratch);
/// Vᵀ += Σ⁻¹ Uᵀ E, likewise. scratch: [r, in].
void refine_vt(svd *s, const double *e, double *scratch);

#endif
