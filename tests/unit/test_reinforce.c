// Reinforcement of a tiny model: it learns what is rewarded, stays by the base model when it is held there, goes on from a checkpoint bit
// for bit, and survives scorers that fail.
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/reinforce.gguf", factored_path[] = TEST_OUTPUT "/reinforce-factored.gguf",
                  checkpoint_path[] = TEST_OUTPUT "/reinforce.checkpoint";
static zs_device *device;
static zs_model *model;
static zs_engine *engine;

enum { ITEMS = 6, VALID = 10, STEPS = 16, SESSIONS = 8 };
static uint32_t ids[ITEMS + VALID][8];
static zs_train_item items[ITEMS + VALID];

typedef struct scoring {
    uint32_t calls, nan_every, fail_every;
    bool cancel;
} scoring;

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Right is what begins with a letter: three of ten tokens, before anything is learnt.
static zs_status letters(void *user, bool valid, size_t item, const char *answer, double *score, zs_error *error) {
    scoring *s = user;
    assert_true(item < (valid ? VALID : ITEMS));
    s->calls++;
    *score = is_letter(*answer);
    if (s->nan_every && s->calls % s->nan_every == 0) *score = NAN;
    if (s->cancel) return zs_error_set(error, ZS_ERROR_CANCELLED, "enough");
    if (s->fail_every && s->calls % s->fail_every == 0) return zs_error_set(error, ZS_ERROR_IO, "no scorer");
    return ZS_OK;
}

typedef struct history {
    zs_train_figures steps[STEPS + 1], last;
    uint32_t stop_at;
} history;

static bool note(void *user, const zs_train_figures *figures) {
    history *h = user;
    assert_true(figures->step <= STEPS);
    h->steps[figures->step] = h->last = *figures;
    return !h->stop_at || figures->step != h->stop_at;
}

static zs_trainer_params usual(scoring *s, history *h) {
    return (zs_trainer_params){.items = items,
                               .item_count = ITEMS,
                               .valid = items + ITEMS,
                               .valid_count = VALID,
                               .batch = 3,
                               .steps = STEPS,
                               .learning_rate = 0.05,
                               .clip = 1,
                               .valid_every = STEPS,
                               .seed = 2,
                               .deterministic = true,
                               .reward = letters,
                               .reward_user = s,
                               .engine = engine,
                               .rollouts = 8,
                               .max_tokens = 2,
                               .on_step = note,
                               .user = h};
}

static zs_trainer *create(const zs_trainer_params *params) {
    zs_trainer *trainer = NULL;
    zs_error error;
    tiny_need(zs_trainer_create(model, params, &trainer, &error), &error);
    return trainer;
}

static zs_expert *train(const zs_trainer_params *params) {
    zs_trainer *trainer = create(params);
    zs_expert *expert = NULL;
    zs_error error;
    tiny_need(zs_trainer_run(trainer, &error), &error);
    tiny_need(zs_trainer_get_expert(trainer, &expert, &error), &error);
    zs_trainer_destroy(&trainer);
    return expert;
}

static double mean_score(const history *h, uint32_t first, uint32_t count) {
    double sum = 0;
    for (uint32_t i = first; i < first + count; i++) sum += h->steps[i].score / count;
    return sum;
}

// ---- tests ---------------------------------------------------------------------------------------------------------

/// 24 answers a step, a third of them right at first: the mean of four steps errs by 0.05.
static void test_learns(void **state) {
    (void)state;
    static const zs_kl kls[] = {ZS_KL_NONE, ZS_KL_POLICY_BASE, ZS_KL_BASE_POLICY};
    for (size_t i = 0; i < sizeof kls / sizeof *kls; i++) {
        scoring s = {0};
        history h = {0};
        zs_trainer_params p = usual(&s, &h);
        p.kl = kls[i];
        p.kl_weight = 0.01;
        zs_expert *expert = train(&p);
        assert_true(mean_score(&h, 1, 4) < 0.6);
        assert_true(mean_score(&h, STEPS - 3, 4) > mean_score(&h, 1, 4) + 0.25);
        assert_true(h.last.valid > h.steps[0].valid + 0.3); // of the greedy answers to prompts that were not trained on
        assert_true(fabs(h.steps[1].reward - (2 * h.steps[1].score - 1)) < 1e-9);
        assert_int_equal(h.steps[1].answers, 24);
        assert_int_equal(s.calls, 24 * STEPS + 2 * VALID);
        assert_true(h.steps[1].answer_tokens > 24 && h.steps[1].answer_tokens <= 48);
        assert_true((h.last.kl > 1e-3) == (kls[i] != ZS_KL_NONE));
        assert_true(h.steps[1].kl < 1e-5); // the first step's policy is the base model
        zs_expert_destroy(&expert);
    }
}

static void test_divergence_is_held(void **state) {
    (void)state;
    double kl[2];
    for (int strong = 0; strong < 2; strong++) {
        scoring s = {0};
        history h = {0};
        zs_trainer_params p = usual(&s, &h);
        p.kl = ZS_KL_POLICY_BASE;
        p.kl_weight = strong ? 10 : 1e-3;
        zs_expert *expert = train(&p);
        kl[strong] = h.last.kl;
        zs_expert_destroy(&expert);
    }
    assert_true(kl[1] < kl[0] / 4);
}

/// One likeliest answer to a prompt, its reward as it is; other rewards for right and wrong.
static void test_greedy(void **state) {
    (void)state;
    scoring s = {0};
    history h = {0};
    zs_trainer_params p = usual(&s, &h);
    p.greedy = true;
    p.right = 1;
    p.wrong = -0.1;
    p.steps = 3;
    p.valid_every = 3;
    zs_expert *expert = train(&p);
    assert_int_equal(h.steps[1].answers, 3);
    assert_true(fabs(h.steps[1].reward - (1.1 * h.steps[1].score - 0.1)) < 1e-9);
    assert_true(h.steps[1].gradient_norm > 0);
    zs_expert_destroy(&expert);
}

static bool same_bits(const zs_expert *a, const zs_expert *b) {
    const char *name;
    uint32_t rank;
    const float *x, *y;
    bool same = true;
    for (uint32_t i = 0; zs_expert_matrix(a, i, &name, &rank, &x); i++) {
        assert_true(zs_expert_matrix(b, i, &name, &rank, &y));
        same = same && memcmp(x, y, rank * sizeof *x) == 0;
    }
    return same;
}

static void test_resumes(void **state) {
    (void)state;
    zs_error error;
    scoring s = {0};
    history h = {0};
    zs_trainer_params p = usual(&s, &h);
    p.steps = 6;
    p.valid_every = 2;
    p.kl = ZS_KL_POLICY_BASE;
    p.kl_weight = 0.0625;
    zs_expert *whole = train(&p);
    p.checkpoint = checkpoint_path;
    for (uint32_t at = 2; at < 5; at++) {
        unlink(checkpoint_path);
        h = (history){.stop_at = at};
        zs_trainer *trainer = create(&p);
        assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_CANCELLED);
        zs_trainer_destroy(&trainer);
        zs_engine_destroy(&engine); // another process would have one of its own, without anything cached
        engine = tiny_engine(model, (zs_engine_params){.deterministic = true, .max_sessions = 3});
        p.engine = engine;
        h.stop_at = 0;
        zs_expert *parts = train(&p);
        if (!same_bits(whole, parts)) fail_msg("interrupted at step %u", at);
        zs_expert_destroy(&parts);
    }
    zs_expert_destroy(&whole);
    h.stop_at = 2;
    unlink(checkpoint_path);
    zs_trainer *trainer = create(&p);
    assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_CANCELLED);
    zs_trainer_destroy(&trainer);
    p.kl_weight = 0.125;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "weight of the divergence was 0.0625 and is 0.125"));
    unlink(checkpoint_path);
}

static void test_scorers_that_fail(void **state) {
    (void)state;
    zs_error error;
    history h = {0};
    scoring sometimes = {.nan_every = 5, .fail_every = 7}, always = {.fail_every = 1}, nan = {.nan_every = 1}, cancels = {.cancel = true};
    zs_trainer_params p = usual(&sometimes, &h);
    p.steps = 2;
    zs_expert *expert = train(&p);
    assert_true(h.steps[1].failed >= 6 && h.steps[1].failed <= 8);
    zs_expert_destroy(&expert);
    const struct {
        scoring *scorer;
        zs_status status;
    } cases[] = {{&always, ZS_ERROR_ARGUMENT}, {&nan, ZS_ERROR_ARGUMENT}, {&cancels, ZS_ERROR_CANCELLED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        p.reward_user = cases[i].scorer;
        zs_trainer *trainer = create(&p);
        assert_int_equal(zs_trainer_run(trainer, &error), cases[i].status);
        zs_trainer_destroy(&trainer);
    }
}

static void test_refused(void **state) {
    (void)state;
    zs_error error;
    zs_trainer *trainer = NULL;
    zs_trainer_params p = usual(NULL, NULL);
    p.engine = NULL;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_ARGUMENT);
    zs_engine *loose = tiny_engine(model, (zs_engine_params){0});
    p.engine = loose;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_ARGUMENT);
    assert_null(trainer);
    zs_engine_destroy(&loose);
}

static int setup(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    model = tiny_load(device, factored_path);
    engine = tiny_engine(model, (zs_engine_params){.deterministic = true, .max_sessions = SESSIONS});
    for (uint32_t i = 0; i < ITEMS + VALID; i++) { // prompts that end alike, as chats do
        tiny_ids(ids[i], i % 5, 70 + i);
        tiny_ids(ids[i] + i % 5, 3, 5);
        items[i] = (zs_train_item){.prompt = ids[i], .prompt_count = 3 + i % 5};
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),  cmocka_unit_test(test_divergence_is_held), cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_resumes), cmocka_unit_test(test_scorers_that_fail),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
