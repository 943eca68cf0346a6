/// Tables of an evaluation.
#include "eval.h"
#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *eval_category(const data_item *item) { return item->category ? item->category : "(none)"; }

/// Adds to a number kept in an object.
static void count_in(json_t *object, const char *key, double more) {
    json_object_set_new(object, key, json_real(json_number_value(json_object_get(object, key)) + more));
}

static json_t *object_in(json_t *object, const char *key) {
    json_t *found = json_object_get(object, key);
    if (found) return found;
    json_object_set_new(object, key, json_object());
    return json_object_get(object, key);
}

json_t *eval_share(double right, size_t count) {
    double low, high;
    statistics_wilson(right, count, &low, &high);
    return json_pack("{s:f, s:I, s:f, s:f, s:f}", "right", right, "count", (json_int_t)count, "share", count ? right / (double)count : 0.0,
                     "low", low, "high", high);
}

static json_t *categories(const evaluation *e, const eval_strategy *s) {
    json_t *right = json_object(), *count = json_object(), *shares = json_object(), *value;
    const char *key;
    for (size_t i = 0; i < e->file.count; i++) {
        if (!s->results[i].done) continue;
        count_in(right, eval_category(&e->file.items[i]), s->results[i].score);
        count_in(count, eval_category(&e->file.items[i]), 1);
    }
    json_object_foreach(right, key, value)
        json_object_set_new(shares, key, eval_share(json_number_value(value), (size_t)json_number_value(json_object_get(count, key))));
    json_decref(right);
    json_decref(count);
    return shares;
}

/// {category: {expert: questions}}: whom pass 1 sent each category's questions to.
static json_t *confusion(const evaluation *e, const eval_strategy *s) {
    json_t *matrix = json_object();
    for (size_t i = 0; i < e->file.count; i++) {
        const eval_result *r = &s->results[i];
        if (r->done) count_in(object_in(matrix, eval_category(&e->file.items[i])), *r->expert ? r->expert : "other", 1);
    }
    return matrix;
}

/// Question by question against the base.
static json_t *against(const evaluation *e, const eval_strategy *base, const eval_strategy *s) {
    size_t better = 0, worse = 0;
    for (size_t i = 0; i < e->file.count; i++) {
        const eval_result *a = &base->results[i], *b = &s->results[i];
        better += a->done && b->done && b->score > a->score;
        worse += a->done && b->done && b->score < a->score;
    }
    return json_pack("{s:I, s:I, s:f}", "better", (json_int_t)better, "worse", (json_int_t)worse, "p", statistics_mcnemar(better, worse));
}

static json_t *strategy_report(const evaluation *e, const eval_strategy *s) {
    double right = 0, pass1_ms = 0;
    size_t count = 0, cut = 0;
    uint64_t tokens = 0;
    for (size_t i = 0; i < e->file.count; i++) {
        const eval_result *r = &s->results[i];
        if (!r->done) continue;
        count++;
        right += r->score;
        pass1_ms += r->pass1_ms;
        tokens += r->tokens;
        cut += !r->ended;
    }
    json_t *report = eval_share(right, count);
    json_object_set_new(report, "strategy", json_string(s->name));
    json_object_set_new(report, "categories", categories(e, s));
    json_object_set_new(report, "tokens", json_integer((json_int_t)tokens));
    json_object_set_new(report, "cut_short", json_integer((json_int_t)cut));
    json_object_set_new(report, "pass1_ms", json_real(pass1_ms));
    json_object_set_new(report, "pass2_ms", json_real(s->pass2_ms));
    json_object_set_new(report, "pass1_share", json_real(s->pass2_ms > 0 ? pass1_ms / s->pass2_ms : 0));
    json_object_set_new(report, "score_ms", json_real(s->score_ms));
    json_object_set_new(report, "prefill_tokens", json_integer((json_int_t)s->prefill_tokens));
    json_object_set_new(report, "decode_tokens", json_integer((json_int_t)s->decode_tokens));
    if (e->around.images) json_object_set_new(report, "images", json_integer((json_int_t)s->images));
    if (e->around.images) json_object_set_new(report, "image_ms", json_real(s->image_ms));
    if (s != &e->strategies[0]) json_object_set_new(report, "against_base", against(e, &e->strategies[0], s));
    if (s->strategy == ZS_STRATEGY_PROMPT || s->strategy == ZS_STRATEGY_CLASSIFIER)
        json_object_set_new(report, "dispatch", confusion(e, s));
    return report;
}

json_t *eval_report(const evaluation *e) {
    json_t *strategies = json_array();
    for (size_t i = 0; i < e->strategy_count; i++) json_array_append_new(strategies, strategy_report(e, &e->strategies[i]));
    return json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:O, s:s, s:o*, s:o, s:o}", "task", e->task->name, "data", e->data, "model", e->asking.model,
        "questions", (json_int_t)e->file.count, "left_out", (json_int_t)e->left_out.count, "in_training_data", (json_int_t)e->overlap,
        "settings", e->settings, "device", zs_device_get_info(e->asking.stack.device)->name, "majority", eval_majority(e), "transfer",
        transfer_report(&e->asking.transfer, e->asking.stack.model, e->asking.experts, e->asking.expert), "strategies", strategies);
}

// ---- Markdown ------------------------------------------------------------------------------------------------------

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

static void print_row(FILE *to, const json_t *s) {
    const json_t *base = json_object_get(s, "against_base");
    fprintf(to, "| %s | %.6g / %.0f | %.2f %% | %.2f – %.2f | ", json_string_value(json_object_get(s, "strategy")), number(s, "right"),
            number(s, "count"), 100 * number(s, "share"), 100 * number(s, "low"), 100 * number(s, "high"));
    if (base)
        fprintf(to, "+%.0f −%.0f | %.2g | ", number(base, "better"), number(base, "worse"), number(base, "p"));
    else
        fputs("| | ", to);
    fprintf(to, "%.1f | %.1f | %.0f %% | %.0f | %.0f |\n", number(s, "pass1_ms") / 1e3, number(s, "pass2_ms") / 1e3,
            100 * number(s, "pass1_share"), number(s, "tokens"), number(s, "cut_short"));
}

static void print_majority(FILE *to, const json_t *majority) {
    if (!majority) return;
    fprintf(to, "| always “%s” | %.6g / %.0f | %.2f %% | %.2f – %.2f | | | | | | | |\n",
            json_string_value(json_object_get(majority, "answer")), number(majority, "right"), number(majority, "count"),
            100 * number(majority, "share"), 100 * number(majority, "low"), 100 * number(majority, "high"));
}

static void print_images(FILE *to, const json_t *strategies) {
    json_t *s;
    size_t i;
    json_array_foreach(strategies, i, s) {
        if (!json_object_get(s, "images")) continue;
        fprintf(to, "\nImages encoded by %s: %.0f in %.1f s\n", json_string_value(json_object_get(s, "strategy")), number(s, "images"),
                number(s, "image_ms") / 1e3);
    }
}

/// Shares of the categories, a column per strategy, and the most frequent answer's.
static void print_categories(FILE *to, const json_t *strategies, const json_t *majority) {
    json_t *first = json_object_get(json_array_get(strategies, 0), "categories"), *value, *s;
    const char *key;
    size_t i;
    if (json_object_size(first) < 2) return;
    fputs("\n| category | questions |", to);
    json_array_foreach(strategies, i, s) fprintf(to, " %s |", json_string_value(json_object_get(s, "strategy")));
    fputs(majority ? " always the same |\n|---|---|---|" : "\n|---|---|", to);
    json_array_foreach(strategies, i, s) fputs("---|", to);
    json_object_foreach(first, key, value) {
        fprintf(to, "\n| %s | %.0f |", key, number(value, "count"));
        json_array_foreach(strategies, i, s)
            fprintf(to, " %.2f %% |", 100 * number(json_object_get(json_object_get(s, "categories"), key), "share"));
        const json_t *same = json_object_get(json_object_get(majority, "categories"), key);
        if (same) fprintf(to, " %.2f %% “%s” |", 100 * number(same, "share"), json_string_value(json_object_get(same, "answer")));
    }
    fputc('\n', to);
}

/// Rows: the questions' categories; columns: whom pass 1 chose.
static void print_dispatch(FILE *to, const json_t *s) {
    json_t *matrix = json_object_get(s, "dispatch"), *columns = json_object(), *row, *value;
    const char *key, *column;
    if (!matrix) {
        json_decref(columns);
        return;
    }
    json_object_foreach(matrix, key, row) json_object_update(columns, row);
    fprintf(to, "\nDispatch by %s (rows: category, columns: the expert chosen)\n\n| |", json_string_value(json_object_get(s, "strategy")));
    json_object_foreach(columns, column, value) fprintf(to, " %s |", column);
    fputs("\n|---|", to);
    json_object_foreach(columns, column, value) fputs("---|", to);
    json_object_foreach(matrix, key, row) {
        fprintf(to, "\n| %s |", key);
        json_object_foreach(columns, column, value) fprintf(to, " %.0f |", number(row, column));
    }
    fputc('\n', to);
    json_decref(columns);
}

char *eval_table(const json_t *report) {
    char *text = NULL;
    size_t size = 0, i;
    json_t *strategies = json_object_get(report, "strategies"), *s;
    FILE *to = open_memstream(&text, &size);
    if (!to) return NULL;
    fprintf(to, "%s: %.0f questions of %s", json_string_value(json_object_get(report, "task")), number(report, "questions"),
            json_string_value(json_object_get(report, "data")));
    if (number(report, "left_out") > 0) fprintf(to, ", %.0f lines left out", number(report, "left_out"));
    if (number(report, "in_training_data") > 0) fprintf(to, ", **%.0f of them in the training data**", number(report, "in_training_data"));
    fputs("\n\n| strategy | right | share | 95 % (Wilson) | against base | p (McNemar) | pass 1, s | pass 2, s | pass 1 / pass 2 | tokens "
          "| cut short "
          "|\n|---|---|---|---|---|---|---|---|---|---|---|\n",
          to);
    json_array_foreach(strategies, i, s) print_row(to, s);
    print_majority(to, json_object_get(report, "majority"));
    print_images(to, strategies);
    print_categories(to, strategies, json_object_get(report, "majority"));
    json_array_foreach(strategies, i, s) print_dispatch(to, s);
    bool bad = ferror(to) != 0;
    bad = fclose(to) != 0 || bad;
    if (!bad) return text;
    free(text);
    return NULL;
}
