// Output files appear only when complete, never destroy what is there unasked, and leave nothing behind on failure.
#include "loader/file_output.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char folder[] = TEST_OUTPUT "/loader_file_output";
static const char path[] = TEST_OUTPUT "/loader_file_output/file";

static int count_files(void) {
    int count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void expect_contents(const char *text) {
    char read[64] = {0};
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    fread(read, 1, sizeof read - 1, stream);
    fclose(stream);
    assert_string_equal(read, text);
}

static zs_status write_all(const char *text, bool force, zs_error *error) {
    file_output *file = NULL;
    zs_status status = file_output_create(path, force, &file, error);
    if (!status) status = file_output_write(file, text, strlen(text), error);
    if (!status) status = file_output_commit(&file, error);
    file_output_discard(&file);
    return status;
}

static void test_appears_when_complete(void **state) {
    (void)state;
    file_output *file = NULL;
    zs_error error = {0};
    assert_int_equal(file_output_create(path, false, &file, &error), ZS_OK);
    assert_int_equal(file_output_write(file, "he", 2, &error), ZS_OK);
    assert_int_equal(file_output_write(file, NULL, 0, &error), ZS_OK);
    assert_int_equal(file_output_write(file, "llo", 3, &error), ZS_OK);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(file_output_commit(&file, &error), ZS_OK);
    assert_null(file);
    expect_contents("hello");
    assert_int_equal(count_files(), 1);
    file_output_discard(&file);
    remove(path);
}

static void test_discard(void **state) {
    (void)state;
    file_output *file = NULL;
    assert_int_equal(file_output_create(path, false, &file, NULL), ZS_OK);
    assert_int_equal(file_output_write(file, "x", 1, NULL), ZS_OK);
    file_output_discard(&file);
    assert_null(file);
    assert_int_equal(count_files(), 0);
}

static void test_kept_unless_force(void **state) {
    (void)state;
    zs_error error = {0};
    assert_int_equal(write_all("first", false, &error), ZS_OK);
    assert_int_equal(write_all("second", false, &error), ZS_ERROR_EXISTS);
    assert_non_null(strstr(error.message, path));
    assert_non_null(strstr(error.message, "--force"));
    expect_contents("first");
    assert_int_equal(write_all("third", true, &error), ZS_OK);
    expect_contents("third");
    assert_int_equal(count_files(), 1);
    remove(path);
}

/// A file that another program put there while this one was at work is as precious as one that was there before.
static void test_appeared_meanwhile(void **state) {
    (void)state;
    file_output *file = NULL;
    zs_error error = {0};
    assert_int_equal(file_output_create(path, false, &file, &error), ZS_OK);
    assert_int_equal(file_output_write(file, "mine", 4, &error), ZS_OK);
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    fputs("theirs", stream);
    fclose(stream);
    assert_int_equal(file_output_commit(&file, &error), ZS_ERROR_EXISTS);
    expect_contents("theirs");
    assert_int_equal(count_files(), 1);
    remove(path);
}

/// Force is leave to replace a file, not a device or a folder.
static void test_only_files_replaced(void **state) {
    (void)state;
    file_output *file = NULL;
    zs_error error = {0};
    static const char *const devices[] = {"/dev/full", "/dev/null", TEST_OUTPUT};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        assert_int_equal(file_output_create(devices[i], true, &file, &error), ZS_ERROR_IO);
        assert_non_null(strstr(error.message, devices[i]));
        assert_null(file);
    }
    struct stat info;
    assert_int_equal(stat("/dev/full", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    assert_int_equal(file_output_create(TEST_OUTPUT "/no/such/folder/file", false, &file, &error), ZS_ERROR_IO);
    assert_int_equal(file_output_create("", false, &file, &error), ZS_ERROR_ARGUMENT);
}

/// A disk that runs full, as a limit on the file's size: an error, the old file as it was, nothing beside it.
static void test_no_room(void **state) {
    (void)state;
    struct rlimit before, small;
    zs_error error = {0};
    char *much = calloc(1, 100000);
    assert_non_null(much);
    memset(much, 'x', 99999);
    assert_int_equal(write_all("old", false, &error), ZS_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 5000, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    zs_status written = write_all(much, true, &error);
    much[5001] = '\0';
    zs_error late = {0};
    zs_status flushed = write_all(much, true, &late); // small enough for the buffer: fails in commit
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(written, ZS_ERROR_IO);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(flushed, ZS_ERROR_IO);
    expect_contents("old");
    assert_int_equal(count_files(), 1);
    remove(path);
    free(much);
}

static int make_folder(void **state) {
    (void)state;
    remove(path);
    return mkdir(folder, 0777) && access(folder, W_OK);
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appears_when_complete), cmocka_unit_test(test_discard),
        cmocka_unit_test(test_kept_unless_force),     cmocka_unit_test(test_appeared_meanwhile),
        cmocka_unit_test(test_only_files_replaced),   cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
