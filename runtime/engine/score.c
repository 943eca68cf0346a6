/// Scoring: a prefix is computed once, its continuations are branches that share its pages; where there is only one, it goes along with its
/// prefix. Many prefixes go through a step together, then many branches.
#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct score_run {
    zs_engine *engine;
    const zs_score_item *items;
    size_t count;
    size_t *order;         // items, equal prefixes side by side; the first of them stays the first
    zs_token_logprob *top; // after the first item's prefix; NULL: not wanted
    size_t top_count;
} score_run;

/// Items with one prefix, order[first … first + count), at most as many as a step has logits.
typedef struct score_group {
    size_t first, count;
    bool whole;      // one item, whose continuation stands behind the prefix in its sequence
    sequence prefix; // and the tokens of that continuation but the last
} score_group;

/// Groups that go through steps together, one behind the other in the order; in composed mode under one expert.
typedef struct score_wave {
    score_group groups[ENGINE_BRANCHES];
    uint32_t count;
} score_wave;

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

static uint32_t step_logits(const zs_engine *engine) {
    return engine->max_logit_rows < ENGINE_LOGIT_ROWS ? engine->max_logit_rows : ENGINE_LOGIT_ROWS;
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
    uint32_t rows = prefill_add_rows(engine, run, limit, &s->step);
    run->seq->computed += rows;
    run->seq->prefilled = run->seq->computed;
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

// ---- prefixes ------------------------------------------------------------------------------------------------------

/// Whole pages of another prefix of the wave, where those are more than the cache gave: its rows are computed in an earlier step or in the
/// same, where all keys and values are written before any are read.
static zs_status share_in_wave(zs_engine *engine, const score_wave *w, sequence *seq, const zs_score_item *item, zs_error *error) {
    const sequence *best = NULL;
    uint32_t most = seq->computed / KV_PAGE_TOKENS;
    for (uint32_t g = 0; g < w->count; g++) {
        const sequence *other = &w->groups[g].prefix;
        uint32_t common = 0, limit = (uint32_t)item->prefix_count - 1; // the last token's logits are needed
        if (other->expert_serial != seq->expert_serial) continue;
        if (limit > other->count) limit = other->count;
        while (common < limit && other->tokens[common] == item->prefix[common]) common++;
        if (common / KV_PAGE_TOKENS <= most) continue;
        most = common / KV_PAGE_TOKENS;
        best = other;
    }
    if (!best) return ZS_OK;
    engine->stats.cached_tokens += most * KV_PAGE_TOKENS - seq->computed;
    sequence_truncate(seq, &engine->pool, 0);
    return engine_share_prefix(engine, best, most * KV_PAGE_TOKENS, seq, error);
}

/// The item's prefix and the first `more` tokens of its continuation.
static void set_tokens(sequence *seq, const zs_score_item *item, size_t more) {
    memcpy(seq->tokens, item->prefix, item->prefix_count * sizeof *item->prefix);
    memcpy(seq->tokens + item->prefix_count, item->continuation, more * sizeof *item->continuation);
    seq->count = (uint32_t)(item->prefix_count + more);
}

/// Puts a group behind the wave's others, with pages for its prefix.
static zs_status open_group(const score_run *r, score_wave *w, size_t first, size_t count, zs_error *error) {
    zs_engine *engine = r->engine;
    const zs_score_item *item = &r->items[r->order[first]];
    score_group *group = &w->groups[w->count];
    sequence *prefix = &group->prefix;
    // The likeliest tokens are read behind the step of the prefix.
    *group = (score_group){.first = first, .count = count, .whole = count == 1 && !(r->top && first == 0)};
    zs_status status = sequence_create(engine->params.context, prefix, error);
    if (status) return status;
    prefix->expert_serial = expert_table_serial(&engine->experts, item->expert);
    status = engine_take_prefix(engine, prefix, item->prefix, (uint32_t)item->prefix_count, error);
    if (!status) status = share_in_wave(engine, w, prefix, item, error);
    set_tokens(prefix, item, group->whole ? item->continuation_count - 1 : 0);
    if (!status) status = engine_reserve(engine, prefix, prefix->count, error);
    if (status)
        sequence_destroy(prefix, &engine->pool);
    else
        w->count++;
    return status;
}

/// Items from order[at] on that have its prefix.
static size_t group_size(const score_run *r, size_t at) {
    size_t n = 1;
    while (at + n < r->count && n < step_logits(r->engine) && compare_items(&r->items[r->order[at]], &r->items[r->order[at + n]]) == 0) n++;
    return n;
}

/// Prefixes that were computed are kept for later.
static void close_wave(zs_engine *engine, score_wave *w, bool computed) {
    for (uint32_t g = 0; g < w->count; g++) {
        if (computed && w->groups[g].prefix.tokens)
            engine_keep_prefix(engine, &w->groups[g].prefix);
        else
            sequence_destroy(&w->groups[g].prefix, &engine->pool);
    }
}

/// As many groups from order[at] on as there are pages and rows of the page table for. That of the likeliest tokens is alone: their logits
/// are the first row's.
static zs_status open_wave(const score_run *r, size_t at, score_wave *w, zs_error *error) {
    zs_engine *engine = r->engine;
    uint32_t expert = r->items[r->order[at]].expert, most = r->top && at == 0 ? 1 : ENGINE_BRANCHES;
    zs_status status = zs_engine_load_expert(engine, expert, error);
    w->count = 0;
    while (!status && at < r->count && w->count < most) {
        if (engine->composer && r->items[r->order[at]].expert != expert) break;
        size_t count = group_size(r, at);
        status = open_group(r, w, at, count, error);
        at += count;
    }
    if (status == ZS_ERROR_CONTEXT && w->count) return ZS_OK; // the pages are in use: those that have some go first
    if (status) close_wave(engine, w, false);
    return status;
}

/// Rows of a sequence from its computed position on, in as many steps as needed: that of the prefix's last token gives the log-probability
/// of the continuation's first, and so on.
static zs_status add_item(zs_engine *engine, score_step *s, const zs_score_item *item, sequence *seq, uint32_t table_row, zs_error *error) {
    const prefill_run run = {.seq = seq, .table_row = table_row, .expert = item->expert, .end = seq->count};
    const uint32_t last = (uint32_t)item->prefix_count - 1; // of the prefix: the first row with logits
    zs_status status = ZS_OK;
    while (!status && seq->computed < seq->count) {
        const uint32_t from = seq->computed, silent = from < last ? last - from : 0, first_row = s->step.rows;
        uint32_t room = engine->params.max_rows - s->step.rows, with_logits = step_logits(engine) - s->step.logit_count;
        uint32_t rows = add_rows(engine, s, &run, room < silent + with_logits ? room : silent + with_logits);
        for (uint32_t i = silent; i < rows; i++)
            want_logprob(engine, s, first_row + i, item->continuation[from + i - last], &item->logprobs[from + i - last]);
        if (rows == 0) status = run_step(engine, s, error);
    }
    return status;
}

/// Rows of a prefix; from the last come the log-probabilities of the first tokens of all its continuations.
static zs_status add_prefix(const score_run *r, score_step *s, score_group *group, uint32_t table_row, zs_error *error) {
    zs_engine *engine = r->engine;
    zs_status status = s->step.logit_count + group->count > step_logits(engine) ? run_step(engine, s, error) : ZS_OK;
    if (!status) status = add_item(engine, s, &r->items[r->order[group->first]], &group->prefix, table_row, error);
    for (size_t i = 1; i < group->count && !status; i++) {
        const zs_score_item *item = &r->items[r->order[group->first + i]];
        want_logprob(engine, s, s->step.rows - 1, item->continuation[0], item->logprobs);
    }
    return status;
}

static zs_status run_prefixes(const score_run *r, score_wave *w, zs_error *error) {
    zs_engine *engine = r->engine;
    score_step s = new_step(engine);
    zs_status status = engine_drain(engine, error);
    for (uint32_t g = 0; g < w->count && !status; g++) {
        uint32_t table_row = engine->params.max_sessions + g; // behind the sessions'
        engine_write_pages(engine, table_row, &w->groups[g].prefix, 0);
        status = add_prefix(r, &s, &w->groups[g], table_row, error);
    }
    if (!status) status = run_step(engine, &s, error);
    if (status || !r->top || w->groups[0].first) return status;
    return read_top(engine, r->top, r->top_count, error);
}

// ---- continuations -------------------------------------------------------------------------------------------------

/// The prefix with all of the continuation but its last token, sharing the prefix's pages.
static zs_status open_branch(zs_engine *engine, const zs_score_item *item, const sequence *prefix, sequence *branch, zs_error *error) {
    zs_status status = sequence_create(engine->params.context, branch, error);
    if (status) return status;
    status = engine_share_prefix(engine, prefix, (uint32_t)item->prefix_count, branch, error);
    set_tokens(branch, item, item->continuation_count - 1);
    if (!status) status = engine_reserve(engine, branch, branch->count, error);
    if (!status) status = engine_drain(engine, error);
    if (status) sequence_destroy(branch, &engine->pool);
    return status;
}

static size_t wave_end(const score_wave *w) { return w->groups[w->count - 1].first + w->groups[w->count - 1].count; }

/// Branches from order[*next] on, as many as there are pages for; *next is moved behind them.
static zs_status run_branches(const score_run *r, const score_wave *w, size_t *next, zs_error *error) {
    zs_engine *engine = r->engine;
    sequence branches[ENGINE_BRANCHES];
    uint32_t made = 0, g = 0;
    zs_status status = ZS_OK;
    score_step s = new_step(engine);
    for (; *next < wave_end(w) && made < ENGINE_BRANCHES && !status; (*next)++) {
        const zs_score_item *item = &r->items[r->order[*next]];
        while (*next >= w->groups[g].first + w->groups[g].count) g++;
        if (w->groups[g].whole || item->continuation_count < 2) continue;
        status = open_branch(engine, item, &w->groups[g].prefix, &branches[made], error);
        if (status == ZS_ERROR_CONTEXT && made > 0) { // the pages are in use: those made so far go first
            status = ZS_OK;
            break;
        }
        if (status) break;
        uint32_t table_row = engine->params.max_sessions + made;
        sequence *branch = &branches[made++];
        engine_write_pages(engine, table_row, branch, 0);
        status = add_item(engine, &s, item, branch, table_row, error);
    }
    if (!status) status = run_step(engine, &s, error);
    zs_status drained = engine_drain(engine, status ? NULL : error);
    for (uint32_t i = 0; i < made; i++) sequence_destroy(&branches[i], &engine->pool);
    return status ? status : drained;
}

/// Lets go of a prefix whose pages are wanted: one that is done with, else the last, whose turn comes in the next wave. False when there is
/// only the one whose branches are to come.
static bool release_prefix(zs_engine *engine, score_wave *w, size_t next) {
    for (uint32_t g = 0; g < w->count; g++) {
        score_group *group = &w->groups[g];
        if (group->first + group->count > next || !group->prefix.tokens) continue;
        engine_keep_prefix(engine, &group->prefix);
        return true;
    }
    if (w->groups[w->count - 1].first <= next) return false;
    engine_keep_prefix(engine, &w->groups[--w->count].prefix);
    return true;
}

/// Prefixes, then branches; *next is moved behind the items that are done.
static zs_status run_wave(const score_run *r, score_wave *w, size_t *next, zs_error *error) {
    zs_engine *engine = r->engine;
    zs_status status = run_prefixes(r, w, error);
    while (!status && *next < wave_end(w)) {
        status = run_branches(r, w, next, error);
        if (status == ZS_ERROR_CONTEXT && release_prefix(engine, w, *next)) status = ZS_OK;
    }
    engine_drain(engine, NULL);
    close_wave(engine, w, !status);
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
    score_run run = {.engine = engine, .items = items, .count = count, .top = top, .top_count = top_count};
    run.order = calloc(count, sizeof *run.order);
    if (!run.order) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while scoring");
    group_items(run.order, items, count);
    score_wave wave;
    for (size_t next = 0; next < count && !status;) {
        status = open_wave(&run, next, &wave, error);
        if (!status) status = run_wave(&run, &wave, &next, error);
    }
    free(run.order);
    return status;
}
