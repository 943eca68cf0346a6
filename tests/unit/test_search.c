// The cross-entropy method: what is drawn, how it moves, that a seed gives the same again and an interruption changes nothing.
#include "zsigma/zsigma_lab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { EXPERTS = 3, MOST = 4096 };
static const double target[EXPERTS] = {0.8, 0.1, 0.4};

/// A population's scores; what was asked for is kept.
typedef struct problem {
    uint32_t columns;
    double all[MOST];
    uint32_t members, calls, held_calls, fail_at;
    bool nan, equal_accuracy, held_prefers_first;
    double first[EXPERTS];
} problem;

static zs_status evaluate(void *user, const double *alpha, uint32_t members, bool held_out, zs_search_score *scores, zs_error *error) {
    problem *p = user;
    size_t size = EXPERTS * p->columns;
    if (held_out) p->held_calls++;
    if (!held_out && ++p->calls == p->fail_at) return zs_error_set(error, ZS_ERROR_IO, "the disk is full");
    if (!held_out && p->calls == 1) memcpy(p->first, alpha, sizeof p->first);
    if (!held_out) {
        p->members = members;
        memcpy(p->all, alpha, members * size * sizeof *alpha);
    }
    for (uint32_t m = 0; m < members; m++) {
        double distance = 0;
        for (size_t i = 0; i < size; i++) {
            double off = alpha[m * size + i] - target[i / p->columns];
            distance += off * off;
        }
        if (held_out && p->held_prefers_first) distance = p->held_calls;
        scores[m] = (zs_search_score){p->equal_accuracy ? 0.5 : -distance, -distance};
        if (p->nan && m == 2) scores[m].logprob = NAN;
    }
    return ZS_OK;
}

static zs_search *open_search(problem *p, zs_search_params params) {
    zs_search *search = NULL;
    zs_error error;
    params.experts = EXPERTS;
    params.columns = p->columns;
    params.evaluate = evaluate;
    params.user = p;
    if (zs_search_create(&params, &search, &error)) fail_msg("%s", error.message);
    return search;
}

static void step(zs_search *search) {
    zs_error error;
    if (zs_search_step(search, &error)) fail_msg("%s", error.message);
}

static void test_population(void **state) {
    (void)state;
    problem p = {.columns = 1};
    zs_search *search = open_search(&p, (zs_search_params){0});
    assert_null(zs_search_best(search, NULL, NULL));
    step(search);
    assert_int_equal(p.members, 32);
    for (size_t i = 0; i < EXPERTS; i++) assert_true(p.all[i] == 1.0 / 3);                                          // member 0: the mean
    for (size_t i = 0; i < EXPERTS * EXPERTS; i++) assert_true(p.all[EXPERTS + i] == (i / EXPERTS == i % EXPERTS)); // each by itself
    double sum = 0, zeros = 0, ones = 0;
    for (uint32_t m = 1 + EXPERTS; m < 32; m++) {
        double total = 0;
        for (size_t i = 0; i < EXPERTS; i++) {
            double a = p.all[m * EXPERTS + i];
            assert_true(a >= 0 && a <= 1);
            total += a;
            sum += a;
            zeros += a == 0;
            ones += a == 1;
        }
        assert_true(total > 0);
    }
    // Of N(1/3, 0.5) a quarter lies below 0 and 9 % above 1; the mean of what is clamped is 0.39.
    assert_true(zeros > 8 && zeros < 36 && ones > 1 && ones < 18);
    assert_true(sum / 84 > 0.25 && sum / 84 < 0.5);
    double best[EXPERTS];
    memcpy(best, zs_search_best(search, NULL, NULL), sizeof best);
    step(search);
    assert_memory_equal(p.all, best, sizeof best); // member 0: the best so far
    zs_search_destroy(&search);
    assert_null(search);
    zs_search_destroy(&search);
}

/// The next mean and deviation are those of the six best, the deviation unbiased.
static void test_moves_to_the_elite(void **state) {
    (void)state;
    problem p = {.columns = 1};
    zs_search *search = open_search(&p, (zs_search_params){0});
    step(search);
    double distance[32], now[9 + 4 * EXPERTS];
    uint32_t order[32];
    for (uint32_t m = 0; m < 32; m++) {
        distance[m] = 0;
        for (size_t i = 0; i < EXPERTS; i++) distance[m] += pow(p.all[m * EXPERTS + i] - target[i], 2);
        uint32_t at = m;
        for (; at > 0 && distance[m] < distance[order[at - 1]]; at--) order[at] = order[at - 1];
        order[at] = m;
    }
    assert_int_equal(zs_search_state_size(search), 9 + 4 * EXPERTS);
    zs_search_get_state(search, now);
    for (size_t i = 0; i < EXPERTS; i++) {
        double mean = 0, square = 0;
        for (int k = 0; k < 6; k++) mean += p.all[order[k] * EXPERTS + i] / 6;
        for (int k = 0; k < 6; k++) square += pow(p.all[order[k] * EXPERTS + i] - mean, 2) / 5;
        assert_true(fabs(now[9 + i] - mean) < 1e-12);
        assert_true(fabs(now[9 + EXPERTS + i] - sqrt(square)) < 1e-12);
        assert_true(zs_search_best(search, NULL, NULL)[i] == p.all[order[0] * EXPERTS + i]);
    }
    zs_search_destroy(&search);
}

static void test_finds(void **state) {
    (void)state;
    for (uint32_t columns = 1; columns <= 7; columns += 6) {
        for (int equal = 0; equal < 2; equal++) { // by accuracy; by the log-likelihood where accuracy is equal
            problem p = {.columns = columns, .equal_accuracy = equal != 0};
            zs_search *search = open_search(&p, (zs_search_params){.seed = 5});
            zs_search_score before = {-1e9, -1e9}, score;
            for (int i = 0; i < 30; i++) {
                step(search);
                zs_search_best(search, &score, NULL);
                assert_true(score.logprob >= before.logprob); // the best is never lost
                before = score;
            }
            assert_true(score.logprob > -0.03 * columns);
            zs_search_destroy(&search);
        }
    }
}

/// Once it has converged, what is drawn is what was drawn before.
static void test_converges(void **state) {
    (void)state;
    problem p = {.columns = 1};
    zs_search *search = open_search(&p, (zs_search_params){.population = 8, .seed = 3});
    uint32_t steps = 0;
    for (; !zs_search_has_converged(search) && steps < 200; steps++) step(search);
    assert_in_range(steps, 2, 199);
    double before[EXPERTS];
    memcpy(before, zs_search_best(search, NULL, NULL), sizeof before);
    step(search);
    for (size_t m = 1; m < p.members; m++) {
        for (size_t i = 0; i < EXPERTS; i++) assert_true(fabs(p.all[m * EXPERTS + i] - p.all[EXPERTS + i]) < 1e-5);
    }
    for (size_t i = 0; i < EXPERTS; i++) assert_true(fabs(zs_search_best(search, NULL, NULL)[i] - before[i]) < 1e-5);
    zs_search_destroy(&search);
}

/// An all-zero α is never tried, in no column, not even from distributions that lie at zero.
static void test_never_all_zero(void **state) {
    (void)state;
    problem p = {.columns = 7};
    zs_search *search = open_search(&p, (zs_search_params){.seed = 1});
    double numbers[9 + 4 * EXPERTS * 7] = {1};
    for (size_t i = 0; i < EXPERTS * 7; i++) {
        numbers[9 + 2 * EXPERTS * 7 + i] = 1;
        numbers[9 + EXPERTS * 7 + i] = i % 7 == 3 ? 0 : 0.05; // column 3 can only be drawn as zeros
    }
    assert_int_equal(zs_search_set_state(search, numbers, NULL), ZS_OK);
    step(search);
    for (uint32_t m = 0; m < 32; m++) {
        for (size_t c = 0; c < 7; c++) {
            double total = 0;
            for (size_t e = 0; e < EXPERTS; e++) total += p.all[m * EXPERTS * 7 + e * 7 + c];
            assert_true(total > 0);
        }
    }
    zs_search_destroy(&search);
}

static void test_seeds_and_resuming(void **state) {
    (void)state;
    double states[3][9 + 4 * EXPERTS], middle[9 + 4 * EXPERTS];
    for (int k = 0; k < 3; k++) {
        problem p = {.columns = 1};
        zs_search *search = open_search(&p, (zs_search_params){.seed = k == 2 ? 8 : 7, .population = 8});
        for (int i = 0; i < 6; i++) {
            step(search);
            if (k == 0 && i == 2) zs_search_get_state(search, middle);
        }
        zs_search_get_state(search, states[k]);
        zs_search_destroy(&search);
    }
    assert_memory_equal(states[0], states[1], sizeof states[0]);
    assert_memory_not_equal(states[0], states[2], sizeof states[0]);
    problem p = {.columns = 1, .fail_at = 2};
    zs_search *search = open_search(&p, (zs_search_params){.seed = 7, .population = 8});
    assert_int_equal(zs_search_set_state(search, middle, NULL), ZS_OK);
    assert_int_equal(zs_search_iterations(search), 3);
    step(search);
    assert_int_equal(zs_search_step(search, NULL), ZS_ERROR_IO); // the same step again
    assert_int_equal(zs_search_iterations(search), 4);
    step(search);
    step(search);
    zs_search_get_state(search, states[1]);
    assert_memory_equal(states[0], states[1], sizeof states[0]);
    middle[9] = 1.5;
    assert_int_equal(zs_search_set_state(search, middle, NULL), ZS_ERROR_FORMAT);
    middle[9] = NAN;
    assert_int_equal(zs_search_set_state(search, middle, NULL), ZS_ERROR_FORMAT);
    middle[9] = 0.5;
    middle[0] = 1.5;
    assert_int_equal(zs_search_set_state(search, middle, NULL), ZS_ERROR_FORMAT);
    zs_search_destroy(&search);
}

/// The held-out set chooses among the bests in turn, and is only asked about new ones.
static void test_held_out(void **state) {
    (void)state;
    problem p = {.columns = 1, .held_prefers_first = true};
    zs_search *search = open_search(&p, (zs_search_params){.seed = 2, .held_out = true});
    zs_search_score score, held;
    step(search);
    double first[EXPERTS];
    memcpy(first, zs_search_best(search, NULL, &held), sizeof first);
    assert_true(held.accuracy == -1);
    for (int i = 0; i < 5; i++) step(search);
    assert_memory_equal(zs_search_best(search, &score, &held), first, sizeof first);
    assert_true(held.accuracy == -1 && p.held_calls > 1 && p.held_calls <= 6);
    zs_search_destroy(&search);
}

static void test_refused(void **state) {
    (void)state;
    zs_search *search = NULL;
    assert_int_equal(zs_search_create(&(zs_search_params){.evaluate = evaluate}, &search, NULL), ZS_ERROR_ARGUMENT);
    assert_int_equal(zs_search_create(&(zs_search_params){.experts = 1}, &search, NULL), ZS_ERROR_ARGUMENT);
    assert_int_equal(zs_search_create(&(zs_search_params){.experts = 1, .evaluate = evaluate, .population = 2}, &search, NULL),
                     ZS_ERROR_ARGUMENT);
    assert_int_equal(
        zs_search_create(&(zs_search_params){.experts = UINT32_MAX, .columns = UINT32_MAX, .evaluate = evaluate}, &search, NULL),
        ZS_ERROR_ARGUMENT);
    assert_null(search);
    problem p = {.columns = 1, .nan = true};
    search = open_search(&p, (zs_search_params){0});
    assert_int_equal(zs_search_step(search, NULL), ZS_ERROR_NUMERIC);
    assert_int_equal(zs_search_iterations(search), 0);
    zs_search_destroy(&search);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_population),     cmocka_unit_test(test_moves_to_the_elite),
        cmocka_unit_test(test_finds),          cmocka_unit_test(test_converges),
        cmocka_unit_test(test_never_all_zero), cmocka_unit_test(test_seeds_and_resuming),
        cmocka_unit_test(test_held_out),       cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
