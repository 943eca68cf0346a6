/// What can be said from so many right answers.
#ifndef TOOLS_STATISTICS_H
#define TOOLS_STATISTICS_H

#include <stddef.h>

/// Wilson's interval of a share at 95 %: right of count (right need not be whole). [0, 1] of nothing.
void statistics_wilson(double right, size_t count, double *low, double *high);
/// McNemar's exact test, two-sided: the probability of a split as uneven as `better` to `worse`, or more, by chance.
double statistics_mcnemar(size_t better, size_t worse);

#endif
