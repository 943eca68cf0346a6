#include "eval.h"

#include "score.h"
#include "settings.h"
#include "whole_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64, SHOTS = 3 };

// ---- data ----------------------------------------------------------------------------------------------------------

/// A question whose choices are scored is asked without them, where that is told, and answered by a choice's text.
static void ask_for_text(data_file *file) {
    for (size_t i = 0; i < file->count; i++) {
        data_item *item = &file->items[i];
        size_t right = score_find_choice(item, item->answer);
        if (item->stem) item->messages[item->message_count - 1].content = item->stem;
        if (right < item->choice_count) item->answer = item->choices[right].text;
    }
}

/// Solved examples, which must not be among the questions.
static zs_status read_shots(evaluation *e, zs_error *error) {
    if (!e->shots_path) return ZS_OK;
    left_out lines = {.path = e->shots_path};
    zs_status status = task_read(e->task, &(task_files){.data = e->shots_path, .annotations = e->annotations, .images = e->images},
                                 left_out_tell, &lines, &e->shots_file, error);
    if (status) return status;
    left_out_sum_up(&lines);
    if (e->form != EVAL_LETTER) ask_for_text(&e->shots_file);
    uint32_t wanted = e->shot_count ? e->shot_count : SHOTS;
    if (e->shots_file.count < wanted)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s holds %zu examples, and --shot-count is %u", e->shots_path, e->shots_file.count,
                            wanted);
    data_file used = {e->shots_file.items, wanted};
    size_t both = shots_overlap(&e->file, &used);
    if (both) cli_error("warning: %zu of the questions are among the solved examples", both);
    e->around.items = e->shots_file.items;
    e->around.count = wanted;
    return ZS_OK;
}

static zs_status read_data(evaluation *e, zs_error *error) {
    const task_files files = {e->data, e->annotations, e->images};
    e->left_out.path = e->data;
    zs_status status = task_read(e->task, &files, left_out_tell, &e->left_out, &e->file, error);
    if (status) return status;
    while (e->limit && e->file.count > e->limit) data_item_free(&e->file.items[--e->file.count]);
    if (e->file.count == 0) return zs_error_set(error, ZS_ERROR_FORMAT, "%s has no line that can be used", e->data);
    if (e->form != EVAL_LETTER) ask_for_text(&e->file);
    return read_shots(e, error);
}

static zs_status find_overlap(evaluation *e, zs_error *error) {
    if (!e->train) return ZS_OK;
    left_out lines = {.path = e->train};
    zs_status status = task_read(e->task, &(task_files){e->train, e->annotations, e->images}, left_out_tell, &lines, &e->train_file, error);
    if (status) return status;
    left_out_sum_up(&lines);
    e->overlap = shots_overlap(&e->file, &e->train_file);
    if (e->overlap) cli_error("warning: %zu of the %zu questions are in the training data %s", e->overlap, e->file.count, e->train);
    return ZS_OK;
}

/// Questions as they are asked. Those that the context cannot hold with an answer are left out.
static zs_status make_questions(evaluation *e, zs_error *error) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(e->asking.stack.model);
    const uint32_t context = cli_context(e->common, e->asking.stack.model);
    if (!tokenizer) return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no tokenizer, so it cannot be asked in words", e->asking.model);
    e->questions = calloc(e->file.count, sizeof *e->questions);
    if (!e->questions) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the questions");
    size_t kept = 0;
    zs_status status = ZS_OK;
    for (size_t i = 0; i < e->file.count && !status; i++) {
        uint32_t *ids = NULL;
        size_t count = 0;
        char reason[160];
        shot_question made;
        status = shots_apply(&e->around, &e->file.items[i], e->asking.system != NULL, &made, error);
        if (!status) status = zs_tokenizer_encode_chat(tokenizer, made.messages, made.count, true, &ids, &count, error);
        free(ids);
        if (status) break;
        const char *problem = eval_images_count(e, &made, &count);
        snprintf(reason, sizeof reason, "the question has %zu tokens, and with an answer of %u (-n) the context of %u does not hold it",
                 count, e->asking.params.max_tokens, context);
        if (!problem && count + e->asking.params.max_tokens > context) problem = reason;
        if (!problem) {
            if (count > e->longest_prompt) e->longest_prompt = count;
            made.question.stream = e->file.items[i].line;
            e->questions[kept] = made;
            const data_item item = e->file.items[i];
            e->file.items[i] = (data_item){0}; // where a line before was left out
            e->file.items[kept++] = item;
        } else {
            left_out_tell(&e->left_out, e->file.items[i].line, problem);
            shots_free(&made);
            data_item_free(&e->file.items[i]);
        }
    }
    left_out_sum_up(&e->left_out);
    e->file.count = status ? e->file.count : kept;
    if (!status && !kept) status = zs_error_set(error, ZS_ERROR_CONTEXT, "no question of %s can be asked", e->data);
    return status ? status : eval_images_order(e, error);
}

static const char *const form_names[] = {[EVAL_LETTER] = "letter", [EVAL_SCORED] = "scored", [EVAL_SCORED_MEAN] = "scored-mean"};

// ---- settings ------------------------------------------------------------------------------------------------------

/// All that the answers and their scores depend on.
static zs_status make_settings(evaluation *e, zs_error *error) {
    const asking *a = &e->asking;
    const zs_sampling *s = &a->params.sampling;
    e->settings =
        json_pack("{s:s, s:s, s:s*, s:I, s:o, s:I, s:o, s:s*, s:I, s:s*, s:s*, s:s*, s:I, s:f, s:I, s:f, s:f, s:f, s:I, s:s, s:s*, s:s}",
                  "task", e->task->name, "model", a->model, "mmproj", e->common->mmproj, "model_bytes",
                  (json_int_t)settings_file_bytes(a->model), "data", settings_items(e->file.items, e->file.count), "questions",
                  (json_int_t)e->file.count, "experts", settings_experts(a->experts, a->params.expert), "alpha", a->alpha_list, "shots",
                  (json_int_t)e->around.count, "instruction", e->around.instruction, "system", a->system, "reward_command",
                  e->reward_command, "n", (json_int_t)a->params.max_tokens, "temp", (double)s->temperature, "top_k", (json_int_t)s->top_k,
                  "top_p", (double)s->top_p, "min_p", (double)s->min_p, "repetition_penalty", (double)s->repetition_penalty, "seed",
                  (json_int_t)s->seed, "dispatch", a->params.dispatch == ZS_DISPATCH_GENERATE ? "generate" : "score", "chat_template",
                  e->common->chat_template, "answer_form", form_names[e->form]);
    if (e->settings) settings_add_engine(e->settings, a->stack.engine);
    if (e->settings) json_object_set_new(e->settings, "images", json_boolean(e->around.images));
    if (e->settings && e->around.count) json_object_set_new(e->settings, "shot_data", settings_items(e->around.items, e->around.count));
    return e->settings ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the settings");
}

// ---- asking --------------------------------------------------------------------------------------------------------

/// A strategy being asked the questions of one chunk.
typedef struct chunk {
    evaluation *e;
    eval_strategy *strategy;
    const size_t *places; // the chunk's questions
    double score_ms, pass1_ms;
    size_t done, total; // of all strategies
    zs_progress progress;
    zs_status status;
    zs_error error;
} chunk;

static bool take_answer(void *user, size_t index, const zs_answer *answer) {
    chunk *c = user;
    size_t place = c->places[index];
    eval_result *r = &c->strategy->results[place];
    double start = 1e3 * cli_now_seconds();
    *r = (eval_result){.pass1_ms = answer->pass1_ms, .tokens = (uint32_t)answer->token_count, .ended = answer->ended};
    snprintf(r->expert, sizeof r->expert, "%s", answer->expert);
    c->status = scorer_score(c->e->scorer, &c->e->file.items[place], answer->text, &r->score, &c->error);
    r->done = !c->status;
    c->score_ms += 1e3 * cli_now_seconds() - start;
    c->pass1_ms += answer->pass1_ms;
    if (!c->status) c->status = eval_log_result(c->e, c->strategy, place, answer, &c->error);
    if (c->status) return false;
    if (c->progress.report(c->progress.user, c->strategy->name, (double)++c->done, (double)c->total)) return true;
    c->status = zs_error_set(&c->error, ZS_ERROR_CANCELLED, c->e->log ? "cancelled; the same command goes on from here" : "cancelled");
    return false;
}

/// Characters of a text in UTF-8.
static size_t characters(const char *text) {
    size_t count = 0;
    for (; *text; text++) count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

/// One question's choices, of which the likeliest is the answer, told by its label.
static zs_status score_choices(chunk *c, size_t index, const zs_question *question, const zs_ask_params *params, zs_error *error) {
    const data_item *item = &c->e->file.items[c->places[index]];
    zs_scored_text *texts = calloc(item->choice_count, sizeof *texts);
    zs_answer answer = {0};
    if (!texts) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the choices");
    for (size_t i = 0; i < item->choice_count; i++) texts[i].text = item->choices[i].text;
    zs_status status = zs_ask_score(c->e->asking.stack.engine, question, params, texts, item->choice_count, &answer, error);
    size_t best = 0;
    for (size_t i = 0; i < item->choice_count && !status; i++) {
        if (c->e->form == EVAL_SCORED_MEAN) texts[i].logprob /= (double)characters(texts[i].text);
        if (texts[i].logprob > texts[best].logprob) best = i;
    }
    if (!status && !(answer.text = strdup(item->choices[best].label)))
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the choices");
    answer.ended = true;
    if (!status) take_answer(c, index, &answer);
    zs_answer_free(&answer);
    free(texts);
    return status;
}

static zs_status ask_chunk(chunk *c, size_t count, zs_error *error) {
    evaluation *e = c->e;
    zs_question questions[CHUNK];
    zs_ask_params params = e->asking.params;
    params.strategy = c->strategy->strategy;
    params.stop = e->task->stop;
    if (params.strategy != ZS_STRATEGY_FIXED) params.expert = NULL;
    for (size_t i = 0; i < count; i++) questions[i] = e->questions[c->places[i]].question;
    zs_engine_reset_stats(e->asking.stack.engine);
    c->score_ms = c->pass1_ms = 0;
    double start = 1e3 * cli_now_seconds();
    const zs_image **images = NULL;
    zs_status status = eval_images_take(e, c->places, questions, count, &images, error);
    if (!status && e->form == EVAL_LETTER) status = zs_ask_batch(e->asking.stack.engine, questions, count, &params, take_answer, c, error);
    for (size_t i = 0; i < count && e->form != EVAL_LETTER && !status && !c->status; i++)
        status = score_choices(c, i, &questions[i], &params, error);
    free(images);
    image_shelf_clear(&e->shelf);
    if (c->status) {
        *error = c->error;
        return c->status;
    }
    if (status) return status;
    const zs_engine_stats *stats = zs_engine_get_stats(e->asking.stack.engine);
    eval_strategy times = {.pass2_ms = 1e3 * cli_now_seconds() - start - c->pass1_ms - c->score_ms,
                           .score_ms = c->score_ms,
                           .prefill_tokens = stats->prefill_tokens,
                           .decode_tokens = stats->decode_tokens,
                           .images = stats->images,
                           .image_ms = stats->image_ms};
    snprintf(times.name, sizeof times.name, "%s", c->strategy->name);
    c->strategy->pass2_ms += times.pass2_ms;
    c->strategy->score_ms += times.score_ms;
    c->strategy->prefill_tokens += times.prefill_tokens;
    c->strategy->decode_tokens += times.decode_tokens;
    c->strategy->images += times.images;
    c->strategy->image_ms += times.image_ms;
    return eval_log_times(e, &times, error);
}

/// Questions of a chunk. Pass 1 of all of them comes before the first answer: images that both see must be kept so long.
static size_t chunk_size(const evaluation *e, const eval_strategy *strategy) {
    size_t sessions = zs_engine_get_info(e->asking.stack.engine)->max_sessions;
    return e->around.images && strategy->strategy == ZS_STRATEGY_CLASSIFIER && sessions < CHUNK ? sessions : CHUNK;
}

static zs_status ask_all(evaluation *e, zs_error *error) {
    size_t places[CHUNK];
    zs_status status = ZS_OK;
    for (size_t k = 0; k < e->strategy_count && !status; k++) {
        chunk c = {.e = e, .strategy = &e->strategies[k], .places = places, .total = e->file.count, .progress = cli_progress(e->common)};
        for (size_t i = 0; i < e->file.count; i++) c.done += e->strategies[k].results[i].done;
        if (c.done) cli_note(e->common, "%s: %zu of %zu answers are there already", c.strategy->name, c.done, c.total);
        for (size_t at = 0; at < e->file.count && !status;) {
            size_t count = 0, most = chunk_size(e, c.strategy);
            for (; at < e->file.count && count < most; at++) {
                if (!c.strategy->results[e->order[at]].done) places[count++] = e->order[at];
            }
            if (count) status = ask_chunk(&c, count, error);
        }
    }
    return status;
}

// ---- the whole -----------------------------------------------------------------------------------------------------

/// The strategies by name; the base is always the first.
static int find_strategies(evaluation *e, const cli_command *command) {
    char list[200], *rest = NULL;
    int result = snprintf(list, sizeof list, "none,%s", e->strategies_text ? e->strategies_text : "") >= (int)sizeof list
                     ? cli_usage(command, "--strategy names too many")
                     : CLI_DONE;
    for (char *name = strtok_r(list, ",", &rest); name && !result; name = strtok_r(NULL, ",", &rest)) {
        result = asking_set_strategy(&e->asking, command, name);
        bool known = false;
        for (size_t i = 0; i < e->strategy_count; i++) known = known || e->strategies[i].strategy == e->asking.params.strategy;
        if (result || known) continue;
        eval_strategy *s = &e->strategies[e->strategy_count++];
        s->strategy = e->asking.params.strategy;
        snprintf(s->name, sizeof s->name, "%s", name);
    }
    bool fixed = false;
    for (size_t i = 0; i < e->strategy_count; i++) fixed = fixed || e->strategies[i].strategy == ZS_STRATEGY_FIXED;
    if (!result && e->asking.expert_name && !fixed) return cli_usage(command, "--expert goes with strategy fixed");
    return result;
}

static zs_status make_results(evaluation *e, zs_error *error) {
    for (size_t i = 0; i < e->strategy_count; i++) {
        eval_strategy *s = &e->strategies[i];
        s->results = calloc(e->file.count, sizeof *s->results);
        if (!s->results) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the results");
        if (s->strategy == ZS_STRATEGY_FIXED)
            snprintf(s->name, sizeof s->name, "fixed:%.63s", zs_expert_get_info(e->asking.params.expert)->name);
    }
    return ZS_OK;
}

static zs_status write_whole(const evaluation *e, const char *end, const char *text, zs_error *error) {
    char path[EVAL_MAX_PATH];
    whole_file *file = NULL;
    zs_status status = eval_path(e, end, path, error);
    if (!status) status = whole_file_create(path, &file, error);
    if (status) return status;
    fputs(text, whole_file_stream(file));
    return whole_file_commit(&file, error);
}

static zs_status tell(const evaluation *e, zs_error *error) {
    json_t *report = eval_report(e);
    char *table = report ? eval_table(report) : NULL, *text = report ? json_dumps(report, JSON_INDENT(1)) : NULL;
    zs_status status = table && text ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the report");
    if (!status && e->output) status = write_whole(e, ".md", table, error);
    if (!status && e->output) status = write_whole(e, ".json", text, error);
    if (!status && e->common->json)
        cli_print_json(json_incref(report));
    else if (!status)
        fputs(table, stdout);
    free(table);
    free(text);
    json_decref(report);
    return status;
}

static zs_status open_engine(evaluation *e, zs_error *error) {
    // Room for every answer, for pass 1, and for prefixes that are kept.
    const cli_parallel parallel = {.asked = e->parallel,
                                   .images = e->shelf.count > 0,
                                   .texts = e->file.count,
                                   .kv_tokens = e->longest_prompt + e->asking.params.max_tokens + 32,
                                   .kv_more = 4096};
    return cli_open_engine_parallel(e->common, &parallel, &(zs_engine_params){0}, &e->asking.stack, error);
}

static zs_status evaluate(evaluation *e, zs_error *error) {
    const scorer_params scoring = {.command = e->reward_command, .timeout_ms = e->timeout_s * 1000, .unsafe_code = e->unsafe_code};
    zs_status status = scorer_create(e->task->name, &scoring, &e->scorer, error);
    if (!status) status = read_data(e, error);
    if (!status) status = find_overlap(e, error);
    if (!status) status = cli_open_model(e->common, e->asking.model, &e->asking.stack, error);
    if (!status) transfer_tell(&e->asking.transfer, e->common, e->asking.stack.model, e->asking.experts, e->asking.expert);
    if (!status) status = eval_images_open(e, error);
    if (!status) status = make_questions(e, error);
    if (!status) status = open_engine(e, error);
    if (!status) status = make_settings(e, error);
    if (!status) status = make_results(e, error);
    if (!status) status = eval_log_open(e, error);
    if (!status) status = ask_all(e, error);
    return status ? status : tell(e, error);
}

static void close_evaluation(evaluation *e) {
    if (e->log) fclose(e->log);
    json_decref(e->settings);
    for (size_t i = 0; i < e->strategy_count; i++) free(e->strategies[i].results);
    for (size_t i = 0; e->questions && i < e->file.count; i++) shots_free(&e->questions[i]);
    free(e->questions);
    free(e->order);
    image_shelf_free(&e->shelf);
    data_file_free(&e->file);
    data_file_free(&e->shots_file);
    data_file_free(&e->train_file);
    scorer_destroy(&e->scorer);
    asking_close(&e->asking);
}

static int unknown_task(const cli_command *command, const char *name) {
    char problem[600];
    size_t used = (size_t)snprintf(problem, sizeof problem, "there is no task %.60s; --task is one of", name);
    for (size_t i = 0; task_get(i) && used < sizeof problem; i++)
        used += (size_t)snprintf(problem + used, sizeof problem - used, "%s %s", i ? "," : "", task_get(i)->name);
    return cli_usage(command, "%s", problem);
}

static int read_form(evaluation *e, const cli_command *command) {
    uint32_t form = EVAL_LETTER;
    if (!cli_choose(e->form_name, form_names, sizeof form_names / sizeof *form_names, &form))
        return cli_usage(command, "--answer is letter, scored or scored-mean");
    e->form = (eval_form)form;
    if (e->form == EVAL_LETTER || e->task->scorer == SCORER_CHOICE) return CLI_DONE;
    return cli_usage(command, "--answer %s scores choices, which %s does not have", e->form_name, e->task->name);
}

static int run(evaluation *e, const cli_command *command) {
    if (!e->task_name) return cli_usage(command, "which task? give --task NAME");
    if (!e->data) return cli_usage(command, "which data? give --data FILE");
    e->task = task_find(e->task_name);
    if (!e->task) return unknown_task(command, e->task_name);
    if (e->parallel > 4096) return cli_usage(command, "--parallel is at most 4096");
    int result = read_form(e, command);
    if (result) return result;
    result = e->instruction ? cli_check_utf8(command, "the instruction", e->instruction) : CLI_DONE;
    if (result) return result;
    e->around.instruction = task_instruction(e->task, e->instruction);
    if (!e->asking.max_tokens) e->asking.max_tokens = e->task->max_tokens;
    result = asking_prepare(&e->asking, command, true);
    if (!result) result = find_strategies(e, command);
    zs_error error;
    if (!result && evaluate(e, &error)) result = cli_fail(&error);
    return result;
}

int cmd_eval(int argc, char **argv) {
    cli_common common = {0};
    evaluation e = {.common = &common};
    const cli_option own[] = {
        {"task", 0, CLI_STRING, &e.task_name, "NAME",
         "gsm8k, math, arc-easy, arc-challenge, humaneval, mbpp, …, label, numeric, choice, code"},
        {"data", 0, CLI_STRING, &e.data, "FILE", "questions: JSON Lines, or as published; gzip too"},
        TASK_OPTIONS(&e),
        {"annotations", 0, CLI_STRING, &e.annotations, "FILE", "okvqa, vqav2: the file of answers"},
        {"images", 0, CLI_STRING, &e.images, "DIR", "folder of the images; default: beside the data"},
        {"output", 'o', CLI_STRING, &e.output, "NAME", "write NAME.md, NAME.json, NAME.results.jsonl; the last lets a run go on"},
        {"answer", 0, CLI_STRING, &e.form_name, "FORM",
         "to choices: letter (default; what is written), scored (the likeliest text), scored-mean"},
        {"limit", 0, CLI_COUNT, &e.limit, "N", "only the first N questions"},
        {"shots", 0, CLI_STRING, &e.shots_path, "FILE", "solved examples, put before each question"},
        {"shot-count", 0, CLI_COUNT, &e.shot_count, "N", "how many of them; default 3"},
        {"train", 0, CLI_STRING, &e.train, "FILE", "training data: questions that are in it are counted and told"},
        {"blind", 0, CLI_FLAG, &e.blind, NULL, "ask questions about images without them"},
    };
    enum { OWN = sizeof own / sizeof *own };
    cli_option options[OWN + ASKING_OPTIONS];
    memcpy(options, own, sizeof own);
    asking_options(&e.asking, &common, options + OWN);
    for (size_t i = OWN; i < OWN + ASKING_OPTIONS; i++) {
        if (options[i].value == &e.asking.strategy)
            options[i] =
                (cli_option){"strategy", 0, CLI_STRING, &e.strategies_text, "S[,S…]", "against the base: prompt, classifier, mix, fixed"};
    }
    const cli_command command = {
        "eval",
        "-m MODEL --task TASK --data FILE [--strategy S,…]",
        "measures strategies on a data set, against the base model",
        "zsigma eval -m smollm2.gguf --task numeric --data test.jsonl --experts assets/experts --strategy prompt -o math",
        options,
        &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "questions are given by --data");
    result = run(&e, &command);
    close_evaluation(&e);
    return result;
}
