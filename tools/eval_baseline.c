/// What a program would get that always says the same.
#include "eval.h"

#include <string.h>

static bool is_of(const data_item *item, const char *category) { return !category || strcmp(eval_category(item), category) == 0; }

/// The answer that most questions of a category have; NULL category: all questions.
static const char *most_frequent(const evaluation *e, const char *category, json_t *counts) {
    const char *best = NULL;
    json_int_t most = 0;
    for (size_t i = 0; i < e->file.count; i++) {
        const data_item *item = &e->file.items[i];
        if (!is_of(item, category)) continue;
        json_int_t count = json_integer_value(json_object_get(counts, item->answer)) + 1;
        json_object_set_new(counts, item->answer, json_integer(count));
        if (count > most) {
            most = count;
            best = item->answer;
        }
    }
    return best;
}

static json_t *majority(const evaluation *e, const char *category) {
    json_t *counts = json_object();
    const char *answer = most_frequent(e, category, counts);
    double right = 0, score;
    size_t count = 0;
    json_decref(counts);
    for (size_t i = 0; i < e->file.count; i++) {
        if (!is_of(&e->file.items[i], category)) continue;
        if (!scorer_score(e->scorer, &e->file.items[i], answer, &score, NULL)) right += score;
        count++;
    }
    json_t *report = eval_share(right, count);
    json_object_set_new(report, "answer", json_string(answer));
    return report;
}

json_t *eval_majority(const evaluation *e) {
    bool words = e->task->scorer == SCORER_LABEL || e->task->scorer == SCORER_VQA;
    if (!words || e->reward_command) return NULL;
    json_t *report = majority(e, NULL), *categories = json_object();
    for (size_t i = 0; i < e->file.count; i++) {
        const char *category = eval_category(&e->file.items[i]);
        if (!json_object_get(categories, category)) json_object_set_new(categories, category, majority(e, category));
    }
    json_object_set_new(report, "categories", categories);
    return report;
}
