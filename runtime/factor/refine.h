/// Rounding U and Vᵀ to their storage types so that the two errors cancel instead of adding up. Of the two factors one is square
/// ([r, r]) and, being orthogonal, invertible: what rounding it costs can be made up for by the other one.
#ifndef ZS_FACTOR_REFINE_H
#define ZS_FACTOR_REFINE_H

#include "factor/svd.h"

/// E[out, in] = W − U diag(σ) Vᵀ, σ as the floats that are stored. scratch: [out, r].
void refine_residual(const svd *s, const float *w, double *scratch, double *e);

/// U += E V Σ⁻¹, to first order the U that fits Vᵀ as it was rounded. Columns are left alone where that would be more than a small
/// change (σ near 0), and where σ² is above limit. scratch: [out, r].
void refine_u(svd *s, const double *e, double limit, double *scratch);
/// Vᵀ += Σ⁻¹ Uᵀ E, likewise. scratch: [r, in].
void refine_vt(svd *s, const double *e, double limit, double *scratch);
/// Mean of σ²: a factor that is rounded again gains where σ² lies below, and loses as much as it gains above.
double refine_mean_square(const svd *s);

#endif
