// safetensors: types, shapes, metadata, the writer, and that no damage does worse than an error.
#include "loader/safetensors.h"
#include "support/guarded.h"
#include "support/safetensors_image.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char path[] = TEST_OUTPUT "/loader_safetensors.safetensors";
static const float values[4] = {1, -2, 0.5f, 8};

static const char sample_header[] = "{'__metadata__': {'who': 'test', 'empty': ''}, "
                                    "'b': {'dtype': 'F32', 'shape': [2, 2], 'data_offsets': [0, 16]}, "
                                    "'a': {'dtype': 'F16', 'shape': [2], 'data_offsets': [16, 20]}, "
                                    "'c': {'dtype': 'BF16', 'shape': [], 'data_offsets': [20, 22]}, "
                                    "'nil': {'dtype': 'F32', 'shape': [3, 0], 'data_offsets': [16, 16]}}";

static byte_buffer make_sample(void) {
    uint8_t data[22] = {[16] = 0, 0x3c, 0, 0xc0, 0x80, 0x3f}; // 1, −2; 1
    memcpy(data, values, 16);
    return safetensors_image(sample_header, data, sizeof data);
}

static void test_sample(void **state) {
    (void)state;
    byte_buffer bytes = make_sample();
    safetensors_file file;
    zs_error error = {0};
    float read[4];
    if (safetensors_open_memory(bytes.data, bytes.size, &file, &error)) fail_msg("%s", error.message);
    assert_int_equal(file.tensor_count, 4);
    for (size_t i = 1; i < 4; i++) assert_true(strcmp(file.tensors[i - 1].name, file.tensors[i].name) < 0);
    const safetensors_tensor *tensor = safetensors_find(&file, "b");
    assert_non_null(tensor);
    assert_int_equal(tensor->dims, 2);
    assert_int_equal(tensor->elements, 4);
    memcpy(read, tensor->data, sizeof read);
    assert_memory_equal(read, values, sizeof values);
    tensor = safetensors_find(&file, "a");
    assert_int_equal(tensor->type, TENSOR_F16);
    tensor_type_dequantise(tensor->type, tensor->data, read, 2);
    assert_true(read[0] == 1 && read[1] == -2);
    tensor = safetensors_find(&file, "c");
    assert_int_equal(tensor->type, TENSOR_BF16);
    assert_int_equal(tensor->elements, 1);
    assert_int_equal(safetensors_find(&file, "nil")->elements, 0);
    assert_null(safetensors_find(&file, "d"));
    assert_string_equal(safetensors_find_meta(&file, "who"), "test");
    assert_string_equal(safetensors_find_meta(&file, "empty"), "");
    assert_null(safetensors_find_meta(&file, "absent"));
    safetensors_close(&file);
    byte_buffer_free(&bytes);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        zs_status status;
        const char *part;
    } cases[] = {
        {"", ZS_ERROR_FORMAT, "no JSON object"},
        {"[]", ZS_ERROR_FORMAT, "no JSON object"},
        {"{} x", ZS_ERROR_FORMAT, "no JSON object"},
        {"{'a': 1}", ZS_ERROR_FORMAT, "tensor a has no dtype"},
        {"{'a': {'dtype': 'F64', 'shape': [1], 'data_offsets': [0, 8]}}", ZS_ERROR_UNSUPPORTED, "tensor a has a dtype"},
        {"{'a': {'dtype': 'F32', 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "no shape"},
        {"{'a': {'dtype': 'F32', 'shape': [1,1,1,1,1,1,1,1,1], 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "more than 8"},
        {"{'a': {'dtype': 'F32', 'shape': [-1], 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "absurd shape"},
        {"{'a': {'dtype': 'F32', 'shape': [1.0], 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "absurd shape"},
        {"{'a': {'dtype': 'F32', 'shape': [4294967296, 4294967296], 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "absurd shape"},
        {"{'a': {'dtype': 'F32', 'shape': [9223372036854775807], 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "absurd shape"},
        {"{'a': {'dtype': 'F32', 'shape': [4611686018427387904], 'data_offsets': [0, 0]}}", ZS_ERROR_FORMAT, "absurd shape"}, // 2^64 bytes
        {"{'a': {'dtype': 'F32', 'shape': [0, 9223372036854775807], 'data_offsets': [0, 4]}}", ZS_ERROR_FORMAT, "does not fit"},
        {"{'a': {'dtype': 'F32', 'shape': [1]}}", ZS_ERROR_FORMAT, "no data_offsets"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0]}}", ZS_ERROR_FORMAT, "no data_offsets"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [-4, 0]}}", ZS_ERROR_FORMAT, "no data_offsets"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 0]}}", ZS_ERROR_FORMAT, "does not fit"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 8]}}", ZS_ERROR_FORMAT, "does not fit"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [16, 20]}}", ZS_ERROR_FORMAT, "does not fit"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [9223372036854775804, 9223372036854775807]}}", ZS_ERROR_FORMAT,
         "does not fit"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [2, 6]}}", ZS_ERROR_FORMAT, "tensor a is not aligned"},
        {"{'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}, 'b': {'dtype': 'F32', 'shape': [2], 'data_offsets': [4, 12]}}",
         ZS_ERROR_FORMAT, "tensor b overlaps"},
        {"{'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}, 'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]}}",
         ZS_ERROR_FORMAT, "duplicate"},
        {"{'__metadata__': []}", ZS_ERROR_FORMAT, "__metadata__"},
        {"{'__metadata__': {'n': 1}}", ZS_ERROR_FORMAT, "metadata n"},
        {"{'__metadata__': {'n': '\xff'}}", ZS_ERROR_FORMAT, "no JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        byte_buffer bytes = safetensors_image(cases[i].header, values, sizeof values);
        safetensors_file file;
        zs_error error = {0};
        zs_status status = safetensors_open_memory(bytes.data, bytes.size, &file, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("%s: %d %s", cases[i].header, status, error.message);
        byte_buffer_free(&bytes);
    }
}

static void test_header_length(void **state) {
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 101 << 20, 1 << 20, sizeof sample_header - 2, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        byte_buffer bytes = make_sample();
        safetensors_file file;
        zs_error error = {0};
        memcpy(bytes.data, &lengths[i], 8);
        assert_int_equal(safetensors_open_memory(bytes.data, bytes.size, &file, &error), ZS_ERROR_FORMAT);
        assert_true(error.message[0] != '\0');
        byte_buffer_free(&bytes);
    }
}

static zs_status open_any(const uint8_t *data, size_t size) {
    safetensors_file file;
    zs_error error = {0};
    zs_status status = safetensors_open_memory(data, size, &file, &error);
    if (status) {
        assert_true(error.message[0] != '\0' && error.status == status);
        return status;
    }
    for (size_t i = 0; i < file.tensor_count; i++) {
        const safetensors_tensor *tensor = &file.tensors[i];
        uint64_t sum = 0;
        for (uint64_t k = 0; k < tensor->size; k++) sum += ((const uint8_t *)tensor->data)[k];
        assert_true(sum <= 255 * tensor->size);
        assert_ptr_equal(safetensors_find(&file, tensor->name), tensor);
    }
    safetensors_close(&file);
    return ZS_OK;
}

static void test_damage(void **state) {
    (void)state;
    static const uint8_t flips[] = {0x01, 0x02, 0x10, 0x80, 0xff};
    byte_buffer bytes = make_sample();
    guarded area;
    guarded_create(&area, bytes.size);
    for (size_t size = 0; size < bytes.size; size++) {
        zs_status status = open_any(guarded_place(&area, bytes.data, size), size);
        if (status != ZS_ERROR_FORMAT) fail_msg("cut to %zu of %zu bytes: status %d", size, bytes.size, status);
    }
    for (size_t at = 0; at < bytes.size; at++) {
        for (size_t i = 0; i < sizeof flips; i++) {
            uint8_t *data = guarded_place(&area, bytes.data, bytes.size);
            data[at] ^= flips[i];
            (void)open_any(data, bytes.size);
        }
    }
    guarded_destroy(&area);
    byte_buffer_free(&bytes);
}

static void test_round_trip(void **state) {
    (void)state;
    const safetensors_meta meta[] = {{"key", "a \"quoted\" value,\nß"}, {"other", ""}};
    const safetensors_entry entries[] = {{"z.first", 1, {3}, values}, {"a.second", 2, {2, 2}, values}, {"m.none", 1, {0}, values}};
    safetensors_file file;
    zs_error error = {0};
    remove(path);
    if (safetensors_save(path, false, entries, 3, meta, 2, &error)) fail_msg("%s", error.message);
    assert_int_equal(safetensors_save(path, false, entries, 3, meta, 2, &error), ZS_ERROR_EXISTS);
    assert_int_equal(safetensors_save(path, true, entries, 3, meta, 2, &error), ZS_OK);
    assert_int_equal(safetensors_open(path, &file, &error), ZS_OK);
    assert_int_equal(file.tensor_count, 3);
    assert_string_equal(file.tensors[0].name, "a.second");
    assert_int_equal(file.tensors[0].shape[1], 2);
    assert_memory_equal(file.tensors[0].data, values, 16);
    assert_memory_equal(safetensors_find(&file, "z.first")->data, values, 12);
    assert_int_equal((uintptr_t)file.tensors[0].data % 4, 0);
    assert_string_equal(safetensors_find_meta(&file, "key"), meta[0].value);
    safetensors_close(&file);
    remove(path);
}

/// What JSON cannot hold is an error, not a file that lacks it.
static void test_unwritable(void **state) {
    (void)state;
    const safetensors_entry good = {"good", 1, {1}, values}, bad = {"bad\xff", 1, {1}, values};
    const safetensors_meta bad_meta = {"key", "\xff\xfe"};
    const safetensors_entry twins[] = {good, good};
    zs_error error = {0};
    assert_int_equal(safetensors_save(path, true, &bad, 1, NULL, 0, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(safetensors_save(path, true, &good, 1, &bad_meta, 1, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(safetensors_save(path, true, twins, 2, NULL, 0, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(safetensors_save(TEST_OUTPUT "/no/such/folder/x", true, &good, 1, NULL, 0, &error), ZS_ERROR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample), cmocka_unit_test(test_refused),    cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_damage), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
