// Kernels and commands: what is recorded is what runs, in order, also when replayed, split, timed or cut short.
#include "gpu/command.h"
#include "gpu/device_private.h"
#include "shaders/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static zs_device *open_device(const zs_device_params *params) {
    zs_device *device = NULL;
    zs_error error = {0};
    if (zs_device_create(params, &device, &error)) fail_msg("%s", error.message);
    return device;
}

static zs_device *open_plain(void) { return open_device(&(zs_device_params){.skip_self_test = true}); }

static const gpu_kernel *probe_kernel(zs_device *device, uint32_t workgroup) {
    const gpu_kernel *kernel = NULL;
    zs_error error = {0};
    gpu_kernel_key key = {.module = SHADER_probe, .constant_count = 1, .constants = {workgroup}};
    if (gpu_kernel_get(device, &key, &kernel, &error)) fail_msg("%s", error.message);
    return kernel;
}

/// x[i] = x[i] · factor + i over the whole buffer.
static void dispatch_probe(gpu_command *command, const gpu_buffer *x, uint32_t workgroup, float factor, gpu_work work) {
    const gpu_kernel *kernel = probe_kernel(gpu_command_device(command), workgroup);
    uint32_t count = (uint32_t)(x->size / sizeof(float));
    PushProbe push = {.in_ = x->address, .out_ = x->address, .factor = factor, .count = count};
    gpu_command_dispatch(command, kernel, &push, sizeof push, (count + workgroup - 1) / workgroup, 1, 1, work);
}

static gpu_buffer make_buffer(zs_device *device, gpu_memory memory, uint64_t size) {
    gpu_buffer buffer;
    zs_error error = {0};
    if (gpu_buffer_create(device, memory, size, true, "test", &buffer, &error)) fail_msg("%s", error.message);
    return buffer;
}

static gpu_command *make_command(zs_device *device) {
    gpu_command *command = NULL;
    zs_error error = {0};
    if (gpu_command_create(device, "test", &command, &error)) fail_msg("%s", error.message);
    return command;
}

static uint64_t submit(gpu_command *command) {
    uint64_t value = 0;
    zs_error error = {0};
    if (gpu_command_submit(command, &value, &error)) fail_msg("%s", error.message);
    return value;
}

static void wait_done(zs_device *device, uint64_t value) {
    zs_error error = {0};
    if (gpu_device_wait(device, value, &error)) fail_msg("%s", error.message);
    assert_true(gpu_device_done(device) >= value);
}

/// x after `times` runs of x = 2 x + i from 0: i (2^times − 1).
static void expect_doubled(zs_device *device, const gpu_buffer *x, uint32_t times) {
    uint32_t count = (uint32_t)(x->size / sizeof(float));
    float *values = malloc(x->size);
    assert_int_equal(gpu_buffer_read(device, x, 0, x->size, values, NULL), ZS_OK);
    for (uint32_t i = 0; i < count; i++) {
        float expected = (float)i * (float)((1u << times) - 1);
        if (values[i] != expected) fail_msg("element %u is %g, not %g", i, (double)values[i], (double)expected);
    }
    free(values);
}

static void test_workgroup_sizes(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_READBACK, 1001 * sizeof(float));
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    static const uint32_t sizes[] = {1, 32, 33, 64, 128};
    for (size_t i = 0; i < 5; i++) {
        dispatch_probe(command, &x, sizes[i], 2, (gpu_work){0});
        gpu_command_barrier(command);
    }
    assert_int_equal(gpu_command_dispatch_count(command), 5);
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    wait_done(device, submit(command));
    expect_doubled(device, &x, 5);
    assert_ptr_equal(probe_kernel(device, 33), probe_kernel(device, 33));
    assert_ptr_not_equal(probe_kernel(device, 33), probe_kernel(device, 32));
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    assert_null(command);
    zs_device_destroy(&device);
}

/// Empty dispatches touch nothing, not even an address that no buffer has.
static void test_empty(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_READBACK, 1001 * sizeof(float));
    gpu_command_set_empty(command, 1, 3);
    for (int i = 0; i < 7; i++) assert_int_equal(gpu_command_takes_next(command), i % 3 == 1);
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    dispatch_probe(command, &x, 32, 2, (gpu_work){0});
    PushProbe push = {.in_ = 256, .out_ = 256, .factor = 1, .count = 32};
    gpu_command_dispatch(command, probe_kernel(device, 32), &push, sizeof push, 1, 1, 1, (gpu_work){0});
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    wait_done(device, submit(command));
    expect_doubled(device, &x, 0);
    gpu_command_set_empty(command, 0, 0);
    assert_true(gpu_command_takes_next(command) && gpu_command_takes_next(command));
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    dispatch_probe(command, &x, 32, 2, (gpu_work){0});
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    wait_done(device, submit(command));
    expect_doubled(device, &x, 1);
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

static void test_required_subgroup_size(void **state) {
    (void)state;
    zs_device *device = open_plain();
    const gpu_caps *caps = gpu_device_caps(device);
    const gpu_kernel *kernel = NULL;
    zs_error error = {0};
    if (caps->tiers & ZS_TIER_SUBGROUP) {
        gpu_kernel_key key = {
            .module = SHADER_probe_subgroup, .subgroup_size = caps->min_subgroup_size, .constant_count = 1, .constants = {64}};
        if (gpu_kernel_get(device, &key, &kernel, &error)) fail_msg("%s", error.message);
        key.subgroup_size = 2 * caps->max_subgroup_size;
        assert_int_equal(gpu_kernel_get(device, &key, &kernel, &error), ZS_ERROR_UNSUPPORTED);
        key.subgroup_size = caps->min_subgroup_size + 1;
        assert_int_equal(gpu_kernel_get(device, &key, &kernel, &error), ZS_ERROR_UNSUPPORTED);
    }
    zs_device_destroy(&device);
}

/// What is wrong while recording is told by end, the first of several.
static void test_recording_errors(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, 4096);
    const gpu_kernel *kernel = probe_kernel(device, 64);
    PushProbe push = {0};
    uint64_t value;
    zs_error error = {0};
    assert_int_equal(gpu_command_end(command, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(gpu_command_submit(command, &value, &error), ZS_ERROR_ARGUMENT);

    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    gpu_command_dispatch(command, kernel, &push, sizeof push - 4, 1, 1, 1, (gpu_work){0});
    gpu_command_fill(command, &x, 0, 8192, 0);
    assert_int_equal(gpu_command_end(command, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "push constants"));
    assert_int_equal(gpu_command_submit(command, &value, &error), ZS_ERROR_ARGUMENT);

    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    gpu_command_fill(command, &x, 0, 8192, 0);
    assert_int_equal(gpu_command_end(command, &error), ZS_ERROR_ARGUMENT);
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    gpu_command_copy(command, &x, UINT64_MAX - 3, &x, 0, 8);
    assert_int_equal(gpu_command_end(command, &error), ZS_ERROR_ARGUMENT);

    const uint32_t most = gpu_device_caps(device)->max_workgroups[1];
    if (most < UINT32_MAX) {
        assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
        gpu_command_dispatch(command, kernel, &push, sizeof push, 1, most + 1, 1, (gpu_work){0});
        assert_int_equal(gpu_command_end(command, &error), ZS_ERROR_UNSUPPORTED);
    }
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    gpu_command_fail(command, &(zs_error){ZS_ERROR_NUMERIC, "from outside"});
    assert_int_equal(gpu_command_end(command, &error), ZS_ERROR_NUMERIC);
    assert_string_equal(error.message, "from outside");

    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK); // and it can be used again
    gpu_command_fill(command, &x, 0, 4096, 7);
    assert_int_equal(gpu_command_end(command, &error), ZS_OK);
    wait_done(device, submit(command));
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

static void test_copy_and_fill(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer from = make_buffer(device, GPU_MEMORY_SHARED, 1024), to = make_buffer(device, GPU_MEMORY_READBACK, 1024);
    for (uint32_t i = 0; i < 256; i++) ((uint32_t *)from.mapped)[i] = i;
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    gpu_command_fill(command, &to, 0, 1024, 0xabcdef01u);
    gpu_command_barrier(command);
    gpu_command_copy(command, &from, 400, &to, 800, 40);
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    wait_done(device, submit(command));
    for (uint32_t i = 0; i < 256; i++) assert_int_equal(((uint32_t *)to.mapped)[i], i >= 200 && i < 210 ? i - 100 : 0xabcdef01u);
    gpu_buffer_destroy(device, &from);
    gpu_buffer_destroy(device, &to);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

/// What a command carries with it: aligned, apart from each other, and as dispatches left it when it runs again.
static void test_constants(void **state) {
    (void)state;
    static const float values[4] = {1, 2, 3, 4}, many[50000] = {0};
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer out = make_buffer(device, GPU_MEMORY_READBACK, sizeof values);
    zs_error error = {0};
    assert_int_equal(gpu_command_begin(command, &error), ZS_OK);
    uint64_t small = gpu_command_constants(command, values, sizeof values), byte = gpu_command_constants(command, "", 1);
    uint64_t large = gpu_command_constants(command, many, sizeof many), next = gpu_command_constants(command, values, sizeof values);
    assert_true(small && byte && large && next);
    assert_int_equal((small | byte | large | next) % 16, 0);
    assert_int_equal(byte, small + sizeof values);
    assert_int_equal(next, byte + 16);
    const PushProbe twice = {.in_ = small, .out_ = small, .factor = 2, .count = 4},
                    read = {.in_ = small, .out_ = out.address, .factor = 1, .count = 4};
    gpu_command_dispatch(command, probe_kernel(device, 32), &twice, sizeof twice, 1, 1, 1, (gpu_work){0});
    gpu_command_barrier(command);
    gpu_command_dispatch(command, probe_kernel(device, 32), &read, sizeof read, 1, 1, 1, (gpu_work){0});
    assert_int_equal(gpu_command_end(command, &error), ZS_OK);
    for (uint32_t run = 1; run <= 2; run++) {
        wait_done(device, submit(command));
        for (uint32_t i = 0; i < 4; i++) assert_float_equal(((float *)out.mapped)[i], (float)(run * 2) * (values[i] + (float)i), 0);
    }
    assert_int_equal(gpu_command_begin(command, &error), ZS_OK);
    assert_int_equal(gpu_command_constants(command, values, sizeof values), small);
    assert_int_equal(gpu_command_end(command, &error), ZS_OK);
    gpu_buffer_destroy(device, &out);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

/// One recording, submitted again while the submit before is still pending: runs follow each other and see each other.
static void test_replay(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, (1 << 16) * sizeof(float));
    uint64_t before = 0;
    for (uint32_t runs = 1; runs <= 7; runs += 3) {
        assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
        gpu_command_fill(command, &x, 0, x.size, 0);
        assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
        wait_done(device, submit(command));
        assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
        dispatch_probe(command, &x, 64, 2, (gpu_work){.bytes = 1e4});
        assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
        uint64_t values[2] = {0};
        for (uint32_t run = 0; run < runs; run++) {
            if (values[run % 2]) wait_done(device, values[run % 2]);
            values[run % 2] = submit(command);
            assert_true(values[run % 2] > before);
            before = values[run % 2];
        }
        wait_done(device, before);
        expect_doubled(device, &x, runs);
    }
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

/// Work that claims to be long is cut into several submits, which still see each other's results.
static void test_parts(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, 5000 * sizeof(float));
    double ns_per_byte = device->rates.ns_per_byte;
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    gpu_command_label(command, "first half");
    for (uint32_t i = 0; i < 12; i++) {
        if (i == 6) gpu_command_label(command, "second half");
        dispatch_probe(command, &x, 64, 2, (gpu_work){.bytes = 60e6 / ns_per_byte}); // 60 ms: two would be more than 100
        gpu_command_barrier(command);
    }
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    for (uint32_t run = 0; run < 2; run++) {
        uint64_t before = atomic_load(&device->submitted), value = submit(command);
        assert_int_equal(value - before, 12);
        wait_done(device, value);
        if (run == 0) {
            expect_doubled(device, &x, 12);
            double ms = gpu_command_last_ms(command);
            if (gpu_device_caps(device)->timestamp_ns > 0) {
                assert_true(ms > 0 && ms < 5000);
                assert_true(device->rates.ns_per_byte < ns_per_byte); // it was much faster than it claimed
            } else {
                assert_true(ms < 0);
            }
        }
    }
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK); // fewer parts than before
    gpu_command_fill(command, &x, 0, x.size, 0);
    gpu_command_barrier(command);
    dispatch_probe(command, &x, 64, 2, (gpu_work){0});
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    wait_done(device, submit(command));
    expect_doubled(device, &x, 1);
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

/// However often a command is replayed, what its work is expected to take comes near to what it takes and goes no further.
static void test_replays_teach(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, 5000 * sizeof(float));
    const double bytes = 60e6 / device->rates.ns_per_byte; // 60 ms, it claims
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    dispatch_probe(command, &x, 64, 2, (gpu_work){.bytes = bytes});
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    for (uint32_t run = 0; run < 100; run++) wait_done(device, submit(command));
    double expected_ms = gpu_device_estimate_ms(device, bytes, 0);
    assert_true(expected_ms > 0.02 && expected_ms < 20); // below 0.1 ms nothing is learned
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

static void test_profiling(void **state) {
    (void)state;
    enum { DISPATCHES = 2500 }; // more than one part's queries
    zs_device *device = open_plain();
    gpu_command *command = make_command(device);
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, 64 * sizeof(float));
    const gpu_dispatch_time *times = NULL;
    gpu_command_set_profiling(command, true);
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    for (uint32_t i = 0; i < DISPATCHES; i++) {
        if (i == 0 || i == 1000) gpu_command_label(command, i ? "b" : "a");
        dispatch_probe(command, &x, 64, 0.5f, (gpu_work){.bytes = i});
    }
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    assert_int_equal(gpu_command_times(command, &times), 0);
    wait_done(device, submit(command));
    size_t count = gpu_command_times(command, &times);
    double sum = 0;
    if (gpu_device_caps(device)->timestamp_ns > 0) assert_int_equal(count, DISPATCHES);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(times[i].label, i < 1000 ? "a" : "b");
        assert_string_equal(times[i].kernel, "probe");
        assert_true(times[i].work.bytes == (double)i && times[i].ms >= 0);
        sum += times[i].ms;
    }
    if (count) assert_true(sum > 0 && sum <= gpu_command_last_ms(command) * 1.001);
    gpu_command_set_profiling(command, false);
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    dispatch_probe(command, &x, 64, 0.5f, (gpu_work){0});
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
    wait_done(device, submit(command));
    assert_int_equal(gpu_command_times(command, &times), 0);
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

// ---- what goes wrong --------------------------------------------------------------------------------------------------

/// A job of some hundred ms, told to be short, so that it is one submit.
static void record_long_job(gpu_command *command, const gpu_buffer *x) {
    assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
    for (uint32_t i = 0; i < 300; i++) {
        dispatch_probe(command, x, 64, 0.5f, (gpu_work){0});
        gpu_command_barrier(command);
    }
    assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
}

static void test_timeout(void **state) {
    (void)state;
    zs_device *device = open_device(&(zs_device_params){.timeout_ms = 1, .skip_self_test = true});
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, (1 << 20) * sizeof(float));
    for (uint32_t run = 0; run < 2; run++) {
        gpu_command *command = make_command(device);
        zs_error error = {0};
        record_long_job(command, &x);
        uint64_t value = submit(command);
        assert_int_equal(gpu_device_wait(device, value, &error), ZS_ERROR_TIMEOUT);
        assert_non_null(strstr(error.message, "1 ms"));
        if (run == 0) { // waiting once more is allowed, and helps if it was only slow
            while (gpu_device_wait(device, value, NULL) == ZS_ERROR_TIMEOUT) continue;
            assert_true(gpu_device_done(device) >= value);
        }
        gpu_command_destroy(&command); // in the second run while it is still pending
    }
    gpu_buffer_destroy(device, &x);
    assert_true(gpu_device_memory_used(device) == 0);
    zs_device_destroy(&device);
}

static void test_lost_device(void **state) {
    (void)state;
    zs_device *device = open_plain();
    gpu_buffer x = make_buffer(device, GPU_MEMORY_DEVICE, 4096), y;
    gpu_command *command = make_command(device), *other = NULL;
    const gpu_kernel *kernel = NULL;
    gpu_kernel_key key = {.module = SHADER_probe, .constant_count = 1, .constants = {64}};
    uint64_t value = 0;
    zs_error error = {0};
    record_long_job(command, &x);
    assert_int_equal(gpu_device_fail(device, VK_ERROR_DEVICE_LOST, &error, "as a driver tells it"), ZS_ERROR_DEVICE_LOST);
    assert_non_null(strstr(error.message, "open it again"));
    assert_int_equal(gpu_command_submit(command, &value, &error), ZS_ERROR_DEVICE_LOST);
    assert_int_equal(gpu_device_wait(device, 1, &error), ZS_ERROR_DEVICE_LOST);
    assert_int_equal(gpu_command_begin(command, &error), ZS_ERROR_DEVICE_LOST);
    assert_int_equal(gpu_command_create(device, "other", &other, &error), ZS_ERROR_DEVICE_LOST);
    assert_int_equal(gpu_kernel_get(device, &key, &kernel, &error), ZS_ERROR_DEVICE_LOST);
    assert_int_equal(gpu_buffer_create(device, GPU_MEMORY_DEVICE, 4, false, "y", &y, &error), ZS_ERROR_DEVICE_LOST);
    assert_int_equal(gpu_buffer_read(device, &x, 0, 4, &value, &error), ZS_ERROR_DEVICE_LOST);
    gpu_command_destroy(&command);
    gpu_buffer_destroy(device, &x);
    zs_device_destroy(&device);

    device = open_plain(); // the same process goes on with a new one
    x = make_buffer(device, GPU_MEMORY_DEVICE, 4096);
    command = make_command(device);
    record_long_job(command, &x);
    wait_done(device, submit(command));
    gpu_command_destroy(&command);
    gpu_buffer_destroy(device, &x);
    zs_device_destroy(&device);
}

// ---- threads ----------------------------------------------------------------------------------------------------------

static void *run_jobs(zs_device *device, uint32_t first_size) {
    gpu_command *command = NULL;
    gpu_buffer x = {0};
    zs_status status = gpu_command_create(device, "thread", &command, NULL);
    for (uint32_t round = 0; round < 20 && !status; round++) {
        const gpu_kernel *kernel = NULL;
        gpu_kernel_key key = {.module = SHADER_probe, .constant_count = 1, .constants = {first_size + round % 10}};
        float back[256];
        uint64_t value = 0;
        status = gpu_buffer_create(device, GPU_MEMORY_SHARED, sizeof back, true, "thread", &x, NULL);
        if (!status) status = gpu_kernel_get(device, &key, &kernel, NULL);
        if (!status) status = gpu_command_begin(command, NULL);
        if (status) break;
        PushProbe push = {.in_ = x.address, .out_ = x.address, .factor = 2, .count = 256};
        gpu_command_dispatch(command, kernel, &push, sizeof push, (256 + key.constants[0] - 1) / key.constants[0], 1, 1, (gpu_work){0});
        status = gpu_command_end(command, NULL);
        if (!status) status = gpu_command_submit(command, &value, NULL);
        if (!status) status = gpu_device_wait(device, value, NULL);
        if (!status) status = gpu_buffer_read(device, &x, 0, sizeof back, back, NULL);
        for (uint32_t i = 0; i < 256 && !status; i++)
            if (back[i] != (float)i) status = ZS_ERROR_NUMERIC;
        gpu_buffer_destroy(device, &x);
    }
    gpu_buffer_destroy(device, &x);
    gpu_command_destroy(&command);
    return status ? device : NULL; // NULL: all went well
}

static void *on_shared_device(void *device) { return run_jobs(device, 20); }

static void *on_own_device(void *user) {
    zs_device *device = NULL;
    if (zs_device_create(&(zs_device_params){.skip_self_test = true}, &device, NULL)) return user;
    void *result = run_jobs(device, 40);
    zs_device_destroy(&device);
    return result ? user : NULL;
}

static void test_threads(void **state) {
    (void)state;
    enum { THREADS = 4 };
    zs_device *device = open_plain();
    pthread_t threads[THREADS];
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? on_shared_device : on_own_device, device), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        void *result = device;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_true(gpu_device_memory_used(device) == 0);
    zs_device_destroy(&device);
}

// ---- validation -------------------------------------------------------------------------------------------------------

static void show_error(void *user, zs_log_level level, const char *message) {
    (void)user;
    if (level == ZS_LOG_ERROR) fprintf(stderr, "%s\n", message);
}

/// With the layer: correct work is silent, a forgotten barrier is told. Without: an error that says what to install.
static void test_validation(void **state) {
    (void)state;
    zs_device *device = NULL;
    zs_error error = {0};
    zs_status status = zs_device_create(&(zs_device_params){.validate = true, .log = {show_error, NULL}}, &device, &error);
    if (status) {
        assert_int_equal(status, ZS_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.message, "vulkan-validationlayers"));
        skip();
    }
    gpu_command *command = make_command(device);
    gpu_buffer from = make_buffer(device, GPU_MEMORY_DEVICE, 16 << 20), to = make_buffer(device, GPU_MEMORY_DEVICE, 16 << 20);
    for (uint32_t barrier = 1; barrier < 2; barrier--) {
        assert_int_equal(zs_device_validation_count(device), 0);
        assert_int_equal(gpu_command_begin(command, NULL), ZS_OK);
        gpu_command_label(command, "fill, then copy");
        dispatch_probe(command, &from, 128, 2, (gpu_work){0});
        gpu_command_barrier(command);
        gpu_command_fill(command, &from, 0, from.size, 1);
        if (barrier) gpu_command_barrier(command);
        gpu_command_copy(command, &from, 0, &to, 0, to.size);
        assert_int_equal(gpu_command_end(command, NULL), ZS_OK);
        uint64_t value = 0;
        for (uint32_t run = 0; run < 3; run++) value = submit(command);
        (void)gpu_command_last_ms(command);
        wait_done(device, value);
    }
    assert_true(zs_device_validation_count(device) > 0);
    gpu_buffer_destroy(device, &from);
    gpu_buffer_destroy(device, &to);
    gpu_command_destroy(&command);
    zs_device_destroy(&device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workgroup_sizes),  cmocka_unit_test(test_empty),         cmocka_unit_test(test_required_subgroup_size),
        cmocka_unit_test(test_recording_errors), cmocka_unit_test(test_copy_and_fill), cmocka_unit_test(test_constants),
        cmocka_unit_test(test_replay),           cmocka_unit_test(test_parts),         cmocka_unit_test(test_replays_teach),
        cmocka_unit_test(test_profiling),        cmocka_unit_test(test_timeout),       cmocka_unit_test(test_lost_device),
        cmocka_unit_test(test_threads),          cmocka_unit_test(test_validation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
