// What no tiny model reaches by itself: matrices in parts, sizes beyond 32 bits, memory in many blocks.
#include "gpu/device_private.h"
#include "model/model.h"
#include "loader/safetensors.h"
#include "ops/ops.h"
#include "support/gguf_image.h"
#include "support/safetensors_image.h"
#include "support/tiny_runtime.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/large.gguf", factored_path[] = TEST_OUTPUT "/large-factored.gguf";

// ---- parts of a matrix -------------------------------------------------------------------------------------------------

static const uint64_t gibibyte = 1u << 30;

/// Parts cover the rows, begin where groups do, stay within the limit and below what 32-bit indices reach, whatever the type.
static void check_parts(matrix_type type, uint32_t out, uint32_t in, uint32_t group, uint64_t limit, uint32_t expected) {
    matrix whole = matrix_of(type, out, in, group);
    uint64_t needed = 0, rows = 0;
    assert_true(matrix_split(&whole, limit, &needed));
    uint32_t parts = matrix_part_count(&whole);
    assert_int_equal(parts, expected);
    for (uint32_t p = 0; p < parts; p++) {
        matrix_set_part_address(&whole, p, 0x100000000u * (p + 1));
        matrix part = matrix_part(&whole, p);
        assert_true(matrix_bytes(&part) <= limit);
        assert_int_equal(part.part_rows, 0);
        assert_true(part.address == 0x100000000u * (p + 1));
        assert_true(parts == 1 || p * (uint64_t)whole.part_rows == rows);
        assert_true(parts == 1 || whole.part_rows % (group > 32 ? group : 32) == 0);
        rows += part.out;
        // The last byte of the last plane lies where the planes say, in 64 bits, and the kernels' word indices fit into 31.
        matrix_planes planes = matrix_get_planes(&part);
        uint32_t last = planes.count - 1;
        assert_true(planes.offset[last] + part.out * planes.row_bytes[last] <= matrix_bytes(&part));
        assert_true(matrix_bytes(&part) <= INT32_MAX);
    }
    assert_true(rows == out);
}

static void test_parts(void **state) {
    (void)state;
    // Llama 3's vocabulary at 70B's width, and Gemma's at 8192: 4.2 and 8.6 GB as f32.
    check_parts(MATRIX_F32, 128256, 8192, 1, INT32_MAX, 2);
    check_parts(MATRIX_F32, 128256, 8192, 1, gibibyte, 4);
    check_parts(MATRIX_F32, 262144, 8192, 1, INT32_MAX, 5); // 8 GiB do not divide into four parts of less than 2 GiB
    check_parts(MATRIX_F32, 262144, 8192, 32, gibibyte - (gibibyte >> 6), 9);
    check_parts(MATRIX_F16, 128256, 8192, 1, gibibyte, 2);
    check_parts(MATRIX_Q8, 262144, 8192, 32, gibibyte, 3);
    check_parts(MATRIX_Q6, 262144, 8192, 16, gibibyte, 2);
    check_parts(MATRIX_Q4, 28672, 8192, 1, gibibyte, 1);
    check_parts(MATRIX_F32, 300, 64, 8, 41000, 2);
    check_parts(MATRIX_F32, 300, 64, 64, 41000, 3); // whole groups
    check_parts(MATRIX_F32, 33, 64, 8, 8192, 2);
}

static void test_parts_refused(void **state) {
    (void)state;
    matrix whole = matrix_of(MATRIX_F32, 262144, 8192, 1);
    uint64_t needed = 0;
    assert_false(matrix_split(&whole, gibibyte / 4, &needed)); // 32 parts
    assert_true(needed == gibibyte / 2);
    assert_true(matrix_split(&whole, needed, &needed));
    assert_int_equal(matrix_part_count(&whole), MATRIX_MAX_PARTS);
    whole = matrix_of(MATRIX_F32, 31, 64, 8); // fewer rows than a part may have
    assert_false(matrix_split(&whole, 32 * 64 * 4 - 1, &needed));
    assert_true(needed == matrix_bytes(&whole));
    whole = matrix_of(MATRIX_F32, 256, 64, 8); // parts of 32 rows, 8 kB each
    assert_false(matrix_split(&whole, 8191, &needed));
    assert_true(needed == 8192);
}

// ---- models whose matrices exceed the largest block ---------------------------------------------------------------------

enum { PROMPT = 150, MORE = 12, COUNT = PROMPT + MORE };

/// What a model says on a device: a text made greedily and its scores, under an expert where it is factored.
typedef struct sayings {
    uint32_t tokens[COUNT];
    float made[MORE], scored[COUNT];
    uint32_t dispatches, blocks;
} sayings;

static zs_device *open_limited(uint64_t block_limit) {
    zs_device *device = NULL;
    zs_error error;
    tiny_need(zs_device_create(&(zs_device_params){.skip_self_test = true, .block_limit = block_limit}, &device, &error), &error);
    return device;
}

static uint32_t attach_random(zs_engine *engine, const zs_model *model) {
    zs_expert *expert = NULL;
    zs_error error;
    uint32_t id = 0;
    tiny_need(zs_expert_create_random(model, 3, &expert, &error), &error);
    tiny_need(zs_engine_attach_expert(engine, expert, false, &id, &error), &error);
    zs_expert_destroy(&expert);
    return id;
}

static void run_model(const char *path, uint64_t block_limit, bool with_expert, sayings *out) {
    zs_device *device = open_limited(block_limit);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){.max_rows = 16, .max_sessions = 2, .max_experts = 2});
    uint32_t id = with_expert ? attach_random(engine, model) : 0, ids[PROMPT];
    size_t count;
    tiny_ids(ids, PROMPT, 5);
    zs_session *session = tiny_session(engine, (zs_session_params){.expert = id}, ids, PROMPT, MORE);
    tiny_run(engine);
    memcpy(out->tokens, zs_session_tokens(session, &count), sizeof out->tokens);
    assert_int_equal(count, COUNT);
    memcpy(out->made, zs_session_logprobs(session, &count), sizeof out->made);
    assert_int_equal(count, MORE);
    zs_session_destroy(&session);
    tiny_score(engine, id, out->tokens, 1, COUNT, out->scored);
    out->dispatches = zs_engine_get_info(engine)->decode_dispatches_per_layer;
    out->blocks = 0;
    for (const gpu_block *b = device->memory.blocks; b; b = b->next) {
        out->blocks++;
        assert_true(block_limit == 0 || b->size <= block_limit);
    }
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
}

/// Every bit is the same: parts change which dispatch makes a row, not how.
static void check_same(const char *path, uint64_t block_limit, bool with_expert) {
    sayings whole = {0}, parts = {0};
    run_model(path, 0, with_expert, &whole);
    run_model(path, block_limit, with_expert, &parts);
    assert_true(parts.dispatches > whole.dispatches);
    assert_true(parts.blocks > whole.blocks);
    assert_memory_equal(parts.tokens, whole.tokens, sizeof whole.tokens);
    assert_memory_equal(parts.made, whole.made, sizeof whole.made);
    for (size_t i = 0; i + 1 < COUNT; i++) assert_true(parts.scored[i] == whole.scored[i]);
}

static void test_small_blocks(void **state) {
    (void)state;
    static const struct {
        uint32_t type, hidden, ffn;
    } models[] = {{TENSOR_F32, 128, 256}, {TENSOR_F16, 256, 256}, {TENSOR_Q8_0, 256, 1024}, {TENSOR_Q4_0, 256, 1024}};
    enum { LIMIT = 84000 }; // room for the logits of 64 rows, and not for the embedding or a matrix of the feed-forward layers
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const tiny_model_params params = {
            .seed = i, .weight_type = models[i].type, .untied = i % 2, .hidden = models[i].hidden, .ffn = models[i].ffn};
        tiny_files(&params, dense_path, 0, NULL);
        check_same(dense_path, LIMIT, false);
    }
    tiny_files(&(tiny_model_params){.seed = 9, .hidden = 128, .ffn = 256}, dense_path, ZS_FACTOR_F32, factored_path);
    check_same(factored_path, LIMIT, true);
}

/// A limit that no division meets is told with the tensor, what it takes and what there is.
static void test_blocks_too_small(void **state) {
    (void)state;
    zs_device *device = open_limited(4096);
    zs_model *model = NULL;
    zs_error error = {0};
    tiny_files(NULL, dense_path, 0, NULL);
    assert_int_equal(zs_model_load(device, dense_path, NULL, &model, &error), ZS_ERROR_DEVICE_MEMORY);
    assert_non_null(strstr(error.message, "token_embd.weight [300, 64]"));
    assert_non_null(strstr(error.message, "16 parts"));
    assert_non_null(strstr(error.message, "0.00 MiB in one piece"));
    zs_device_destroy(&device);
}

// ---- files of more than 4 GiB -------------------------------------------------------------------------------------------

// A tensor of 5 GiB, of which only the last row is not a hole of the file, and one behind it.
enum { HUGE_ROWS = 163840, HUGE_COLS = 8192, BEHIND = 8 };
static const uint64_t huge_bytes = 4ull * HUGE_ROWS * HUGE_COLS;
static const char huge_path[] = TEST_OUTPUT "/huge";
static const float behind[BEHIND] = {1, 2, 3, 4, 5, 6, 7, 8};

static void write_huge(const byte_buffer *header) {
    static float row[HUGE_COLS];
    for (uint32_t i = 0; i < HUGE_COLS; i++) row[i] = (float)i;
    int fd = open(huge_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_true(pwrite(fd, header->data, header->size, 0) == (ssize_t)header->size);
    off_t end = (off_t)(header->size + huge_bytes);
    assert_true(pwrite(fd, row, sizeof row, end - (off_t)sizeof row) == (ssize_t)sizeof row);
    assert_true(pwrite(fd, behind, sizeof behind, end) == (ssize_t)sizeof behind);
    assert_int_equal(close(fd), 0);
}

static void check_huge(const void *huge, const void *after) {
    const float *last = (const float *)huge + (size_t)(HUGE_ROWS - 1) * HUGE_COLS;
    assert_true(last[-1] == 0 && last[0] == 0 && last[1] == 1 && last[HUGE_COLS - 1] == HUGE_COLS - 1);
    assert_memory_equal(after, behind, sizeof behind);
}

static void test_huge_gguf(void **state) {
    (void)state;
    gguf_image image = {0};
    gguf_file file = {0};
    zs_error error = {0};
    gguf_image_tensor(&image, "huge", TENSOR_F32, 2, (const uint64_t[]){HUGE_ROWS, HUGE_COLS}, NULL);
    gguf_image_tensor(&image, "behind", TENSOR_F32, 1, (const uint64_t[]){BEHIND}, behind);
    memcpy(image.infos.data + image.infos.size - sizeof huge_bytes, &huge_bytes, sizeof huge_bytes); // its offset
    image.data.size = 0;
    byte_buffer header = gguf_image_finish(&image);
    write_huge(&header);
    tiny_need(gguf_open(huge_path, &file, &error), &error);
    const gguf_tensor *huge = gguf_find_tensor(&file, "huge"), *after = gguf_find_tensor(&file, "behind");
    assert_true(huge->size == huge_bytes && huge->elements == huge_bytes / 4 && after->offset == header.size + huge_bytes);
    check_huge(huge->data, after->data);
    gguf_close(&file);
    assert_int_equal(truncate(huge_path, (off_t)(header.size + huge_bytes + sizeof behind - 1)), 0);
    assert_int_equal(gguf_open(huge_path, &file, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "behind"));
    byte_buffer_free(&header);
    assert_int_equal(unlink(huge_path), 0);
}

static void test_huge_safetensors(void **state) {
    (void)state;
    char text[256];
    safetensors_file file = {0};
    zs_error error = {0};
    snprintf(text, sizeof text,
             "{'huge': {'dtype': 'F32', 'shape': [%d, %d], 'data_offsets': [0, %llu]}, 'behind': {'dtype': 'F32', 'shape': [%d], "
             "'data_offsets': [%llu, %llu]}}",
             HUGE_ROWS, HUGE_COLS, (unsigned long long)huge_bytes, BEHIND, (unsigned long long)huge_bytes,
             (unsigned long long)huge_bytes + sizeof behind);
    byte_buffer header = safetensors_image(text, NULL, 0);
    write_huge(&header);
    tiny_need(safetensors_open(huge_path, &file, &error), &error);
    const safetensors_tensor *huge = safetensors_find(&file, "huge"), *after = safetensors_find(&file, "behind");
    assert_true(huge->size == huge_bytes);
    check_huge(huge->data, after->data);
    safetensors_close(&file);
    byte_buffer_free(&header);
    assert_int_equal(unlink(huge_path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),        cmocka_unit_test(test_parts_refused),
        cmocka_unit_test(test_small_blocks), cmocka_unit_test(test_blocks_too_small),
        cmocka_unit_test(test_huge_gguf),    cmocka_unit_test(test_huge_safetensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
