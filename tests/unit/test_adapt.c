// Experts: multipliers, mixing (DESIGN.md §4), and what is checked before one is put on a model.
#include "adapt/expert.h"
#include "loader/gguf.h"
#include "support/reference_model.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/adapt.gguf", factored_path[] = TEST_OUTPUT "/adapt-factored.gguf";
static const char other_path[] = TEST_OUTPUT "/adapt-other.gguf", expert_path[] = TEST_OUTPUT "/adapt.safetensors";
static zs_device *device;
static zs_model *model;
static reference_model *reference;
static char warning[1024]; // the last one

static zs_expert *make(tiny_expert_params params) {
    expert_file file;
    zs_expert *expert = NULL;
    zs_error error;
    tiny_expert_make(&params, &file);
    tiny_need(expert_from_file(&file, &expert, &error), &error);
    return expert;
}

/// The multiplier of element r of a matrix; 1 where the expert leaves it out.
static double multiplier(const zs_expert *expert, const char *name, uint32_t r) {
    const float *m = NULL;
    return expert_find(expert, name, &m) ? (double)m[r] : 1;
}

/// s = Σσ / Σ(σ m), from the model file's σ.
static double trace_scale(const zs_expert *expert, const char *name) {
    const model_weight *w = expert_model_weight(model, name);
    double sum = 0, scaled = 0;
    for (uint32_t r = 0; r < w->rank; r++) {
        sum += (double)w->sigma[r];
        scaled += (double)w->sigma[r] * multiplier(expert, name, r);
    }
    return sum / scaled;
}

// ---- multipliers and mixing ----------------------------------------------------------------------------------------

static void test_multipliers(void **state) {
    (void)state;
    expert_file p;
    tiny_expert_make(&(tiny_expert_params){.seed = 1, .sigmoid = true, .spread = 3}, &p);
    zs_expert *scale = make((tiny_expert_params){.seed = 1}),
              *sigmoid = make((tiny_expert_params){.seed = 1, .sigmoid = true, .spread = 3, .max_mult = 2});
    const zs_expert_info *info = zs_expert_get_info(sigmoid);
    assert_true(info->sigmoid && !info->trace && info->max_mult == 2 && info->matrix_count == 14 &&
                info->value_count == 2 * (5 * 64 + 2 * 32));
    const char *name;
    uint32_t rank;
    const float *m;
    for (uint32_t i = 0; i < 14; i++) {
        assert_true(zs_expert_matrix(sigmoid, i, &name, &rank, &m));
        for (uint32_t r = 0; r < rank; r++) assert_true(fabs((double)m[r] - 2 / (1 + exp(-(double)p.matrices[i].values[r]))) < 1e-6);
        assert_true(zs_expert_matrix(scale, i, &name, &rank, &m));
        assert_memory_equal(m, scale->file.matrices[i].values, rank * sizeof *m);
    }
    assert_false(zs_expert_matrix(sigmoid, 14, &name, &rank, &m));
    expert_file_free(&p);
    zs_expert_destroy(&scale);
    zs_expert_destroy(&sigmoid);
}

static zs_expert *mix(const zs_model *base, const zs_expert *const *experts, uint32_t count, const double *alpha, bool per_matrix) {
    zs_expert *made = NULL;
    zs_error error;
    tiny_need(zs_expert_mix(base, experts, count, alpha, per_matrix, &made, &error), &error);
    return made;
}

/// Every element of the mix is Σ α s m: s is 1, or the trace scale where each expert is normalised first.
static void expect_sum(const zs_expert *made, const zs_expert *const *experts, uint32_t count, const double *alpha, bool per_matrix) {
    const zs_expert_info *info = zs_expert_get_info(made);
    assert_false(info->sigmoid);
    assert_int_equal(info->matrix_count, 14);
    for (uint32_t i = 0; i < 14; i++) {
        const expert_matrix *m = &made->file.matrices[i];
        for (uint32_t r = 0; r < m->rank; r++) {
            double expected = 0;
            for (uint32_t e = 0; e < count; e++) {
                const float *unused;
                bool normalise = experts[e]->file.trace && !info->trace && expert_find(experts[e], m->name, &unused);
                double s = normalise ? trace_scale(experts[e], m->name) : 1;
                expected += alpha[per_matrix ? e * 14 + i : e] * s * multiplier(experts[e], m->name, r);
            }
            if (!(fabs(expected - (double)m->values[r]) < 1e-6 * (1 + fabs(expected))))
                fail_msg("%s[%u]: %g, expected %g", m->name, r, (double)m->values[r], expected);
        }
    }
}

static void test_mix(void **state) {
    (void)state;
    static const struct {
        tiny_expert_params a, b, c;
        bool trace;
    } cases[] = {
        {{.seed = 1}, {.seed = 2}, {.seed = 3}, false},
        {{.seed = 1, .mlp_only = true}, {.seed = 2}, {.seed = 3, .mlp_only = true}, false},
        {{.seed = 1, .sigmoid = true, .max_mult = 2}, {.seed = 2, .sigmoid = true}, {.seed = 3}, false},
        {{.seed = 1, .trace = true}, {.seed = 2, .trace = true, .sigmoid = true}, {.seed = 3, .trace = true, .mlp_only = true}, true},
        {{.seed = 1, .trace = true}, {.seed = 2, .sigmoid = true}, {.seed = 3, .trace = true, .mlp_only = true}, false},
    };
    static const double alphas[][3] = {{0.2, 0.3, 0.5}, {1, 0, 0}, {0.7, -0.4, 0.1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const zs_expert *const experts[3] = {make(cases[i].a), make(cases[i].b), make(cases[i].c)};
        for (size_t k = 0; k < 3; k++) {
            zs_expert *made = mix(model, experts, 3, alphas[k], false);
            assert_true(zs_expert_get_info(made)->trace == cases[i].trace);
            expect_sum(made, experts, 3, alphas[k], false);
            zs_expert_destroy(&made);
        }
        double alpha[3][14];
        for (size_t k = 0; k < 3 * 14; k++) (&alpha[0][0])[k] = 0.1 + 0.02 * (double)k;
        zs_expert *made = mix(model, experts, 3, &alpha[0][0], true);
        expect_sum(made, experts, 3, &alpha[0][0], true);
        zs_expert_destroy(&made);
        for (size_t e = 0; e < 3; e++) zs_expert_destroy(&(zs_expert *){(zs_expert *)(uintptr_t)experts[e]});
    }
}

static void expect_mix_refused(const zs_expert *const *experts, uint32_t count, const double *alpha, bool per_matrix, zs_status expected,
                               const char *part) {
    zs_expert *made = NULL;
    zs_error error = {0};
    zs_status status = zs_expert_mix(NULL, experts, count, alpha, per_matrix, &made, &error);
    if (status != expected || !strstr(error.message, part)) fail_msg("%d: %s", status, error.message);
    assert_null(made);
}

static void test_mix_refused(void **state) {
    (void)state;
    zs_expert *a = make((tiny_expert_params){.seed = 1, .name = "a"}),
              *b = make((tiny_expert_params){.seed = 2, .name = "b", .trace = true});
    zs_expert *here = make((tiny_expert_params){.base = factored_path, .name = "here"}),
              *there = make((tiny_expert_params){.base = other_path, .name = "there"});
    zs_expert *odd = make((tiny_expert_params){.seed = 3, .name = "odd"});
    odd->file.matrices[2].rank = 5;
    const zs_expert *const plain[] = {a, a}, *const kinds[] = {a, b}, *const bases[] = {here, there}, *const ranks[] = {a, odd};
    double column[2][14];
    for (size_t i = 0; i < 28; i++) (&column[0][0])[i] = 0.5;
    column[0][6] = column[1][6] = 0;
    expect_mix_refused(plain, 2, (double[]){0, 0}, false, ZS_ERROR_ARGUMENT, "all weights");
    expect_mix_refused(plain, 2, &column[0][0], true, ZS_ERROR_ARGUMENT, "all weights");
    expect_mix_refused(plain, 2, (double[]){1, NAN}, false, ZS_ERROR_ARGUMENT, "weight 1");
    expect_mix_refused(plain, 2, (double[]){INFINITY, 1}, false, ZS_ERROR_ARGUMENT, "weight 0");
    expect_mix_refused(plain, 0, NULL, false, ZS_ERROR_ARGUMENT, "at least one");
    expect_mix_refused(kinds, 2, (double[]){1, 1}, false, ZS_ERROR_ARGUMENT, "singular values"); // σ are needed, there is no model
    expect_mix_refused(bases, 2, (double[]){1, 1}, false, ZS_ERROR_MISMATCH, "different models");
    expect_mix_refused(ranks, 2, (double[]){1, 1}, false, ZS_ERROR_MISMATCH, "rank");
    zs_expert *const all[] = {a, b, here, there, odd};
    for (size_t i = 0; i < 5; i++) zs_expert_destroy(&(zs_expert *){all[i]});
}

/// A mix is an expert like any other: saved, read, attached; its metadata tells what it was made of.
static void test_mix_is_an_expert(void **state) {
    (void)state;
    zs_expert *a = make((tiny_expert_params){.seed = 1, .name = "a", .base = factored_path, .trace = true}), *read = NULL;
    zs_expert *b = make((tiny_expert_params){.seed = 2, .name = "b", .base = factored_path, .sigmoid = true});
    zs_error error;
    uint32_t ids[40], written_id, read_id;
    float logprobs[40];
    double *expected = malloc(sizeof *expected * 40 * TINY_VOCAB);
    zs_expert *made = mix(model, (const zs_expert *const[]){a, b}, 2, (double[]){0.25, 0.75}, false);
    assert_string_equal(made->file.sources, "a,b");
    assert_string_equal(made->file.alpha, "0.25,0.75");
    assert_string_equal(made->file.base_model, "tiny");
    assert_true(made->file.matrices[3].has_sketch);
    tiny_need(zs_expert_save(made, expert_path, true, &error), &error);
    assert_int_equal(zs_expert_save(made, expert_path, false, &error), ZS_ERROR_EXISTS);
    tiny_need(zs_expert_load(expert_path, &read, &error), &error);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    tiny_need(zs_engine_attach_expert(engine, made, false, &written_id, &error), &error);
    tiny_need(zs_engine_attach_expert(engine, read, false, &read_id, &error), &error);
    assert_int_equal(written_id, read_id);
    tiny_ids(ids, 40, 1);
    tiny_score(engine, read_id, ids, 1, 40, logprobs);
    reference_model_run(reference, &read->file, ids, 40, expected);
    for (size_t i = 1; i < 40; i++)
        assert_true(fabs(expected[(i - 1) * TINY_VOCAB + ids[i]] - (double)logprobs[i - 1]) < 4e-5); // test_engine.c derives it
    free(expected);
    zs_engine_destroy(&engine);
    zs_expert *const all[] = {a, b, made, read};
    for (size_t i = 0; i < 4; i++) zs_expert_destroy(&(zs_expert *){all[i]});
}

// ---- attaching -----------------------------------------------------------------------------------------------------

static zs_status attach(zs_engine *engine, zs_expert *expert, bool transfer, zs_error *error) {
    uint32_t id = 0;
    *warning = 0;
    *error = (zs_error){0};
    zs_status status = zs_engine_attach_expert(engine, expert, transfer, &id, error);
    assert_true((status == ZS_OK) == (id > 0));
    zs_expert_destroy(&expert);
    return status;
}

static void expect_attached(zs_status status, zs_status expected, const zs_error *error, const char *part) {
    const char *text = expected ? error->message : warning;
    if (status != expected || (*part ? !strstr(text, part) : *text))
        fail_msg("%d '%s', warned '%s'; expected '%s'", status, error->message, warning, part);
}

static void test_sketches(void **state) {
    (void)state;
    zs_error error;
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    expect_attached(attach(engine, make((tiny_expert_params){.base = factored_path}), false, &error), ZS_OK, &error, "");
    expect_attached(attach(engine, make((tiny_expert_params){.base = factored_path, .mlp_only = true}), false, &error), ZS_OK, &error, "");
    expect_attached(attach(engine, make((tiny_expert_params){.seed = 1}), false, &error), ZS_OK, &error, "cannot be checked");
    expect_attached(attach(engine, make((tiny_expert_params){.base = other_path}), false, &error), ZS_ERROR_MISMATCH, &error,
                    "another model");
    expect_attached(attach(engine, make((tiny_expert_params){.base = other_path, .seed = 2}), true, &error), ZS_OK, &error,
                    "another model");
    // A sketch or two that went wrong do not make it another base.
    zs_expert *one_off = make((tiny_expert_params){.base = factored_path, .seed = 3});
    for (size_t k = 0; k < 8; k++) one_off->file.matrices[4].sketch[k] = 0;
    expect_attached(attach(engine, one_off, false, &error), ZS_OK, &error, "");
    zs_engine_destroy(&engine);

    // Quantised weights are the same base.
    double cosine;
    const char *quantised = TEST_OUTPUT "/adapt-q4.gguf", *quantised_factored = TEST_OUTPUT "/adapt-q4-factored.gguf";
    tiny_files(&(tiny_model_params){.weight_type = TENSOR_Q4_0}, quantised, ZS_FACTOR_Q8_0, quantised_factored);
    zs_expert *a = make((tiny_expert_params){.base = factored_path}), *b = make((tiny_expert_params){.base = quantised_factored}),
              *c = make((tiny_expert_params){.base = other_path});
    assert_true(zs_expert_compare(a, b, &cosine) && cosine > 0.95);
    assert_true(zs_expert_compare(a, c, &cosine) && cosine < 0.5);
    zs_expert *none = make((tiny_expert_params){0});
    assert_false(zs_expert_compare(a, none, &cosine));
    zs_expert *const all[] = {a, b, c, none};
    for (size_t i = 0; i < 4; i++) zs_expert_destroy(&(zs_expert *){all[i]});
}

static void test_shapes(void **state) {
    (void)state;
    zs_error error;
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    for (int transfer = 0; transfer < 2; transfer++) {
        zs_expert *expert = make((tiny_expert_params){.base = factored_path});
        expert->file.matrices[3].rank--;
        expect_attached(attach(engine, expert, transfer, &error), ZS_ERROR_MISMATCH, &error,
                        "model.layers.0.self_attn.k_proj has 31 values, and rank 32");
    }
    zs_expert *deeper = make((tiny_expert_params){.base = factored_path});
    deeper->file.matrices[0].name[13] = '7';
    expect_attached(attach(engine, deeper, false, &error), ZS_ERROR_MISMATCH, &error, "model.layers.7.mlp.down_proj");
    // Σσm = 0 cannot be normalised; σ z beyond f32 is no number.
    zs_expert *zero = make((tiny_expert_params){.trace = true}), *huge = make((tiny_expert_params){0});
    for (uint32_t r = 0; r < zero->file.matrices[0].rank; r++) zero->multipliers[0][r] = 0;
    for (uint32_t r = 0; r < huge->file.matrices[0].rank; r++) huge->multipliers[0][r] = 3e38f;
    expect_attached(attach(engine, zero, false, &error), ZS_ERROR_NUMERIC, &error, "down_proj cannot be normalised");
    expect_attached(attach(engine, huge, false, &error), ZS_ERROR_NUMERIC, &error, "down_proj overflows");
    zs_engine_destroy(&engine);

    // Matrices that the model keeps dense, and a model that is dense altogether.
    const char *mlp = TEST_OUTPUT "/adapt-mlp.gguf";
    tiny_need(zs_factor_file(dense_path, mlp, &(zs_factor_params){.matrices = ZS_MATRICES_MLP, .force = true}, NULL, &error), &error);
    zs_model *partly = tiny_load(device, mlp), *dense = tiny_load(device, dense_path);
    engine = tiny_engine(partly, (zs_engine_params){0});
    expect_attached(attach(engine, make((tiny_expert_params){.base = factored_path}), false, &error), ZS_ERROR_MISMATCH, &error,
                    "k_proj, which");
    expect_attached(attach(engine, make((tiny_expert_params){.base = factored_path, .mlp_only = true}), false, &error), ZS_OK, &error, "");
    zs_engine_destroy(&engine);
    engine = tiny_engine(dense, (zs_engine_params){0});
    expect_attached(attach(engine, make((tiny_expert_params){0}), false, &error), ZS_ERROR_ARGUMENT, &error, "zsigma factor");
    zs_engine_destroy(&engine);
    zs_model_destroy(&partly);
    zs_model_destroy(&dense);
}

// ---- transfer ------------------------------------------------------------------------------------------------------

/// Renames the matrices of layer 1: those of a deeper model's layer 5.
static zs_expert *make_deeper(tiny_expert_params params) {
    zs_expert *expert = make(params);
    for (size_t i = 0; i < expert->file.matrix_count; i++) {
        char *layer = &expert->file.matrices[i].name[13];
        *layer = *layer == '1' ? '5' : *layer;
    }
    return expert;
}

/// Of an expert for more layers those are applied that are there, and the others are told; the model's further layers stay as they are.
static void test_transfer(void **state) {
    (void)state;
    zs_error error;
    zs_expert_fit fit;
    uint32_t whole_id, part_id;
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    zs_expert *deeper = make_deeper((tiny_expert_params){.base = other_path, .seed = 1}), *part = make((tiny_expert_params){.seed = 1});
    zs_expert_get_fit(deeper, model, &fit);
    assert_true(fit.matrices == 14 && fit.by_name == 7 && fit.by_shape == 7 && fit.values == 5 * 64 + 2 * 32);
    assert_true(fit.has_cosine && fabs(fit.cosine) < 0.5);
    for (uint32_t i = 0; i < 14; i++) {
        const char *misfit = zs_expert_misfit(deeper, model, i);
        bool there = deeper->file.matrices[i].name[13] == '0';
        assert_true(there ? !misfit : misfit && strstr(misfit, "no such matrix"));
    }
    assert_null(zs_expert_misfit(deeper, model, 14));
    expect_attached(zs_engine_attach_expert(engine, deeper, false, &whole_id, &error), ZS_ERROR_MISMATCH, &error, "model.layers.5");
    tiny_need(zs_engine_attach_expert(engine, deeper, true, &whole_id, &error), &error);
    assert_non_null(strstr(warning, "another model"));
    assert_non_null(strstr(warning, "7 of its 14 matrices"));
    for (uint32_t i = 0; i < 14; i++) {
        for (uint32_t r = 0; part->file.matrices[i].name[13] == '1' && r < part->file.matrices[i].rank; r++) part->multipliers[i][r] = 1;
    }
    tiny_need(zs_engine_attach_expert(engine, part, false, &part_id, &error), &error);
    assert_int_equal(whole_id, part_id); // the same contents

    // Another length is of another shape, transfer or not; and something has to fit.
    deeper->file.matrices[0].rank--;
    zs_expert_get_fit(deeper, model, &fit);
    assert_true(fit.by_name == 7 && fit.by_shape == 6);
    assert_non_null(strstr(zs_expert_misfit(deeper, model, 0), "number of singular values"));
    expect_attached(zs_engine_attach_expert(engine, deeper, true, &whole_id, &error), ZS_ERROR_MISMATCH, &error, "63 values, and rank 64");
    deeper->file.matrices[0].rank++;
    for (size_t i = 0; i < 14; i++) deeper->file.matrices[i].name[13] = '8';
    expect_attached(zs_engine_attach_expert(engine, deeper, true, &whole_id, &error), ZS_ERROR_MISMATCH, &error,
                    "nothing of expert tiny can be transferred");
    zs_engine_destroy(&engine);
    zs_expert_destroy(&deeper);
    zs_expert_destroy(&part);
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/// The same numbers in another order.
static bool is_reordered(const float *a, const float *b, uint32_t count) {
    float x[64], y[64];
    assert_true(count <= 64);
    memcpy(x, a, count * sizeof *x);
    memcpy(y, b, count * sizeof *y);
    qsort(x, count, sizeof *x, compare_floats);
    qsort(y, count, sizeof *y, compare_floats);
    return memcmp(a, b, count * sizeof *a) != 0 && memcmp(x, y, count * sizeof *x) == 0;
}

static void shuffle(zs_expert *expert, uint64_t seed) {
    zs_error error;
    tiny_need(zs_expert_shuffle(expert, seed, &error), &error);
}

static void test_shuffle(void **state) {
    (void)state;
    const tiny_expert_params params = {.seed = 1, .sigmoid = true, .trace = true, .base = factored_path};
    zs_expert *plain = make(params), *a = make(params), *same = make(params), *other = make(params), *mlp;
    mlp = make((tiny_expert_params){.seed = 4, .mlp_only = true});
    shuffle(a, 5);
    shuffle(same, 5);
    shuffle(other, 6);
    uint32_t moved[64] = {0};
    for (size_t i = 0; i < 14; i++) {
        const expert_matrix *p = &plain->file.matrices[i], *m = &a->file.matrices[i];
        assert_true(is_reordered(p->values, m->values, p->rank) && is_reordered(plain->multipliers[i], a->multipliers[i], p->rank));
        assert_memory_equal(m->values, same->file.matrices[i].values, p->rank * sizeof *m->values);
        assert_true(is_reordered(m->values, other->file.matrices[i].values, p->rank));
        assert_memory_equal(p->sketch, m->sketch, sizeof p->sketch);
        for (uint32_t r = 0; r < p->rank; r++) {
            assert_true(fabs((double)a->multipliers[i][r] - 1 / (1 + exp(-(double)m->values[r]))) < 1e-6); // still each other's
            moved[r] += p->values[r] != m->values[r];
        }
    }
    for (uint32_t r = 0; r < 64; r++) assert_true(moved[r] > 5); // of 14, of which 1 in 64 stays where it was

    // Mixing shuffled experts is shuffling the mix.
    zs_expert *b = make((tiny_expert_params){.seed = 2}), *c = make((tiny_expert_params){.seed = 3});
    const zs_expert *const experts[] = {b, c, mlp};
    const double alpha[] = {0.25, 0.5, 0.25};
    zs_expert *first = mix(NULL, experts, 3, alpha, false);
    shuffle(first, 9);
    shuffle(b, 9);
    shuffle(c, 9);
    shuffle(mlp, 9);
    zs_expert *then = mix(NULL, experts, 3, alpha, false);
    for (size_t i = 0; i < 14; i++)
        assert_memory_equal(first->file.matrices[i].values, then->file.matrices[i].values, first->file.matrices[i].rank * sizeof(float));
    zs_expert *const all[] = {plain, a, same, other, mlp, b, c, first, then};
    for (size_t i = 0; i < 9; i++) zs_expert_destroy(&(zs_expert *){all[i]});
}

// ---- the table -----------------------------------------------------------------------------------------------------

static void test_table(void **state) {
    (void)state;
    zs_error error;
    uint32_t ids[3], id;
    zs_engine *engine = tiny_engine(model, (zs_engine_params){.max_experts = 2});
    zs_expert *experts[3];
    for (uint64_t i = 0; i < 3; i++) experts[i] = make((tiny_expert_params){.seed = i});
    for (size_t i = 0; i < 2; i++) tiny_need(zs_engine_attach_expert(engine, experts[i], false, &ids[i], &error), &error);
    tiny_need(zs_engine_attach_expert(engine, experts[0], false, &id, &error), &error); // once more: one row, held twice
    assert_true(id == ids[0] && ids[0] != ids[1]);
    assert_int_equal(zs_engine_attach_expert(engine, experts[2], false, &id, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "2 experts"));
    zs_engine_detach_expert(engine, ids[0]);
    assert_int_equal(zs_engine_attach_expert(engine, experts[2], false, &id, &error), ZS_ERROR_ARGUMENT);
    zs_engine_detach_expert(engine, ids[0]);
    tiny_need(zs_engine_attach_expert(engine, experts[2], false, &ids[2], &error), &error);
    assert_int_equal(ids[2], ids[0]);
    zs_engine_detach_expert(engine, 0); // the base is not to be had
    zs_engine_detach_expert(engine, 99);
    float logprobs[4];
    tiny_score(engine, 0, (uint32_t[]){5, 6, 7}, 1, 3, logprobs);
    zs_engine_destroy(&engine);
    for (size_t i = 0; i < 3; i++) zs_expert_destroy(&experts[i]);
}

static void keep_warning(void *user, zs_log_level level, const char *message) {
    (void)user;
    if (level == ZS_LOG_WARNING || strstr(message, "another model")) snprintf(warning, sizeof warning, "%s", message);
}

static int open_all(void **state) {
    (void)state;
    device = tiny_device((zs_log){.write = keep_warning});
    tiny_files(&(tiny_model_params){.seed = 9}, dense_path, ZS_FACTOR_F16, other_path);
    tiny_files(NULL, dense_path, ZS_FACTOR_F16, factored_path);
    model = tiny_load(device, factored_path);
    reference = reference_model_open(factored_path);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    reference_model_close(&reference);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multipliers),      cmocka_unit_test(test_mix),      cmocka_unit_test(test_mix_refused),
        cmocka_unit_test(test_mix_is_an_expert), cmocka_unit_test(test_sketches), cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_transfer),         cmocka_unit_test(test_shuffle),  cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
