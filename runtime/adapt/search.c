/// The cross-entropy method over the weights of a mix (paper, section 3.2).
#include "zsigma/zsigma_lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POPULATION = 32, LEAST_POPULATION = 3, LEAST_ELITES = 2, MOST_VALUES = 1 << 24 };
static const double elite_share = 0.2, first_deviation = 0.5, least_deviation = 1e-6;

/// A sample with what it was worth.
typedef struct sample {
    double *alpha; // [size]
    zs_search_score score, held;
} sample;

struct zs_search {
    zs_search_params params; // as chosen
    size_t size;             // experts · columns
    uint32_t iterations, elites;
    double *mean, *deviation; // [size]
    sample best, chosen;      // chosen: by the held-out set
    double *population;       // [params.population, size]
    zs_search_score *scores;  // [params.population]
    uint32_t *order;          // [params.population]
};

// ---- drawing -------------------------------------------------------------------------------------------------------

static uint64_t mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u; // splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/// In (0, 1], by counter.
static double uniform(uint64_t key) { return ((double)(mix64(key) >> 11) + 1) * 0x1p-53; }

/// A normal number for one value of one member; `attempt` draws it again.
static double normal(const zs_search *s, uint32_t member, size_t value, uint32_t attempt) {
    uint64_t key = mix64(s->params.seed);
    key = mix64(key ^ s->iterations);
    key = mix64(key ^ member);
    key = mix64(key ^ value);
    key = mix64(key ^ attempt);
    return sqrt(-2 * log(uniform(key))) * cos(6.283185307179586 * uniform(key ^ 0x5851f42d4c957f2du)); // Box and Muller
}

static double clamp(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/// One column of one member: α of every expert for it. Never all zero, which would leave no model at all.
static void draw_column(const zs_search *s, uint32_t member, size_t column, double *alpha) {
    enum { ATTEMPTS = 1000 };
    size_t columns = s->params.columns;
    double total = 0;
    for (uint32_t attempt = 0; attempt < ATTEMPTS && total == 0; attempt++) {
        for (uint32_t e = 0; e < s->params.experts; e++) {
            size_t i = e * columns + column;
            alpha[i] = clamp(s->mean[i] + s->deviation[i] * normal(s, member, i, attempt));
            total += alpha[i];
        }
    }
    // Distributions that hardly reach above zero: the least that is something.
    for (uint32_t e = 0; e < s->params.experts && total == 0; e++) alpha[e * columns + column] = 1.0 / s->params.experts;
}

/// The experts by themselves, as members 1 and following of the first population, in up to half of it: of a small one no sample may come
/// near them. Returns the first member behind them.
static uint32_t draw_experts(zs_search *s) {
    uint32_t experts = s->params.experts, half = s->params.population / 2;
    if (experts == 1) return 1; // which is the mean
    if (experts > half) experts = half;
    memset(s->population + s->size, 0, experts * s->size * sizeof *s->population);
    for (uint32_t e = 0; e < experts; e++) {
        for (size_t c = 0; c < s->params.columns; c++) s->population[(1 + e) * s->size + e * s->params.columns + c] = 1;
    }
    return 1 + experts;
}

/// Member 0 is the best so far, so that it is measured together with the others.
static void draw(zs_search *s) {
    memcpy(s->population, s->iterations ? s->best.alpha : s->mean, s->size * sizeof *s->mean);
    for (uint32_t m = s->iterations ? 1 : draw_experts(s); m < s->params.population; m++) {
        for (size_t c = 0; c < s->params.columns; c++) draw_column(s, m, c, s->population + m * s->size);
    }
}

// ---- moving --------------------------------------------------------------------------------------------------------

static bool is_better(zs_search_score a, zs_search_score b) {
    return a.accuracy != b.accuracy ? a.accuracy > b.accuracy : a.logprob > b.logprob;
}

/// Members from the best on; equal ones in the order they were drawn.
static void rank(zs_search *s) {
    for (uint32_t i = 0; i < s->params.population; i++) {
        uint32_t at = i;
        for (; at > 0 && is_better(s->scores[i], s->scores[s->order[at - 1]]); at--) s->order[at] = s->order[at - 1];
        s->order[at] = i;
    }
}

static void move(zs_search *s) {
    for (size_t i = 0; i < s->size; i++) {
        double mean = 0, square = 0;
        for (uint32_t k = 0; k < s->elites; k++) mean += s->population[s->order[k] * s->size + i] / s->elites;
        for (uint32_t k = 0; k < s->elites; k++) {
            double off = s->population[s->order[k] * s->size + i] - mean;
            square += off * off;
        }
        s->mean[i] = mean;
        s->deviation[i] = sqrt(square / (s->elites - 1));
    }
}

static zs_status check_scores(const zs_search_score *scores, uint32_t count, zs_error *error) {
    for (uint32_t i = 0; i < count; i++) {
        if (!isfinite(scores[i].accuracy) || !isfinite(scores[i].logprob))
            return zs_error_set(error, ZS_ERROR_NUMERIC, "the score of member %u of the population is not a number", i);
    }
    return ZS_OK;
}

static void take(const zs_search *s, sample *to, const double *alpha, zs_search_score score, zs_search_score held) {
    memcpy(to->alpha, alpha, s->size * sizeof *alpha);
    to->score = score;
    to->held = held;
}

/// Whether another sample than before is the best: member 0 was that one.
static zs_status find_best(zs_search *s, zs_error *error) {
    uint32_t member = s->order[0];
    const double *alpha = s->population + member * s->size;
    zs_search_score held = s->best.held;
    bool changed = s->iterations == 0 || member != 0;
    zs_status status = ZS_OK;
    if (changed && s->params.held_out) {
        status = s->params.evaluate(s->params.user, alpha, 1, true, &held, error);
        if (!status) status = check_scores(&held, 1, error);
    }
    if (status) return status;
    bool first = s->iterations == 0;
    if (changed || !s->params.held_out) take(s, &s->best, alpha, s->scores[member], held);
    if (!s->params.held_out || first || (changed && is_better(held, s->chosen.held))) take(s, &s->chosen, alpha, s->scores[member], held);
    return ZS_OK;
}

zs_status zs_search_step(zs_search *s, zs_error *error) {
    draw(s);
    zs_status status = s->params.evaluate(s->params.user, s->population, s->params.population, false, s->scores, error);
    if (!status) status = check_scores(s->scores, s->params.population, error);
    if (status) return status;
    rank(s);
    status = find_best(s, error);
    if (status) return status;
    move(s);
    s->iterations++;
    return ZS_OK;
}

// ---- the object ----------------------------------------------------------------------------------------------------

zs_status zs_search_create(const zs_search_params *params, zs_search **out, zs_error *error) {
    zs_search_params p = *params;
    if (!p.columns) p.columns = 1;
    if (!p.population) p.population = POPULATION;
    if (!p.experts || !p.evaluate) return zs_error_set(error, ZS_ERROR_ARGUMENT, "a search needs experts and something that scores them");
    if (p.population < LEAST_POPULATION)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "a population of %u is too small: at least %d are needed", p.population,
                            LEAST_POPULATION);
    if ((uint64_t)p.experts * p.columns > MOST_VALUES / p.population)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%u experts, %u columns and a population of %u are too many", p.experts, p.columns,
                            p.population);
    zs_search *s = calloc(1, sizeof *s);
    if (!s) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a search");
    s->params = p;
    s->size = (size_t)p.experts * p.columns;
    s->elites = (uint32_t)(elite_share * p.population);
    if (s->elites < LEAST_ELITES) s->elites = LEAST_ELITES;
    s->mean = malloc(s->size * sizeof *s->mean);
    s->deviation = malloc(s->size * sizeof *s->deviation);
    s->best.alpha = calloc(s->size, sizeof *s->mean);
    s->chosen.alpha = calloc(s->size, sizeof *s->mean);
    s->population = malloc(p.population * s->size * sizeof *s->population);
    s->scores = calloc(p.population, sizeof *s->scores);
    s->order = calloc(p.population, sizeof *s->order);
    if (!s->mean || !s->deviation || !s->best.alpha || !s->chosen.alpha || !s->population || !s->scores || !s->order) {
        zs_search_destroy(&s);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a search");
    }
    for (size_t i = 0; i < s->size; i++) {
        s->mean[i] = 1.0 / p.experts;
        s->deviation[i] = first_deviation;
    }
    *out = s;
    return ZS_OK;
}

void zs_search_destroy(zs_search **handle) {
    zs_search *s = *handle;
    if (!s) return;
    *handle = NULL;
    free(s->mean);
    free(s->deviation);
    free(s->best.alpha);
    free(s->chosen.alpha);
    free(s->population);
    free(s->scores);
    free(s->order);
    free(s);
}

uint32_t zs_search_iterations(const zs_search *s) { return s->iterations; }

bool zs_search_has_converged(const zs_search *s) {
    for (size_t i = 0; i < s->size; i++) {
        if (s->deviation[i] > least_deviation) return false;
    }
    return true;
}

const double *zs_search_best(const zs_search *s, zs_search_score *score, zs_search_score *held) {
    if (s->iterations == 0) return NULL;
    if (score) *score = s->chosen.score;
    if (held) *held = s->chosen.held;
    return s->chosen.alpha;
}

// ---- state: iterations, the two samples' scores, then mean, deviation and the samples ------------------------------

enum { STATE_HEAD = 9 };

size_t zs_search_state_size(const zs_search *s) { return STATE_HEAD + 4 * s->size; }

void zs_search_get_state(const zs_search *s, double *state) {
    const double head[STATE_HEAD] = {s->iterations,           s->best.score.accuracy,  s->best.score.logprob,
                                     s->best.held.accuracy,   s->best.held.logprob,    s->chosen.score.accuracy,
                                     s->chosen.score.logprob, s->chosen.held.accuracy, s->chosen.held.logprob};
    const double *const parts[] = {s->mean, s->deviation, s->best.alpha, s->chosen.alpha};
    memcpy(state, head, sizeof head);
    for (size_t i = 0; i < 4; i++) memcpy(state + STATE_HEAD + i * s->size, parts[i], s->size * sizeof *state);
}

zs_status zs_search_set_state(zs_search *s, const double *state, zs_error *error) {
    for (size_t i = 0; i < zs_search_state_size(s); i++) {
        bool share = i >= STATE_HEAD; // means, deviations and α are all within [0, 1]
        if (!isfinite(state[i]) || (share && !(state[i] >= 0 && state[i] <= 1)))
            return zs_error_set(error, ZS_ERROR_FORMAT, "number %zu is none of a search's state", i);
    }
    if (!(state[0] >= 0 && state[0] <= 1e9 && state[0] == floor(state[0])))
        return zs_error_set(error, ZS_ERROR_FORMAT, "a search cannot have done %g iterations", state[0]);
    s->iterations = (uint32_t)state[0];
    s->best.score = (zs_search_score){state[1], state[2]};
    s->best.held = (zs_search_score){state[3], state[4]};
    s->chosen.score = (zs_search_score){state[5], state[6]};
    s->chosen.held = (zs_search_score){state[7], state[8]};
    double *const parts[] = {s->mean, s->deviation, s->best.alpha, s->chosen.alpha};
    for (size_t i = 0; i < 4; i++) memcpy(parts[i], state + STATE_HEAD + i * s->size, s->size * sizeof *state);
    return ZS_OK;
}
