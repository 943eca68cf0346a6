#include "asking.h"
#include "drafts.h"
#include "left_out.h"
#include "scorer.h"
#include "settings.h"
#include "solved_examples.h"
#include "whole_file.h"
#include "zsigma/zsigma_lab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POPULATION = 32, ITERATIONS = 50, HELD_OUT_FROM = 8, HELD_OUT_SHARE = 4, MAX_PATH = 4096 };

typedef struct adapting {
    asking asking;
    const cli_common *common;
    const char *task_name, *data, *annotations, *images, *output, *instruction, *reward_command, *held_out_text;
    uint32_t population, iterations, parallel, timeout_s;
    bool per_matrix, unsafe_code;

    const task *task;
    scorer *scorer;
    data_file file;
    left_out left_out;
    uint32_t held_out; // examples: the last of the file
    solved_examples examples;
    drafts *drafts;            // of answers to them
    const zs_expert **experts; // [expert_count]
    uint32_t expert_count, columns;
    zs_search *search;
    json_t *settings;
    char state_path[MAX_PATH];
    double seconds; // of earlier runs too
    uint64_t prefill_tokens, decode_tokens;
    uint64_t accepted_tokens; // of answers that drafts foresaw
    zs_search_score base;     // of the base model: on the held-out examples, or on all where none are
} adapting;

// ---- examples ------------------------------------------------------------------------------------------------------

static zs_status make_examples(adapting *a, zs_error *error) {
    const solved_params params = {.path = a->data,
                                  .instruction = task_instruction(a->task, a->instruction),
                                  .system = a->asking.system,
                                  .max_tokens = a->asking.params.max_tokens};
    if (!zs_model_get_tokenizer(a->asking.stack.model))
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no tokenizer, so it cannot be asked in words", a->asking.model);
    zs_status status = solved_examples_make(&a->file, &params, a->common, a->asking.stack.model, &a->examples, error);
    if (!status) status = drafts_create(a->file.count, &a->drafts, error);
    for (size_t i = 0; i < a->file.count && !status; i++)
        status = drafts_add(a->drafts, i, a->examples.items[i].answer, a->examples.items[i].answer_count, error);
    return status;
}

static zs_status read_examples(adapting *a, zs_error *error) {
    a->left_out.path = a->data;
    zs_status status = task_read(a->task, &(task_files){a->data, a->annotations, a->images}, left_out_tell, &a->left_out, &a->file, error);
    if (status) return status;
    left_out_sum_up(&a->left_out);
    if (a->file.count < 2)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s holds %zu examples that can be used: at least 2 are needed", a->data,
                            a->file.count);
    a->held_out = a->file.count >= HELD_OUT_FROM ? (uint32_t)a->file.count / HELD_OUT_SHARE : 0;
    if (a->held_out_text) {
        char *end;
        unsigned long wanted = strtoul(a->held_out_text, &end, 10);
        if (*end || end == a->held_out_text || wanted >= a->file.count)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "--held-out %s: fewer than the %zu examples are expected", a->held_out_text,
                                a->file.count);
        a->held_out = (uint32_t)wanted;
    }
    return ZS_OK;
}

// ---- scoring a population ------------------------------------------------------------------------------------------

/// Members × examples, asked together.
typedef struct trial {
    adapting *a;
    size_t first, count; // examples
    zs_search_score *scores;
    zs_expert **mixes; // [members]; NULL: the base model alone
    zs_status status;
    zs_error error;
} trial;

static bool take_answer(void *user, size_t index, const zs_answer *answer) {
    trial *t = user;
    double score = 0;
    const zs_progress progress = cli_progress(t->a->common);
    const size_t item = t->first + index % t->count;
    t->status = scorer_score(t->a->scorer, &t->a->file.items[item], answer->text, &score, &t->error);
    if (!t->status) t->status = drafts_add(t->a->drafts, item, answer->tokens, answer->token_count, &t->error);
    t->scores[index / t->count].accuracy += score / (double)t->count;
    uint32_t done = zs_search_iterations(t->a->search);
    if (!t->status && !progress.report(progress.user, "search", done, t->a->iterations))
        t->status = zs_error_set(&t->error, ZS_ERROR_CANCELLED, "cancelled; the same command goes on from iteration %u", done);
    return !t->status;
}

static zs_status answer_all(trial *t, uint32_t members, zs_error *error) {
    adapting *a = t->a;
    size_t total = members * t->count;
    zs_question *questions = calloc(total, sizeof *questions);
    if (!questions) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the population");
    zs_ask_params params = a->asking.params;
    params.strategy = t->mixes ? ZS_STRATEGY_FIXED : ZS_STRATEGY_NONE;
    params.stop = a->task->stop;
    for (size_t i = 0; i < total; i++) {
        questions[i] = a->examples.items[t->first + i % t->count].question.question;
        questions[i].expert = t->mixes ? t->mixes[i / t->count] : NULL;
        questions[i].stream = i % t->count; // members draw alike
        drafts_apply(a->drafts, t->first + i % t->count, &questions[i]);
    }
    zs_status status = zs_ask_batch(a->asking.stack.engine, questions, total, &params, take_answer, t, error);
    free(questions);
    if (!t->status) return status;
    *error = t->error;
    return t->status;
}

/// Scores the right answers of `members` members together, whose scores begin at `scores`, each under its expert's table id.
static zs_status score_members(const trial *t, const uint32_t *ids, uint32_t members, zs_search_score *scores, zs_error *error) {
    adapting *a = t->a;
    size_t total = members * t->count, tokens = 0;
    for (size_t e = 0; e < t->count; e++) tokens += a->examples.items[t->first + e].answer_count;
    zs_score_item *items = calloc(total, sizeof *items);
    float *logprobs = malloc((members * tokens + 1) * sizeof *logprobs), *next = logprobs;
    uint32_t **prompts = calloc(t->count, sizeof(*prompts));
    size_t *counts = calloc(t->count, sizeof *counts);
    bool good = items && logprobs && prompts && counts;
    zs_status status = good ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the population");
    for (size_t e = 0; e < t->count && !status; e++)
        status = solved_example_prompt(&a->examples.items[t->first + e], a->asking.stack.engine, ids[0], &prompts[e], &counts[e], error);
    for (size_t i = 0; i < total && !status; i++) {
        const solved_example *from = &a->examples.items[t->first + i % t->count];
        items[i] = (zs_score_item){ids[i / t->count], prompts[i % t->count], counts[i % t->count], from->answer, from->answer_count, next};
        next += from->answer_count;
    }
    if (!status) status = zs_engine_score(a->asking.stack.engine, items, total, NULL, 0, error);
    for (size_t i = 0; i < total && !status; i++) {
        for (size_t k = 0; k < items[i].continuation_count; k++)
            scores[i / t->count].logprob += (double)items[i].logprobs[k] / (double)tokens;
    }
    for (size_t e = 0; prompts && e < t->count; e++) free(prompts[e]);
    free(prompts);
    free(counts);
    free(items);
    free(logprobs);
    return status;
}

/// Mean log-probability of the right answers' tokens, which decides between members that are equally often right. With images member by
/// member: a factored tower sees them differently under each.
static zs_status score_answers(trial *t, uint32_t members, zs_error *error) {
    adapting *a = t->a;
    zs_engine *engine = a->asking.stack.engine;
    uint32_t *ids = calloc(members, sizeof *ids), together = a->examples.shelf.count ? 1 : members;
    zs_status status = ids ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the population");
    for (uint32_t m = 0; t->mixes && m < members && !status; m++)
        status = zs_engine_attach_expert(engine, t->mixes[m], a->asking.transfer.wanted, &ids[m], error);
    for (uint32_t m = 0; m < members && !status; m += together) status = score_members(t, ids + m, together, t->scores + m, error);
    for (uint32_t m = 0; ids && m < members; m++) zs_engine_detach_expert(engine, ids[m]);
    free(ids);
    return status;
}

static zs_status score_group(trial *t, const double *alpha, uint32_t members, zs_error *error) {
    adapting *a = t->a;
    const size_t size = (size_t)a->expert_count * a->columns;
    t->mixes = calloc(members, sizeof(zs_expert *));
    zs_status status = t->mixes ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the population");
    for (uint32_t m = 0; m < members && !status; m++) {
        t->scores[m] = (zs_search_score){0};
        status = zs_expert_mix(a->asking.stack.model, a->experts, a->expert_count, alpha + m * size, a->per_matrix, &t->mixes[m], error);
    }
    if (!status) status = answer_all(t, members, error);
    if (!status) status = score_answers(t, members, error);
    for (uint32_t m = 0; t->mixes && m < members; m++) zs_expert_destroy(&t->mixes[m]);
    free(t->mixes);
    return status;
}

/// As many members at a time as have their questions asked side by side: the keys and values of these are there when their right answers
/// are scored.
static zs_status score_population(void *user, const double *alpha, uint32_t members, bool held_out, zs_search_score *scores,
                                  zs_error *error) {
    adapting *a = user;
    const size_t searched = a->file.count - a->held_out, size = (size_t)a->expert_count * a->columns;
    trial t = {.a = a, .first = held_out ? searched : 0, .count = held_out ? a->held_out : searched};
    const uint32_t sessions = zs_engine_get_info(a->asking.stack.engine)->max_sessions;
    const uint32_t together = sessions > t.count ? sessions / (uint32_t)t.count : 1;
    zs_status status = ZS_OK;
    for (uint32_t m = 0; m < members && !status; m += together) {
        t.scores = scores + m;
        status = score_group(&t, alpha + m * size, members - m < together ? members - m : together, error);
    }
    return status;
}

/// What the mix is held against.
static zs_status score_base(adapting *a, zs_error *error) {
    size_t searched = a->file.count - a->held_out;
    trial t = {.a = a, .first = a->held_out ? searched : 0, .count = a->held_out ? a->held_out : searched, .scores = &a->base};
    zs_status status = answer_all(&t, 1, error);
    return status ? status : score_answers(&t, 1, error);
}

// ---- going on ------------------------------------------------------------------------------------------------------

static zs_status make_settings(adapting *a, zs_error *error) {
    const zs_sampling *s = &a->asking.params.sampling;
    a->settings =
        json_pack("{s:s, s:s, s:s*, s:I, s:o, s:I, s:I, s:o, s:b, s:I, s:s*, s:s*, s:s*, s:I, s:f, s:I}", "task", a->task->name, "model",
                  a->asking.model, "mmproj", a->common->mmproj, "model_bytes", (json_int_t)settings_file_bytes(a->asking.model), "examples",
                  settings_items(a->file.items, a->file.count), "count", (json_int_t)a->file.count, "held_out", (json_int_t)a->held_out,
                  "experts", settings_experts(a->asking.experts, NULL), "per_matrix", a->per_matrix, "population",
                  (json_int_t)a->population, "instruction", a->instruction, "system", a->asking.system, "reward_command", a->reward_command,
                  "n", (json_int_t)a->asking.params.max_tokens, "temp", (double)s->temperature, "seed", (json_int_t)s->seed);
    if (a->settings) settings_add_engine(a->settings, a->asking.stack.engine);
    return a->settings ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the settings");
}

static zs_status take_state(adapting *a, const json_t *root, zs_error *error) {
    const json_t *list = json_object_get(root, "state");
    size_t size = zs_search_state_size(a->search);
    zs_status status = settings_check(a->settings, json_object_get(root, "settings"), a->state_path, error);
    if (status) return status;
    double *state = json_array_size(list) == size ? malloc(size * sizeof *state) : NULL;
    if (!state) return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no state of such a search: delete it to begin anew", a->state_path);
    for (size_t i = 0; i < size; i++) state[i] = json_number_value(json_array_get(list, i));
    status = zs_search_set_state(a->search, state, error);
    free(state);
    if (status) return status;
    a->seconds = json_number_value(json_object_get(root, "seconds"));
    a->prefill_tokens = (uint64_t)json_integer_value(json_object_get(root, "prefill_tokens"));
    a->decode_tokens = (uint64_t)json_integer_value(json_object_get(root, "decode_tokens"));
    a->accepted_tokens = (uint64_t)json_integer_value(json_object_get(root, "accepted_tokens"));
    cli_note(a->common, "going on from iteration %u of %s", zs_search_iterations(a->search), a->state_path);
    return ZS_OK;
}

/// What an interrupted run left, unless --force.
static zs_status resume(adapting *a, zs_error *error) {
    json_error_t problem;
    if (a->common->force || access(a->state_path, F_OK)) return ZS_OK;
    json_t *root = json_load_file(a->state_path, JSON_REJECT_DUPLICATES, &problem);
    if (!root) return zs_error_set(error, ZS_ERROR_FORMAT, "%s is damaged (%s): delete it to begin anew", a->state_path, problem.text);
    zs_status status = take_state(a, root, error);
    json_decref(root);
    return status;
}

static zs_status save_state(const adapting *a, zs_error *error) {
    size_t size = zs_search_state_size(a->search);
    double *state = malloc(size * sizeof *state);
    json_t *list = json_array();
    if (state) zs_search_get_state(a->search, state);
    for (size_t i = 0; state && i < size; i++) json_array_append_new(list, json_real(state[i]));
    free(state);
    json_t *root = json_pack("{s:O, s:f, s:I, s:I, s:I, s:o}", "settings", a->settings, "seconds", a->seconds, "prefill_tokens",
                             (json_int_t)a->prefill_tokens, "decode_tokens", (json_int_t)a->decode_tokens, "accepted_tokens",
                             (json_int_t)a->accepted_tokens, "state", list);
    whole_file *file = NULL;
    zs_status status = root && state ? whole_file_create(a->state_path, &file, error)
                                     : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the state");
    if (!status) {
        json_dumpf(root, whole_file_stream(file), JSON_COMPACT);
        status = whole_file_commit(&file, error);
    }
    json_decref(root);
    return status;
}

// ---- the whole -----------------------------------------------------------------------------------------------------

static zs_status find_experts(adapting *a, zs_error *error) {
    a->expert_count = zs_expert_set_count(a->asking.experts);
    a->experts = calloc(a->expert_count, sizeof *a->experts);
    double *alpha = calloc(a->expert_count, sizeof *alpha);
    zs_expert *mix = NULL;
    zs_status status = a->experts && alpha ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the experts");
    for (uint32_t i = 0; i < a->expert_count && !status; i++) {
        a->experts[i] = zs_expert_set_get(a->asking.experts, i);
        alpha[i] = 1.0 / a->expert_count;
    }
    if (!status) status = zs_expert_mix(a->asking.stack.model, a->experts, a->expert_count, alpha, false, &mix, error);
    if (!status) a->columns = a->per_matrix ? zs_expert_get_info(mix)->matrix_count : 1;
    zs_expert_destroy(&mix);
    free(alpha);
    return status;
}

static zs_status open_engine(adapting *a, zs_error *error) {
    const cli_parallel parallel = {.asked = a->parallel,
                                   .images = a->examples.shelf.count > 0,
                                   .texts = a->population * (a->file.count - a->held_out),
                                   .kv_tokens = a->examples.longest + 32,
                                   .kv_more = 4096 + (a->examples.shelf.count ? a->examples.rows : 0)}; // all examples' images at once
    return cli_open_engine_parallel(a->common, &parallel, &(zs_engine_params){.max_experts = a->population + 1}, &a->asking.stack, error);
}

static zs_status search(adapting *a, zs_error *error) {
    zs_status status = ZS_OK;
    while (!status && zs_search_iterations(a->search) < a->iterations && !zs_search_has_converged(a->search)) {
        zs_engine_reset_stats(a->asking.stack.engine);
        double start = cli_now_seconds();
        status = zs_search_step(a->search, error);
        if (status) break;
        const zs_engine_stats *stats = zs_engine_get_stats(a->asking.stack.engine);
        zs_search_score score;
        a->seconds += cli_now_seconds() - start;
        a->prefill_tokens += stats->prefill_tokens;
        a->decode_tokens += stats->decode_tokens;
        a->accepted_tokens += stats->accepted_tokens;
        zs_search_best(a->search, &score, NULL);
        if (a->common->verbose)
            cli_note(a->common, "iteration %u: %.1f %% right, log-probability %.4f, %.1f s", zs_search_iterations(a->search),
                     100 * score.accuracy, score.logprob, cli_now_seconds() - start);
        status = save_state(a, error);
    }
    return status;
}

static zs_status save_mix(const adapting *a, zs_error *error) {
    zs_expert *mix = NULL;
    zs_status status = zs_expert_mix(a->asking.stack.model, a->experts, a->expert_count, zs_search_best(a->search, NULL, NULL),
                                     a->per_matrix, &mix, error);
    if (!status) status = zs_expert_save(mix, a->output, a->common->force, error);
    zs_expert_destroy(&mix);
    return status;
}

static void report(const adapting *a) {
    zs_search_score score, held;
    const double *alpha = zs_search_best(a->search, &score, &held);
    double tokens = (double)(a->prefill_tokens + a->decode_tokens + a->accepted_tokens);
    if ((a->held_out ? held : score).accuracy <= a->base.accuracy)
        cli_note(a->common, "warning: no mix that was found gets more examples right than the base model, on %s",
                 a->held_out ? "those held out" : "all of them");
    json_t *weights = json_object();
    for (uint32_t i = 0; i < a->expert_count; i++) { // of a column per matrix: their mean
        double sum = 0;
        for (uint32_t c = 0; c < a->columns; c++) sum += alpha[i * a->columns + c] / a->columns;
        json_object_set_new(weights, zs_expert_get_info(a->experts[i])->name, json_real(sum));
    }
    if (a->common->json) {
        cli_print_json(json_pack(
            "{s:s, s:o, s:I, s:I, s:I, s:b, s:f, s:f, s:o, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:I, s:o}", "output", a->output, "alpha",
            weights, "examples", (json_int_t)(a->file.count - a->held_out), "held_out", (json_int_t)a->held_out, "iterations",
            (json_int_t)zs_search_iterations(a->search), "converged", zs_search_has_converged(a->search), "accuracy", score.accuracy,
            "logprob", score.logprob, "held_out_accuracy", a->held_out ? json_real(held.accuracy) : json_null(), "base_accuracy",
            a->base.accuracy, "base_logprob", a->base.logprob, "seconds", a->seconds, "prefill_tokens", (json_int_t)a->prefill_tokens,
            "decode_tokens", (json_int_t)a->decode_tokens, "accepted_tokens", (json_int_t)a->accepted_tokens, "tokens_per_s",
            a->seconds > 0 ? tokens / a->seconds : 0.0, "left_out", (json_int_t)a->left_out.count, "transfer",
            transfer_report(&a->asking.transfer, a->asking.stack.model, a->asking.experts, NULL)));
        return;
    }
    const char *name;
    json_t *weight;
    printf("%s:", a->output);
    json_object_foreach(weights, name, weight) printf(" %s %.3f", name, json_number_value(weight));
    printf("\n%.1f %% of %zu examples right", 100 * score.accuracy, a->file.count - a->held_out);
    if (a->held_out) printf(", %.1f %% of %u held out", 100 * held.accuracy, a->held_out);
    printf("; the base model: %.1f %% of %s", 100 * a->base.accuracy, a->held_out ? "these" : "them");
    printf(" (%u iterations of %u members, %s%.1f s, %.0f tokens, %.1f tokens/s)\n", zs_search_iterations(a->search), a->population,
           zs_search_has_converged(a->search) ? "then no other mix was left to draw, " : "", a->seconds, tokens,
           a->seconds > 0 ? tokens / a->seconds : 0);
    json_decref(weights);
}

static zs_status adapt(adapting *a, zs_error *error) {
    const scorer_params scoring = {.command = a->reward_command, .timeout_ms = a->timeout_s * 1000, .unsafe_code = a->unsafe_code};
    zs_status status = whole_file_check(a->output, a->common->force, error);
    if (!status) status = scorer_create(a->task->name, &scoring, &a->scorer, error);
    if (!status) status = read_examples(a, error);
    if (!status) status = cli_open_model(a->common, a->asking.model, &a->asking.stack, error);
    if (!status) transfer_tell(&a->asking.transfer, a->common, a->asking.stack.model, a->asking.experts, NULL);
    if (!status) status = make_examples(a, error);
    if (!status) status = find_experts(a, error);
    if (!status) status = open_engine(a, error);
    if (!status) status = make_settings(a, error);
    if (!status)
        status = zs_search_create(&(zs_search_params){.experts = a->expert_count,
                                                      .columns = a->columns,
                                                      .population = a->population,
                                                      .seed = a->asking.params.sampling.seed,
                                                      .held_out = a->held_out > 0,
                                                      .evaluate = score_population,
                                                      .user = a},
                                  &a->search, error);
    if (!status) status = resume(a, error);
    if (!status) status = search(a, error);
    if (!status) status = score_base(a, error);
    if (!status) status = save_mix(a, error);
    if (status) return status;
    unlink(a->state_path);
    report(a);
    return ZS_OK;
}

static void close_adapting(adapting *a) {
    zs_search_destroy(&a->search);
    json_decref(a->settings);
    solved_examples_free(&a->examples);
    drafts_destroy(&a->drafts);
    free(a->experts);
    data_file_free(&a->file);
    scorer_destroy(&a->scorer);
    asking_close(&a->asking);
}

static int run(adapting *a, const cli_command *command) {
    if (!a->asking.experts_folder) return cli_usage(command, "which experts? give --experts DIR");
    if (!a->data) return cli_usage(command, "which examples? give --examples FILE");
    if (!a->output) return cli_usage(command, "where to? give -o mix.safetensors");
    a->task = task_find(a->task_name ? a->task_name : "label");
    if (!a->task) return cli_usage(command, "there is no such task (zsigma eval names them)");
    if (!a->population) a->population = POPULATION;
    if (!a->iterations) a->iterations = ITERATIONS;
    if (a->population < 3 || a->population > 4096) return cli_usage(command, "--population is from 3 to 4096");
    if (a->parallel > 4096) return cli_usage(command, "--parallel is at most 4096");
    if (snprintf(a->state_path, sizeof a->state_path, "%s.search.json", a->output) >= MAX_PATH)
        return cli_usage(command, "the name after -o is too long");
    if (!a->asking.max_tokens) a->asking.max_tokens = a->task->max_tokens;
    int result = asking_prepare(&a->asking, command, true);
    zs_error error;
    if (!result && adapt(a, &error)) result = cli_fail(&error);
    return result;
}

int cmd_adapt(int argc, char **argv) {
    cli_common common = {0};
    adapting a = {.common = &common};
    asking *q = &a.asking;
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &q->model, "FILE", "factored model"},
        {"experts", 0, CLI_STRING, &q->experts_folder, "DIR", "folder of experts (*.safetensors)"},
        {"examples", 0, CLI_STRING, &a.data, "FILE", "solved examples, about ten: JSON Lines, or as published"},
        {"output", 'o', CLI_STRING, &a.output, "FILE", "the mix, an expert file"},
        {"task", 0, CLI_STRING, &a.task_name, "NAME", "how answers are scored (see zsigma eval); default: label"},
        {"annotations", 0, CLI_STRING, &a.annotations, "FILE", "okvqa, vqav2: the file of answers to --examples"},
        {"images", 0, CLI_STRING, &a.images, "DIR", "folder of the images; default: beside the examples"},
        CLI_MMPROJ(&common),
        TASK_OPTIONS(&a),
        {"population", 0, CLI_COUNT, &a.population, "N", "mixes that are tried together; default 32"},
        {"iterations", 0, CLI_COUNT, &a.iterations, "N", "how often at most; default 50"},
        {"per-matrix", 0, CLI_FLAG, &a.per_matrix, NULL, "a weight per expert and matrix, not one per expert"},
        {"held-out", 0, CLI_STRING, &a.held_out_text, "N", "the last N examples choose among the best; default: a quarter, from 8 on"},
        TRANSFER_OPTIONS(&q->transfer),
        {"system", 0, CLI_STRING, &q->system, "TEXT", "system message; default: the model's"},
        {"n", 'n', CLI_COUNT, &q->max_tokens, "N", "longest answer in tokens; default: the task's"},
        {"temp", 0, CLI_FLOAT, &q->temperature, "T", "temperature; 0 (default): greedy"},
        {"seed", 0, CLI_STRING, &q->seed, "N", "of the random numbers; default 0"},
        {0},
    };
    const cli_command command = {
        "adapt",
        "-m MODEL --experts DIR --examples FILE -o OUT.safetensors",
        "finds the mix of experts that solves a few examples best",
        "zsigma adapt -m smollm2.gguf --experts assets/experts --examples ten.jsonl --task numeric -o mix.safetensors",
        options,
        &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "examples are given by --examples");
    result = run(&a, &command);
    close_adapting(&a);
    return result;
}
