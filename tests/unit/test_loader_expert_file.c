// Expert files: everything is kept, everything unknown or damaged is refused.
#include "loader/expert_file.h"
#include "loader/number.h"
#include "support/comma_locale.h"
#include "support/guarded.h"
#include "support/safetensors_image.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char path[] = TEST_OUTPUT "/loader_expert.safetensors";

static expert_file sample(void) {
    static float gate[3] = {1, 0.5f, 2}, query[2] = {-1, 0};
    static expert_matrix matrices[] = {
        {"model.layers.0.mlp.gate_proj", 3, gate, true, {1, 2, 3, 4, 5, 6, 7, 8}},
        {"model.layers.0.self_attn.q_proj", 2, query, false, {0}},
    };
    return (expert_file){.name = "math",
                         .description = "Sums, \"proofs\"",
                         .base_model = "tiny",
                         .training = "{\"steps\": 10}",
                         .sources = "a,b",
                         .alpha = "0.25,0.75",
                         .dispatcher = true,
                         .sigmoid = true,
                         .trace = true,
                         .max_mult = 1.0 / 3,
                         .matrices = matrices,
                         .matrix_count = 2};
}

static void expect_equal(const expert_file *a, const expert_file *b) {
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->description, b->description);
    assert_string_equal(a->base_model, b->base_model);
    assert_string_equal(a->training, b->training);
    assert_string_equal(a->sources, b->sources);
    assert_string_equal(a->alpha, b->alpha);
    assert_true(a->dispatcher == b->dispatcher && a->sigmoid == b->sigmoid && a->trace == b->trace);
    assert_true(a->max_mult == b->max_mult);
    assert_int_equal(a->matrix_count, b->matrix_count);
    for (size_t i = 0; i < a->matrix_count; i++) {
        assert_string_equal(a->matrices[i].name, b->matrices[i].name);
        assert_int_equal(a->matrices[i].rank, b->matrices[i].rank);
        assert_memory_equal(a->matrices[i].values, b->matrices[i].values, a->matrices[i].rank * sizeof(float));
        assert_true(a->matrices[i].has_sketch == b->matrices[i].has_sketch);
        if (a->matrices[i].has_sketch) assert_memory_equal(a->matrices[i].sketch, b->matrices[i].sketch, sizeof a->matrices[i].sketch);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        expert_file written = sample(), read;
        zs_error error = {0};
        if (plain) {
            written.dispatcher = written.sigmoid = written.trace = false;
            written.sources = written.alpha = written.training = "";
            written.max_mult = 1;
        }
        remove(path);
        if (expert_file_save(path, false, &written, &error)) fail_msg("%s", error.message);
        if (expert_file_load(path, &read, &error)) fail_msg("%s", error.message);
        expect_equal(&written, &read);
        expert_file_free(&read);
        assert_int_equal(expert_file_save(path, false, &written, &error), ZS_ERROR_EXISTS);
        assert_int_equal(expert_file_save(path, true, &written, &error), ZS_OK);
    }
    remove(path);
}

static void test_defaults(void **state) {
    (void)state;
    byte_buffer bytes = safetensors_image("{'__metadata__': {'format': 'zsigma-expert', 'version': '1'}, "
                                          "'m.z': {'dtype': 'F16', 'shape': [2], 'data_offsets': [0, 4]}}",
                                          "\0\x3c\0\xc0", 4);
    expert_file file;
    zs_error error = {0};
    if (expert_file_load_memory(bytes.data, bytes.size, &file, &error)) fail_msg("%s", error.message);
    assert_string_equal(file.name, "");
    assert_string_equal(file.sources, "");
    assert_false(file.dispatcher || file.sigmoid || file.trace);
    assert_true(file.max_mult == 1);
    assert_string_equal(file.matrices[0].name, "m");
    assert_true(file.matrices[0].values[0] == 1 && file.matrices[0].values[1] == -2);
    expert_file_free(&file);
    byte_buffer_free(&bytes);
}

/// The caller's locale is the one it was: it writes commas still.
static void expect_caller_locale(void) {
    char text[8];
    snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5");
}

/// Files are the same everywhere, also inside a program that runs in a locale with decimal commas.
static void test_comma_locale(void **state) {
    (void)state;
    static const double numbers[] = {1.0 / 3, 0.5, -2.25e-300, 1e22, 4};
    expert_file written = sample(), read;
    zs_error error = {0};
    if (!comma_locale_enter(TEST_OUTPUT)) skip();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char text[NUMBER_BYTES];
        double back = 0;
        number_write(numbers[i], text);
        expect_caller_locale();
        assert_null(strchr(text, ','));
        assert_true(number_read(text, &back) && back == numbers[i]);
        expect_caller_locale();
    }
    double unused;
    assert_false(number_read("0,5", &unused));
    assert_int_equal(expert_file_save(path, true, &written, &error), ZS_OK);
    assert_int_equal(expert_file_load(path, &read, &error), ZS_OK); // written in this locale, read in it
    assert_true(read.max_mult == 1.0 / 3);
    expert_file_free(&read);
    comma_locale_leave();
    if (expert_file_load(path, &read, &error)) fail_msg("%s", error.message); // and in another
    assert_true(read.max_mult == 1.0 / 3);
    expert_file_free(&read);
    remove(path);
}

#define META(more) "{'__metadata__': {'format': 'zsigma-expert', 'version': '1'" more "}, "
#define TENSOR(name, shape, end) "'" name "': {'dtype': 'F32', 'shape': " shape ", 'data_offsets': [0, " end "]}}"
#define GOOD TENSOR("m.z", "[2]", "8")

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        zs_status status;
        const char *part;
    } cases[] = {
        {"{" GOOD, ZS_ERROR_FORMAT, "no expert file"},
        {"{'__metadata__': {'format': 'pt'}, " GOOD, ZS_ERROR_FORMAT, "no expert file"},
        {"{'__metadata__': {'format': 'zsigma-expert'}, " GOOD, ZS_ERROR_UNSUPPORTED, "version ''"},
        {"{'__metadata__': {'format': 'zsigma-expert', 'version': '2'}, " GOOD, ZS_ERROR_UNSUPPORTED, "version '2'"},
        {META(", 'role': 'judge'") GOOD, ZS_ERROR_UNSUPPORTED, "role is 'judge'"},
        {META(", 'parameterisation': 'tanh'") GOOD, ZS_ERROR_UNSUPPORTED, "parameterisation is 'tanh'"},
        {META(", 'normalise': 'frobenius'") GOOD, ZS_ERROR_UNSUPPORTED, "normalise is 'frobenius'"},
        {META(", 'max_mult': ''") GOOD, ZS_ERROR_FORMAT, "max_mult ''"},
        {META(", 'max_mult': 'two'") GOOD, ZS_ERROR_FORMAT, "max_mult 'two'"},
        {META(", 'max_mult': '2x'") GOOD, ZS_ERROR_FORMAT, "max_mult '2x'"},
        {META(", 'max_mult': '0x2'") GOOD, ZS_ERROR_FORMAT, "max_mult '0x2'"},
        {META(", 'max_mult': ' 2'") GOOD, ZS_ERROR_FORMAT, "max_mult ' 2'"},
        {META(", 'max_mult': '-1'") GOOD, ZS_ERROR_FORMAT, "max_mult"},
        {META(", 'max_mult': '0'") GOOD, ZS_ERROR_FORMAT, "max_mult"},
        {META(", 'max_mult': 'inf'") GOOD, ZS_ERROR_FORMAT, "max_mult"},
        {META(", 'max_mult': 'nan'") GOOD, ZS_ERROR_FORMAT, "max_mult"},
        {META("") TENSOR("m.z", "[1, 2]", "8"), ZS_ERROR_FORMAT, "m.z is not of shape [rank]"},
        {META("") TENSOR("m.z", "[]", "4"), ZS_ERROR_FORMAT, "m.z is not of shape [rank]"},
        {META("") TENSOR("m.z", "[0]", "0"), ZS_ERROR_FORMAT, "m.z is not of shape [rank]"},
        {META("") TENSOR("m.weight", "[2]", "8"), ZS_ERROR_FORMAT, "m.weight is neither"},
        {META("") TENSOR(".z", "[2]", "8"), ZS_ERROR_FORMAT, ".z is neither"},
        {META("") TENSOR("m.sketch", "[8]", "32"), ZS_ERROR_FORMAT, "no .z tensor"},
        {META("") "'m.sketch': {'dtype': 'F32', 'shape': [2], 'data_offsets': [8, 16]}, " GOOD, ZS_ERROR_FORMAT,
         "m.sketch is not of shape [8]"},
        {META("") "'m.sketch': {'dtype': 'F32', 'shape': [2, 4], 'data_offsets': [8, 40]}, " GOOD, ZS_ERROR_FORMAT,
         "m.sketch is not of shape [8]"},
    };
    const float data[10] = {1, 2};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        byte_buffer bytes = safetensors_image(cases[i].header, data, sizeof data);
        expert_file file;
        zs_error error = {0};
        zs_status status = expert_file_load_memory(bytes.data, bytes.size, &file, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("%s: %d %s", cases[i].header, status, error.message);
        assert_null(file.matrices);
        byte_buffer_free(&bytes);
    }
}

static void test_not_finite(void **state) {
    (void)state;
    static const char header[] = META("") "'m.sketch': {'dtype': 'F32', 'shape': [8], 'data_offsets': [8, 40]}, " GOOD;
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t at = 0; at < 10; at++) {
        float data[10] = {0};
        expert_file file;
        zs_error error = {0};
        data[at] = odd[at % 3];
        byte_buffer bytes = safetensors_image(header, data, sizeof data);
        assert_int_equal(expert_file_load_memory(bytes.data, bytes.size, &file, &error), ZS_ERROR_NUMERIC);
        assert_non_null(strstr(error.message, at < 2 ? "tensor m.z" : "tensor m.sketch"));
        byte_buffer_free(&bytes);
    }
}

/// Names of any length survive; cutting one would make it another matrix's.
static void test_long_names(void **state) {
    (void)state;
    char long_name[600];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    float values[1] = {2};
    expert_matrix matrix = {.name = long_name, .rank = 1, .values = values, .has_sketch = true};
    expert_file written = sample(), read;
    zs_error error = {0};
    written.matrices = &matrix;
    written.matrix_count = 1;
    if (expert_file_save(path, true, &written, &error)) fail_msg("%s", error.message);
    if (expert_file_load(path, &read, &error)) fail_msg("%s", error.message);
    expect_equal(&written, &read);
    expert_file_free(&read);
    remove(path);
}

static void test_damage(void **state) {
    (void)state;
    expert_file written = sample(), read;
    zs_error error = {0};
    byte_buffer bytes = {0};
    uint8_t block[4096];
    assert_int_equal(expert_file_save(path, true, &written, &error), ZS_OK);
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    for (size_t size; (size = fread(block, 1, sizeof block, stream)) > 0;) byte_buffer_put(&bytes, block, size);
    fclose(stream);
    remove(path);
    guarded area;
    guarded_create(&area, bytes.size);
    for (size_t size = 0; size < bytes.size; size++) {
        zs_status status = expert_file_load_memory(guarded_place(&area, bytes.data, size), size, &read, &error);
        if (status != ZS_ERROR_FORMAT) fail_msg("cut to %zu of %zu bytes: status %d", size, bytes.size, status);
    }
    for (size_t at = 0; at < bytes.size; at++) {
        for (uint32_t flip = 1; flip < 256; flip *= 2) {
            uint8_t *data = guarded_place(&area, bytes.data, bytes.size);
            data[at] = (uint8_t)(data[at] ^ flip);
            if (expert_file_load_memory(data, bytes.size, &read, &error) == ZS_OK) expert_file_free(&read);
        }
    }
    guarded_destroy(&area);
    byte_buffer_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comma_locale), // first: it skips itself in a thread whose locale an earlier test's call has left behind
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_defaults),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_finite),   cmocka_unit_test(test_long_names), cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
