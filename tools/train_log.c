#include "train_log.h"

#include "whole_file.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static zs_status cannot(const char *what, const char *path, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_IO, "cannot %s %s: %s", what, path, strerror(errno));
}

/// Whether a line tells of a step up to this one.
static bool is_kept(const char *line, size_t length, uint32_t step) {
    json_t *object = json_loadb(line, length, 0, NULL);
    const json_t *number = json_object_get(object, "step");
    bool kept = json_is_integer(number) && json_integer_value(number) <= (json_int_t)step;
    json_decref(object);
    return kept;
}

static zs_status keep_until(const char *path, uint32_t step, zs_error *error) {
    FILE *file = fopen(path, "rb");
    if (!file) return errno == ENOENT ? ZS_OK : cannot("open", path, error);
    whole_file *kept = NULL;
    char *line = NULL;
    size_t room = 0;
    zs_status status = whole_file_create(path, &kept, error);
    for (ssize_t length; !status && (length = getline(&line, &room, file)) > 0;) {
        if (is_kept(line, (size_t)length, step)) fwrite(line, 1, (size_t)length, whole_file_stream(kept));
    }
    free(line);
    fclose(file);
    return status ? status : whole_file_commit(&kept, error);
}

zs_status train_log_open(const char *path, uint32_t step, bool scored, bool force, train_log *log, zs_error *error) {
    *log = (train_log){.path = path, .scored = scored};
    if (!path) return ZS_OK;
    zs_status status = whole_file_check(path, force || step > 0, error);
    if (status) return status;
    status = step ? keep_until(path, step, error) : ZS_OK;
    if (status) return status;
    log->file = fopen(path, step ? "ab" : "wb");
    return log->file ? ZS_OK : cannot("write", path, error);
}

zs_status train_log_write(train_log *log, const zs_train_figures *f, zs_error *error) {
    if (!log->file) return ZS_OK;
    json_t *line = json_pack("{s:I, s:I}", "step", (json_int_t)f->step, "steps", (json_int_t)f->steps);
    if (f->rate > 0) {
        json_object_set_new(line, "logprob", json_real(f->logprob));
        json_object_set_new(line, "gradient_norm", json_real(f->gradient_norm));
        json_object_set_new(line, "rate", json_real(f->rate));
        json_object_set_new(line, "tokens", json_integer((json_int_t)f->tokens));
        json_object_set_new(line, "learn_ms", json_real(f->learn_ms));
    }
    if (f->answers) {
        json_object_set_new(line, "score", json_real(f->score));
        json_object_set_new(line, "reward", json_real(f->reward));
        json_object_set_new(line, "kl", json_real(f->kl));
        json_object_set_new(line, "answers", json_integer(f->answers));
        json_object_set_new(line, "cut", json_integer(f->cut));
        json_object_set_new(line, "failed", json_integer(f->failed));
        json_object_set_new(line, "answer_tokens", json_integer((json_int_t)f->answer_tokens));
        json_object_set_new(line, "rollout_ms", json_real(f->rollout_ms));
    }
    if (f->evaluated) {
        json_object_set_new(line, log->scored ? "valid_score" : "valid", json_real(f->valid));
        json_object_set_new(line, "best", json_boolean(f->best));
        json_object_set_new(line, "evaluate_ms", json_real(f->evaluate_ms));
    }
    bool bad =
        json_dumpf(line, log->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0 || fputc('\n', log->file) == EOF || fflush(log->file);
    json_decref(line);
    return bad ? cannot("write", log->path, error) : ZS_OK;
}

void train_log_close(train_log *log) {
    if (log->file) fclose(log->file);
    *log = (train_log){0};
}
