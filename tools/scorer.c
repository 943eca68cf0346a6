#include "scorer.h"

#include "child.h"
#include "sandbox.h"
#include "score.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 10000 };

struct scorer {
    const task *task;
    char *command; // NULL: the task's scorer
    uint32_t timeout_ms;
    sandbox box; // of SCORER_CODE
};

zs_status scorer_create(const char *name, const scorer_params *params, scorer **out, zs_error *error) {
    static const scorer_params defaults;
    const scorer_params *p = params ? params : &defaults;
    const task *t = task_find(name);
    if (!t) return zs_error_set(error, ZS_ERROR_ARGUMENT, "there is no task %s", name);
    scorer *s = calloc(1, sizeof *s);
    size_t size = p->command ? strlen(p->command) + 1 : 0;
    if (s && p->command) s->command = malloc(size);
    if (!s || (p->command && !s->command)) {
        scorer_destroy(&s);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a scorer");
    }
    if (p->command) memcpy(s->command, p->command, size);
    s->task = t;
    s->timeout_ms = p->timeout_ms ? p->timeout_ms : TIMEOUT_MS;
    s->box = (sandbox){.python = p->python, .timeout_ms = s->timeout_ms, .memory = p->memory, .unsafe_code = p->unsafe_code};
    zs_status status = t->scorer == SCORER_CODE && !p->command ? sandbox_open(&s->box, error) : ZS_OK;
    if (status)
        scorer_destroy(&s);
    else
        *out = s;
    return status;
}

void scorer_destroy(scorer **handle) {
    if (!*handle) return;
    free((*handle)->command);
    free(*handle);
    *handle = NULL;
}

/// The number that a command printed, with nothing but space around it.
static zs_status read_reward(const scorer *s, const data_item *item, const child_result *r, double *score, zs_error *error) {
    char *end;
    errno = 0;
    double value = strtod(r->output, &end);
    bool number = end > r->output && !end[strspn(end, " \t\r\n")];
    if (r->timed_out)
        return zs_error_set(error, ZS_ERROR_TIMEOUT, "line %u: the reward command did not end within %u ms: %s", item->line, s->timeout_ms,
                            s->command);
    if (r->exit_status != 0)
        return zs_error_set(error, ZS_ERROR_IO, "line %u: the reward command failed (%s %d): %s%s%s", item->line,
                            r->exit_status < 0 ? "killed, status" : "exit status", r->exit_status, s->command, *r->errors ? ": " : "",
                            r->errors);
    if (!number)
        return zs_error_set(error, ZS_ERROR_FORMAT, "line %u: the reward command printed no number: \"%.80s\"", item->line, r->output);
    if (!(isfinite(value) && value >= 0 && value <= 1))
        return zs_error_set(error, ZS_ERROR_NUMERIC, "line %u: the reward command printed %.80s: a number from 0 to 1 is expected",
                            item->line, r->output);
    *score = value;
    return ZS_OK;
}

static zs_status score_by_command(const scorer *s, const data_item *item, const char *answer, double *score, zs_error *error) {
    json_t *object = json_pack("{s:s, s:s, s:O}", "task", s->task->name, "answer", answer, "item", item->root);
    char *input = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!input) return zs_error_set(error, ZS_ERROR_FORMAT, "line %u: the answer is no UTF-8", item->line);
    const char *const argv[] = {"sh", "-c", s->command, NULL};
    child_result result;
    zs_status status =
        child_run(&(child_params){.argv = argv, .input = input, .input_size = strlen(input), .timeout_ms = s->timeout_ms}, &result, error);
    free(input);
    if (status) return status;
    for (size_t i = strlen(result.errors); i > 0 && result.errors[i - 1] == '\n'; i--) result.errors[i - 1] = 0;
    return read_reward(s, item, &result, score, error);
}

static zs_status score_code(const scorer *s, const data_item *item, const char *answer, double *score, zs_error *error) {
    char *program = score_program(item, answer), reason[128];
    if (!program) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a program");
    bool passed = false;
    zs_status status = sandbox_run(&s->box, program, &passed, reason, sizeof reason, error);
    free(program);
    *score = passed ? 1 : 0;
    return status;
}

/// The best over the answers that are right.
static bool matches_any(const data_item *item, const char *answer, bool (*same)(const char *answer, const char *gold)) {
    for (size_t i = 0; i < item->answer_count; i++) {
        if (same(answer, item->answers[i])) return true;
    }
    return false;
}

zs_status scorer_score(scorer *s, const data_item *item, const char *answer, double *score, zs_error *error) {
    char reason[128];
    *score = 0;
    if (s->command) return score_by_command(s, item, answer, score, error);
    if (!task_check_item(s->task, item, reason, sizeof reason))
        return zs_error_set(error, ZS_ERROR_FORMAT, "line %u cannot be scored as %s: %s", item->line, s->task->name, reason);
    switch (s->task->scorer) {
    case SCORER_LABEL: *score = matches_any(item, answer, score_label); break;
    case SCORER_NUMERIC: *score = matches_any(item, answer, score_numeric); break;
    case SCORER_LATEX: *score = matches_any(item, answer, score_latex); break;
    case SCORER_CHOICE: *score = score_choice(item, answer); break;
    case SCORER_VQA: *score = score_vqa(item, answer); break;
    case SCORER_CODE: return score_code(s, item, answer, score, error);
    }
    return ZS_OK;
}
