// Reading GGUF: every value type, shapes and places of tensors, and that no damage does worse than an error.
#include "loader/gguf.h"
#include "support/gguf_image.h"
#include "support/guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const words[] = {"alpha", "", "gamma"};
static const float matrix[6] = {1, 2, 3, 4, 5, 6};

/// All thirteen value types, arrays, three tensors.
static byte_buffer make_sample(uint32_t alignment) {
    gguf_image image = {.alignment = alignment};
    const uint64_t vector_shape[] = {32}, matrix_shape[] = {2, 3}, cube_shape[] = {1, 2, 1, 2};
    const uint8_t blocks[34] = {0, 0x3c, 1, 255};
    const float halves[] = {0.5f, -2};
    gguf_image_value(&image, "u8", GGUF_U8, &(uint8_t){200}, 1);
    gguf_image_value(&image, "i8", GGUF_I8, &(int8_t){100}, 1);
    gguf_image_value(&image, "u16", GGUF_U16, &(uint16_t){60000}, 2);
    gguf_image_value(&image, "i16", GGUF_I16, &(int16_t){-3}, 2);
    gguf_image_u32(&image, "u32", 4000000000u);
    gguf_image_value(&image, "i32", GGUF_I32, &(int32_t){2000000000}, 4);
    gguf_image_f32(&image, "f32", 1.5f);
    gguf_image_value(&image, "bool", GGUF_BOOL, "\1", 1);
    gguf_image_string(&image, "string", "text");
    gguf_image_value(&image, "u64", GGUF_U64, &(uint64_t){1ull << 40}, 8);
    gguf_image_value(&image, "i64", GGUF_I64, &(int64_t){7}, 8);
    gguf_image_value(&image, "f64", GGUF_F64, &(double){0.25}, 8);
    gguf_image_strings(&image, "words", words, 3);
    gguf_image_array(&image, "halves", GGUF_F32, 2, halves, sizeof halves);
    gguf_image_array(&image, "none", GGUF_STRING, 0, NULL, 0);
    if (alignment) gguf_image_u32(&image, "general.alignment", alignment);
    gguf_image_tensor(&image, "vector", TENSOR_Q8_0, 1, vector_shape, blocks);
    gguf_image_tensor(&image, "matrix", TENSOR_F32, 2, matrix_shape, matrix);
    gguf_image_tensor(&image, "cube", TENSOR_F16, 4, cube_shape, NULL);
    return gguf_image_finish(&image);
}

static void check_integers(const gguf_file *file) {
    static const struct {
        const char *key;
        uint64_t value;
    } expected[] = {{"u8", 200}, {"i8", 100}, {"u16", 60000}, {"u32", 4000000000u}, {"i32", 2000000000}, {"u64", 1ull << 40}, {"i64", 7}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        uint64_t wide = 0;
        uint32_t narrow = 0;
        assert_true(gguf_get_u64(file, expected[i].key, &wide));
        assert_true(wide == expected[i].value);
        assert_int_equal(gguf_get_u32(file, expected[i].key, &narrow), wide <= UINT32_MAX);
        if (wide <= UINT32_MAX) assert_int_equal(narrow, wide);
    }
    uint64_t untouched;
    assert_false(gguf_get_u64(file, "i16", &untouched)); // negative
    assert_false(gguf_get_u64(file, "f32", &untouched));
    assert_false(gguf_get_u64(file, "string", &untouched));
    assert_false(gguf_get_u64(file, "words", &untouched));
    assert_false(gguf_get_u64(file, "absent", &untouched));
}

static void check_others(const gguf_file *file) {
    float f = 0;
    bool b = false;
    gguf_string s;
    assert_true(gguf_get_f32(file, "f32", &f) && f == 1.5f);
    assert_true(gguf_get_f32(file, "f64", &f) && f == 0.25f);
    assert_false(gguf_get_f32(file, "u32", &f));
    assert_true(gguf_get_bool(file, "bool", &b) && b);
    assert_false(gguf_get_bool(file, "u8", &b));
    assert_true(gguf_get_string(file, "string", &s) && s.size == 4 && memcmp(s.data, "text", 4) == 0);
    assert_false(gguf_get_string(file, "words", &s));
}

static void check_arrays(const gguf_file *file) {
    const gguf_value *array = gguf_find_value(file, "words");
    size_t cursor = 0, count = 0;
    gguf_string s = {0};
    float f = 0;
    uint64_t u;
    for (; count < 3 && gguf_array_next_string(array, &cursor, &s); count++) {
        assert_int_equal(s.size, strlen(words[count]));
        assert_memory_equal(s.data, words[count], s.size);
    }
    assert_true(count == 3 && !gguf_array_next_string(array, &cursor, &s));
    array = gguf_find_value(file, "halves");
    assert_int_equal(array->count, 2);
    assert_true(gguf_array_f32(array, 1, &f) && f == -2);
    assert_false(gguf_array_f32(array, 2, &f));
    assert_false(gguf_array_u64(array, 0, &u));
    cursor = 0;
    assert_false(gguf_array_next_string(array, &cursor, &s));
    assert_false(gguf_array_next_string(gguf_find_value(file, "none"), &cursor, &s));
}

static void check_tensors(const gguf_file *file, uint32_t alignment) {
    const gguf_tensor *tensor = gguf_find_tensor(file, "matrix");
    assert_int_equal(file->tensor_count, 3);
    assert_int_equal(file->alignment, alignment);
    assert_non_null(tensor);
    assert_int_equal(tensor->dims, 2);
    assert_int_equal(tensor->shape[0], 2); // row-major: the file has 3 first
    assert_int_equal(tensor->shape[1], 3);
    assert_int_equal(tensor->offset % alignment, 0);
    assert_int_equal(tensor->size, sizeof matrix);
    assert_memory_equal(tensor->data, matrix, sizeof matrix);
    tensor = gguf_find_tensor(file, "vector");
    assert_int_equal(tensor->size, 34);
    assert_memory_equal(tensor->data, "\0\x3c\1\xff", 4);
    tensor = gguf_find_tensor(file, "cube");
    assert_int_equal(tensor->dims, 4);
    assert_int_equal(tensor->elements, 4);
    assert_int_equal(tensor->shape[3], 2);
    assert_null(gguf_find_tensor(file, "matri"));
    assert_null(gguf_find_tensor(file, ""));
}

static void test_values_and_tensors(void **state) {
    (void)state;
    static const uint32_t alignments[] = {0, 1, 64, 4096};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        byte_buffer bytes = make_sample(alignments[i]);
        gguf_file file;
        zs_error error = {0};
        if (gguf_open_memory(bytes.data, bytes.size, &file, &error)) fail_msg("%s", error.message);
        check_integers(&file);
        check_others(&file);
        check_arrays(&file);
        check_tensors(&file, alignments[i] ? alignments[i] : 32);
        gguf_close(&file);
        byte_buffer_free(&bytes);
    }
}

/// Opens what a test made and expects an error that mentions `part`.
static void expect_error(byte_buffer *bytes, zs_status status, const char *part) {
    gguf_file file;
    zs_error error = {0};
    guarded area;
    guarded_create(&area, bytes->size + 1);
    zs_status found = gguf_open_memory(guarded_place(&area, bytes->data, bytes->size), bytes->size, &file, &error);
    if (found != status || !strstr(error.message, part)) fail_msg("expected %d and \"%s\", got %d: %s", status, part, found, error.message);
    assert_null(file.values);
    guarded_destroy(&area);
    byte_buffer_free(bytes);
}

static void test_headers(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint64_t value;
        size_t size;
        zs_status status;
        const char *part;
    } cases[] = {
        {0, 0x47475546, 4, ZS_ERROR_FORMAT, "no GGUF"},
        {4, 2, 4, ZS_ERROR_UNSUPPORTED, "version 2"},
        {4, 0x03000000, 4, ZS_ERROR_UNSUPPORTED, "version"}, // big-endian
        {8, UINT64_MAX, 8, ZS_ERROR_FORMAT, "18446744073709551615 tensors"},
        {8, 1000, 8, ZS_ERROR_FORMAT, "1000 tensors"},
        {16, UINT64_MAX, 8, ZS_ERROR_FORMAT, "18446744073709551615 keys"},
        {16, 1ull << 61, 8, ZS_ERROR_FORMAT, "keys"},
        {24, UINT64_MAX, 8, ZS_ERROR_FORMAT, "a key"}, // its length
        {24, UINT64_MAX - 31, 8, ZS_ERROR_FORMAT, "a key"},
        {24, 0, 8, ZS_ERROR_FORMAT, "a key of 0 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        byte_buffer bytes = make_sample(0);
        memcpy(bytes.data + cases[i].at, &cases[i].value, cases[i].size);
        expect_error(&bytes, cases[i].status, cases[i].part);
    }
    byte_buffer empty = {0};
    expect_error(&empty, ZS_ERROR_FORMAT, "truncated");
}

static void test_values_refused(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t count;
        const char *part;
    } arrays[] = {
        {GGUF_ARRAY, 1, "array of type 9"}, {13, 1, "array of type 13"}, {UINT32_MAX, 1, "array of type"},
        {GGUF_U64, 1ull << 61, "an array"}, {GGUF_U8, 100, "an array"},  {GGUF_STRING, UINT64_MAX, "an array"},
        {GGUF_STRING, 2, "array"},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        gguf_image image = {0};
        gguf_image_array(&image, "list", arrays[i].type, arrays[i].count, "\1\0\0\0\0\0\0\0x", 9);
        byte_buffer bytes = gguf_image_finish(&image);
        expect_error(&bytes, ZS_ERROR_FORMAT, arrays[i].part);
    }
    gguf_image image = {0};
    gguf_image_value(&image, "odd", 13, "12345678", 8);
    byte_buffer bytes = gguf_image_finish(&image);
    expect_error(&bytes, ZS_ERROR_FORMAT, "key odd has the unknown type 13");
    static const uint32_t alignments[] = {0, 3, 1u << 21, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        gguf_image_u32(&image, "general.alignment", alignments[i]);
        bytes = gguf_image_finish(&image);
        expect_error(&bytes, ZS_ERROR_FORMAT, "alignment");
    }
    gguf_image_string(&image, "general.alignment", "32");
    bytes = gguf_image_finish(&image);
    expect_error(&bytes, ZS_ERROR_FORMAT, "alignment");
}

static void test_tensors_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t type, dims;
        uint64_t shape[5];
        zs_status status;
        const char *part;
    } cases[] = {
        {"w", 2000, 1, {32}, ZS_ERROR_UNSUPPORTED, "tensor w has type 2000"},
        {"w", 4, 1, {32}, ZS_ERROR_UNSUPPORTED, "type 4"}, // a type that ggml has dropped
        {"w", TENSOR_F32, 0, {0}, ZS_ERROR_FORMAT, "tensor w: has no or more than 4 dimensions"},
        {"w", TENSOR_F32, 5, {1, 1, 1, 1, 1}, ZS_ERROR_FORMAT, "more than 4"},
        {"w", TENSOR_F32, 2, {0, 4}, ZS_ERROR_FORMAT, "absurd shape"},
        {"w", TENSOR_F32, 2, {1ull << 32, 1ull << 32}, ZS_ERROR_FORMAT, "absurd shape"},
        {"w", TENSOR_F32, 1, {INT64_MAX}, ZS_ERROR_FORMAT, "absurd size"},
        {"w", TENSOR_F32, 2, {1ull << 20, 1ull << 20}, ZS_ERROR_FORMAT, "past the end"},
        {"w", TENSOR_Q8_0, 2, {32, 33}, ZS_ERROR_FORMAT, "multiple of its type's block"},
        {"", TENSOR_F32, 1, {1}, ZS_ERROR_FORMAT, "name of 0 bytes"},
        {"a.name.of.sixty-five.bytes.is.one.more.than.the.format.can.allow.", TENSOR_F32, 1, {1}, ZS_ERROR_FORMAT, "name of 65 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_image image = {0};
        gguf_image_tensor(&image, cases[i].name, cases[i].type, cases[i].dims, cases[i].shape, NULL);
        byte_buffer bytes = gguf_image_finish(&image);
        expect_error(&bytes, cases[i].status, cases[i].part);
    }
    gguf_image image = {0};
    const uint64_t shape[] = {2};
    gguf_image_tensor(&image, "twin", TENSOR_F32, 1, shape, NULL);
    gguf_image_tensor(&image, "twin", TENSOR_F32, 1, shape, NULL);
    byte_buffer bytes = gguf_image_finish(&image);
    expect_error(&bytes, ZS_ERROR_FORMAT, "tensor twin occurs twice");
    gguf_image_u32(&image, "twin.key", 1);
    gguf_image_u32(&image, "twin", 2); // begins like the other
    gguf_image_u32(&image, "twin.key", 1);
    bytes = gguf_image_finish(&image);
    expect_error(&bytes, ZS_ERROR_FORMAT, "key twin.key occurs twice");
    gguf_image_tensor(&image, "askew", TENSOR_F32, 1, shape, NULL);
    image.infos.data[image.infos.size - 8] = 4; // the offset
    byte_buffer_put_zeros(&image.data, 32);
    bytes = gguf_image_finish(&image);
    expect_error(&bytes, ZS_ERROR_FORMAT, "tensor askew: is not aligned");
}

/// Uses everything that an opened file offers.
static uint64_t walk(const gguf_file *file) {
    uint64_t sum = 0;
    for (size_t i = 0; i < file->value_count; i++) {
        const gguf_value *value = &file->values[i];
        for (size_t k = 0; k < value->size; k++) sum += value->data[k];
        gguf_string s;
        size_t cursor = 0;
        while (gguf_array_next_string(value, &cursor, &s))
            for (size_t k = 0; k < s.size; k++) sum += (uint8_t)s.data[k];
        uint64_t element;
        for (uint64_t k = 0; gguf_array_u64(value, k, &element); k++) sum += element;
    }
    for (size_t i = 0; i < file->tensor_count; i++) {
        const gguf_tensor *tensor = &file->tensors[i];
        assert_ptr_equal(gguf_find_tensor(file, tensor->name), tensor);
        for (uint64_t k = 0; k < tensor->size; k++) sum += ((const uint8_t *)tensor->data)[k];
    }
    return sum;
}

/// An error with a message, or a file that can be used.
static zs_status open_any(const uint8_t *data, size_t size) {
    gguf_file file;
    zs_error error = {0};
    zs_status status = gguf_open_memory(data, size, &file, &error);
    if (status) {
        assert_true(error.message[0] != '\0' && error.status == status);
    } else {
        (void)walk(&file);
        gguf_close(&file);
    }
    return status;
}

static void test_truncated_everywhere(void **state) {
    (void)state;
    byte_buffer bytes = make_sample(0);
    guarded area;
    guarded_create(&area, bytes.size);
    for (size_t size = 0; size < bytes.size; size++) {
        zs_status status = open_any(guarded_place(&area, bytes.data, size), size);
        if (status != ZS_ERROR_FORMAT) fail_msg("cut to %zu of %zu bytes: status %d", size, bytes.size, status);
    }
    assert_int_equal(open_any(guarded_place(&area, bytes.data, bytes.size), bytes.size), ZS_OK);
    guarded_destroy(&area);
    byte_buffer_free(&bytes);
}

static void test_every_byte_flipped(void **state) {
    (void)state;
    static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x20};
    byte_buffer bytes = make_sample(0);
    guarded area;
    guarded_create(&area, bytes.size);
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

static void test_files(void **state) {
    (void)state;
    static const char path[] = TEST_OUTPUT "/loader_gguf.gguf";
    byte_buffer bytes = make_sample(0);
    gguf_file file;
    zs_error error = {0};
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    fwrite(bytes.data, 1, bytes.size, stream);
    fclose(stream);
    assert_int_equal(gguf_open(path, &file, &error), ZS_OK);
    check_tensors(&file, 32);
    gguf_close(&file);
    stream = fopen(path, "wb");
    fwrite(bytes.data, 1, bytes.size / 2, stream);
    fclose(stream);
    assert_int_equal(gguf_open(path, &file, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, path));
    stream = fopen(path, "wb");
    fclose(stream);
    assert_int_equal(gguf_open(path, &file, &error), ZS_ERROR_FORMAT);
    remove(path);
    assert_int_equal(gguf_open(path, &file, &error), ZS_ERROR_IO);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(gguf_open(TEST_OUTPUT, &file, &error), ZS_ERROR_IO);
    byte_buffer_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_and_tensors),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_values_refused),
        cmocka_unit_test(test_tensors_refused),
        cmocka_unit_test(test_truncated_everywhere),
        cmocka_unit_test(test_every_byte_flipped),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
