/// Scoring: a prefix is computed once, its continuations are branches that share its pages.
#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct score_run {
    zs_engine *engine;
    const zs_score_item *items;
    size_t *order; // items, equal prefixes side by side
} score_run;

static int compare_items(const zs_score_item *a, const zs_score_item *b) {
    if (a->expert != b->expert) return a->expert < b->expert ? -1 : 1;
    if (a->prefix_count != b->prefix_count) return a->prefix_count < b->prefix_count ? -1 : 1;
    return memcmp(a->prefix, b->prefix, a->prefix_count * sizeof *a->prefix);
}

/// Stable insertion of equal items next to the first of their kind, and of those under one expert side by side; lists are short.
static void group_items(size_t *order, const zs_score_item *items, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        bool equal = false;
        for (size_t j = 0; j < i; j++) {
            bool same = compare_items(&items[order[j]], &items[i]) == 0;
            if (same || (!equal && items[order[j]].expert == items[i].expert)) at = j + 1;
            equal = equal || same;
        }
        memmove(order + at + 1, order + at, (i - at) * sizeof *order);
        order[at] = i;
    }
}

static zs_status check_item(const zs_engine *engine, const zs_score_item *item, zs_error *error) {
    uint32_t vocab = engine->model->config.vocab;
    if (item->prefix_count == 0 || item->continuation_count == 0)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "scoring needs at least one token of prompt and of answer");
    if (item->prefix_count + item->continuation_count > engine->params.context)
        return zs_error_set(error, ZS_ERROR_CONTEXT,
                            "prompt and answer have %zu tokens and the context holds %u: raise --ctx (the model allows %u)",
                            item->prefix_count + item->continuation_count, engine->params.context, engine->model->config.context);
    if (!expert_table_serial(&engine->experts, item->expert))
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "no expert with id %u is attached", item->expert);
    for (size_t i = 0; i < item->prefix_count + item->continuation_count; i++) {
        uint32_t id = i < item->prefix_count ? item->prefix[i] : item->continuation[i - item->prefix_count];
        if (i < item->prefix_count ? !engine_knows_token(engine, id) : id >= vocab)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "token id %u is outside the vocabulary of %u", id, vocab);
    }
    return ZS_OK;
}

/// A step under construction: rows so far, and where each logit's log-probability goes.
typedef struct score_step {
    model_step step;
    float *outputs[ENGINE_LOGIT_ROWS];
} score_step;

static score_step new_step(const zs_engine *engine) {
    return (score_step){.step = {.step = engine->prefill.step_address,
                                 .features = engine->images.features.address,
                                 .feature_rows = engine->images.capacity,
                                 .logit_rows = engine->prefill.logit_rows_address}};
}

static void want_logprob(zs_engine *engine, score_step *s, uint32_t row, uint32_t target, float *out) {
    engine->prefill.logit_rows[s->step.logit_count] = row;
    engine->prefill.targets[s->step.logit_count] = target;
    s->outputs[s->step.logit_count++] = out;
}

static uint64_t logprobs_offset(const zs_engine *engine) { return (uint64_t)engine->params.max_sessions * SAMPLED_RING * sizeof(Sampled); }

/// Runs the step and hands out its log-probabilities.
static zs_status run_step(zs_engine *engine, score_step *s, zs_error *error) {
    if (s->step.rows == 0) return ZS_OK;
    double start = engine_now_ms();
    zs_status status = engine_check_cancelled(engine, error);
    if (!status) status = gpu_command_begin(engine->prefill_command, error);
    if (status) return status;
    model_record(engine->running, engine->workspace, engine->prefill_command, &s->step);
    if (s->step.logit_count)
        model_record_logprobs(engine->running, engine->workspace, engine->prefill_command, &s->step, engine->prefill.targets_address,
                              engine->results.address + logprobs_offset(engine));
    status = gpu_command_end(engine->prefill_command, error);
    if (!status) status = engine_submit(engine, engine->prefill_command, error);
    if (!status) status = engine_drain(engine, error);
    if (status) return status;
    engine->stats.steps++;
    engine->stats.prefill_tokens += s->step.rows;
    engine->stats.prefill_ms += engine_now_ms() - start;
    const float *logprobs = (const float *)(const void *)((const uint8_t *)engine->results.mapped + logprobs_offset(engine));
    for (uint32_t i = 0; i < s->step.logit_count; i++) {
        if (!isfinite(logprobs[i]))
            return zs_error_set(
                error, ZS_ERROR_NUMERIC,
                "a log-probability is not a number: the weights, the expert or the driver is at fault (try --precision exact)");
        *s->outputs[i] = logprobs[i];
    }
    *s = new_step(engine);
    return ZS_OK;
}

static uint32_t add_rows(zs_engine *engine, score_step *s, const prefill_run *run, uint32_t limit) {
    uint32_t rows = prefill_fill_rows(engine, run, s->step.rows, limit, &s->step.spans);
    run->seq->computed += rows;
    run->seq->prefilled = run->seq->computed;
    if (run->seq->computed > s->step.longest) s->step.longest = run->seq->computed;
    s->step.rows += rows;
    return rows;
}

static zs_status read_top(zs_engine *engine, zs_token_logprob *top, size_t top_count, zs_error *error) {
    uint32_t vocab = engine->model->config.vocab;
    float *logits = malloc(vocab * sizeof *logits);
    if (!logits) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the logits");
    zs_status status = gpu_buffer_read(engine->model->device, model_logits(engine->workspace), 0, vocab * sizeof *logits, logits, error);
    double maximum = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < vocab && !status; i++) maximum = logits[i] > maximum ? (double)logits[i] : maximum;
    for (uint32_t i = 0; i < vocab && !status; i++) sum += exp((double)logits[i] - maximum);
    for (size_t k = 0; k < top_count && !status; k++) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < vocab; i++) best = logits[i] > logits[best] ? i : best;
        top[k] = (zs_token_logprob){best, (float)((double)logits[best] - maximum - log(sum))};
        logits[best] = -INFINITY;
    }
    free(logits);
    return status;
}

/// Computes the prefix of a group; the log-probabilities of the continuations' first tokens come from its last row.
static zs_status run_prefix(score_run *r, size_t first, size_t count, sequence *prefix, zs_token_logprob *top, size_t top_count,
                            zs_error *error) {
    zs_engine *engine = r->engine;
    const zs_score_item *item = &r->items[r->order[first]];
    uint32_t table_row = engine->params.max_sessions; // the first row behind the sessions'
    prefix->expert_serial = expert_table_serial(&engine->experts, item->expert);
    zs_status status = engine_take_prefix(engine, prefix, item->prefix, (uint32_t)item->prefix_count, error);
    memcpy(prefix->tokens, item->prefix, item->prefix_count * sizeof *item->prefix);
    prefix->count = (uint32_t)item->prefix_count;
    if (!status) status = engine_reserve(engine, prefix, prefix->count, error);
    if (!status) status = engine_drain(engine, error);
    if (status) return status;
    engine_write_pages(engine, table_row, prefix, 0);

    prefill_run run = {.seq = prefix, .table_row = table_row, .expert = item->expert, .end = prefix->count};
    score_step s = new_step(engine);
    while (!status && prefix->computed < prefix->count) {
        uint32_t rows = add_rows(engine, &s, &run, engine->params.max_rows);
        if (prefix->computed < prefix->count)
            status = run_step(engine, &s, error);
        else {
            for (size_t i = 0; i < count && i < ENGINE_LOGIT_ROWS; i++) {
                const zs_score_item *branch = &r->items[r->order[first + i]];
                want_logprob(engine, &s, rows - 1, branch->continuation[0], branch->logprobs);
            }
            status = run_step(engine, &s, error);
        }
    }
    if (!status && top) status = read_top(engine, top, top_count, error);
    return status;
}

/// Rows of one branch: continuation[0 … m − 2], each giving the log-probability of the next; in as many steps as needed.
static zs_status add_branch(zs_engine *engine, score_step *s, const zs_score_item *item, sequence *branch, uint32_t table_row,
                            zs_error *error) {
    prefill_run run = {.seq = branch, .table_row = table_row, .expert = item->expert, .end = branch->count};
    zs_status status = ZS_OK;
    while (!status && branch->computed < branch->count) {
        uint32_t room = engine->params.max_rows - s->step.rows, logits = ENGINE_LOGIT_ROWS - s->step.logit_count;
        if (room == 0 || logits == 0) {
            status = run_step(engine, s, error);
            continue;
        }
        uint32_t first_row = s->step.rows, from = branch->computed - (uint32_t)item->prefix_count;
        uint32_t rows = add_rows(engine, s, &run, room < logits ? room : logits);
        for (uint32_t i = 0; i < rows; i++)
            want_logprob(engine, s, first_row + i, item->continuation[from + i + 1], &item->logprobs[from + i + 1]);
    }
    return status;
}

/// The prefix with all of the continuation but its last token, sharing the prefix's pages.
static zs_status open_branch(zs_engine *engine, const zs_score_item *item, const sequence *prefix, sequence *branch, zs_error *error) {
    zs_status status = sequence_create(engine->params.context, branch, error);
    if (status) return status;
    status = engine_share_prefix(engine, prefix, (uint32_t)item->prefix_count, branch, error);
    memcpy(branch->tokens, item->prefix, item->prefix_count * sizeof *item->prefix);
    memcpy(branch->tokens + item->prefix_count, item->continuation, (item->continuation_count - 1) * sizeof *item->continuation);
    branch->count = (uint32_t)(item->prefix_count + item->continuation_count - 1);
    if (!status) status = engine_reserve(engine, branch, branch->count, error);
    if (!status) status = engine_drain(engine, error);
    if (status) sequence_destroy(branch, &engine->pool);
    return status;
}

/// Branches from *next on, as many as there are pages for; *next is moved behind them.
static zs_status run_branches(score_run *r, size_t first, size_t count, size_t *next, const sequence *prefix, zs_error *error) {
    zs_engine *engine = r->engine;
    sequence branches[ENGINE_BRANCHES];
    uint32_t made = 0;
    zs_status status = ZS_OK;
    score_step s = new_step(engine);
    for (; *next < count && !status; (*next)++) {
        const zs_score_item *item = &r->items[r->order[first + *next]];
        if (item->continuation_count < 2) continue;
        status = open_branch(engine, item, prefix, &branches[made], error);
        if (status == ZS_ERROR_CONTEXT && made > 0) { // the pages are in use: those made so far go first
            status = ZS_OK;
            break;
        }
        if (status) break;
        sequence *branch = &branches[made++];
        uint32_t table_row = engine->params.max_sessions + made;
        engine_write_pages(engine, table_row, branch, 0);
        status = add_branch(engine, &s, item, branch, table_row, error);
    }
    if (!status) status = run_step(engine, &s, error);
    zs_status drained = engine_drain(engine, status ? NULL : error);
    for (uint32_t i = 0; i < made; i++) sequence_destroy(&branches[i], &engine->pool);
    return status ? status : drained;
}

/// The group's prefix, then its branches; at most ENGINE_BRANCHES − 1 of them at a time.
static zs_status run_group(score_run *r, size_t first, size_t count, zs_token_logprob *top, size_t top_count, zs_error *error) {
    zs_engine *engine = r->engine;
    sequence prefix;
    zs_status status = zs_engine_load_expert(engine, r->items[r->order[first]].expert, error);
    if (!status) status = sequence_create(engine->params.context, &prefix, error);
    if (status) return status;
    status = run_prefix(r, first, count, &prefix, top, top_count, error);
    for (size_t next = 0; next < count && !status;) status = run_branches(r, first, count, &next, &prefix, error);
    engine_drain(engine, NULL);
    if (status)
        sequence_destroy(&prefix, &engine->pool);
    else
        engine_keep_prefix(engine, &prefix);
    return status;
}

zs_status zs_engine_score(zs_engine *engine, const zs_score_item *items, size_t count, zs_token_logprob *top, size_t top_count,
                          zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count && !status; i++) status = check_item(engine, &items[i], error);
    if (status || count == 0) return status;
    if (top_count > engine->model->config.vocab)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%zu likeliest tokens of a vocabulary of %u were asked for", top_count,
                            engine->model->config.vocab);
    score_run run = {.engine = engine, .items = items, .order = malloc(count * sizeof *run.order)};
    if (!run.order) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while scoring");
    group_items(run.order, items, count);
    for (size_t i = 0; i < count && !status;) {
        size_t n = 1;
        while (i + n < count && n < ENGINE_BRANCHES - 1 && compare_items(&items[run.order[i]], &items[run.order[i + n]]) == 0) n++;
        bool first_item = run.order[i] == 0;
        status = run_group(&run, i, n, first_item ? top : NULL, top_count, error);
        i += n;
    }
    free(run.order);
    return status;
}
