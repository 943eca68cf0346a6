#include "transfer.h"

#include <string.h>

int transfer_prepare(transfer *t, const cli_command *command, bool experts) {
    if (t->wanted && !experts) return cli_usage(command, "--transfer is about experts of another model: give --expert or --experts");
    if (!t->shuffle) return CLI_DONE;
    if (!t->wanted) return cli_usage(command, "--shuffle goes with --transfer: it is the control of experts on another model");
    return cli_read_seed(command, "shuffle", t->shuffle, &t->seed);
}

zs_status transfer_shuffle(const transfer *t, zs_expert_set *experts, zs_expert *expert, zs_error *error) {
    if (!t->shuffle) return ZS_OK;
    zs_status status = experts ? zs_expert_set_shuffle(experts, t->seed, error) : ZS_OK;
    return !status && expert ? zs_expert_shuffle(expert, t->seed, error) : status;
}

/// The i-th of a set's experts, then its dispatcher, then the other expert; NULL behind the last.
static const zs_expert *expert_at(const zs_expert_set *experts, const zs_expert *expert, uint32_t i) {
    uint32_t count = experts ? zs_expert_set_count(experts) : 0;
    const zs_expert *dispatcher = experts ? zs_expert_set_dispatcher(experts) : NULL;
    if (i < count) return zs_expert_set_get(experts, i);
    if (dispatcher && i == count) return dispatcher;
    return i == count + (dispatcher != NULL) ? expert : NULL;
}

static json_t *report_one(const transfer *t, const zs_model *model, const zs_expert *expert) {
    const zs_expert_info *info = zs_expert_get_info(expert);
    json_t *left_out = json_array();
    zs_expert_fit fit;
    zs_expert_get_fit(expert, model, &fit);
    for (uint32_t i = 0; i < fit.matrices; i++) {
        const char *reason = zs_expert_misfit(expert, model, i), *name;
        const float *unused;
        uint32_t rank;
        if (reason && zs_expert_matrix(expert, i, &name, &rank, &unused))
            json_array_append_new(left_out, json_pack("{s:s, s:s}", "matrix", name, "reason", reason));
    }
    return json_pack("{s:s, s:s, s:o, s:i, s:i, s:i, s:I, s:o, s:o}", "expert", info->name, "base_model", info->base_model, "cosine",
                     fit.has_cosine ? json_real(fit.cosine) : json_null(), "matrices", (int)fit.matrices, "by_name", (int)fit.by_name,
                     "by_shape", (int)fit.by_shape, "values", (json_int_t)fit.values, "left_out", left_out, "shuffle",
                     t->shuffle ? json_integer((json_int_t)t->seed) : json_null());
}

json_t *transfer_report(const transfer *t, const zs_model *model, const zs_expert_set *experts, const zs_expert *expert) {
    if (!t->wanted) return json_null();
    json_t *report = json_array();
    const zs_expert *one;
    for (uint32_t i = 0; (one = expert_at(experts, expert, i)) != NULL; i++) json_array_append_new(report, report_one(t, model, one));
    return report;
}

// ---- text ----------------------------------------------------------------------------------------------------------

/// What was left out for the same reason, by the first of it.
static void tell_left_out(const cli_common *common, const json_t *left_out) {
    const json_t *entry, *other;
    size_t i, k;
    json_array_foreach(left_out, i, entry) {
        const char *reason = json_string_value(json_object_get(entry, "reason"));
        size_t before = 0, count = 0;
        json_array_foreach(left_out, k, other) {
            bool same = strcmp(json_string_value(json_object_get(other, "reason")), reason) == 0;
            before += same && k < i;
            count += same;
        }
        if (before) continue;
        const char *first = json_string_value(json_object_get(entry, "matrix"));
        if (count > 1)
            cli_note(common, "  left out: %s and %zu more: %s", first, count - 1, reason);
        else
            cli_note(common, "  left out: %s: %s", first, reason);
    }
}

static void tell_one(const transfer *t, const cli_common *common, const json_t *r) {
    const char *name = json_string_value(json_object_get(r, "expert")), *base = json_string_value(json_object_get(r, "base_model"));
    const json_t *cosine = json_object_get(r, "cosine");
    if (json_is_real(cosine) && json_real_value(cosine) < ZS_SAME_BASE && !common->quiet)
        cli_error("warning: expert %s was made for another model (%s; cosine of the sketches %.2f)", name, *base ? base : "not named",
                  json_real_value(cosine));
    cli_note(common, "transfer of %s%s%s: %lld of %lld matrices are applied, %lld numbers", name, t->shuffle ? ", shuffled by seed " : "",
             t->shuffle ? t->shuffle : "", (long long)json_integer_value(json_object_get(r, "by_shape")),
             (long long)json_integer_value(json_object_get(r, "matrices")), (long long)json_integer_value(json_object_get(r, "values")));
    tell_left_out(common, json_object_get(r, "left_out"));
}

void transfer_tell(const transfer *t, const cli_common *common, const zs_model *model, const zs_expert_set *experts,
                   const zs_expert *expert) {
    json_t *report = transfer_report(t, model, experts, expert), *one;
    size_t i;
    json_array_foreach(report, i, one) tell_one(t, common, one);
    json_decref(report);
}
