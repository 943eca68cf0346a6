// Intervals and tests, against values worked out elsewhere (statsmodels' proportion_confint, R's binom.test).
#include "tools/statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_wilson(void **state) {
    (void)state;
    static const struct {
        double right;
        size_t count;
        double low, high;
    } cases[] = {{0, 0, 0, 1}, {0, 10, 0, 0.277533}, {10, 10, 0.722467, 1}, {3, 5, 0.230724, 0.882379}, {50, 100, 0.403832, 0.596168}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double low, high;
        statistics_wilson(cases[i].right, cases[i].count, &low, &high);
        assert_true(fabs(low - cases[i].low) < 1e-6);
        assert_true(fabs(high - cases[i].high) < 1e-6);
    }
}

static void test_mcnemar(void **state) {
    (void)state;
    assert_true(statistics_mcnemar(0, 0) == 1);
    assert_true(fabs(statistics_mcnemar(8, 0) - 2.0 / 256) < 1e-12);
    assert_true(fabs(statistics_mcnemar(0, 8) - 2.0 / 256) < 1e-12);
    assert_true(fabs(statistics_mcnemar(5, 1) - 2 * 7.0 / 64) < 1e-12);
    assert_true(statistics_mcnemar(3, 3) == 1);
    assert_true(statistics_mcnemar(500, 300) < 1e-11 && statistics_mcnemar(500, 300) > 1e-13);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wilson), cmocka_unit_test(test_mcnemar)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
