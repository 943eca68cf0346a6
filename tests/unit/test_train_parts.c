// The parts of training that need no passes: the optimiser against the rule written out, the gradient by an expert's values against
// differences, random numbers, checkpoints and what is wrong with damaged ones.
#include "support/tiny_runtime.h"
#include "adapt/random.h"
#include "train/checkpoint.h"
#include "train/optimiser.h"
#include "train/parameters.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/train-parts.gguf", factored_path[] = TEST_OUTPUT "/train-parts-factored.gguf";
static zs_device *device;

// ---- the optimiser -------------------------------------------------------------------------------------------------

enum { DIMENSIONS = 5, STEPS = 40 };

/// Slope of ½ Σ h (x − at)², curvatures from 0.1 to 10.
static double slope_of(double x, int i) { return pow(10, i / 2.0 - 1) * (x - (0.5 + 0.25 * i)); }

/// Loshchilov and Hutter's algorithm 2, in double.
static void expect_steps(const optimiser_params *p, double *x, double *norms) {
    double m[DIMENSIONS] = {0}, v[DIMENSIONS] = {0}, g[DIMENSIONS];
    for (int t = 1; t <= STEPS; t++) {
        double squares = 0;
        for (int i = 0; i < DIMENSIONS; i++) {
            g[i] = slope_of(x[i], i);
            squares += g[i] * g[i];
        }
        norms[t - 1] = sqrt(squares);
        double rate = p->constant ? p->rate : p->rate * (1 + cos(acos(-1) * (t - 1) / STEPS)) / 2;
        for (int i = 0; i < DIMENSIONS; i++) {
            if (p->clip > 0 && norms[t - 1] > p->clip) g[i] *= p->clip / norms[t - 1];
            m[i] = p->beta1 * m[i] + (1 - p->beta1) * g[i];
            v[i] = p->beta2 * v[i] + (1 - p->beta2) * g[i] * g[i];
            double mean = m[i] / (1 - pow(p->beta1, t)), square = v[i] / (1 - pow(p->beta2, t));
            x[i] -= rate * (mean / (sqrt(square) + p->epsilon) + p->decay * (x[i] - 1));
        }
    }
}

static void test_optimiser(void **state) {
    (void)state;
    const optimiser_params cases[] = {
        {.rate = 0.05, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .steps = STEPS},
        {.rate = 0.05, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .steps = STEPS, .constant = true, .decay = 0.5},
        {.rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .steps = STEPS, .clip = 0.3, .decay = 0.1},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        optimiser o;
        zs_error error;
        double expected[DIMENSIONS] = {1, 1, 1, 1, 1}, norms[STEPS];
        float x[DIMENSIONS] = {1, 1, 1, 1, 1}, g[DIMENSIONS];
        const float centres[DIMENSIONS] = {1, 1, 1, 1, 1};
        expect_steps(&cases[c], expected, norms);
        tiny_need(optimiser_create(&cases[c], DIMENSIONS, &o, &error), &error);
        for (uint32_t t = 0; t < STEPS; t++) {
            for (int i = 0; i < DIMENSIONS; i++) g[i] = (float)slope_of((double)x[i], i);
            double norm = optimiser_step(&o, t, g, cases[c].decay > 0 ? centres : NULL, x);
            // Forty roundings of values near 1 to f32, which a curvature of 10 makes ten times as large in the slope.
            assert_true(fabs(norm - norms[t]) <= 1e-4 * (1 + norms[t]));
        }
        for (int i = 0; i < DIMENSIONS; i++) assert_true(fabs((double)x[i] - expected[i]) <= 1e-5);
        optimiser_destroy(&o);
    }
    assert_true(optimiser_rate(&cases[0], 0) == 0.05);
    assert_true(optimiser_rate(&cases[0], STEPS) < 1e-12);
    assert_true(optimiser_rate(&cases[1], STEPS) == 0.05);
}

static void test_minimum(void **state) {
    (void)state;
    optimiser o;
    zs_error error;
    float x[DIMENSIONS] = {0}, g[DIMENSIONS];
    const optimiser_params p = {.rate = 0.1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .steps = 500};
    tiny_need(optimiser_create(&p, DIMENSIONS, &o, &error), &error);
    for (uint32_t t = 0; t < p.steps; t++) {
        for (int i = 0; i < DIMENSIONS; i++) g[i] = (float)slope_of((double)x[i], i);
        optimiser_step(&o, t, g, NULL, x);
    }
    for (int i = 0; i < DIMENSIONS; i++) assert_true(fabs((double)x[i] - (0.5 + 0.25 * i)) < 1e-3);
    optimiser_destroy(&o);
}

// ---- parameters ----------------------------------------------------------------------------------------------------

/// z of every matrix under values, laid out as a row of scales.
static void fill_z(const parameters *p, const float *values, double *z) {
    zs_expert *expert = NULL;
    zs_error error;
    float *row = malloc(p->model->scale_count * sizeof *row);
    assert_non_null(row);
    tiny_need(parameters_expert(p, values, &(parameters_texts){.name = "test"}, &expert, &error), &error);
    tiny_need(expert_fill_scales(expert, p->model, false, row, &error), &error);
    for (uint32_t i = 0; i < p->matrix_count; i++) {
        const model_weight *w = p->matrices[i].weight;
        for (uint32_t r = 0; r < w->rank; r++) z[w->scale_offset + r] = (double)row[w->scale_offset + r] / (double)w->sigma[r];
    }
    zs_expert_destroy(&expert);
    free(row);
}

static const parameters_form forms[] = {
    {.sigmoid = false},
    {.sigmoid = false, .trace = true},
    {.sigmoid = true, .max_mult = 2},
    {.sigmoid = true, .max_mult = 1, .trace = true, .seed = 5},
    {.sigmoid = true, .max_mult = 3, .trace = true, .matrices = ZS_MATRICES_MLP},
};

/// d Σ c ⊙ z / d values, one value of each matrix after another. Central differences of h = 1/64 err by h² / 6 of the third
/// derivative, below 1e-4 here, and f32 scales by 2⁻²⁴ / h = 4e-6.
static void test_gradient(void **state) {
    (void)state;
    zs_error error;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    zs_model *model = tiny_load(device, factored_path);
    double *z = calloc(model->scale_count, sizeof *z);
    float *c = calloc(model->scale_count, sizeof *c);
    assert_non_null(z);
    assert_non_null(c);
    for (uint32_t i = 0; i < model->scale_count; i++) c[i] = (float)random_normal(1, i);
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        parameters p;
        tiny_need(parameters_create(model, &forms[f], &p, &error), &error);
        assert_int_equal(p.matrix_count, TINY_LAYERS * (forms[f].matrices == ZS_MATRICES_MLP ? 3 : 7));
        for (size_t i = 0; i < p.count; i++) p.values[i] += 0.3f * (float)random_normal(2, i);
        float *gradient = malloc(p.count * sizeof *gradient);
        assert_non_null(gradient);
        parameters_gradient(&p, c, gradient);
        for (uint32_t i = 0; i < p.matrix_count; i++) {
            const float h = 1.0f / 64;
            size_t at = p.matrices[i].offset + (i * 7) % p.matrices[i].weight->rank;
            float kept = p.values[at];
            double ends[2];
            for (int side = 0; side < 2; side++) {
                p.values[at] = side ? kept + h : kept - h;
                fill_z(&p, p.values, z);
                ends[side] = 0;
                for (uint32_t k = 0; k < model->scale_count; k++) ends[side] += (double)c[k] * z[k];
            }
            p.values[at] = kept;
            double expected = (ends[1] - ends[0]) / (2 * (double)h);
            if (!(fabs(expected - (double)gradient[at]) <= 3e-4 * (1 + fabs(expected))))
                fail_msg("form %zu, matrix %u: %g, by differences %g", f, i, (double)gradient[at], expected);
        }
        free(gradient);
        parameters_destroy(&p);
    }
    free(z);
    free(c);
    zs_model_destroy(&model);
}

/// At the centres z is 1; a decay that only pulls there arrives.
static void test_centres(void **state) {
    (void)state;
    zs_error error;
    zs_model *model = tiny_load(device, factored_path);
    double *z = calloc(model->scale_count, sizeof *z);
    assert_non_null(z);
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        parameters p;
        tiny_need(parameters_create(model, &forms[f], &p, &error), &error);
        for (size_t i = 0; i < p.count; i++) p.values[i] += 0.3f * (float)random_normal(3, i);
        float *centres = malloc(p.count * sizeof *centres);
        assert_non_null(centres);
        parameters_centres(&p, centres);
        fill_z(&p, centres, z);
        for (uint32_t i = 0; i < p.matrix_count; i++) {
            const model_weight *w = p.matrices[i].weight;
            for (uint32_t r = 0; r < w->rank; r++) assert_true(fabs(z[w->scale_offset + r] - 1) < 1e-5);
        }
        free(centres);
        parameters_destroy(&p);
    }
    parameters p;
    assert_int_equal(parameters_create(model, &(parameters_form){.sigmoid = true, .max_mult = 1}, &p, &error), ZS_ERROR_ARGUMENT);
    free(z);
    zs_model_destroy(&model);
}

/// Where training starts: z = 1, or within the spread of the authors' first p.
static void test_start(void **state) {
    (void)state;
    zs_error error;
    zs_model *model = tiny_load(device, factored_path);
    double *z = calloc(model->scale_count, sizeof *z);
    assert_non_null(z);
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        parameters p;
        tiny_need(parameters_create(model, &forms[f], &p, &error), &error);
        fill_z(&p, p.values, z);
        double most = forms[f].sigmoid && forms[f].trace ? 0.05 : 1e-6; // of 6e2 numbers of deviation 0.01 · (1 − 0.525)
        for (uint32_t i = 0; i < p.matrix_count; i++) {
            const model_weight *w = p.matrices[i].weight;
            for (uint32_t r = 0; r < w->rank; r++) assert_true(fabs(z[w->scale_offset + r] - 1) < most);
        }
        parameters_destroy(&p);
    }
    free(z);
    zs_model_destroy(&model);
}

static void test_random(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    size_t a[COUNT], b[COUNT];
    bool seen[COUNT] = {false};
    double sum = 0, squares = 0;
    random_order(1, 0, a, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_false(seen[a[i]]);
        seen[a[i]] = true;
    }
    random_order(1, 0, b, COUNT);
    assert_memory_equal(a, b, sizeof a);
    random_order(1, 1, b, COUNT);
    assert_memory_not_equal(a, b, sizeof a);
    random_order(2, 0, b, COUNT);
    assert_memory_not_equal(a, b, sizeof a);
    for (uint64_t i = 0; i < 10000; i++) {
        double x = random_normal(7, i);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / 1e4) < 0.05); // five standard errors
    assert_true(fabs(squares / 1e4 - 1) < 0.07);
}

// ---- checkpoints ---------------------------------------------------------------------------------------------------

enum { VALUES = 3 };

typedef struct kept {
    float values[VALUES], best[VALUES], mean[VALUES], square[VALUES];
    checkpoint state;
} kept;

static void open_kept(kept *k) {
    k->state = (checkpoint){.values = k->values, .best = k->best, .mean = k->mean, .square = k->square, .count = VALUES};
}

static void test_checkpoint(void **state) {
    (void)state;
    const char path[] = TEST_OUTPUT "/train-parts.checkpoint";
    zs_error error;
    kept a = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 1e-30f}, {0}}, b = {0};
    setting_list settings = {0}, other;
    open_kept(&a);
    open_kept(&b);
    a.state.step = 12;
    a.state.evaluated = 11;
    a.state.best_valid = -1.0 / 3;
    a.state.tokens = 1ull << 40;
    setting_add(&settings, "batch", 8);
    setting_add_bits(&settings, "seed", UINT64_MAX);
    tiny_need(checkpoint_save(path, &a.state, &settings, &error), &error);
    tiny_need(checkpoint_save(path, &a.state, &settings, &error), &error); // over the old one
    tiny_need(checkpoint_load(path, &settings, &b.state, &error), &error);
    assert_memory_equal(a.values, b.values, sizeof a - sizeof a.state);
    assert_int_equal(b.state.step, 12);
    assert_int_equal(b.state.evaluated, 11);
    assert_true(b.state.best_valid == a.state.best_valid);
    assert_true(b.state.tokens == a.state.tokens);
    other = settings;
    snprintf(other.items[0].value, sizeof other.items[0].value, "9");
    assert_int_equal(checkpoint_load(path, &other, &b.state, &error), ZS_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "batch was 8 and is 9 now"));
    other = settings;
    setting_add_text(&other, "schedule", "cosine"); // one that an older checkpoint lacks
    assert_int_equal(checkpoint_load(path, &other, &b.state, &error), ZS_ERROR_MISMATCH);
    assert_int_equal(checkpoint_save("/no such folder/x", &a.state, &settings, &error), ZS_ERROR_IO);
}

/// A disk that is full in the middle of it leaves the checkpoint before.
static void test_full_disk(void **state) {
    (void)state;
    const char path[] = TEST_OUTPUT "/train-parts-full.checkpoint";
    zs_error error;
    kept a = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {1, 1, 1}, {0}}, b = {0};
    struct rlimit room, little;
    open_kept(&a);
    open_kept(&b);
    tiny_need(checkpoint_save(path, &a.state, &(setting_list){0}, &error), &error);
    a.values[0] = 5;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &room), 0);
    little = (struct rlimit){100, room.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    zs_status status = checkpoint_save(path, &a.state, &(setting_list){0}, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &room), 0);
    assert_int_equal(status, ZS_ERROR_IO);
    tiny_need(checkpoint_load(path, &(setting_list){0}, &b.state, &error), &error);
    assert_true(b.values[0] == 1);
}

/// What a writer of its own makes of a checkpoint with one thing wrong.
static void test_damaged(void **state) {
    (void)state;
    const char path[] = TEST_OUTPUT "/train-parts-damaged.checkpoint";
    static const char *const keys[] = {"format",    "version", "step",        "best_step", "worse",
                                       "evaluated", "tokens",  "first_valid", "best_valid"};
    static const char *const sound[] = {"zsigma-checkpoint", "1", "3", "2", "0", "4", "5", "-1.5", "-1"};
    static const char *const names[] = {"values", "best", "mean", "square"};
    static const struct {
        const char *key, *value; // NULL: it is left out
        const char *tensor;
        uint64_t count; // of that tensor
        bool nan;
    } cases[] = {
        {0},
        {"format", NULL, 0, 0, 0},
        {"format", "zsigma-expert", 0, 0, 0},
        {"version", "2", 0, 0, 0},
        {"step", "-1", 0, 0, 0},
        {"step", "1.5", 0, 0, 0},
        {"step", "4294967296", 0, 0, 0},
        {"step", "x", 0, 0, 0},
        {"step", NULL, 0, 0, 0},
        {"evaluated", "nan", 0, 0, 0},
        {"tokens", "1e17", 0, 0, 0},
        {"best_valid", "inf", 0, 0, 0},
        {"best_valid", "", 0, 0, 0},
        {0, 0, "mean", VALUES - 1, 0},
        {0, 0, "values", VALUES + 1, 0},
        {0, 0, "square", VALUES, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        float data[VALUES + 1] = {1, 2, 3, 4}, broken[VALUES + 1] = {1, NAN, 3, 4};
        safetensors_entry entries[4];
        safetensors_meta meta[9];
        size_t metas = 0;
        zs_error error;
        kept k = {0};
        for (size_t i = 0; i < 4; i++) {
            bool hit = cases[c].tensor && strcmp(cases[c].tensor, names[i]) == 0;
            entries[i] = (safetensors_entry){
                .name = names[i], .dims = 1, .shape = {hit ? cases[c].count : VALUES}, .data = hit && cases[c].nan ? broken : data};
        }
        for (size_t i = 0; i < 9; i++) {
            bool hit = cases[c].key && strcmp(cases[c].key, keys[i]) == 0;
            const char *value = hit ? cases[c].value : sound[i];
            if (value) meta[metas++] = (safetensors_meta){(char *)(uintptr_t)keys[i], (char *)(uintptr_t)value};
        }
        tiny_need(safetensors_save(path, true, entries, 4, meta, metas, &error), &error);
        open_kept(&k);
        zs_status status = checkpoint_load(path, &(setting_list){0}, &k.state, &error);
        if ((status == ZS_OK) != (c == 0)) fail_msg("case %zu: status %d", c, status);
        if (status && !strstr(error.message, path)) fail_msg("case %zu does not name the file: %s", c, error.message);
    }
}

static int setup(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    return 0;
}

static int teardown(void **state) {
    (void)state;
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_optimiser),  cmocka_unit_test(test_minimum), cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_centres),    cmocka_unit_test(test_start),   cmocka_unit_test(test_random),
        cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_damaged), cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
