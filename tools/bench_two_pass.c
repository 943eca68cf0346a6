/// What finding out the topic adds to an answer.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { QUESTION_TOKENS = 64, QUESTION_BYTES = 1024 };

/// Words of a vocabulary's commonest, until the text has QUESTION_TOKENS tokens.
static zs_status make_question(bench *b, char *text, zs_error *error) {
    static const char *const words[] = {"what", "is",    "the",   "sum",  "of",  "a",    "number", "and", "how",
                                        "many", "would", "they",  "have", "if",  "we",   "write",  "one", "list",
                                        "that", "it",    "gives", "back", "for", "each", "man",    "on",  "time"};
    size_t count = 0, size = 0;
    zs_status status = ZS_OK;
    text[0] = 0;
    while (count < QUESTION_TOKENS && size + 16 < QUESTION_BYTES && !status) {
        b->random = b->random * 1664525u + 1013904223u;
        size += (size_t)snprintf(text + size, QUESTION_BYTES - size, "%s%s", size ? " " : "",
                                 words[(b->random >> 16) % (sizeof words / sizeof *words)]);
        uint32_t *ids = NULL;
        status = zs_tokenizer_encode(zs_model_get_tokenizer(b->stack.model), text, size, false, &ids, &count, error);
        free(ids);
    }
    return status;
}

static zs_status time_pass1(bench *b, const zs_expert_set *experts, double *ms, zs_error *error) {
    char question[QUESTION_BYTES];
    zs_answer answer;
    zs_status status = make_question(b, question, error);
    if (!status)
        status = zs_ask(b->stack.engine, question, &(zs_ask_params){.strategy = ZS_STRATEGY_PROMPT, .experts = experts, .max_tokens = 1},
                        &answer, error);
    if (status) return status;
    *ms = answer.pass1_ms;
    zs_answer_free(&answer);
    return ZS_OK;
}

/// An answer of its full length to another question, whatever it says.
static zs_status time_answer(bench *b, double *ms, zs_error *error) {
    char question[QUESTION_BYTES];
    uint32_t *ids = NULL;
    size_t count;
    zs_status status = make_question(b, question, error);
    if (!status)
        status =
            zs_tokenizer_encode_chat(zs_model_get_tokenizer(b->stack.model), &(zs_message){"user", question}, 1, true, &ids, &count, error);
    if (!status) status = bench_time_answer(b, ids, count, b->decode_tokens, ms, error);
    free(ids);
    return status;
}

static zs_status measure(bench *b, const zs_expert_set *experts, zs_error *error) {
    double *pass1 = calloc(b->runs, sizeof *pass1), *answers = calloc(b->runs, sizeof *answers), *shares = calloc(b->runs, sizeof *shares),
           ms;
    zs_status status = pass1 && answers && shares ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    if (!status) status = time_pass1(b, experts, &ms, error); // the earlier question: instructions and priors are kept from here on
    if (!status) figures_add_value(&b->figures, "two_pass_first_pass1", "ms", ms);
    for (uint32_t run = 0; run < b->runs && !status; run++) {
        status = time_pass1(b, experts, &pass1[run], error);
        if (!status) status = time_answer(b, &answers[run], error);
        shares[run] = 100 * pass1[run] / answers[run];
    }
    if (!status) {
        figures_add(&b->figures, "two_pass_pass1", "ms", pass1, b->runs);
        figures_add(&b->figures, "two_pass_answer", "ms", answers, b->runs);
        figures_add(&b->figures, "two_pass_overhead", "%", shares, b->runs)->bar = bench_on_gpu(b) ? 5 : 15;
    }
    free(pass1);
    free(answers);
    free(shares);
    return status;
}

zs_status bench_two_pass(bench *b, zs_error *error) {
    zs_expert_set *experts = NULL;
    zs_status status = zs_expert_set_load(b->experts_folder, &experts, error);
    if (!status) status = measure(b, experts, error);
    zs_expert_set_destroy(&experts);
    return status;
}
