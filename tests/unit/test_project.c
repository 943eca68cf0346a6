// Experts from fine-tunes: what z says is found again, what it cannot say is measured, what is no fine-tune of the model is refused.
#include "loader/model_file.h"
#include "loader/safetensors.h"
#include "support/tiny_folder.h"
#include "support/tiny_runtime.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/project.gguf", factored_path[] = TEST_OUTPUT "/project-factored.gguf";
static const char tuned_path[] = TEST_OUTPUT "/project-tuned.gguf", folder_path[] = TEST_OUTPUT "/project-tuned";
static const char expert_path[] = TEST_OUTPUT "/project-expert.safetensors", out_path[] = TEST_OUTPUT "/project-out.safetensors";
static const char lora_path[] = TEST_OUTPUT "/project-lora";

enum { MATRICES = 7 * TINY_LAYERS, RANK = 4 };

/// What on_matrix told.
typedef struct told {
    char names[MATRICES][80];
    double change[MATRICES], share[MATRICES];
    uint32_t count, small;
} told;

static void take_matrix(void *user, const zs_projected_matrix *m) {
    told *t = user;
    assert_true(t->count < MATRICES);
    snprintf(t->names[t->count], sizeof t->names[0], "%s", m->name);
    t->change[t->count] = m->change;
    t->share[t->count++] = m->share;
    t->small += m->small;
}

static zs_project_report project(const char *tuned, told *t, expert_file *made) {
    zs_error error;
    zs_project_report report;
    *t = (told){0};
    const zs_project_params params = {.name = "made", .description = "things", .force = true, .on_matrix = take_matrix, .user = t};
    tiny_need(zs_project_file(factored_path, tuned, out_path, &params, &report, &error), &error);
    tiny_need(expert_file_load(out_path, made, &error), &error);
    assert_int_equal(report.matrices, made->matrix_count);
    assert_int_equal(report.matrices, t->count);
    return report;
}

// ---- checkpoints ---------------------------------------------------------------------------------------------------

static const expert_matrix *find(const expert_file *file, const char *name) {
    for (size_t i = 0; i < file->matrix_count; i++) {
        if (strcmp(file->matrices[i].name, name) == 0) return &file->matrices[i];
    }
    fail_msg("%s is missing", name);
    return NULL;
}

/// z comes back: W_ft was rounded to f32, which moves z_i by up to 64 · 2⁻²⁴ · σ_0 / σ_i with products of 64 terms; factors in f16, whose
/// columns are not quite orthogonal, by as much again.
static void expect_same_z(const expert_file *made, const expert_file *expected) {
    zs_error error;
    model_file model;
    tiny_need(model_file_open(factored_path, &model, &error), &error);
    assert_int_equal(made->matrix_count, expected->matrix_count);
    for (size_t i = 0; i < expected->matrix_count; i++) {
        const expert_matrix *e = &expected->matrices[i], *m = find(made, e->name);
        const float *sigma = model_file_find(&model, e->name)->s->data;
        assert_int_equal(m->rank, e->rank);
        assert_true(m->has_sketch);
        for (uint32_t k = 0; k < m->rank; k++) {
            double bound = 128 * 0x1p-24 * (double)sigma[0] / (double)sigma[k];
            if (!(fabs((double)m->values[k] - (double)e->values[k]) <= bound))
                fail_msg("%s[%u]: %.8g instead of %.8g (σ %g of %g)", e->name, k, (double)m->values[k], (double)e->values[k],
                         (double)sigma[k], (double)sigma[0]);
        }
    }
    model_file_close(&model);
}

/// A fine-tune that is U diag(σ z) Vᵀ gives z, and z says all of it: as llama.cpp's file, whose q and k are permuted, and as a folder.
static void test_exact(void **state) {
    (void)state;
    static const zs_factor_type types[] = {ZS_FACTOR_F32, ZS_FACTOR_F16};
    for (size_t i = 0; i < 2; i++) {
        zs_error error;
        expert_file expected, made;
        told t;
        tiny_files(NULL, dense_path, types[i], factored_path);
        tiny_need(tiny_expert_write(&(tiny_expert_params){.seed = 3, .spread = 0.25f}, expert_path, &error), &error);
        tiny_need(expert_file_load(expert_path, &expected, &error), &error);
        tiny_need(
            zs_merge_file(factored_path, expert_path, tuned_path, &(zs_merge_params){.type = ZS_MERGE_F32, .force = true}, NULL, &error),
            &error);
        tiny_need(tiny_folder_write(tuned_path, folder_path, NULL, &error), &error);
        for (int folder = 0; folder < 2; folder++) {
            zs_project_report report = project(folder ? folder_path : tuned_path, &t, &made);
            expect_same_z(&made, &expected);
            assert_int_equal(report.matrices, MATRICES);
            assert_true(report.has_cosine && report.cosine > 0.95 && !report.lora && report.small == 0);
            assert_true(fabs(report.share - 1) < 1e-6);
            assert_true(report.change > 0.05 && report.change < 0.3); // √(0.25² / 3) = 0.144
            for (uint32_t m = 0; m < t.count; m++) assert_true(fabs(t.share[m] - 1) < 1e-6);
            assert_string_equal(made.name, "made");
            assert_string_equal(made.description, "things");
            assert_string_equal(made.base_model, "tiny");
            assert_non_null(strstr(made.training, folder ? "project-tuned," : "project-tuned.gguf,"));
            expert_file_free(&made);
        }
        expert_file_free(&expected);
    }
}

/// The model itself, and singular values that are nothing to divide by.
static void test_unchanged(void **state) {
    (void)state;
    expert_file made;
    told t;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    zs_project_report report = project(dense_path, &t, &made);
    assert_true(report.change < 1e-6 && report.cosine > 0.999999);
    for (size_t i = 0; i < made.matrix_count; i++) {
        for (uint32_t k = 0; k < made.matrices[i].rank; k++) assert_true(fabs((double)made.matrices[i].values[k] - 1) < 1e-4);
    }
    expert_file_free(&made);
}

// ---- LoRA ----------------------------------------------------------------------------------------------------------

static const char plain_config[] = "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"use_rslora\": false, \"bias\": \"none\", "
                                   "\"base_model_name_or_path\": \"somebody/tiny\", \"target_modules\": [\"q_proj\"], \"modules_to_save\": "
                                   "null, \"use_dora\": false, \"rank_pattern\": {}, \"lora_dropout\": 0.1, \"init_lora_weights\": true}";

/// One matrix of an adapter.
typedef struct adapted {
    const char *name; // "model.layers.1.self_attn.q_proj"
    uint32_t out, in, rank;
    float *a, *b;
} adapted;

static void write_lora(const char *config, const adapted *matrices, size_t count) {
    zs_error error;
    safetensors_entry entries[8];
    char names[8][128];
    mkdir(lora_path, 0777);
    tiny_folder_put(lora_path, "adapter_config.json", config, strlen(config));
    for (size_t i = 0; i < count; i++) {
        const adapted *m = &matrices[i];
        snprintf(names[2 * i], sizeof names[0], "base_model.model.%s.lora_A.weight", m->name);
        snprintf(names[2 * i + 1], sizeof names[0], "base_model.model.%s.lora_B.weight", m->name);
        entries[2 * i] = (safetensors_entry){.name = names[2 * i], .dims = 2, .shape = {m->rank, m->in}, .data = m->a};
        entries[2 * i + 1] = (safetensors_entry){.name = names[2 * i + 1], .dims = 2, .shape = {m->out, m->rank}, .data = m->b};
    }
    tiny_need(safetensors_save(TEST_OUTPUT "/project-lora/adapter_model.safetensors", true, entries, 2 * count, NULL, 0, &error), &error);
}

static double random_value(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 33) / (1u << 30) - 1;
}

static adapted make_adapted(const char *name, uint32_t out, uint32_t in, uint32_t rank, uint64_t seed) {
    adapted m = {name, out, in, rank, malloc(sizeof(float) * rank * in), malloc(sizeof(float) * out * rank)};
    for (size_t i = 0; i < (size_t)rank * in; i++) m.a[i] = 0.1f * (float)random_value(&seed);
    for (size_t i = 0; i < (size_t)out * rank; i++) m.b[i] = 0.1f * (float)random_value(&seed);
    return m;
}

static void free_adapted(adapted *matrices, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(matrices[i].a);
        free(matrices[i].b);
    }
}

/// Factors as floats; their rows are in Hugging Face's order.
static void read_factors(const model_matrix *m, float *u, float *vt) {
    tensor_type_dequantise(m->u->type, m->u->data, u, (size_t)m->out * m->rank);
    tensor_type_dequantise(m->vt->type, m->vt->data, vt, (size_t)m->rank * m->in);
}

/// ΔW = s · u_k v_kᵀ changes z_k by s / σ_k, and no other; the expert has that matrix alone.
static void test_one_direction(void **state) {
    (void)state;
    enum { K = 5, SIZE = 64 };
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 3}";
    static float u[SIZE * SIZE], vt[SIZE * SIZE], a[SIZE], b[SIZE];
    const char *name = "model.layers.1.self_attn.q_proj"; // whose rows GGUF files permute
    zs_error error;
    model_file model;
    expert_file made;
    told t;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    tiny_need(model_file_open(factored_path, &model, &error), &error);
    const model_matrix *m = model_file_find(&model, name);
    read_factors(m, u, vt);
    double sigma = (double)((const float *)m->s->data)[K];
    for (uint32_t i = 0; i < SIZE; i++) a[i] = vt[K * SIZE + i], b[i] = u[i * SIZE + K];
    write_lora(config, &(adapted){name, SIZE, SIZE, 1, a, b}, 1);
    zs_project_report report = project(lora_path, &t, &made);
    assert_true(report.lora && !report.has_cosine && report.matrices == 1 && fabs(report.share - 1) < 1e-6);
    assert_string_equal(made.matrices[0].name, name);
    assert_string_equal(t.names[0], name);
    for (uint32_t k = 0; k < SIZE; k++) {
        // Columns of f32 are orthogonal to 2⁻²⁴ or so; 3 is the change, the smallest σ is above 0.01.
        double expected = k == K ? 1 + 3 / sigma : 1, bound = k == K ? 1e-6 * expected : 3 * 0x1p-44 * 64 / 0.01;
        if (!(fabs((double)made.matrices[0].values[k] - expected) <= bound + 0x1p-24))
            fail_msg("z[%u] = %.9g instead of %.9g", k, (double)made.matrices[0].values[k], expected);
    }
    expert_file_free(&made);
    model_file_close(&model);
}

/// The definitions, term by term: ‖diag(Uᵀ ΔW V)‖² and ‖ΔW‖², and z.
static void reference(const model_matrix *m, const adapted *l, double scale, double *z, double *said, double *changed) {
    float *u = malloc(sizeof *u * m->out * m->rank), *vt = malloc(sizeof *vt * m->rank * m->in);
    double *change = malloc(sizeof *change * m->out * m->in);
    read_factors(m, u, vt);
    *said = *changed = 0;
    for (uint32_t i = 0; i < m->out; i++) {
        for (uint32_t j = 0; j < m->in; j++) {
            double sum = 0;
            for (uint32_t k = 0; k < l->rank; k++) sum += (double)l->b[i * l->rank + k] * (double)l->a[k * m->in + j];
            change[i * m->in + j] = scale * sum;
            *changed += scale * sum * scale * sum;
        }
    }
    for (uint32_t k = 0; k < m->rank; k++) {
        double along = 0;
        for (uint32_t i = 0; i < m->out; i++) {
            for (uint32_t j = 0; j < m->in; j++)
                along += (double)u[i * m->rank + k] * change[i * m->in + j] * (double)vt[(size_t)k * m->in + j];
        }
        z[k] = 1 + along / (double)((const float *)m->s->data)[k];
        *said += along * along;
    }
    free(u);
    free(vt);
    free(change);
}

static void test_random_lora(void **state) {
    (void)state;
    static const char scaled[] = "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 6, \"use_rslora\": true}";
    zs_error error;
    model_file model;
    expert_file made;
    told t;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    tiny_need(model_file_open(factored_path, &model, &error), &error);
    adapted list[3] = {make_adapted("model.layers.0.mlp.down_proj", TINY_HIDDEN, TINY_FFN, RANK, 1),
                       make_adapted("model.layers.1.self_attn.k_proj", TINY_KV_HEADS * TINY_HEAD_DIM, TINY_HIDDEN, RANK, 2),
                       make_adapted("model.layers.1.mlp.up_proj", TINY_FFN, TINY_HIDDEN, RANK, 3)};
    for (int rslora = 0; rslora < 2; rslora++) {
        double all_said = 0, all_changed = 0;
        write_lora(rslora ? scaled : plain_config, list, 3);
        zs_project_report report = project(lora_path, &t, &made);
        assert_int_equal(report.matrices, 3);
        for (size_t i = 0; i < 3; i++) {
            double z[TINY_HIDDEN] = {0}, said, changed;
            uint32_t at = 0;
            reference(model_file_find(&model, list[i].name), &list[i], rslora ? 6 / 2.0 : 8 / 4.0, z, &said, &changed);
            all_said += said;
            all_changed += changed;
            while (at < t.count && strcmp(t.names[at], list[i].name) != 0) at++;
            assert_true(at < t.count && fabs(t.share[at] / (said / changed) - 1) < 1e-5);
            assert_true(t.share[at] > 0 && t.share[at] < 0.2);
            const expert_matrix *m = find(&made, list[i].name);
            for (uint32_t k = 0; k < m->rank; k++) assert_true(fabs((double)m->values[k] - z[k]) < 1e-5 * (1 + fabs(z[k] - 1)));
        }
        assert_true(fabs(report.share / (all_said / all_changed) - 1) < 1e-5);
        expert_file_free(&made);
    }
    free_adapted(list, 3);
    model_file_close(&model);
}

/// An adapter that PEFT saved, with shares and z by numpy (tests/golden/lora.py).
static void test_peft(void **state) {
    (void)state;
    expert_file made;
    told t;
    json_t *root = json_load_file(TEST_DATA "/golden/lora/expected.json", 0, NULL), *matrices = json_object_get(root, "matrices");
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    zs_project_report report = project(TEST_DATA "/golden/lora", &t, &made);
    assert_int_equal(report.matrices, json_object_size(matrices));
    assert_true(fabs(report.share / json_number_value(json_object_get(root, "share")) - 1) < 1e-5);
    for (uint32_t i = 0; i < t.count; i++) {
        const json_t *expected = json_object_get(matrices, t.names[i]), *z = json_object_get(expected, "z");
        const expert_matrix *m = find(&made, t.names[i]);
        assert_true(fabs(t.share[i] / json_number_value(json_object_get(expected, "share")) - 1) < 1e-4);
        assert_int_equal(m->rank, json_array_size(z));
        for (uint32_t k = 0; k < m->rank; k++) { // factors in f32 turn pairs of small σ that are close together
            double value = json_number_value(json_array_get(z, k));
            if (!(fabs((double)m->values[k] - value) < 1e-4 * (1 + fabs(value - 1))))
                fail_msg("%s[%u]: %.8g instead of %.8g", m->name, k, (double)m->values[k], value);
        }
    }
    expert_file_free(&made);
    json_decref(root);
}

// ---- refused -------------------------------------------------------------------------------------------------------

static void expect_refused(const char *model, const char *tuned, zs_status expected, const char *part) {
    zs_error error = {0};
    remove(out_path);
    zs_status status = zs_project_file(model, tuned, out_path, NULL, NULL, &error);
    if (status != expected || !strstr(error.message, part))
        fail_msg("expected %d '%s', got %d '%s'", expected, part, status, error.message);
    assert_int_equal(access(out_path, F_OK), -1);
}

static void test_refused_configs(void **state) {
    (void)state;
    static const struct {
        const char *config, *word;
        zs_status status;
    } cases[] = {
        {"{\"peft_type\": \"IA3\", \"r\": 4, \"lora_alpha\": 8}", "peft_type is IA3", ZS_ERROR_UNSUPPORTED},
        {"{\"r\": 4, \"lora_alpha\": 8}", "peft_type is missing", ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"use_dora\": true}", "use_dora", ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"fan_in_fan_out\": true}", "fan_in_fan_out", ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"modules_to_save\": [\"lm_head\"]}", "modules_to_save",
         ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"alpha_pattern\": {\"q_proj\": 2}}", "alpha_pattern",
         ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"something_new\": 3}", "something_new", ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"bias\": \"all\"}", "bias is all", ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"init_lora_weights\": \"pissa\"}", "init_lora_weights is pissa",
         ZS_ERROR_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 8}", "r or lora_alpha", ZS_ERROR_FORMAT},
        {"{\"peft_type\": \"LORA\", \"r\": 4}", "r or lora_alpha", ZS_ERROR_FORMAT},
        {"[]", "no JSON object", ZS_ERROR_FORMAT},
    };
    adapted m = make_adapted("model.layers.0.mlp.up_proj", TINY_FFN, TINY_HIDDEN, RANK, 1);
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_lora(cases[i].config, &m, 1);
        expect_refused(factored_path, lora_path, cases[i].status, cases[i].word);
    }
    free_adapted(&m, 1);
}

/// Writes an adapter of one tensor more than a good one.
static void write_with(const char *name, uint64_t rows, uint64_t cols) {
    static const float zeros[TINY_FFN * RANK];
    zs_error error;
    const safetensors_entry entries[] = {
        {.name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", .dims = 2, .shape = {RANK, TINY_HIDDEN}, .data = zeros},
        {.name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight", .dims = 2, .shape = {TINY_FFN, RANK}, .data = zeros},
        {.name = name, .dims = 2, .shape = {rows, cols}, .data = zeros}};
    tiny_need(safetensors_save(TEST_OUTPUT "/project-lora/adapter_model.safetensors", true, entries, 3, NULL, 0, &error), &error);
}

static void test_refused_weights(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t rows, cols;
        const char *word;
        zs_status status;
    } cases[] = {
        {"base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight", 1, TINY_FFN, "lora_magnitude_vector",
         ZS_ERROR_UNSUPPORTED},
        {"base_model.model.lm_head.weight", 4, 4, "lm_head.weight is none", ZS_ERROR_UNSUPPORTED},
        {"base_model.model.model.embed_tokens.lora_embedding_A", 4, 4, "lora_embedding_A", ZS_ERROR_UNSUPPORTED},
        {"other.layers.0.mlp.up_proj.lora_A.weight", 4, 4, "other.layers", ZS_ERROR_UNSUPPORTED},
        {"base_model.model.model.layers.1.mlp.up_proj.lora_A.weight", RANK, TINY_HIDDEN, "up_proj has no lora_B", ZS_ERROR_FORMAT},
        {"base_model.model.model.layers.1.mlp.up_proj.lora_B.weight", TINY_FFN, RANK, "up_proj has no lora_A", ZS_ERROR_FORMAT},
        {"base_model.model.model.layers.1.mlp.up_proj.lora_A.weight", RANK + 1, 8, "not of rank 4", ZS_ERROR_FORMAT},
        {"base_model.model.language_model.model.layers.0.mlp.up_proj.lora_A.weight", RANK, 8, "under two names", ZS_ERROR_FORMAT},
    };
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    adapted wrong[] = {make_adapted("model.layers.0.mlp.up_proj", TINY_FFN, TINY_HIDDEN - 1, RANK, 1),
                       make_adapted("model.layers.0.mlp.up_proj", TINY_FFN + 1, TINY_HIDDEN, RANK, 1),
                       make_adapted("model.layers.7.mlp.up_proj", TINY_FFN, TINY_HIDDEN, RANK, 1),
                       make_adapted("lm_head", TINY_FFN, TINY_HIDDEN, RANK, 1),
                       make_adapted("model.layers.0.mlp.up_proj", TINY_FFN, TINY_HIDDEN, RANK, 1)};
    static const char *const words[] = {"has shape [96, 63], and [96, 64]", "has shape [97, 64]", "layers.7", "lm_head", "NaN"};
    wrong[4].b[3] = NAN;
    for (size_t i = 0; i < 5; i++) {
        write_lora(plain_config, &wrong[i], 1);
        expect_refused(factored_path, lora_path, i < 4 ? ZS_ERROR_MISMATCH : ZS_ERROR_NUMERIC, words[i]);
    }
    free_adapted(wrong, 5);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_with(cases[i].name, cases[i].rows, cases[i].cols);
        expect_refused(factored_path, lora_path, cases[i].status, cases[i].word);
    }
    unlink(TEST_OUTPUT "/project-lora/adapter_model.safetensors");
    expect_refused(factored_path, lora_path, ZS_ERROR_IO, "adapter_model.safetensors");
}

static bool cancel(void *user, const char *what, double done, double total) {
    (void)user;
    assert_string_equal(what, "project");
    assert_true(done > 0 && done <= total);
    return false;
}

static void test_refused_checkpoints(void **state) {
    (void)state;
    static const char other[] = TEST_OUTPUT "/project-other.gguf", wide[] = TEST_OUTPUT "/project-wide.gguf";
    zs_error error;
    tiny_files(NULL, dense_path, ZS_FACTOR_F32, factored_path);
    tiny_files(&(tiny_model_params){.seed = 9}, other, ZS_FACTOR_F32, NULL);
    tiny_files(&(tiny_model_params){.ffn = 128}, wide, ZS_FACTOR_F32, NULL);
    expect_refused(factored_path, other, ZS_ERROR_MISMATCH, "was not made from");
    expect_refused(factored_path, wide, ZS_ERROR_MISMATCH, "gate_proj has shape [128, 64], and [96, 64]");
    expect_refused(factored_path, factored_path, ZS_ERROR_ARGUMENT, "is factored");
    expect_refused(dense_path, dense_path, ZS_ERROR_ARGUMENT, "is dense");
    expect_refused(factored_path, TEST_OUTPUT "/no-such-model", ZS_ERROR_IO, "no-such-model");
    assert_int_equal(zs_project_file(factored_path, dense_path, out_path, &(zs_project_params){.progress = {cancel, NULL}}, NULL, &error),
                     ZS_ERROR_CANCELLED);
    assert_int_equal(access(out_path, F_OK), -1);
    tiny_need(zs_project_file(factored_path, dense_path, out_path, NULL, NULL, &error), &error);
    assert_int_equal(zs_project_file(factored_path, dense_path, out_path, NULL, NULL, &error), ZS_ERROR_EXISTS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_one_direction),
        cmocka_unit_test(test_random_lora),
        cmocka_unit_test(test_peft),
        cmocka_unit_test(test_refused_configs),
        cmocka_unit_test(test_refused_weights),
        cmocka_unit_test(test_refused_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
