#include "statistics.h"

#include <math.h>

void statistics_wilson(double right, size_t count, double *low, double *high) {
    static const double z = 1.959963984540054;
    *low = 0;
    *high = 1;
    if (count == 0) return;
    double n = (double)count, p = right / n, spread = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)), scale = 1 + z * z / n;
    *low = fmax(0, (p + z * z / (2 * n) - spread) / scale);
    *high = fmin(1, (p + z * z / (2 * n) + spread) / scale);
}

double statistics_mcnemar(size_t better, size_t worse) {
    size_t n = better + worse, fewer = better < worse ? better : worse;
    double tail = 0;
    // Σ C(n, k) / 2ⁿ for k up to the smaller of both
    for (size_t k = 0; k <= fewer; k++)
        tail += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) - (double)n * log(2));
    return fmin(1, 2 * tail);
}
