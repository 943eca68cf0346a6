#include "support/session_check.h"

#include "support/tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void session_check_reference(const zs_session *session, reference_model *reference, const expert_file *expert, float bound) {
    enum { VOCAB = TINY_VOCAB };
    size_t count, made, prompt = zs_session_prompt_count(session);
    const uint32_t *ids = zs_session_tokens(session, &count);
    const float *logprobs = zs_session_logprobs(session, &made);
    double *expected = malloc(sizeof *expected * count * VOCAB);
    assert_int_equal(made, count - prompt);
    reference_model_run(reference, expert, ids, (uint32_t)count, expected);
    for (size_t i = prompt; i < count; i++) {
        double off = fabs(expected[(i - 1) * VOCAB + ids[i]] - (double)logprobs[i - prompt]);
        if (!(off <= (double)bound)) fail_msg("token %zu is off by %g", i, off);
    }
    free(expected);
}

void session_check_equal(const zs_session *a, const zs_session *b, float bound) {
    size_t count[2], made[2];
    const uint32_t *x = zs_session_tokens(a, &count[0]), *y = zs_session_tokens(b, &count[1]);
    const float *p = zs_session_logprobs(a, &made[0]), *q = zs_session_logprobs(b, &made[1]);
    assert_int_equal(count[0], count[1]);
    assert_memory_equal(x, y, count[0] * sizeof *x);
    if (bound == 0) assert_memory_equal(p, q, made[0] * sizeof *p);
    for (size_t i = 0; i < made[0]; i++) assert_true(fabsf(p[i] - q[i]) <= bound);
}

void session_check_pages(zs_engine *engine) {
    uint32_t held = 0;
    for (uint32_t p = 0; p < engine->pool.page_count; p++) {
        uint32_t references = 0;
        for (uint32_t i = 0; i < engine->cache_count; i++) {
            for (uint32_t k = 0; k < engine->cache[i].seq.page_count; k++) references += engine->cache[i].seq.pages[k] == p;
        }
        assert_int_equal(engine->pool.references[p], references);
        held += references > 0;
    }
    assert_int_equal(engine->pool.free_count + held, engine->pool.page_count);
}
