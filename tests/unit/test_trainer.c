// Supervised training of a tiny model: it learns, is reproduced by its seed, goes on from a checkpoint bit for bit, and stops where it
// should.
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/trainer.gguf", factored_path[] = TEST_OUTPUT "/trainer-factored.gguf",
                  checkpoint_path[] = TEST_OUTPUT "/trainer.checkpoint";
static zs_device *device;
static zs_model *model;

enum { ITEMS = 12, VALID = 4, LENGTH = 9 };
static uint32_t ids[ITEMS + VALID][LENGTH];
static zs_train_item items[ITEMS + VALID];

/// Random prompts that are all answered by the same words: what there is to learn is in every question.
static void make_items(void) {
    for (uint32_t i = 0; i < ITEMS + VALID; i++) {
        uint32_t prompt = 3 + i % 4;
        tiny_ids(ids[i], prompt, 40 + i);
        tiny_ids(ids[i] + prompt, 3, 7);
        items[i] = (zs_train_item){.prompt = ids[i], .prompt_count = prompt, .answer = ids[i] + prompt, .answer_count = 3};
    }
}

static zs_trainer_params usual(void) {
    return (zs_trainer_params){.items = items,
                               .item_count = ITEMS,
                               .valid = items + ITEMS,
                               .valid_count = VALID,
                               .batch = 5,
                               .steps = 12,
                               .learning_rate = 0.02,
                               .clip = 1,
                               .weight_decay = 0.01,
                               .valid_every = 4,
                               .seed = 3,
                               .deterministic = true};
}

static zs_trainer *create(const zs_trainer_params *params) {
    zs_trainer *trainer = NULL;
    zs_error error;
    tiny_need(zs_trainer_create(model, params, &trainer, &error), &error);
    return trainer;
}

static zs_expert *finish(zs_trainer *trainer) {
    zs_expert *expert = NULL;
    zs_error error;
    tiny_need(zs_trainer_run(trainer, &error), &error);
    tiny_need(zs_trainer_get_expert(trainer, &expert, &error), &error);
    return expert;
}

static zs_expert *train(const zs_trainer_params *params) {
    zs_trainer *trainer = create(params);
    zs_expert *expert = finish(trainer);
    zs_trainer_destroy(&trainer);
    return expert;
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

typedef struct history {
    zs_train_figures last;
    uint32_t calls, evaluations;
    uint32_t stop_at; // step; 0: none
    double first_logprob, last_logprob;
} history;

static bool note(void *user, const zs_train_figures *figures) {
    history *h = user;
    h->last = *figures;
    h->calls++;
    h->evaluations += figures->evaluated;
    if (figures->step == 1) h->first_logprob = figures->logprob;
    h->last_logprob = figures->logprob;
    return !h->stop_at || figures->step != h->stop_at;
}

// ---- tests ---------------------------------------------------------------------------------------------------------

/// In every form, from both starts.
static void test_learns(void **state) {
    (void)state;
    static const struct {
        bool sigmoid, trace;
        double max_mult;
        uint32_t matrices;
    } forms[] = {{false, false, 0, 0}, {true, true, 1, ZS_MATRICES_MLP}, {true, false, 2, ZS_MATRICES_ATTENTION}};
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        history h = {0};
        zs_trainer_params p = usual();
        p.sigmoid = forms[f].sigmoid;
        p.trace = forms[f].trace;
        p.max_mult = forms[f].max_mult;
        p.matrices = forms[f].matrices;
        p.name = "learner";
        p.on_step = note;
        p.user = &h;
        zs_trainer *trainer = create(&p);
        zs_expert *expert = finish(trainer);
        zs_trainer_info info = zs_trainer_get_info(trainer);
        assert_int_equal(h.calls, 13); // and the evaluation before the first
        assert_int_equal(h.evaluations, 4);
        assert_int_equal(info.step, 12);
        assert_true(h.last_logprob > h.first_logprob);
        assert_true(info.has_best && info.best_valid > info.first_valid + 0.02);
        assert_string_equal(zs_expert_get_info(expert)->name, "learner");
        assert_true(zs_expert_get_info(expert)->sigmoid == forms[f].sigmoid && zs_expert_get_info(expert)->trace == forms[f].trace);

        // What the figures say is what the engine finds, with the expert as it is saved.
        zs_error error;
        zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
        uint32_t id = 0;
        double sum = 0;
        tiny_need(zs_engine_attach_expert(engine, expert, false, &id, &error), &error);
        for (uint32_t i = ITEMS; i < ITEMS + VALID; i++) {
            float logprobs[3];
            tiny_score(engine, id, ids[i], items[i].prompt_count, items[i].prompt_count + 3, logprobs);
            for (int k = 0; k < 3; k++) sum += (double)logprobs[k];
        }
        assert_true(fabs(sum / (3 * VALID) - info.best_valid) < 1e-4); // as in test_train.c
        zs_engine_destroy(&engine);
        zs_expert_destroy(&expert);
        zs_trainer_destroy(&trainer);
    }
}

static void test_seeds(void **state) {
    (void)state;
    zs_trainer_params p = usual();
    zs_expert *a = train(&p), *b = train(&p);
    assert_true(same_bits(a, b));
    zs_expert_destroy(&b);
    p.seed++;
    b = train(&p);
    assert_false(same_bits(a, b));
    zs_expert_destroy(&a);
    zs_expert_destroy(&b);
}

static bool stop_within(void *user, const char *what, double done, double total) {
    (void)what, (void)done, (void)total;
    return --*(int *)user > 0;
}

/// Interrupted after a step, within a step and within an evaluation, the result has the bits of an uninterrupted training.
static void test_resumes(void **state) {
    (void)state;
    zs_error error;
    zs_trainer_params p = usual();
    zs_expert *whole = train(&p);
    p.checkpoint = checkpoint_path;
    for (int where = 0; where < 8; where++) {
        history h = {.stop_at = where == 0 ? 6 : 0};
        int left = where; // passes until one is cancelled; there is one before the first step, one a step, and one more every fourth
        zs_trainer_params cut = p;
        cut.on_step = note;
        cut.user = &h;
        if (where) cut.progress = (zs_progress){stop_within, &left};
        unlink(checkpoint_path);
        zs_trainer *trainer = create(&cut);
        assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_CANCELLED);
        uint32_t reached = zs_trainer_get_info(trainer).step;
        assert_true(reached < 12);
        zs_trainer_destroy(&trainer);
        trainer = create(&p);
        assert_true(zs_trainer_get_info(trainer).resumed);
        assert_int_equal(zs_trainer_get_info(trainer).step, reached);
        zs_expert *parts = finish(trainer);
        if (!same_bits(whole, parts)) fail_msg("interrupted at step %u (%d)", reached, where);
        zs_expert_destroy(&parts);
        zs_trainer_destroy(&trainer);
    }
    zs_expert_destroy(&whole);
}

static bool see_checkpoint(void *user, const zs_train_figures *figures) {
    (void)user;
    assert_int_equal(access(checkpoint_path, F_OK) == 0, figures->step > 1);
    return true;
}

/// A process that is killed between the two may have told of a step that its checkpoint lacks, never the other way round: a log would
/// lack that step for good.
static void test_told_before_it_is_saved(void **state) {
    (void)state;
    zs_trainer_params p = usual();
    p.checkpoint = checkpoint_path;
    p.checkpoint_every = 1;
    p.on_step = see_checkpoint;
    unlink(checkpoint_path);
    zs_expert *expert = train(&p);
    zs_expert_destroy(&expert);
    unlink(checkpoint_path);
}

static void test_other_settings(void **state) {
    (void)state;
    zs_error error;
    zs_trainer *trainer = NULL;
    history h = {.stop_at = 2};
    zs_trainer_params p = usual();
    p.checkpoint = checkpoint_path;
    p.on_step = note;
    p.user = &h;
    unlink(checkpoint_path);
    trainer = create(&p);
    assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_CANCELLED);
    zs_trainer_destroy(&trainer);
    zs_trainer_params others[8];
    for (int i = 0; i < 8; i++) others[i] = p;
    others[0].batch = 6;
    others[1].learning_rate = 0.03;
    others[2].seed = 4;
    others[3].item_count = ITEMS - 1;
    others[4].valid_count = VALID - 1;
    others[5].sigmoid = others[5].trace = true;
    others[6].constant_rate = true;
    others[7].deterministic = false;
    static const char *const named[] = {"batch was 5 and is 6", "learning rate", "seed",     "data was",
                                        "validation data",      "first values",  "schedule", "deterministic"};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(zs_trainer_create(model, &others[i], &trainer, &error), ZS_ERROR_MISMATCH);
        if (!strstr(error.message, named[i])) fail_msg("%s is not named: %s", named[i], error.message);
        assert_null(trainer);
    }
    FILE *file = fopen(checkpoint_path, "wb");
    assert_non_null(file);
    fputs("mine", file);
    fclose(file);
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_FORMAT);
    unlink(checkpoint_path);
    p.checkpoint = "/no such folder/x";
    trainer = create(&p);
    assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_IO);
    zs_trainer_destroy(&trainer);
}

/// From an expert: its matrices, its values, its form.
static void test_init(void **state) {
    (void)state;
    zs_error error;
    zs_expert *init = NULL;
    const char path[] = TEST_OUTPUT "/trainer-init.safetensors";
    tiny_need(tiny_expert_write(&(tiny_expert_params){.seed = 4, .spread = 0.1f, .mlp_only = true, .base = factored_path}, path, &error),
              &error);
    tiny_need(zs_expert_load(path, &init, &error), &error);
    zs_trainer_params p = usual();
    p.init = init;
    zs_trainer *trainer = create(&p);
    zs_expert *first = NULL;
    tiny_need(zs_trainer_get_expert(trainer, &first, &error), &error);
    assert_true(same_bits(init, first));
    zs_expert *last = finish(trainer);
    assert_false(same_bits(init, last));
    assert_int_equal(zs_expert_get_info(last)->matrix_count, TINY_LAYERS * 3);
    double cosine = 0;
    assert_true(zs_expert_compare(init, last, &cosine) && cosine > 0.999); // sketches are kept
    zs_expert_destroy(&first);
    zs_expert_destroy(&last);
    zs_trainer_destroy(&trainer);
    zs_expert_destroy(&init);
}

static void test_stops_early(void **state) {
    (void)state;
    zs_trainer_params p = usual();
    p.learning_rate = 1e-30; // nothing gets better
    p.patience = 2;
    p.valid_every = 1;
    zs_trainer *trainer = create(&p);
    zs_expert *expert = finish(trainer);
    zs_trainer_info info = zs_trainer_get_info(trainer);
    assert_true(info.stopped);
    assert_int_equal(info.step, 2);
    assert_int_equal(info.best_step, 0);
    zs_expert_destroy(&expert);
    zs_trainer_destroy(&trainer);
}

/// The values before the step that made no numbers are what remains.
static void test_diverges(void **state) {
    (void)state;
    zs_error error;
    zs_expert *expert = NULL;
    zs_trainer_params p = usual();
    p.learning_rate = 1e25;
    zs_trainer *trainer = create(&p);
    assert_int_equal(zs_trainer_run(trainer, &error), ZS_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "diverged at step"));
    tiny_need(zs_trainer_get_expert(trainer, &expert, &error), &error);
    assert_int_equal(zs_trainer_get_info(trainer).best_step, 0);
    const char *name;
    uint32_t rank;
    const float *values;
    for (uint32_t i = 0; zs_expert_matrix(expert, i, &name, &rank, &values); i++) {
        for (uint32_t r = 0; r < rank; r++) assert_true(values[r] == 1);
    }
    zs_expert_destroy(&expert);
    zs_trainer_destroy(&trainer);
}

static void test_refused(void **state) {
    (void)state;
    zs_error error;
    zs_trainer *trainer = NULL;
    zs_trainer_params p = usual();
    zs_train_item bad = items[0];
    p.item_count = 0;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_ARGUMENT);
    p = usual();
    p.items = &bad;
    p.item_count = 1;
    bad.answer_count = 0;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_ARGUMENT);
    bad.answer_count = TINY_CONTEXT;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_CONTEXT);
    zs_model *dense = tiny_load(device, dense_path);
    p = usual();
    assert_int_equal(zs_trainer_create(dense, &p, &trainer, &error), ZS_ERROR_ARGUMENT);
    zs_model_destroy(&dense);
    p.sigmoid = true;
    assert_int_equal(zs_trainer_create(model, &p, &trainer, &error), ZS_ERROR_ARGUMENT);
    assert_null(trainer);
}

static int setup(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    model = tiny_load(device, factored_path);
    make_items();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),         cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_resumes),        cmocka_unit_test(test_told_before_it_is_saved),
        cmocka_unit_test(test_other_settings), cmocka_unit_test(test_init),
        cmocka_unit_test(test_stops_early),    cmocka_unit_test(test_diverges),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
