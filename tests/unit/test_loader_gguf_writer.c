// Writing GGUF: what is written is read back, also by the format's description; misuse is told, nothing half is left.
#include "loader/gguf.h"
#include "support/gguf_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char path[] = TEST_OUTPUT "/loader_gguf_writer.gguf";
static const char *const words[] = {"one", "", "three"};
static const float vector[3] = {1, 2, 3}, matrix[8] = {4, 5, 6, 7, 8, 9, 10, 11};
static const uint64_t vector_shape[] = {3}, matrix_shape[] = {2, 4};

static gguf_writer *start(bool force) {
    gguf_writer *writer = NULL;
    zs_error error = {0};
    if (gguf_writer_create(path, force, &writer, &error)) fail_msg("%s", error.message);
    gguf_writer_add_string(writer, "name", "writer");
    gguf_writer_add_u32(writer, "number", 42);
    gguf_writer_add_strings(writer, "words", words, 3);
    gguf_writer_add_tensor(writer, "vector", TENSOR_F32, 1, vector_shape);
    gguf_writer_add_tensor(writer, "matrix", TENSOR_F32, 2, matrix_shape);
    assert_int_equal(gguf_writer_start(writer, &error), ZS_OK);
    return writer;
}

static void test_bytes(void **state) {
    (void)state;
    zs_error error = {0};
    gguf_writer *writer = start(true);
    assert_int_equal(gguf_writer_write(writer, vector, sizeof vector, &error), ZS_OK);
    assert_int_equal(gguf_writer_write(writer, matrix, sizeof matrix, &error), ZS_OK);
    assert_int_equal(gguf_writer_finish(&writer, &error), ZS_OK);
    assert_null(writer);

    gguf_image image = {0};
    gguf_image_string(&image, "name", "writer");
    gguf_image_u32(&image, "number", 42);
    gguf_image_strings(&image, "words", words, 3);
    gguf_image_tensor(&image, "vector", TENSOR_F32, 1, vector_shape, vector);
    gguf_image_tensor(&image, "matrix", TENSOR_F32, 2, matrix_shape, matrix);
    byte_buffer expected = gguf_image_finish(&image);
    gguf_file file;
    assert_int_equal(gguf_open(path, &file, &error), ZS_OK);
    assert_in_range(file.map.size, expected.size, expected.size + 31); // padding after the last tensor
    assert_memory_equal(file.map.data, expected.data, expected.size);
    gguf_close(&file);
    byte_buffer_free(&expected);
    remove(path);
}

/// copy_value hands through every type unchanged.
static void test_copies(void **state) {
    (void)state;
    gguf_image image = {0};
    gguf_image_value(&image, "i16", GGUF_I16, &(int16_t){-3}, 2);
    gguf_image_value(&image, "bool", GGUF_BOOL, "\1", 1);
    gguf_image_value(&image, "f64", GGUF_F64, &(double){0.25}, 8);
    gguf_image_string(&image, "string", "text");
    gguf_image_strings(&image, "words", words, 3);
    gguf_image_array(&image, "floats", GGUF_F32, 3, vector, sizeof vector);
    byte_buffer bytes = gguf_image_finish(&image);
    gguf_file from, to;
    gguf_writer *writer = NULL;
    zs_error error = {0};
    assert_int_equal(gguf_open_memory(bytes.data, bytes.size, &from, &error), ZS_OK);
    assert_int_equal(gguf_writer_create(path, true, &writer, &error), ZS_OK);
    for (size_t i = 0; i < from.value_count; i++) gguf_writer_copy_value(writer, &from.values[i]);
    assert_int_equal(gguf_writer_start(writer, &error), ZS_OK);
    assert_int_equal(gguf_writer_finish(&writer, &error), ZS_OK);
    assert_int_equal(gguf_open(path, &to, &error), ZS_OK);
    assert_in_range(to.map.size, bytes.size, bytes.size + 31);
    assert_memory_equal(to.map.data, bytes.data, bytes.size);
    gguf_close(&from);
    gguf_close(&to);
    byte_buffer_free(&bytes);
    remove(path);
}

static void test_misuse(void **state) {
    (void)state;
    zs_error error = {0};
    gguf_writer *writer = start(true);
    assert_int_equal(gguf_writer_write(writer, vector, sizeof vector - 4, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "tensor 0"));
    assert_int_equal(gguf_writer_write(writer, vector, sizeof vector, &error), ZS_OK);
    assert_int_equal(gguf_writer_finish(&writer, &error), ZS_ERROR_ARGUMENT); // one tensor is missing
    assert_non_null(strstr(error.message, "1 of 2"));
    assert_null(writer);
    assert_int_equal(access(path, F_OK), -1);

    writer = start(false);
    assert_int_equal(gguf_writer_write(writer, vector, sizeof vector, &error), ZS_OK);
    assert_int_equal(gguf_writer_write(writer, matrix, sizeof matrix, &error), ZS_OK);
    assert_int_equal(gguf_writer_write(writer, matrix, sizeof matrix, &error), ZS_ERROR_ARGUMENT);
    gguf_writer_discard(&writer);
    assert_null(writer);
    gguf_writer_discard(&writer);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_kept(void **state) {
    (void)state;
    zs_error error = {0};
    gguf_writer *writer = NULL;
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    fputs("precious", stream);
    fclose(stream);
    assert_int_equal(gguf_writer_create(path, false, &writer, &error), ZS_ERROR_EXISTS);
    assert_null(writer);
    assert_int_equal(gguf_writer_create(TEST_OUTPUT "/no/such/folder/x.gguf", false, &writer, &error), ZS_ERROR_IO);
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
