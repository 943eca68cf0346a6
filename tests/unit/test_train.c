// The gradient by z against differences of the plain double-precision decoder, for every kind of weights, one sequence and several,
// in one pass and in many; and what it refuses. `test_train matrix` looks at the way back on matrix units instead.
#include "adapt/expert.h"
#include "loader/tensor_type.h"
#include "support/gpu_kernels.h"
#include "support/reference_model.h"
#include "support/tiny_runtime.h"
#include "train/gradient.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/train.gguf", factored_path[] = TEST_OUTPUT "/train-factored.gguf";
static zs_device *device;

enum { VOCAB = TINY_VOCAB, MOST_ITEMS = 60 };

/// Steps of z for central differences. Their error, h² / 6 of the third derivative over the first, is about 1e-5 here.
static const float step = 1.0f / 256;
/// |gradient − difference| relative to the matrix's gradient: that, and f32 sums of 96 products through 17 stages there and back.
static const double bound = 2e-4;

typedef struct subject {
    zs_model *model;
    zs_gradient *gradient;
    reference_model *reference;
    expert_file expert;
    zs_gradient_item items[MOST_ITEMS];
    uint32_t ids[MOST_ITEMS][TINY_CONTEXT];
    size_t count;
    zs_kl kl;
} subject;

static void set_expert(subject *s) {
    zs_error error;
    zs_expert *expert = NULL;
    tiny_need(expert_file_save(TEST_OUTPUT "/train.safetensors", true, &s->expert, &error), &error);
    tiny_need(zs_expert_load(TEST_OUTPUT "/train.safetensors", &expert, &error), &error);
    zs_status status = zs_gradient_set_expert(s->gradient, expert, false, &error);
    zs_expert_destroy(&expert);
    tiny_need(status, &error);
}

/// Some z are 0: there the gradient is no quotient of anything.
static void open_subject(subject *s, const tiny_expert_params *expert, zs_gradient_params params) {
    zs_error error;
    *s = (subject){.model = tiny_load(device, factored_path), .reference = reference_model_open(factored_path)};
    tiny_expert_make(expert, &s->expert);
    for (size_t i = 0; i < s->expert.matrix_count; i++) s->expert.matrices[i].values[3] = 0;
    s->kl = params.kl;
    tiny_need(zs_gradient_create(s->model, &params, &s->gradient, &error), &error);
    set_expert(s);
}

static void close_subject(subject *s) {
    expert_file_free(&s->expert);
    reference_model_close(&s->reference);
    zs_gradient_destroy(&s->gradient);
    zs_model_destroy(&s->model);
}

static void add_item(subject *s, uint32_t prompt, uint32_t answer, float weight, float *logprobs) {
    uint32_t *ids = s->ids[s->count];
    tiny_ids(ids, prompt + answer, 100 + s->count);
    s->items[s->count++] = (zs_gradient_item){
        .prompt = ids, .prompt_count = prompt, .answer = ids + prompt, .answer_count = answer, .weight = weight, .logprobs = logprobs};
}

/// One whose first `common` tokens are item `other`'s.
static void add_item_like(subject *s, size_t other, uint32_t common, uint32_t prompt, uint32_t answer, float weight, float *logprobs) {
    add_item(s, prompt, answer, weight, logprobs);
    memcpy(s->ids[s->count - 1], s->ids[other], common * sizeof **s->ids);
}

/// A pass over long items that share more than the subject's do: what it leaves in tables means nothing to the next one.
static void run_before(subject *s) {
    enum { LONG = 120 };
    static uint32_t ids[MOST_ITEMS][LONG];
    zs_gradient_item items[MOST_ITEMS];
    zs_error error;
    for (uint32_t i = 0; i < MOST_ITEMS; i++) {
        tiny_ids(ids[i], LONG, 100); // as the subject's first item begins
        ids[i][LONG - 1] = i;
        items[i] =
            (zs_gradient_item){.prompt = ids[i], .prompt_count = LONG - 1, .answer = ids[i] + LONG - 1, .answer_count = 1, .weight = 1};
    }
    tiny_need(zs_gradient_add(s->gradient, items, MOST_ITEMS, &error), &error);
}

static void run(subject *s) {
    zs_error error;
    zs_gradient_clear(s->gradient);
    tiny_need(zs_gradient_add(s->gradient, s->items, s->count, &error), &error);
}

// ---- differences ---------------------------------------------------------------------------------------------------

/// Σ weight · log π(answer | prompt) under the subject's expert, by the reference.
static double objective(const subject *s) {
    static double logprobs[TINY_CONTEXT * VOCAB];
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        const zs_gradient_item *item = &s->items[i];
        uint32_t total = (uint32_t)(item->prompt_count + item->answer_count);
        reference_model_run(s->reference, &s->expert, s->ids[i], total, logprobs);
        for (size_t t = item->prompt_count; t < total; t++) sum += (double)item->weight * logprobs[(t - 1) * VOCAB + s->ids[i][t]];
    }
    return sum;
}

/// Σ kl_weight · KL at the answers' positions, between the subject's expert and the base model, by the reference.
static double divergence(const subject *s, bool reverse, float *each) {
    static double policy[TINY_CONTEXT * VOCAB], base[TINY_CONTEXT * VOCAB];
    expert_file none = {0};
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        const zs_gradient_item *item = &s->items[i];
        uint32_t total = (uint32_t)(item->prompt_count + item->answer_count);
        reference_model_run(s->reference, &s->expert, s->ids[i], total, policy);
        reference_model_run(s->reference, &none, s->ids[i], total, base);
        for (size_t t = item->prompt_count; t < total; t++) {
            double kl = 0;
            for (uint32_t v = 0; v < VOCAB; v++) {
                double p = policy[(t - 1) * VOCAB + v], q = base[(t - 1) * VOCAB + v];
                kl += reverse ? exp(q) * (q - p) : exp(p) * (p - q);
            }
            sum += (double)item->kl_weight * kl;
            if (each) *each++ = (float)kl;
        }
    }
    return sum;
}

/// The objective's derivative when the values of matrix m move along a direction.
static double difference(subject *s, expert_matrix *m, const float *direction) {
    float *kept = malloc(m->rank * sizeof *kept);
    double ends[2];
    assert_non_null(kept);
    memcpy(kept, m->values, m->rank * sizeof *kept);
    for (int side = 0; side < 2; side++) {
        for (uint32_t r = 0; r < m->rank; r++) m->values[r] = kept[r] + (side ? step : -step) * direction[r];
        ends[side] = objective(s) - (s->kl ? divergence(s, s->kl == ZS_KL_BASE_POLICY, NULL) : 0);
    }
    memcpy(m->values, kept, m->rank * sizeof *kept);
    free(kept);
    return (ends[1] - ends[0]) / (2 * (double)step);
}

static expert_matrix *find_matrix(subject *s, const char *name) {
    for (size_t i = 0; i < s->expert.matrix_count; i++) {
        if (strcmp(s->expert.matrices[i].name, name) == 0) return &s->expert.matrices[i];
    }
    return NULL;
}

static double norm_of(const float *values, uint32_t count) {
    double squares = 0;
    for (uint32_t r = 0; r < count; r++) squares += (double)values[r] * (double)values[r];
    return sqrt(squares);
}

/// Every matrix of the gradient: value by value, or along the gradient's own signs, a direction in which all of it counts.
static void check_gradient(subject *s, bool every_value, uint32_t matrices) {
    const char *name;
    uint32_t rank, seen = 0;
    const float *values;
    for (; zs_gradient_matrix(s->gradient, seen, &name, &rank, &values); seen++) {
        expert_matrix *m = find_matrix(s, name);
        assert_non_null(m);
        assert_int_equal(m->rank, rank);
        double norm = norm_of(values, rank), errors = 0;
        assert_true(norm > 0);
        float direction[TINY_FFN] = {0};
        for (uint32_t r = 0; every_value && r < rank; r++) {
            direction[r] = 1;
            double error = difference(s, m, direction) - (double)values[r];
            errors += error * error;
            direction[r] = 0;
        }
        if (!every_value) {
            double along = 0;
            for (uint32_t r = 0; r < rank; r++) {
                direction[r] = values[r] < 0 ? -0.25f : 0.25f;
                along += (double)direction[r] * (double)values[r];
            }
            errors = pow(difference(s, m, direction) - along, 2);
        }
        if (!(sqrt(errors) <= bound * norm)) fail_msg("%s: off by %g of %g", name, sqrt(errors), norm);
    }
    assert_int_equal(seen, matrices);
}

/// The gradient of all items at once, as it stands, is that of passes over one each.
static void check_apart(subject *s) {
    enum { RANKS = TINY_LAYERS * (5 * TINY_HIDDEN + 2 * TINY_KV_HEADS * TINY_HEAD_DIM) };
    static float together[RANKS], apart[RANKS];
    zs_error error;
    const char *name;
    uint32_t rank, used = 0;
    const float *values;
    for (uint32_t i = 0; zs_gradient_matrix(s->gradient, i, &name, &rank, &values); used += rank, i++)
        memcpy(together + used, values, rank * sizeof *values);
    assert_int_equal(used, RANKS);
    zs_gradient_destroy(&s->gradient);
    const zs_gradient_params params = {.max_rows = 100, .max_kept_bytes = 1};
    tiny_need(zs_gradient_create(s->model, &params, &s->gradient, &error), &error);
    assert_int_equal(zs_gradient_max_rows(s->gradient), 100);
    assert_int_equal(zs_gradient_kept_layers(s->gradient), 0);
    set_expert(s);
    for (size_t i = 0; i < s->count; i++) tiny_need(zs_gradient_add(s->gradient, &s->items[i], 1, &error), &error);
    used = 0;
    for (uint32_t i = 0; zs_gradient_matrix(s->gradient, i, &name, &rank, &values); used += rank, i++) {
        memcpy(apart + used, values, rank * sizeof *values);
        double norm = norm_of(together + used, rank);
        for (uint32_t r = 0; r < rank; r++) apart[used + r] -= together[used + r];
        if (!(norm_of(apart + used, rank) <= 1e-5 * norm))
            fail_msg("%s: apart and together differ by %g of %g", name, norm_of(apart + used, rank), norm);
    }
}

static bool count_pass(void *user, const char *what, double done, double total) {
    (void)what;
    (void)total;
    if (done > 0) ++*(uint32_t *)user;
    return true;
}

// ---- tests ---------------------------------------------------------------------------------------------------------

static void test_every_value(void **state) {
    (void)state;
    subject s;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    open_subject(&s, &(tiny_expert_params){.seed = 1}, (zs_gradient_params){0});
    assert_int_equal(zs_gradient_kept_layers(s.gradient), TINY_LAYERS);
    add_item(&s, 5, 4, 1, NULL);
    run(&s);
    check_gradient(&s, true, TINY_LAYERS * 7);
    close_subject(&s);
}

/// Memory for the activations of no layer and of the last one: the others' are computed again.
static void test_kept_layers(void **state) {
    (void)state;
    zs_error error;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    for (uint32_t layers = 0; layers < 2; layers++) {
        subject s;
        uint64_t bytes = 1; // of a power of two, the first that holds any holds one
        open_subject(&s, &(tiny_expert_params){.seed = 1}, (zs_gradient_params){.max_kept_bytes = bytes});
        while (zs_gradient_kept_layers(s.gradient) < layers) {
            zs_gradient_destroy(&s.gradient);
            tiny_need(zs_gradient_create(s.model, &(zs_gradient_params){.max_kept_bytes = bytes *= 2}, &s.gradient, &error), &error);
        }
        assert_int_equal(zs_gradient_kept_layers(s.gradient), layers);
        set_expert(&s);
        add_item(&s, 25, 20, 1, NULL);
        add_item(&s, 5, 4, -1, NULL);
        run(&s);
        check_gradient(&s, false, TINY_LAYERS * 7);
        close_subject(&s);
    }
}

static void test_types(void **state) {
    (void)state;
    static const struct {
        uint32_t weight_type;
        zs_factor_type factors;
        uint32_t matrices;
        bool untied;
    } cases[] = {
        {TENSOR_F32, ZS_FACTOR_F16, ZS_MATRICES_ALL, true},        {TENSOR_F32, ZS_FACTOR_Q8_0, ZS_MATRICES_ALL, false},
        {TENSOR_F16, ZS_FACTOR_F32, ZS_MATRICES_MLP, false},       {TENSOR_Q8_0, ZS_FACTOR_F16, ZS_MATRICES_MLP, true},
        {TENSOR_Q4_0, ZS_FACTOR_F16, ZS_MATRICES_ATTENTION, true}, {TENSOR_BF16, ZS_FACTOR_F32, ZS_MATRICES_ATTENTION, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        subject s;
        zs_error error;
        tiny_files(&(tiny_model_params){.weight_type = cases[i].weight_type, .untied = cases[i].untied, .seed = i}, dense_path, 0, NULL);
        tiny_need(zs_factor_file(dense_path, factored_path,
                                 &(zs_factor_params){.type = cases[i].factors, .matrices = cases[i].matrices, .force = true, .threads = 1},
                                 NULL, &error),
                  &error);
        bool mlp = cases[i].matrices == ZS_MATRICES_MLP, attention = cases[i].matrices == ZS_MATRICES_ATTENTION;
        tiny_expert_params expert = {.seed = i + 1, .mlp_only = mlp};
        const zs_gradient_params params = {.max_kept_bytes = i % 2}; // none in every second case, all in the others
        if (attention) { // an expert for matrices that the model has as they are would be refused
            s = (subject){.model = tiny_load(device, factored_path), .reference = reference_model_open(factored_path)};
            tiny_expert_make(&expert, &s.expert);
            size_t kept = 0;
            for (size_t k = 0; k < s.expert.matrix_count; k++) {
                expert_matrix m = s.expert.matrices[k];
                if (strstr(m.name, "self_attn")) {
                    s.expert.matrices[kept++] = m;
                } else {
                    free(m.name);
                    free(m.values);
                }
            }
            s.expert.matrix_count = kept;
            tiny_need(zs_gradient_create(s.model, &params, &s.gradient, &error), &error);
            set_expert(&s);
        } else {
            open_subject(&s, &expert, params);
        }
        add_item(&s, 9, 6, 1, NULL);
        run(&s);
        check_gradient(&s, false, TINY_LAYERS * (mlp ? 3 : attention ? 4 : 7));
        close_subject(&s);
    }
}

/// Sequences across pages and spans, of different lengths and weights: together as apart, in one pass as in several; log-probabilities
/// as the engine scores them.
static void test_sequences(void **state) {
    (void)state;
    subject s;
    zs_error error;
    float logprobs[2][64], scored[40];
    tiny_files(&(tiny_model_params){.seed = 3}, dense_path, ZS_FACTOR_F32, factored_path);
    open_subject(&s, &(tiny_expert_params){.seed = 2}, (zs_gradient_params){0});
    add_item(&s, 30, 40, 0.5f, logprobs[0]);
    add_item(&s, 1, 1, 2, NULL);
    add_item(&s, 17, 9, -1.5f, logprobs[1]);
    add_item(&s, 40, 3, 0, NULL);
    run(&s);
    check_gradient(&s, false, TINY_LAYERS * 7);

    zs_engine *engine = tiny_engine(s.model, (zs_engine_params){0});
    uint32_t id = 0;
    zs_expert *expert = NULL;
    tiny_need(zs_expert_load(TEST_OUTPUT "/train.safetensors", &expert, &error), &error);
    tiny_need(zs_engine_attach_expert(engine, expert, false, &id, &error), &error);
    tiny_score(engine, id, s.ids[0], 30, 70, scored);
    for (int i = 0; i < 40; i++) assert_true(fabsf(scored[i] - logprobs[0][i]) <= 4e-5f); // as in test_engine.c
    tiny_score(engine, id, s.ids[2], 17, 26, scored);
    for (int i = 0; i < 9; i++) assert_true(fabsf(scored[i] - logprobs[1][i]) <= 4e-5f);
    zs_expert_destroy(&expert);
    zs_engine_destroy(&engine);

    check_apart(&s);
    close_subject(&s);
}

/// Items that begin like others, also like one that begins like another, and one that is said twice: rows that share keys are computed
/// once.
static void test_shared(void **state) {
    (void)state;
    subject s;
    zs_error error;
    uint32_t passes = 0;
    float logprobs[2][20];
    const zs_gradient_params params = {.max_rows = 178, .progress = {count_pass, &passes}};
    tiny_files(&(tiny_model_params){.seed = 4}, dense_path, ZS_FACTOR_F32, factored_path);
    open_subject(&s, &(tiny_expert_params){.seed = 3}, params);
    add_item(&s, 66, 5, 1, NULL);
    add_item_like(&s, 0, 66, 66, 9, -0.5f, NULL);      // another answer to the same prompt
    add_item_like(&s, 0, 43, 90, 10, 2, logprobs[0]);  // a page alike, and 11 tokens
    add_item_like(&s, 2, 70, 75, 3, 1, NULL);          // two pages and 6 tokens alike, of which most are the one before's own
    add_item_like(&s, 2, 100, 90, 10, 1, logprobs[1]); // the same again
    add_item_like(&s, 0, 71, 20, 51, 0.25f, NULL);     // an answer that is alike
    add_item_like(&s, 0, 43, 45, 6, -1, NULL);         // ends where others go on, the last of them by its tokens
    s.ids[s.count - 1][43] = VOCAB - 1;
    run_before(&s);
    passes = 0;
    run(&s);
    // Without sharing they have 539 rows. With it 5, 9, 99, 7, 0, 51 and 7.
    assert_int_equal(passes, 1);
    assert_memory_equal(logprobs[0], logprobs[1], 10 * sizeof(float));
    check_gradient(&s, false, TINY_LAYERS * 7);
    check_apart(&s);
    tiny_need(zs_gradient_score(s.gradient, s.items, s.count, &error), &error);
    close_subject(&s);
}

/// Items that need more pages than rows, for which a pass ends: each has two rows of its own, on both sides of a page's end.
static void test_pages_run_out(void **state) {
    (void)state;
    subject s;
    uint32_t passes = 0;
    const zs_gradient_params params = {.max_rows = 152, .progress = {count_pass, &passes}};
    tiny_files(&(tiny_model_params){.seed = 4}, dense_path, ZS_FACTOR_F32, factored_path);
    open_subject(&s, &(tiny_expert_params){.seed = 3}, params);
    for (uint32_t i = 0; i < MOST_ITEMS; i++) {
        add_item_like(&s, 0, i ? 31 : 0, 32, 2, 1 - (float)(i % 5), NULL);
        s.ids[i][31] = i;
    }
    run(&s);
    assert_int_equal(passes, 2); // of 33 + 59 · 2 rows, for which there are 152 / 32 + 77 pages
    check_apart(&s);
    close_subject(&s);
}

/// Rewarded answers held to the base model, both ways; an item without weight and one without divergence too.
static void test_divergence(void **state) {
    (void)state;
    tiny_files(&(tiny_model_params){.seed = 4}, dense_path, ZS_FACTOR_F32, factored_path);
    for (int reverse = 0; reverse < 2; reverse++) {
        subject s;
        float kl[9] = {0}, expected[9] = {0};
        open_subject(&s, &(tiny_expert_params){.seed = 6, .spread = 0.3f},
                     (zs_gradient_params){.kl = reverse ? ZS_KL_BASE_POLICY : ZS_KL_POLICY_BASE});
        add_item(&s, 7, 5, 0.5f, NULL);
        add_item(&s, 3, 2, 0, NULL);
        add_item(&s, 4, 2, -1, NULL);
        for (int i = 0, at = 0; i < 3; at += (int)s.items[i++].answer_count) s.items[i].kl = kl + at;
        s.items[0].kl_weight = 2;
        s.items[1].kl_weight = 3;
        run(&s);
        divergence(&s, reverse, expected);
        // A logarithm of a probability errs by 4e-5 (test_engine.c), so a divergence of 0.1 by less than 1e-4.
        for (int i = 0; i < 9; i++) assert_true(expected[i] > 1e-3f && fabsf(kl[i] - expected[i]) <= 1e-4f);
        check_gradient(&s, false, TINY_LAYERS * 7);
        close_subject(&s);
    }
}

static bool stop(void *user, const char *what, double done, double total) {
    ++*(int *)user;
    assert_string_equal(what, "gradient");
    assert_true(done <= total);
    return false;
}

static void test_refused(void **state) {
    (void)state;
    subject s;
    zs_error error;
    int calls = 0;
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    zs_model *dense = tiny_load(device, dense_path);
    zs_gradient *none = NULL;
    assert_int_equal(zs_gradient_create(dense, NULL, &none, &error), ZS_ERROR_ARGUMENT);
    assert_null(none);
    zs_model_destroy(&dense);
    open_subject(&s, &(tiny_expert_params){.seed = 2}, (zs_gradient_params){.max_rows = 20, .progress = {stop, &calls}});
    assert_int_equal(zs_gradient_create(s.model, &(zs_gradient_params){.max_rows = 1u << 30}, &none, &error), ZS_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, "would fit"));
    add_item(&s, 12, 9, 1, NULL); // 20 rows
    zs_gradient_item item = s.items[0];
    item.answer_count = 10;
    assert_int_equal(zs_gradient_add(s.gradient, &item, 1, &error), ZS_ERROR_CONTEXT);
    item.answer_count = 0;
    assert_int_equal(zs_gradient_add(s.gradient, &item, 1, &error), ZS_ERROR_ARGUMENT);
    item = s.items[0];
    item.prompt_count = 0;
    assert_int_equal(zs_gradient_add(s.gradient, &item, 1, &error), ZS_ERROR_ARGUMENT);
    item = s.items[0];
    item.weight = NAN;
    assert_int_equal(zs_gradient_add(s.gradient, &item, 1, &error), ZS_ERROR_ARGUMENT);
    s.ids[0][20] = VOCAB;
    assert_int_equal(zs_gradient_add(s.gradient, s.items, 1, &error), ZS_ERROR_ARGUMENT);
    s.ids[0][20] = 5;
    assert_int_equal(calls, 0);
    const zs_gradient_item twice[2] = {s.items[0], s.items[0]};
    assert_int_equal(zs_gradient_add(s.gradient, twice, 2, &error), ZS_ERROR_CANCELLED);
    assert_int_equal(calls, 1);   // of two passes
    for (int i = 1; i < 3; i++) { // gate and up: finite, and so is σ z; their product is not
        for (uint32_t r = 0; r < s.expert.matrices[i].rank; r++) s.expert.matrices[i].values[r] = 1e36f;
    }
    set_expert(&s);
    assert_int_equal(zs_gradient_add(s.gradient, s.items, 1, &error), ZS_ERROR_NUMERIC);
    close_subject(&s);
}

static void test_saved(void **state) {
    (void)state;
    subject s;
    zs_error error;
    expert_file read;
    const char path[] = TEST_OUTPUT "/train-gradient.safetensors";
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    open_subject(&s, &(tiny_expert_params){.seed = 1}, (zs_gradient_params){0});
    add_item(&s, 3, 2, 1, NULL);
    run(&s);
    tiny_need(zs_gradient_save(s.gradient, path, true, &error), &error);
    assert_int_equal(zs_gradient_save(s.gradient, path, false, &error), ZS_ERROR_EXISTS);
    assert_int_not_equal(expert_file_load(path, &read, &error), ZS_OK); // a gradient does not pass for an expert
    zs_gradient_clear(s.gradient);
    const char *name;
    uint32_t rank;
    const float *values;
    assert_true(zs_gradient_matrix(s.gradient, 0, &name, &rank, &values));
    for (uint32_t r = 0; r < rank; r++) assert_true(values[r] == 0);
    close_subject(&s);
}

/// On matrix units: log-probabilities to the bit, and of every matrix the direction and the norm of the gradient within the bars that
/// golden.gradient_f16 holds (cosine 0.9999, 0.5 %).
static void test_matrix(void **state) {
    (void)state;
    static const zs_factor_type types[] = {ZS_FACTOR_F16, ZS_FACTOR_Q8_0};
    enum { ANSWER = 20 };
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        zs_error error;
        float logprobs[2][ANSWER];
        uint32_t ids[2 * ANSWER], rank;
        zs_model *model = NULL;
        zs_gradient *gradients[2] = {NULL};
        tiny_files(&(tiny_model_params){.weight_type = TENSOR_F16, .untied = true, .seed = t}, dense_path, types[t], factored_path);
        tiny_need(gpu_kernels_load(device, factored_path, NULL, &model, &error), &error);
        tiny_ids(ids, 2 * ANSWER, 7);
        for (int fast = 0; fast < 2; fast++) {
            const zs_gradient_params params = {.precision = fast ? ZS_PRECISION_FAST : ZS_PRECISION_EXACT};
            const zs_gradient_item item = {.prompt = ids,
                                           .prompt_count = ANSWER,
                                           .answer = ids + ANSWER,
                                           .answer_count = ANSWER,
                                           .weight = 1,
                                           .logprobs = logprobs[fast]};
            tiny_need(zs_gradient_create(model, &params, &gradients[fast], &error), &error);
            assert_int_equal(gradient_is_fast(gradients[fast]), fast);
            tiny_need(zs_gradient_add(gradients[fast], &item, 1, &error), &error);
        }
        assert_memory_equal(logprobs[0], logprobs[1], sizeof logprobs[0]);
        const float *exact, *fast;
        const char *name;
        uint32_t seen = 0;
        for (; zs_gradient_matrix(gradients[0], seen, &name, &rank, &exact); seen++) {
            assert_true(zs_gradient_matrix(gradients[1], seen, &name, &rank, &fast));
            double norms[2] = {norm_of(exact, rank), norm_of(fast, rank)}, product = 0;
            for (uint32_t r = 0; r < rank; r++) product += (double)exact[r] * (double)fast[r];
            if (!(product >= 0.9999 * norms[0] * norms[1] && fabs(norms[1] - norms[0]) <= 0.005 * norms[0]))
                fail_msg("%s: cosine %.6f, norms %g and %g", name, product / norms[0] / norms[1], norms[0], norms[1]);
            if (seen == 0) assert_memory_not_equal(exact, fast, rank * sizeof *exact); // the layer that all roundings reach
        }
        assert_int_equal(seen, TINY_LAYERS * 7);
        for (int fast_too = 0; fast_too < 2; fast_too++) zs_gradient_destroy(&gradients[fast_too]);
        zs_model_destroy(&model);
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

static int setup_matrix(void **state) {
    setup(state);
    gpu_kernels_use(device);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest units[] = {cmocka_unit_test(test_matrix)};
    if (argc > 1 && strcmp(argv[1], "matrix") == 0) return cmocka_run_group_tests(units, setup_matrix, teardown);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value), cmocka_unit_test(test_kept_layers), cmocka_unit_test(test_types),
        cmocka_unit_test(test_sequences),   cmocka_unit_test(test_refused),     cmocka_unit_test(test_saved),
        cmocka_unit_test(test_divergence),  cmocka_unit_test(test_shared),      cmocka_unit_test(test_pages_run_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
