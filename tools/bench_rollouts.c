/// Answers of many lengths, several to a prompt, a new one begun whenever one is done, as training by reward and evaluation have them:
/// beside what prefill and decode of as many sessions take by themselves.
#include "bench.h"

#include <stdlib.h>

enum { PROMPT = 64, TO_A_PROMPT = 4, TO_A_SESSION = 8 };

typedef struct rolling {
    bench *bench;
    uint32_t ids[PROMPT]; // of the newest prompt
    uint32_t begun, count;
    uint64_t tokens; // of the answers
    zs_session *sessions[BENCH_FULL_ROLLOUTS];
    zs_error error;
    zs_status status;
} rolling;

/// From 1 to --decode-tokens.
static uint32_t draw_length(bench *b) {
    uint32_t id;
    bench_draw_ids(b, &id, 1);
    return 1 + id % b->decode_tokens;
}

static zs_status begin_answer(rolling *r, zs_session **session, zs_error *error) {
    if (r->begun % TO_A_PROMPT == 0) bench_draw_ids(r->bench, r->ids, PROMPT);
    const uint32_t length = draw_length(r->bench);
    zs_status status = zs_session_create(r->bench->stack.engine, &(zs_session_params){.ignore_end = true}, session, error);
    if (!status) status = zs_session_set_prompt(*session, r->ids, PROMPT, error);
    if (!status) status = zs_session_generate(*session, length, error);
    r->begun++;
    r->tokens += length;
    return status;
}

static bool take_token(void *user, zs_session *session, uint32_t token) {
    rolling *r = user;
    (void)token;
    if (r->status) return false;
    if (!zs_session_is_done(session)) return true;
    zs_session **slot = r->sessions;
    while (*slot != session) slot++;
    zs_session_destroy(slot);
    if (r->begun < r->count) r->status = begin_answer(r, slot, &r->error);
    return !r->status;
}

/// *prompts and *answers: tokens that had to be computed.
static zs_status roll(bench *b, uint32_t sessions, double *ms, double *prompts, double *answers, zs_error *error) {
    rolling *r = calloc(1, sizeof *r);
    if (!r) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for answers");
    r->bench = b;
    r->count = sessions * TO_A_SESSION;
    const double start = bench_now_ms();
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < sessions && !status; i++) status = begin_answer(r, &r->sessions[i], error);
    if (!status) status = zs_engine_run(b->stack.engine, take_token, r, error);
    if (!status && r->status) {
        status = r->status;
        *error = r->error;
    }
    *ms = bench_now_ms() - start;
    *prompts = (double)PROMPT * r->count / TO_A_PROMPT;
    *answers = (double)r->tokens;
    for (uint32_t i = 0; i < sessions; i++) zs_session_destroy(&r->sessions[i]);
    free(r);
    return status;
}

/// What a run of so many tokens should take, by rates that are measured next to it.
static zs_status predict(bench *b, uint32_t sessions, double prompts, double answers, double *ms, zs_error *error) {
    const uint32_t base[BENCH_FULL_ROLLOUTS] = {0};
    double prefill = 0, decode = 0;
    zs_status status = bench_time_prefill(b, BENCH_SHORT_PROMPT, &prefill, error);
    if (!status) status = bench_time_decode(b, base, sessions, PROMPT, b->decode_tokens, &decode, error);
    *ms = prompts * prefill / BENCH_SHORT_PROMPT + answers * decode / (sessions * b->decode_tokens);
    return status;
}

static zs_status measure(bench *b, uint32_t sessions, zs_error *error) {
    double *rates = calloc(b->runs, sizeof *rates), *over = calloc(b->runs, sizeof *over);
    double ms = 0, predicted = 0, prompts = 0, answers = 0;
    char name[48];
    zs_status status = rates && over ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = predict(b, sessions, 1, 1, &predicted, error); // warms up
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = roll(b, sessions, &ms, &prompts, &answers, error);
        if (!status) status = predict(b, sessions, prompts, answers, &predicted, error);
        rates[run] = 1e3 * (prompts + answers) / ms;
        over[run] = ms / predicted;
    }
    snprintf(name, sizeof name, "rollouts_%u", sessions);
    if (!status) figures_add(&b->figures, name, "tokens/s", rates, b->runs);
    snprintf(name, sizeof name, "rollouts_%u_over_predicted", sessions);
    if (!status) figures_add(&b->figures, name, "ratio", over, b->runs)->bar = 1.25;
    free(rates);
    free(over);
    return status;
}

zs_status bench_rollouts(bench *b, zs_error *error) {
    zs_status status = measure(b, BENCH_ROLLOUTS, error);
    return status || !b->full ? status : measure(b, BENCH_FULL_ROLLOUTS, error);
}
