/// The results of an evaluation as they come, so that an interrupted one goes on.
#include "eval.h"
#include "settings.h"
#include "whole_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

zs_status eval_path(const evaluation *e, const char *ending, char path[EVAL_MAX_PATH], zs_error *error) {
    int length = snprintf(path, EVAL_MAX_PATH, "%s%s", e->output, ending);
    if (length > 0 && length < EVAL_MAX_PATH) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "the name %s is too long", e->output);
}

static zs_status write_line(evaluation *e, json_t *line, zs_error *error) {
    bool good = line && json_dumpf(line, e->log, JSON_COMPACT) == 0 && fputc('\n', e->log) != EOF && fflush(e->log) == 0;
    json_decref(line);
    return good ? ZS_OK : zs_error_set(error, ZS_ERROR_IO, "cannot write %s.results.jsonl: %s", e->output, strerror(errno));
}

static eval_strategy *find_strategy(evaluation *e, const char *name) {
    for (size_t i = 0; name && i < e->strategy_count; i++) {
        if (strcmp(e->strategies[i].name, name) == 0) return &e->strategies[i];
    }
    return NULL;
}

static void take_times(eval_strategy *s, const json_t *line) {
    s->pass2_ms += json_number_value(json_object_get(line, "pass2_ms"));
    s->score_ms += json_number_value(json_object_get(line, "score_ms"));
    s->prefill_tokens += (uint64_t)json_integer_value(json_object_get(line, "prefill_tokens"));
    s->decode_tokens += (uint64_t)json_integer_value(json_object_get(line, "decode_tokens"));
    s->images += (uint64_t)json_integer_value(json_object_get(line, "images"));
    s->image_ms += json_number_value(json_object_get(line, "image_ms"));
}

/// A line of an earlier run. Lines of strategies that are not asked for now stay in the file.
static void take_line(evaluation *e, const json_t *line) {
    eval_strategy *s = find_strategy(e, json_string_value(json_object_get(line, "strategy")));
    if (!s) return;
    if (json_object_get(line, "pass2_ms")) take_times(s, line);
    json_int_t question = json_integer_value(json_object_get(line, "question"));
    const json_t *score = json_object_get(line, "score");
    if (!json_is_number(score) || question < 1 || (size_t)question > e->file.count) return;
    eval_result *r = &s->results[question - 1];
    const char *expert = json_string_value(json_object_get(line, "expert"));
    *r = (eval_result){.done = true,
                       .score = json_number_value(score),
                       .pass1_ms = json_number_value(json_object_get(line, "pass1_ms")),
                       .tokens = (uint32_t)json_integer_value(json_object_get(line, "tokens")),
                       .ended = json_is_true(json_object_get(line, "ended"))};
    snprintf(r->expert, sizeof r->expert, "%s", expert ? expert : "");
}

/// Takes a file's whole lines; a last one that is cut short goes. *found: the settings were there and are ours.
static zs_status resume(evaluation *e, const char *path, FILE *file, bool *found, zs_error *error) {
    char *text = NULL;
    size_t room = 0;
    long whole = 0;
    zs_status status = ZS_OK;
    for (ssize_t length; !status && (length = getline(&text, &room, file)) > 0 && text[length - 1] == '\n'; whole += length) {
        json_t *line = json_loadb(text, (size_t)length, 0, NULL), *then = json_object_get(line, "settings");
        if (whole == 0 && !json_is_object(then))
            status = zs_error_set(error, ZS_ERROR_EXISTS, "%s exists and is no results of zsigma eval: choose another -o", path);
        else if (whole == 0)
            status = settings_check(e->settings, then, path, error);
        else if (line)
            take_line(e, line);
        json_decref(line);
    }
    free(text);
    *found = whole > 0;
    if (!status && ftruncate(fileno(file), whole)) status = zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s", path, strerror(errno));
    if (!status) fseek(file, 0, SEEK_END);
    return status;
}

/// Tables of another origin are not replaced.
static zs_status check_tables(const evaluation *e, zs_error *error) {
    static const char *const endings[] = {".md", ".json"};
    zs_status status = ZS_OK;
    for (size_t i = 0; i < 2 && !status; i++) {
        char path[EVAL_MAX_PATH];
        status = eval_path(e, endings[i], path, error);
        if (!status) status = whole_file_check(path, e->common->force, error);
    }
    return status;
}

zs_status eval_log_open(evaluation *e, zs_error *error) {
    char path[EVAL_MAX_PATH];
    bool found = false;
    if (!e->output) return ZS_OK;
    zs_status status = eval_path(e, ".results.jsonl", path, error);
    if (status) return status;
    e->log = e->common->force ? NULL : fopen(path, "r+");
    if (e->log) status = resume(e, path, e->log, &found, error);
    if (!e->log) {
        status = check_tables(e, error);
        if (status) return status;
        e->log = fopen(path, "w");
    }
    if (!e->log) return zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s", path, strerror(errno));
    if (!status && !found) status = write_line(e, json_pack("{s:O}", "settings", e->settings), error);
    return status;
}

zs_status eval_log_result(evaluation *e, const eval_strategy *s, size_t question, const zs_answer *answer, zs_error *error) {
    if (!e->log) return ZS_OK;
    const eval_result *r = &s->results[question];
    const data_item *item = &e->file.items[question];
    json_t *line =
        json_pack("{s:s, s:I, s:I, s:s*, s:s*, s:s, s:f, s:s, s:I, s:b, s:f}", "strategy", s->name, "question", (json_int_t)question + 1,
                  "line", (json_int_t)item->line, "id", item->id, "category", item->category, "expert", r->expert, "score", r->score,
                  "answer", answer->text, "tokens", (json_int_t)r->tokens, "ended", r->ended, "pass1_ms", r->pass1_ms);
    return write_line(e, line, error);
}

zs_status eval_log_times(evaluation *e, const eval_strategy *s, zs_error *error) {
    if (!e->log) return ZS_OK;
    return write_line(e,
                      json_pack("{s:s, s:f, s:f, s:I, s:I, s:I, s:f}", "strategy", s->name, "pass2_ms", s->pass2_ms, "score_ms",
                                s->score_ms, "prefill_tokens", (json_int_t)s->prefill_tokens, "decode_tokens", (json_int_t)s->decode_tokens,
                                "images", (json_int_t)s->images, "image_ms", s->image_ms),
                      error);
}
