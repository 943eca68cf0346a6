// Devices, memory and the cache folder. Needs any Vulkan driver; which one is the environment's choice.
#include "gpu/cache_file.h"
#include "gpu/command.h"
#include "gpu/device_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static zs_device *open_device(const zs_device_params *params) {
    zs_device *device = NULL;
    zs_error error = {0};
    if (zs_device_create(params, &device, &error)) fail_msg("%s", error.message);
    assert_non_null(device);
    return device;
}

static void test_list(void **state) {
    (void)state;
    zs_device_info *infos = NULL;
    uint32_t count = 0;
    zs_error error = {0};
    assert_int_equal(zs_device_list(&infos, &count, &error), ZS_OK);
    assert_true(count > 0);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(infos[i].index, i);
        assert_int_equal(strlen(infos[i].uuid), 32);
        assert_true(infos[i].name[0] != '\0');
        assert_true(infos[i].usable == (infos[i].missing[0] == '\0'));
    }
    free(infos);
}

static void test_create_twice(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        zs_device *device = open_device(NULL);
        assert_true(zs_device_get_info(device)->usable);
        assert_int_equal(zs_device_get_tiers(device), gpu_device_caps(device)->tiers);
        zs_device_destroy(&device);
        assert_null(device);
        zs_device_destroy(&device);
    }
}

static void test_choice(void **state) {
    (void)state;
    zs_device *device = open_device(NULL);
    zs_device_info info = *zs_device_get_info(device);
    zs_device_destroy(&device);

    char part[9] = {0}, index[16], dashed[40];
    for (int i = 0; i < 8; i++) part[i] = (char)(info.name[i] >= 'a' && info.name[i] <= 'z' ? info.name[i] - 32 : info.name[i]);
    snprintf(index, sizeof index, "%u", info.index);
    snprintf(dashed, sizeof dashed, "%.8s-%.4s-%.20s", info.uuid, info.uuid + 8, info.uuid + 12);
    const char *const ways[] = {part, index, info.uuid, dashed, ""};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        device = open_device(&(zs_device_params){.device = ways[i], .skip_self_test = true});
        assert_string_equal(zs_device_get_info(device)->name, info.name);
        zs_device_destroy(&device);
    }
    zs_error error = {0};
    assert_int_equal(zs_device_create(&(zs_device_params){.device = "Voodoo 2"}, &device, &error), ZS_ERROR_ARGUMENT);
    assert_null(device);
    assert_non_null(strstr(error.message, "Voodoo 2"));
    assert_non_null(strstr(error.message, info.name));
    assert_int_equal(zs_device_create(&(zs_device_params){.device = "99"}, &device, NULL), ZS_ERROR_ARGUMENT);
}

static void test_disabled_tiers(void **state) {
    (void)state;
    zs_device *device = open_device(&(zs_device_params){.disable = ZS_TIER_ALL});
    const gpu_kernel *kernel = NULL;
    zs_error error = {0};
    assert_int_equal(zs_device_get_tiers(device), 0);
    gpu_kernel_key key = {.module = SHADER_probe_subgroup, .constant_count = 1, .constants = {64}};
    assert_int_equal(gpu_kernel_get(device, &key, &kernel, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "probe_subgroup"));
    key = (gpu_kernel_key){.module = SHADER_probe, .subgroup_size = 4, .constant_count = 1, .constants = {64}};
    assert_int_equal(gpu_kernel_get(device, &key, &kernel, &error), ZS_ERROR_UNSUPPORTED);
    key = (gpu_kernel_key){.module = SHADER_probe, .constant_count = 1, .constants = {1u << 20}};
    assert_int_equal(gpu_kernel_get(device, &key, &kernel, &error), ZS_ERROR_UNSUPPORTED);
    zs_device_destroy(&device);
}

// ---- memory -----------------------------------------------------------------------------------------------------------

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/// Many buffers of odd sizes come and go in small blocks; each keeps its bytes until it goes.
static void test_suballocation(void **state) {
    (void)state;
    enum { SLOTS = 48, ROUNDS = 1500 };
    zs_device *device = open_device(&(zs_device_params){.block_limit = 1 << 20, .skip_self_test = true});
    gpu_buffer buffers[SLOTS] = {0};
    uint32_t random = 1;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        gpu_buffer *buffer = &buffers[next_random(&random) % SLOTS];
        uint8_t mark = (uint8_t)(buffer - buffers);
        if (buffer->handle) {
            for (uint64_t i = 0; i < buffer->size; i++) assert_int_equal(((uint8_t *)buffer->mapped)[i], mark);
            gpu_buffer_destroy(device, buffer);
            assert_true(buffer->size == 0);
        } else {
            uint64_t size = 1 + next_random(&random) % (round % 10 == 0 ? 1000000 : 50000);
            gpu_memory kind = round % 2 ? GPU_MEMORY_SHARED : GPU_MEMORY_READBACK;
            zs_error error = {0};
            if (gpu_buffer_create(device, kind, size, round % 3 == 0, "random", buffer, &error)) fail_msg("%s", error.message);
            assert_non_null(buffer->mapped);
            assert_true(buffer->address % 256 == 0 && buffer->size == size);
            for (uint64_t i = 0; i < size && round % 3 == 0; i++) assert_int_equal(((uint8_t *)buffer->mapped)[i], 0);
            memset(buffer->mapped, mark, size);
        }
    }
    for (uint32_t i = 0; i < SLOTS; i++) gpu_buffer_destroy(device, &buffers[i]);
    assert_true(gpu_device_memory_used(device) == 0);
    assert_null(device->memory.blocks);
    zs_device_destroy(&device);
}

static void test_too_large(void **state) {
    (void)state;
    zs_device *device = open_device(&(zs_device_params){.block_limit = 1 << 20, .skip_self_test = true});
    gpu_buffer buffer;
    zs_error error = {0};
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, (1 << 20) + 1, false, "colossus", &buffer, &error),
                     ZS_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, "colossus"));
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, UINT64_MAX, false, "colossus", &buffer, &error), ZS_ERROR_DEVICE_MEMORY);
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, 0, false, "nothing", &buffer, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, 1 << 20, false, "all", &buffer, &error), ZS_OK);
    gpu_buffer_destroy(device, &buffer);
    zs_device_destroy(&device);
}

static void test_memory_limit(void **state) {
    (void)state;
    enum { MOST = 16 };
    const uint64_t mebibyte = 1 << 20, limit = 8 * mebibyte;
    zs_device *device = open_device(&(zs_device_params){.memory_limit = limit, .skip_self_test = true});
    gpu_buffer buffers[MOST] = {0};
    zs_error error = {0};
    uint32_t count = 0;
    assert_true(gpu_device_caps(device)->memory_bytes == limit);
    assert_true(gpu_device_memory_free(device) <= limit);
    while (count < MOST && gpu_buffer_create(device, GPU_MEMORY_DEVICE, mebibyte, false, "piece", &buffers[count], &error) == ZS_OK)
        count++;
    assert_in_range(count, 7, 8);
    assert_int_equal(error.status, ZS_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, "piece"));
    assert_non_null(strstr(error.message, "1.0 MiB asked"));
    assert_true(gpu_device_memory_used(device) == count * mebibyte);
    assert_true(gpu_device_memory_free(device) < 2 * mebibyte);
    gpu_buffer_destroy(device, &buffers[0]);
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, mebibyte, false, "again", &buffers[0], &error), ZS_OK);
    for (uint32_t i = 0; i < MOST; i++) gpu_buffer_destroy(device, &buffers[i]);
    zs_device_destroy(&device);
}

// ---- transfers --------------------------------------------------------------------------------------------------------

/// Submits fills that take a while, so that staging memory taken again too early shows.
static gpu_command *keep_busy(zs_device *device, const gpu_buffer *scratch) {
    gpu_command *command = NULL;
    uint64_t value;
    assert_int_equal(gpu_command_create(device, "busy", &command, NULL), ZS_OK);
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    for (int i = 0; i < 60; i++) gpu_command_fill(command, scratch, 0, scratch->size, 0);
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    assert_int_equal(gpu_command_submit(command, &value, NULL), ZS_OK);
    return command;
}

/// Uploads, in pieces of many sizes, what reading must give back. unmapped: as on a discrete card, through staging memory.
static void check_round_trip(zs_device *device, bool unmapped) {
    const uint64_t size = 75u << 20;
    gpu_buffer buffer;
    gpu_upload *upload = NULL;
    zs_error error = {0};
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, size, true, "round trip", &buffer, &error), ZS_OK);
    if (unmapped) buffer.mapped = NULL;
    gpu_buffer scratch;
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, 32 << 20, false, "scratch", &scratch, &error), ZS_OK);
    gpu_command *busy = keep_busy(device, &scratch);
    assert_int_equal(gpu_upload_create(device, &upload, &error), ZS_OK);
    uint32_t random = 7, word = 0;
    for (uint64_t offset = 0; offset < size;) {
        uint64_t piece = 4 + next_random(&random) % (offset % 3 ? 3000 : 5000000) / 4 * 4;
        void *host = NULL;
        if (piece > size - offset) piece = size - offset;
        if (gpu_upload_map(upload, &buffer, offset, piece, &host, &error)) fail_msg("%s", error.message);
        for (uint64_t i = 0; i < piece / 4; i++) ((uint32_t *)host)[i] = word++;
        offset += piece;
    }
    void *host;
    assert_int_equal(gpu_upload_map(upload, &buffer, 2, 4, &host, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(gpu_upload_map(upload, &buffer, size, 4, &host, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(gpu_upload_finish(&upload, &error), ZS_OK);
    assert_null(upload);

    uint32_t *back = malloc(size);
    assert_non_null(back);
    assert_int_equal(gpu_buffer_read(device, &buffer, 0, size, back, &error), ZS_OK);
    for (uint32_t i = 0; i < size / 4; i++)
        if (back[i] != i) fail_msg("word %u is %u", i, back[i]);
    uint8_t bytes[6]; // unaligned, across a word
    assert_int_equal(gpu_buffer_read(device, &buffer, 4 * 1000 + 3, 6, bytes, &error), ZS_OK);
    assert_memory_equal(bytes, (uint8_t *)back + 4 * 1000 + 3, 6);
    assert_int_equal(gpu_buffer_read(device, &buffer, size - 2, 4, bytes, &error), ZS_ERROR_ARGUMENT);
    free(back);
    gpu_command_destroy(&busy);
    gpu_buffer_destroy(device, &scratch);
    gpu_buffer_destroy(device, &buffer);
}

static void test_round_trip(void **state) {
    (void)state;
    zs_device *device = open_device(&(zs_device_params){.skip_self_test = true});
    check_round_trip(device, false);
    check_round_trip(device, true);
    assert_true(gpu_device_memory_used(device) == 0);
    zs_device_destroy(&device);
}

static void test_upload_abandoned(void **state) {
    (void)state;
    zs_device *device = open_device(&(zs_device_params){.skip_self_test = true});
    gpu_buffer buffer;
    gpu_upload *upload = NULL;
    void *host;
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, 4096, false, "target", &buffer, NULL), ZS_OK);
    assert_int_equal(gpu_upload_create(device, &upload, NULL), ZS_OK);
    buffer.mapped = NULL;
    assert_int_equal(gpu_upload_map(upload, &buffer, 0, 4096, &host, NULL), ZS_OK);
    memset(host, 1, 4096);
    atomic_store(&device->lost, true);
    zs_error error = {0};
    assert_int_equal(gpu_upload_finish(&upload, &error), ZS_ERROR_DEVICE_LOST);
    assert_null(upload);
    gpu_buffer_destroy(device, &buffer);
    assert_true(gpu_device_memory_used(device) == 0);
    zs_device_destroy(&device);
}

// ---- the cache folder -------------------------------------------------------------------------------------------------

static char cache_dir[256]; // of this process, because tests under other drivers may run beside it
static const char *const cache_extensions[] = {"pipelines", "selftest"};

static void count_message(void *user, zs_log_level level, const char *message) {
    (void)message;
    if (level == ZS_LOG_WARNING) ++*(int *)user;
}

/// Opens a device with the cache folder, makes a kernel, closes; returns the tiers in use and the cache key.
static uint32_t run_with_cache(char key[80]) {
    zs_device *device = open_device(&(zs_device_params){.cache_dir = cache_dir});
    const gpu_kernel *kernel = NULL;
    gpu_kernel_key probe = {.module = SHADER_probe, .constant_count = 1, .constants = {128}};
    assert_int_equal(gpu_kernel_get(device, &probe, &kernel, NULL), ZS_OK);
    uint32_t tiers = zs_device_get_tiers(device);
    memcpy(key, gpu_device_caps(device)->cache_key, 80);
    zs_device_destroy(&device);
    return tiers;
}

static void file_name(char *path, size_t size, const char *key, const char *extension) {
    snprintf(path, size, "%s/%s.%s", cache_dir, key, extension);
}

/// Damages a file: keeps `length` bytes (negative: all) and flips the byte at `at`.
static void damage(const char *path, long length, long at) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *bytes = calloc(1, 1 << 24);
    size_t size = fread(bytes, 1, 1 << 24, file);
    fclose(file);
    if (at >= 0 && (size_t)at < size) bytes[at] = (char)(bytes[at] ^ 0x40);
    file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(bytes, 1, length >= 0 && (size_t)length < size ? (size_t)length : size, file);
    fclose(file);
    free(bytes);
}

static void test_damaged_cache(void **state) {
    (void)state;
    char key[80], path[512];
    uint32_t tiers = run_with_cache(key);
    for (size_t e = 0; e < 2; e++) {
        file_name(path, sizeof path, key, cache_extensions[e]);
        static const long lengths[] = {0, 7, 23, 30, -1, -1, -1, -1, -1, -1}, flips[] = {-1, -1, -1, -1, 0, 9, 17, 24, 30, 36};
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            uint8_t *data = NULL;
            size_t size = 0;
            damage(path, lengths[i], flips[i]);
            assert_false(cache_file_read(cache_dir, key, cache_extensions[e], &data, &size));
            assert_int_equal(run_with_cache(key), tiers);
            assert_true(cache_file_read(cache_dir, key, cache_extensions[e], &data, &size)); // written anew
            free(data);
        }
    }
}

/// A file that is whole but not for this driver is not handed to it.
static void test_foreign_cache(void **state) {
    (void)state;
    char key[80];
    uint8_t foreign[64] = {32, 0, 0, 0, 1, 0, 0, 0, 0xde, 0x10}, *data = NULL;
    size_t size = 0;
    run_with_cache(key);
    assert_true(cache_file_write(cache_dir, key, "pipelines", foreign, sizeof foreign));
    run_with_cache(key);
    assert_true(cache_file_read(cache_dir, key, "pipelines", &data, &size));
    assert_true(size < 10 || data[8] != 0xde || data[9] != 0x10);
    free(data);
}

/// A tier that once failed the self-test stays off, with a warning; a device that failed its baseline is refused.
static void test_kept_verdict(void **state) {
    (void)state;
    char key[80], path[512];
    uint8_t *data = NULL;
    size_t size = 0;
    uint32_t tiers = run_with_cache(key), passed, warnings = 0;
    assert_true(cache_file_read(cache_dir, key, "selftest", &data, &size));
    assert_int_equal(size, 16);
    memcpy(&passed, data + 12, 4);
    assert_true((passed & tiers) == tiers);
    passed &= ~(uint32_t)(ZS_TIER_SUBGROUP | ZS_TIER_STORAGE);
    memcpy(data + 12, &passed, 4);
    assert_true(cache_file_write(cache_dir, key, "selftest", data, size));
    zs_device *device = open_device(&(zs_device_params){.cache_dir = cache_dir, .log = {count_message, &warnings}});
    assert_int_equal(zs_device_get_tiers(device) & (ZS_TIER_SUBGROUP | ZS_TIER_STORAGE | ZS_TIER_HALF), 0);
    if (tiers) assert_true(warnings > 0);
    zs_device_destroy(&device);

    memset(data + 12, 0, 4);
    zs_error error = {0};
    assert_true(cache_file_write(cache_dir, key, "selftest", data, size));
    assert_int_equal(zs_device_create(&(zs_device_params){.cache_dir = cache_dir}, &device, &error), ZS_ERROR_NO_DEVICE);
    assert_non_null(strstr(error.message, "self-test"));
    free(data);
    file_name(path, sizeof path, key, "selftest");
    remove(path);
}

/// The milliseconds of 10⁹ bytes and of 10⁹ operations, as a device knows them when it has been opened.
static void opened_rates(double ms[2]) {
    zs_device *device = open_device(&(zs_device_params){.cache_dir = cache_dir, .skip_self_test = true});
    ms[0] = gpu_device_estimate_ms(device, 1e9, 0);
    ms[1] = gpu_device_estimate_ms(device, 0, 1e9);
    zs_device_destroy(&device);
}

/// Opens a device that learns from `lessons` submits, whose bytes took `ratio` of what was estimated.
static void learn_rates(uint32_t lessons, double ratio) {
    zs_device *device = open_device(&(zs_device_params){.cache_dir = cache_dir, .skip_self_test = true});
    for (uint32_t i = 0; i < lessons; i++) {
        gpu_work work = {.bytes = 1e6 / device->rates.ns_per_byte};
        gpu_rates_learn(&device->rates, work, ratio * 1e6);
    }
    zs_device_destroy(&device);
}

static void test_learned_rates(void **state) {
    (void)state;
    char key[80], path[512];
    double first[2], now[2], kept[2];
    run_with_cache(key);
    opened_rates(first);
    learn_rates(7, 3); // too few to rely on
    opened_rates(now);
    assert_memory_equal(now, first, sizeof now);
    learn_rates(8, 3);
    opened_rates(kept);
    assert_true(kept[0] > 20 * first[0] && kept[1] == first[1]); // (1 + 0.3 · 2)⁸
    learn_rates(8, 1.1);                                         // hardly another
    opened_rates(now);
    assert_memory_equal(now, kept, sizeof now);
    file_name(path, sizeof path, key, "rates");
    damage(path, -1, 40);
    opened_rates(now);
    assert_memory_equal(now, first, sizeof now);
    remove(path);
}

static void test_no_cache_folder(void **state) {
    (void)state;
    int warnings = 0;
    zs_device *device = open_device(&(zs_device_params){.cache_dir = "/proc/no/such", .log = {count_message, &warnings}});
    assert_true(warnings > 0);
    zs_device_destroy(&device);
}

static int make_cache_folder(void **state) {
    (void)state;
    snprintf(cache_dir, sizeof cache_dir, "%s/gpu-%ld/cache", TEST_OUTPUT, (long)getpid());
    return 0;
}

static int remove_cache_folder(void **state) {
    (void)state;
    char path[512];
    zs_device *device = open_device(&(zs_device_params){.skip_self_test = true});
    for (size_t e = 0; e < 2; e++) {
        file_name(path, sizeof path, gpu_device_caps(device)->cache_key, cache_extensions[e]);
        remove(path);
    }
    zs_device_destroy(&device);
    rmdir(cache_dir);
    *strrchr(cache_dir, '/') = '\0';
    return rmdir(cache_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),           cmocka_unit_test(test_create_twice),    cmocka_unit_test(test_choice),
        cmocka_unit_test(test_disabled_tiers), cmocka_unit_test(test_suballocation),   cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_memory_limit),   cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_upload_abandoned),
        cmocka_unit_test(test_damaged_cache),  cmocka_unit_test(test_foreign_cache),   cmocka_unit_test(test_kept_verdict),
        cmocka_unit_test(test_learned_rates),  cmocka_unit_test(test_no_cache_folder),
    };
    return cmocka_run_group_tests(tests, make_cache_folder, remove_cache_folder);
}
