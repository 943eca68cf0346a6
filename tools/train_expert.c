/// From a data file to an expert file.
#include "train_log.h"
#include "train_reward.h"
#include "whole_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct training {
    const train_options *options;
    cli_stack stack;
    train_data data, valid;
    zs_expert *init;
    zs_expert_set *categories; // of a dispatcher
    zs_trainer *trainer;
    train_reward reward;
    char *checkpoint, *name;
    train_log log;
    double start; // of this run
    uint32_t first_step;
    uint64_t tokens; // of this run
    zs_error failed; // what a callback met with
} training;

// ---- on the way ----------------------------------------------------------------------------------------------------

/// On a terminal a line that every step overwrites; what was evaluated stays, there and in files.
static void show(const training *t, const zs_train_figures *f) {
    const cli_common *common = t->options->common;
    double elapsed = cli_now_seconds() - t->start;
    bool scored = t->options->scored;
    if (f->evaluated && scored)
        cli_note(common, "step %u of %u: validation score %.4f%s", f->step, f->steps, f->valid, f->best ? ", the best" : "");
    else if (f->evaluated)
        cli_note(common, "step %u of %u: validation log-probability %.4f a token%s", f->step, f->steps, f->valid,
                 f->best ? ", the best" : "");
    if (common->quiet || !isatty(STDERR_FILENO) || f->step <= t->first_step) return;
    double left = elapsed / (f->step - t->first_step) * (f->steps - f->step);
    if (scored)
        fprintf(stderr, "\r\033[Kstep %u/%u  reward %.3f  KL %.3g  gradient %.3g  %.0f tokens/s made, %.0f learnt  %.0f s left", f->step,
                f->steps, f->reward, f->kl, f->gradient_norm, (double)f->answer_tokens / f->rollout_ms * 1e3,
                (double)f->tokens / f->learn_ms * 1e3, left);
    else
        fprintf(stderr, "\r\033[Kstep %u/%u  log-probability %.4f  gradient %.3g  rate %.2g  %.0f tokens/s  %.0f s left", f->step, f->steps,
                f->logprob, f->gradient_norm, f->rate, (double)t->tokens / elapsed, left);
    if (f->step == f->steps) fputs("\r\033[K", stderr);
    fflush(stderr);
}

static bool on_step(void *user, const zs_train_figures *figures) {
    training *t = user;
    t->tokens += figures->tokens;
    show(t, figures);
    zs_status status = train_log_write(&t->log, figures, &t->failed);
    if (!status && figures->evaluated && t->options->plot) status = train_plot_write(t->options->log, t->options->plot, &t->failed);
    return status == ZS_OK;
}

/// Within a step only Ctrl-C counts: the display is the step's.
static zs_progress silent_progress(const cli_common *common) {
    cli_common quiet = *common;
    quiet.quiet = true;
    return cli_progress(&quiet);
}

// ---- setting up ----------------------------------------------------------------------------------------------------

static zs_status make_names(training *t, zs_error *error) {
    const char *output = t->options->output;
    size_t room = strlen(output) + 16;
    t->name = cli_name_of(output);
    t->checkpoint = malloc(room);
    if (!t->name || !t->checkpoint) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory");
    snprintf(t->checkpoint, room, "%s.checkpoint", output);
    return ZS_OK;
}

static zs_status read_data(training *t, zs_error *error) {
    const train_options *o = t->options;
    const task_files files = {o->data, o->annotations, o->images}, valid = {o->valid, o->annotations, o->images};
    zs_status status = train_data_read(&files, o->scored, &t->data, error);
    if (!status && o->valid) status = train_data_read(&valid, o->scored, &t->valid, error);
    if (!status && o->classify) status = zs_expert_set_load(o->experts, &t->categories, error);
    t->data.categories = t->valid.categories = t->categories;
    return status;
}

static zs_status encode_data(training *t, zs_error *error) {
    const train_options *o = t->options;
    const zs_model *model = t->stack.model;
    const train_data_params params = {
        .context = train_context(o, model), .room = o->max_tokens, .end_token = true, .progress = cli_progress(o->common)};
    t->data.images = t->valid.images = zs_model_get_info(model)->images;
    zs_status status = train_data_encode(&t->data, model, &params, error);
    if (!status && o->valid) status = train_data_encode(&t->valid, model, &params, error);
    if (!status && o->classify && !o->valid) status = train_data_split(&t->data, o->seed, &t->valid, error);
    if (status || !t->valid.count) return status;
    size_t both = train_data_overlap(&t->valid, &t->data);
    if (both)
        cli_error("warning: %zu of the %zu questions for validation are in %s too: the validation says too much", both, t->valid.count,
                  o->data);
    return ZS_OK;
}

static zs_status create_trainer(training *t, zs_error *error) {
    const train_options *o = t->options;
    uint32_t matrices;
    cli_read_matrices(o->matrices, &matrices); // cmd_train looked at the names
    const zs_trainer_params params = {
        .items = t->data.items,
        .item_count = t->data.count,
        .valid = t->valid.items,
        .valid_count = t->valid.count,
        .init = t->init,
        .transfer = o->transfer.wanted,
        .sigmoid = o->form && strcmp(o->form, "sigmoid") == 0,
        .trace = o->form && strcmp(o->form, "sigmoid") == 0,
        .max_mult = (double)o->max_mult,
        .matrices = matrices,
        .name = o->name ? o->name : t->name,
        .description = o->description,
        .dispatcher = o->classify,
        .batch = o->batch,
        .steps = o->steps,
        .learning_rate = (double)o->rate,
        .constant_rate = o->constant_rate,
        .clip = (double)o->clip,
        .weight_decay = (double)o->weight_decay,
        .valid_every = o->valid_every,
        .patience = o->patience,
        .seed = o->seed,
        .precision = cli_precision(o->common),
        .reward = o->scored ? train_reward_score : NULL,
        .reward_user = &t->reward,
        .engine = t->stack.engine,
        .right = 1,
        .wrong = -(double)o->wrong,
        .rollouts = o->rollouts,
        .greedy = o->greedy,
        .temperature = o->temperature,
        .max_tokens = o->max_tokens,
        .kl = strcmp(o->kl_direction, "policy-base") == 0 ? ZS_KL_POLICY_BASE : ZS_KL_BASE_POLICY,
        .kl_weight = (double)o->kl,
        .checkpoint = t->checkpoint,
        .checkpoint_every = o->checkpoint_every,
        .deterministic = o->deterministic,
        .on_step = on_step,
        .user = t,
        .progress = silent_progress(o->common),
    };
    return zs_trainer_create(t->stack.model, &params, &t->trainer, error);
}

static zs_status set_up(training *t, zs_error *error) {
    const train_options *o = t->options;
    zs_status status = whole_file_check(o->output, o->common->force, error);
    if (!status) status = make_names(t, error);
    if (!status) status = read_data(t, error);
    if (!status && o->scored) status = train_reward_open(o, &t->data, &t->valid, &t->reward, error);
    if (!status && o->init) status = zs_expert_load(o->init, &t->init, error);
    if (!status) status = cli_open_model(o->common, o->model, &t->stack, error);
    if (!status) transfer_tell(&o->transfer, o->common, t->stack.model, NULL, t->init);
    if (!status) status = encode_data(t, error);
    if (!status && (o->scored || t->data.shelf.count || t->valid.shelf.count))
        status = train_open_engine(o, &t->data, &t->valid, &t->stack, error);
    if (!status) status = create_trainer(t, error);
    if (status) return status;
    zs_trainer_info info = zs_trainer_get_info(t->trainer);
    t->first_step = info.step;
    if (info.resumed) cli_note(o->common, "%s: going on at step %u of %u", t->checkpoint, info.step, info.steps);
    if (o->plot) status = whole_file_check(o->plot, o->common->force || info.step > 0, error);
    return status ? status : train_log_open(o->log, info.step, o->scored != NULL, o->common->force, &t->log, error);
}

// ---- the result ----------------------------------------------------------------------------------------------------

static void report(const training *t) {
    const train_options *o = t->options;
    zs_trainer_info info = zs_trainer_get_info(t->trainer);
    double seconds = cli_now_seconds() - t->start;
    if (o->common->json) {
        json_t *object =
            json_pack("{s:s, s:i, s:I, s:I, s:b, s:b, s:I, s:I, s:I, s:f}", "output", o->output, "matrices", (int)info.matrices, "step",
                      (json_int_t)info.step, "steps", (json_int_t)info.steps, "resumed", info.resumed, "stopped_early", info.stopped,
                      "lines", (json_int_t)t->data.count, "left_out", (json_int_t)t->data.left_out.count + t->valid.left_out.count,
                      "tokens", (json_int_t)t->tokens, "seconds", seconds);
        if (info.has_best) {
            json_object_set_new(object, "best_step", json_integer(info.best_step));
            json_object_set_new(object, "first_valid", json_real(info.first_valid));
            json_object_set_new(object, "best_valid", json_real(info.best_valid));
        }
        cli_print_json(object);
    } else if (!o->common->quiet) {
        printf("%s: %u steps in %.1f s, %.1f tokens/s%s\n", o->output, info.step - t->first_step, seconds, (double)t->tokens / seconds,
               info.stopped ? "; stopped early, because the validation got no better" : "");
        if (info.has_best)
            printf("validation %s: %.4f before, %.4f at step %u, whose values are kept\n", o->scored ? "score" : "log-probability a token",
                   info.first_valid, info.best_valid, info.best_step);
    }
}

static zs_status save(const training *t, zs_error *error) {
    zs_expert *expert = NULL;
    zs_status status = zs_trainer_get_expert(t->trainer, &expert, error);
    if (!status) status = zs_expert_save(expert, t->options->output, t->options->common->force, error);
    zs_expert_destroy(&expert);
    return status;
}

static zs_status run(training *t, zs_error *error) {
    t->start = cli_now_seconds();
    zs_status status = zs_trainer_run(t->trainer, error);
    if (status == ZS_ERROR_CANCELLED && t->failed.status) return zs_error_set(error, t->failed.status, "%s", t->failed.message);
    if (status == ZS_ERROR_CANCELLED)
        return zs_error_set(error, status, "stopped at step %u: the same command goes on from %s", zs_trainer_get_info(t->trainer).step,
                            t->checkpoint);
    if (status && status != ZS_ERROR_NUMERIC) return status;
    zs_error diverged = status ? *error : (zs_error){0};
    zs_status saved = save(t, error);
    if (saved) return saved;
    unlink(t->checkpoint);
    if (t->options->plot) saved = train_plot_write(t->options->log, t->options->plot, error);
    if (status) return zs_error_set(error, status, "%s; %s holds the best values until then", diverged.message, t->options->output);
    return saved;
}

zs_status train_expert(const train_options *options, zs_error *error) {
    training t = {.options = options};
    zs_status status = set_up(&t, error);
    if (!status) status = run(&t, error);
    if (!status) report(&t);
    train_log_close(&t.log);
    zs_trainer_destroy(&t.trainer);
    train_reward_close(&t.reward);
    zs_expert_destroy(&t.init);
    zs_expert_set_destroy(&t.categories);
    train_data_free(&t.data);
    train_data_free(&t.valid);
    free(t.checkpoint);
    free(t.name);
    cli_close(&t.stack);
    return status;
}
