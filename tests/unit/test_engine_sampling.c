// Sampling as sessions see it: ties, seeds and streams, restrictions, penalties, and logits that are no numbers. What the
// kernel draws from which distribution is for the operation tests.
#include "loader/gguf.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char path[] = TEST_OUTPUT "/sampling.gguf";
static zs_device *device;

enum { PROMPT = 9, MORE = 60 };

/// The place of an F32 tensor's data in the file, for edits.
static long tensor_offset(const char *name) {
    gguf_file file;
    zs_error error;
    tiny_need(gguf_open(path, &file, &error), &error);
    long offset = (long)((const char *)gguf_find_tensor(&file, name)->data - (const char *)file.map.data);
    gguf_close(&file);
    return offset;
}

static void edit_file(long offset, const void *data, size_t size) {
    FILE *file = fopen(path, "r+b");
    assert_true(file && fseek(file, offset, SEEK_SET) == 0 && fwrite(data, 1, size, file) == size);
    fclose(file);
}

/// Generates MORE tokens after the same prompt.
static void generate(zs_engine *engine, zs_session_params params, uint32_t tokens[MORE]) {
    uint32_t ids[PROMPT];
    size_t count;
    tiny_ids(ids, PROMPT, 1);
    zs_session *session = tiny_session(engine, params, ids, PROMPT, MORE);
    tiny_run(engine);
    const uint32_t *all = zs_session_tokens(session, &count);
    assert_int_equal(count, PROMPT + MORE);
    memcpy(tokens, all + PROMPT, MORE * sizeof *tokens);
    zs_session_destroy(&session);
}

/// Rows 2k and 2k + 1 of the (tied) embedding are the same, so each logit comes twice: the lower id is taken.
static void test_ties(void **state) {
    (void)state;
    static float rows[TINY_VOCAB][TINY_HIDDEN];
    tiny_files(NULL, path, 0, NULL);
    long offset = tensor_offset("token_embd.weight");
    FILE *file = fopen(path, "rb");
    assert_true(file && fseek(file, offset, SEEK_SET) == 0 && fread(rows, sizeof rows, 1, file) == 1);
    fclose(file);
    for (size_t i = 1; i < TINY_VOCAB; i += 2) memcpy(rows[i], rows[i - 1], sizeof rows[i]);
    edit_file(offset, rows, sizeof rows);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    uint32_t tokens[MORE], distinct = 0;
    generate(engine, (zs_session_params){0}, tokens);
    for (size_t i = 0; i < MORE; i++) {
        assert_int_equal(tokens[i] % 2, 0);
        distinct += i > 0 && tokens[i] != tokens[i - 1];
    }
    assert_true(distinct > 0);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

static void test_seeds(void **state) {
    (void)state;
    static const zs_session_params variants[] = {
        {.sampling = {.temperature = 1.5f, .seed = 1}},
        {.sampling = {.temperature = 1.5f, .seed = 1}},
        {.sampling = {.temperature = 1.5f, .seed = 2}},
        {.sampling = {.temperature = 1.5f, .seed = 1ull << 32 | 1}},
        {.sampling = {.temperature = 1.5f, .seed = 1}, .stream = 1},
        {.sampling = {.temperature = 1.5f, .seed = 1}, .stream = 1ull << 32},
    };
    enum { VARIANTS = sizeof variants / sizeof *variants };
    uint32_t tokens[VARIANTS][MORE];
    tiny_files(NULL, path, 0, NULL);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){.deterministic = true});
    for (size_t i = 0; i < VARIANTS; i++) generate(engine, variants[i], tokens[i]);
    for (size_t i = 0; i < VARIANTS; i++) {
        for (size_t k = 0; k < i; k++) assert_true((memcmp(tokens[i], tokens[k], sizeof tokens[i]) == 0) == (i == 1 && k == 0));
    }
    // Only the likeliest token left: greedy, whatever the seed.
    uint32_t greedy[MORE], narrow[MORE];
    generate(engine, (zs_session_params){0}, greedy);
    const zs_sampling only[] = {{.temperature = 2, .top_k = 1, .seed = 3},
                                {.temperature = 2, .top_p = 1e-6f, .seed = 3},
                                {.temperature = 0.5f, .min_p = 1, .seed = 3}};
    for (size_t i = 0; i < 3; i++) {
        generate(engine, (zs_session_params){.sampling = only[i]}, narrow);
        assert_memory_equal(narrow, greedy, sizeof greedy);
    }
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

static void test_restriction(void **state) {
    (void)state;
    static const uint32_t allowed[] = {3, 64, 65, 299};
    uint32_t ids[PROMPT];
    size_t count;
    zs_error error;
    tiny_files(NULL, path, 0, NULL);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    tiny_ids(ids, PROMPT, 1);
    zs_session *session = tiny_session(engine, (zs_session_params){.sampling = {.temperature = 5, .seed = 1}}, ids, PROMPT, 40);
    tiny_need(zs_session_restrict(session, allowed, 4, &error), &error);
    assert_int_equal(zs_session_restrict(session, (uint32_t[]){5, TINY_VOCAB}, 2, &error), ZS_ERROR_ARGUMENT); // and changes nothing
    assert_non_null(strstr(error.message, "300"));
    tiny_run(engine);
    const uint32_t *tokens = zs_session_tokens(session, &count);
    uint32_t seen = 0;
    for (size_t i = PROMPT; i < count; i++) {
        uint32_t k = 0;
        while (k < 4 && allowed[k] != tokens[i]) k++;
        assert_true(k < 4);
        seen |= 1u << k;
    }
    assert_int_equal(seen, 15);
    tiny_need(zs_session_restrict(session, NULL, 0, &error), &error);
    tiny_need(zs_session_generate(session, 40, &error), &error);
    tiny_run(engine);
    tokens = zs_session_tokens(session, &count);
    uint32_t free_ones = 0;
    for (size_t i = PROMPT + 40; i < count; i++) free_ones += tokens[i] != 3 && tokens[i] != 64 && tokens[i] != 65 && tokens[i] != 299;
    assert_true(free_ones > 30);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

static bool restrict_late(void *user, zs_session *session, uint32_t token) {
    uint32_t *calls = user;
    zs_error error;
    (void)token;
    if (++*calls == 10) tiny_need(zs_session_restrict(session, (uint32_t[]){7}, 1, &error), &error);
    return true;
}

/// A restriction from a callback holds from the next token on, although steps are in flight.
static void test_restriction_on_the_way(void **state) {
    (void)state;
    uint32_t ids[PROMPT], calls = 0;
    size_t count;
    zs_error error;
    tiny_files(NULL, path, 0, NULL);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    tiny_ids(ids, PROMPT, 1);
    zs_session *session = tiny_session(engine, (zs_session_params){.sampling = {.temperature = 5}}, ids, PROMPT, 30);
    tiny_need(zs_engine_run(engine, restrict_late, &calls, &error), &error);
    const uint32_t *tokens = zs_session_tokens(session, &count);
    assert_int_equal(count, PROMPT + 30);
    uint32_t before = 0;
    for (size_t i = PROMPT; i < PROMPT + 10; i++) before += tokens[i] != 7;
    assert_true(before > 5);
    for (size_t i = PROMPT + 10; i < count; i++) assert_int_equal(tokens[i], 7);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

/// An endless penalty: no token comes twice, those of the prompt included.
static void test_penalty(void **state) {
    (void)state;
    uint32_t tokens[MORE], ids[PROMPT], times[TINY_VOCAB] = {0};
    tiny_files(NULL, path, 0, NULL);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    tiny_ids(ids, PROMPT, 1);
    generate(engine, (zs_session_params){.sampling = {.repetition_penalty = 1e6f}}, tokens);
    for (size_t i = 0; i < PROMPT; i++) times[ids[i]] = 1;
    for (size_t i = 0; i < MORE; i++) assert_int_equal(times[tokens[i]]++, 0);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

/// NaN in a weight: an error from sessions and from scores. The session is stopped; others and the engine go on.
static void test_nan(void **state) {
    (void)state;
    const float nan_row[TINY_HIDDEN] = {NAN};
    uint32_t good[PROMPT] = {0}, bad[PROMPT];
    float logprobs[2];
    size_t count;
    zs_error error;
    // Token 77's embedding is NaN, the head is another matrix: whoever reads 77 gets NaN, the others do not.
    tiny_files(&(tiny_model_params){.untied = true}, path, 0, NULL);
    edit_file(tensor_offset("token_embd.weight") + 77 * TINY_HIDDEN * (long)sizeof(float), nan_row, sizeof nan_row);
    zs_model *model = tiny_load(device, path);
    zs_engine *engine = tiny_engine(model, (zs_engine_params){0});
    for (uint32_t i = 0; i < PROMPT; i++) good[i] = 100 + i;
    memcpy(bad, good, sizeof bad);
    bad[PROMPT - 1] = 77;
    zs_session *sick = tiny_session(engine, (zs_session_params){0}, bad, PROMPT, 20),
               *sound = tiny_session(engine, (zs_session_params){0}, good, PROMPT, 20);
    tiny_need(zs_session_restrict(sound, (uint32_t[]){101}, 1, &error), &error);
    assert_int_equal(zs_engine_run(engine, NULL, NULL, &error), ZS_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "position 9"));
    assert_true(zs_session_is_done(sick));
    tiny_run(engine);
    zs_session_tokens(sound, &count);
    assert_int_equal(count, PROMPT + 20);
    assert_true(zs_session_is_done(sound));
    zs_session_tokens(sick, &count);
    assert_int_equal(count, PROMPT); // no token was made up
    // It comes in the middle of an answer.
    tiny_need(zs_session_restrict(sound, (uint32_t[]){77}, 1, &error), &error);
    tiny_need(zs_session_generate(sound, 5, &error), &error);
    assert_int_equal(zs_engine_run(engine, NULL, NULL, &error), ZS_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "position 30"));
    tiny_run(engine);
    // After it, the session is as good as any.
    tiny_need(zs_session_set_prompt(sick, good, PROMPT, &error), &error);
    tiny_need(zs_session_restrict(sick, (uint32_t[]){101}, 1, &error), &error);
    tiny_need(zs_session_generate(sick, 3, &error), &error);
    tiny_run(engine);
    const zs_score_item items[] = {{0, bad, PROMPT, good, 2, logprobs}, {0, good, PROMPT - 1, bad + PROMPT - 1, 1, logprobs}};
    assert_int_equal(zs_engine_score(engine, &items[0], 1, NULL, 0, &error), ZS_ERROR_NUMERIC);
    tiny_need(zs_engine_score(engine, &items[1], 1, NULL, 0, &error), &error);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
}

static int open_device(void **state) {
    (void)state;
    device = tiny_device((zs_log){0});
    return 0;
}

static int close_device(void **state) {
    (void)state;
    zs_device_destroy(&device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ties),        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_restriction), cmocka_unit_test(test_restriction_on_the_way),
        cmocka_unit_test(test_penalty),     cmocka_unit_test(test_nan),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
