/// The real model against transformers in f32: token ids, log-probabilities with and without experts, greedy text, and
/// precision fast against exact. The figures come from DESIGN.md §6; the data's README.md tells how they were made.
///
///     golden MODEL.gguf dense|f32|f16|q8_0|composed:f16|composed:q8_0|composed:q4_0
///
/// names the type of the factors (or none), or that of the weights composed of f16 factors, from which the bounds follow. The device is
/// Vulkan's choice (VK_DRIVER_FILES).
#include "zsigma/zsigma.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// Bounds on |Δ log-probability| per token; INFINITY: not bounded.
typedef struct bounds {
    const char *type;
    double max, mean;
    double expert; // times as much under the random experts
    zs_mode mode;
    zs_composed_type composed;
} bounds;

/// Noise on every σ makes the model about five times as sensitive to rounding (f16: a mean of 0.0007 for the model as it is, 0.0035
/// under the expert on all matrices). f16 keeps the bound all the same; q8_0, at 0.029 and 0.127, does not.
///
/// Composed weights as f16 are held to the bound of f16 factors and miss it under the expert on all matrices, with a mean of 0.0047 against
/// 0.004 (0.0010 for the model as it is): they round twice, factors and W'. CTest does not run them for that reason; as q8_0 they are what
/// a dense q8_0 file is, 0.032 in the mean (FACTS of the project: rounding W itself), as q4_0 likewise, 0.55: a fifth is left for another
/// set of answers.
static const bounds all_bounds[] = {
    {"dense", 1e-3, 1e-3, 1, 0, 0},
    {"f32", 1e-3, 1e-3, 1, 0, 0},
    {"f16", 0.03, 0.004, 1, 0, 0},
    {"q8_0", INFINITY, 0.06, 5, 0, 0},
    {"composed:f16", 0.03, 0.004, 1, ZS_MODE_COMPOSED, ZS_COMPOSED_F16},
    {"composed:q8_0", INFINITY, 0.04, 5, ZS_MODE_COMPOSED, ZS_COMPOSED_Q8_0},
    {"composed:q4_0", INFINITY, 0.66, 5, ZS_MODE_COMPOSED, ZS_COMPOSED_Q4_0},
};

typedef struct golden {
    const char *path;
    bounds limit;
    zs_device *device;
    zs_model *model;
    zs_engine *exact, *fast;
    uint32_t failures;
} golden;

static void check(golden *g, bool ok, const char *what) {
    printf("%s  %s\n", ok ? "ok    " : "FAILED", what);
    g->failures += !ok;
}

static void need(zs_status status, const zs_error *error) {
    if (!status) return;
    fprintf(stderr, "golden: %s\n", error->message);
    exit(1);
}

static json_t *read_json(const char *name) {
    char path[1024];
    json_error_t error;
    snprintf(path, sizeof path, "%s/golden/%s", TEST_DATA, name);
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!json) {
        fprintf(stderr, "golden: %s: %s\n", path, error.text);
        exit(1);
    }
    return json;
}

/// malloc'ed ids of a JSON array.
static uint32_t *read_ids(const json_t *array, size_t *count) {
    *count = json_array_size(array);
    uint32_t *ids = malloc((*count + 1) * sizeof *ids);
    for (size_t i = 0; i < *count; i++) ids[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return ids;
}

static bool same_ids(const json_t *array, const uint32_t *ids, size_t count) {
    size_t expected_count;
    uint32_t *expected = read_ids(array, &expected_count);
    bool same = expected_count == count && (count == 0 || memcmp(expected, ids, count * sizeof *ids) == 0);
    free(expected);
    return same;
}

// ---- token ids -----------------------------------------------------------------------------------------------------

static void check_tokens(golden *g) {
    json_t *cases = read_json("tokens.json");
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(g->model);
    uint32_t wrong = 0;
    size_t i;
    json_t *item;
    json_array_foreach(cases, i, item) {
        const json_t *text = json_object_get(item, "text");
        for (int special = 0; special < 2; special++) {
            uint32_t *ids = NULL;
            size_t count = 0;
            zs_error error;
            need(zs_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), special, &ids, &count, &error), &error);
            // Without special tokens, transformers still recognises them in the text here: "plain" equals "special" in the data.
            bool marked = strstr(json_string_value(text), "<|") != NULL;
            bool same = same_ids(json_object_get(item, special ? "special" : "plain"), ids, count);
            if (!same && !(marked && !special)) {
                wrong++;
                printf("        ids differ: %s\n", json_string_value(text));
            }
            free(ids);
        }
    }
    char what[80];
    snprintf(what, sizeof what, "token ids of %zu texts, control tokens read as such and as text", i);
    check(g, wrong == 0 && i > 0, what);
    json_decref(cases);
}

static void check_chat(golden *g, const json_t *item) {
    uint32_t *ids = NULL;
    size_t count = 0;
    zs_error error;
    zs_message message = {"user", json_string_value(json_object_get(item, "prompt"))};
    need(zs_tokenizer_encode_chat(zs_model_get_tokenizer(g->model), &message, 1, true, &ids, &count, &error), &error);
    check(g, same_ids(json_object_get(item, "prompt_ids"), ids, count), "ids of a prompt in the chat template");
    free(ids);
}

// ---- log-probabilities ---------------------------------------------------------------------------------------------

typedef struct difference {
    double max, sum;
    uint32_t count;
} difference;

static void add_difference(difference *d, double a, double b) {
    double delta = isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
    d->max = fmax(d->max, delta);
    d->sum += delta;
    d->count++;
}

/// All of a file's answers scored in one call.
static void score_answers(zs_engine *engine, const json_t *items, uint32_t expert, difference *difference_to_golden, float *flat,
                          size_t flat_size) {
    size_t count = json_array_size(items), used = 0;
    zs_score_item *scores = calloc(count, sizeof *scores);
    zs_error error;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(items, i);
        scores[i].expert = expert;
        scores[i].prefix = read_ids(json_object_get(item, "prompt_ids"), &scores[i].prefix_count);
        scores[i].continuation = read_ids(json_object_get(item, "answer_ids"), &scores[i].continuation_count);
        scores[i].logprobs = flat + used;
        used += scores[i].continuation_count;
        if (used > flat_size) abort();
    }
    need(zs_engine_score(engine, scores, count, NULL, 0, &error), &error);
    for (size_t i = 0; i < count; i++) {
        const json_t *expected = json_object_get(json_array_get(items, i), "answer_logprobs");
        for (size_t k = 0; k < scores[i].continuation_count; k++)
            add_difference(difference_to_golden, (double)scores[i].logprobs[k], json_real_value(json_array_get(expected, k)));
        free((void *)(uintptr_t)scores[i].prefix);
        free((void *)(uintptr_t)scores[i].continuation);
    }
    free(scores);
}

static void report_bounds(golden *g, const char *name, const difference *d, double max, double mean) {
    char what[200];
    snprintf(what, sizeof what, "%s: |Δ log-probability| max %.6f (≤ %g), mean %.6f (≤ %g) over %u tokens", name, d->max, max,
             d->sum / d->count, mean, d->count);
    check(g, d->count > 0 && d->max <= max && d->sum / d->count <= mean, what);
}

enum { FLAT = 4096 };

/// exact against the golden figures, fast against exact.
static void check_logprobs(golden *g, const json_t *items, const char *name, const char *expert_file) {
    static float exact[FLAT], fast[FLAT];
    uint32_t ids[2] = {0, 0};
    zs_engine *const engines[2] = {g->exact, g->fast};
    zs_error error;
    if (expert_file) {
        char path[1024];
        zs_expert *expert = NULL;
        snprintf(path, sizeof path, "%s/golden/%s", TEST_DATA, expert_file);
        need(zs_expert_load(path, &expert, &error), &error);
        for (int i = 0; i < 2; i++) need(zs_engine_attach_expert(engines[i], expert, false, &ids[i], &error), &error);
        zs_expert_destroy(&expert);
    }
    difference to_golden = {0}, unused = {0}, to_exact = {0};
    char label[100];
    score_answers(g->exact, items, ids[0], &to_golden, exact, FLAT);
    double times = expert_file ? g->limit.expert : 1;
    report_bounds(g, name, &to_golden, g->limit.max * times, g->limit.mean * times);
    score_answers(g->fast, items, ids[1], &unused, fast, FLAT);
    for (uint32_t i = 0; i < to_golden.count; i++) add_difference(&to_exact, (double)fast[i], (double)exact[i]);
    snprintf(label, sizeof label, "%s, fast against exact", name);
    report_bounds(g, label, &to_exact, 0.1, 0.01);
    for (int i = 0; i < 2; i++) zs_engine_detach_expert(engines[i], ids[i]);
}

/// Keys and values in 8 bits are held to what DESIGN.md §6 asks of factors in 8 bits.
static void check_kv_q8(golden *g, const json_t *items) {
    static float exact[FLAT], bytes[FLAT];
    zs_engine *engine = NULL;
    zs_error error;
    const zs_engine_params params = {.context = 512, .max_sessions = 2, .precision = ZS_PRECISION_EXACT, .kv = ZS_KV_Q8_0};
    need(zs_engine_create(g->model, &params, &engine, &error), &error);
    difference unused = {0}, to_exact = {0};
    score_answers(g->exact, items, 0, &unused, exact, FLAT);
    const uint32_t count = unused.count;
    score_answers(engine, items, 0, &unused, bytes, FLAT);
    for (uint32_t i = 0; i < count; i++) add_difference(&to_exact, (double)bytes[i], (double)exact[i]);
    report_bounds(g, "keys and values as q8_0 against f32", &to_exact, INFINITY, 0.06);
    check(g, to_exact.sum > 0, "keys and values as q8_0 show");
    zs_engine_destroy(&engine);
}

// ---- greedy text ---------------------------------------------------------------------------------------------------

/// At most `count` ids that the engine writes behind a prompt; how many.
static size_t generate(zs_engine *engine, const uint32_t *prompt, size_t prompt_count, size_t count, uint32_t *ids) {
    size_t total;
    zs_error error;
    zs_session *session = NULL;
    need(zs_session_create(engine, NULL, &session, &error), &error);
    need(zs_session_set_prompt(session, prompt, prompt_count, &error), &error);
    need(zs_session_generate(session, (uint32_t)count, &error), &error);
    need(zs_engine_run(engine, NULL, NULL, &error), &error);
    const uint32_t *tokens = zs_session_tokens(session, &total);
    memcpy(ids, tokens + prompt_count, (total - prompt_count) * sizeof *ids);
    zs_session_destroy(&session);
    return total - prompt_count;
}

/// Equal up to the first tie: where they part, the golden token must be as likely as ours within the bound.
static void check_greedy(golden *g, const json_t *item) {
    size_t prompt_count, golden_count, at = 0;
    uint32_t *prompt = read_ids(json_object_get(item, "prompt_ids"), &prompt_count), ids[256];
    uint32_t *expected = read_ids(json_object_get(item, "greedy_ids"), &golden_count);
    size_t count = generate(g->exact, prompt, prompt_count, golden_count, ids);
    while (at < count && at < golden_count && ids[at] == expected[at]) at++;
    double gap = 0;
    if (at < count && at < golden_count) {
        float logprobs[2];
        zs_error error;
        uint32_t *prefix = malloc((prompt_count + at) * sizeof *prefix);
        memcpy(prefix, prompt, prompt_count * sizeof *prefix);
        memcpy(prefix + prompt_count, ids, at * sizeof *prefix);
        const zs_score_item scores[2] = {{0, prefix, prompt_count + at, &ids[at], 1, &logprobs[0]},
                                         {0, prefix, prompt_count + at, &expected[at], 1, &logprobs[1]}};
        need(zs_engine_score(g->exact, scores, 2, NULL, 0, &error), &error);
        gap = fabs((double)logprobs[0] - (double)logprobs[1]);
        free(prefix);
    }
    char what[120];
    double bound = 2 * (isfinite(g->limit.max) ? g->limit.max : 0.5); // both tokens may be off
    snprintf(what, sizeof what, "greedy text: %zu of %zu tokens equal, then a gap of %.5f (≤ %g)", at, golden_count, gap, bound);
    check(g, gap <= bound && (gap > 0 || at == golden_count), what);
    free(prompt);
    free(expected);
}

/// The likeliest token at each position of a text behind its first prompt_count: what the engine writes by itself, begun anew behind each
/// token in which it differs.
static void likeliest(zs_engine *engine, const uint32_t *ids, size_t prompt_count, size_t count, uint32_t *tops) {
    for (size_t at = prompt_count; at < count;) {
        uint32_t *written = tops + (at - prompt_count);
        size_t same = 0, length = generate(engine, ids, at, count - at, written);
        if (length == 0) *written = UINT32_MAX;
        while (same < length && written[same] == ids[at + same]) same++;
        at += same < length || length == 0 ? same + 1 : length;
    }
}

/// fast and exact choose the same token, position by position along the golden greedy text.
static void check_top(golden *g, const json_t *items) {
    uint32_t same = 0, total = 0;
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        size_t prompt_count, answer_count;
        uint32_t *prompt = read_ids(json_object_get(item, "prompt_ids"), &prompt_count);
        uint32_t *answer = read_ids(json_object_get(item, "greedy_ids"), &answer_count),
                 *ids = malloc((prompt_count + answer_count) * sizeof *ids);
        uint32_t *exact = malloc((answer_count + 1) * sizeof *exact), *fast = malloc((answer_count + 1) * sizeof *fast);
        memcpy(ids, prompt, prompt_count * sizeof *ids);
        memcpy(ids + prompt_count, answer, answer_count * sizeof *ids);
        likeliest(g->exact, ids, prompt_count, prompt_count + answer_count, exact);
        likeliest(g->fast, ids, prompt_count, prompt_count + answer_count, fast);
        for (size_t k = 0; k < answer_count; k++) same += exact[k] == fast[k] && exact[k] != UINT32_MAX;
        total += (uint32_t)answer_count;
        free(prompt);
        free(answer);
        free(ids);
        free(exact);
        free(fast);
    }
    char what[100];
    snprintf(what, sizeof what, "fast and exact agree on the likeliest token at %u of %u positions (≥ 99 %%)", same, total);
    check(g, total > 0 && same >= 0.99 * total, what);
}

// ---- all of it -----------------------------------------------------------------------------------------------------

static void run(golden *g) {
    json_t *base = read_json("logprobs.json"), *experts = read_json("expert-logprobs.json");
    check_tokens(g);
    for (size_t i = 0; i < json_array_size(base); i++) check_chat(g, json_array_get(base, i));
    check_logprobs(g, base, "base", NULL);
    if (zs_model_get_info(g->model)->factored) {
        check_logprobs(g, json_object_get(experts, "all"), "random expert on all matrices", "expert-random-all.safetensors");
        check_logprobs(g, json_object_get(experts, "mlp"), "random expert on mlp matrices", "expert-random-mlp.safetensors");
    }
    if (!zs_model_get_info(g->model)->factored) check_kv_q8(g, base);
    for (size_t i = 0; i < json_array_size(base); i++) check_greedy(g, json_array_get(base, i));
    check_top(g, base);
    json_decref(base);
    json_decref(experts);
}

int main(int argc, char **argv) {
    golden g = {.path = argc > 1 ? argv[1] : NULL};
    for (size_t i = 0; argc == 3 && i < sizeof all_bounds / sizeof *all_bounds; i++) {
        if (strcmp(argv[2], all_bounds[i].type) == 0) g.limit = all_bounds[i];
    }
    if (!g.limit.type) {
        fprintf(stderr, "usage: golden MODEL.gguf dense|f32|f16|q8_0|composed:f16|composed:q8_0|composed:q4_0\n");
        return 2;
    }
    zs_error error;
    need(zs_device_create(&(zs_device_params){0}, &g.device, &error), &error);
    need(zs_model_load(g.device, g.path, NULL, &g.model, &error), &error);
    zs_engine_params params = {.context = 512,
                               .max_sessions = 2,
                               .max_experts = 2,
                               .precision = ZS_PRECISION_EXACT,
                               .mode = g.limit.mode,
                               .composed = g.limit.composed};
    need(zs_engine_create(g.model, &params, &g.exact, &error), &error);
    params.precision = ZS_PRECISION_FAST;
    need(zs_engine_create(g.model, &params, &g.fast, &error), &error);
    printf("%s on %s\n", g.limit.type, zs_device_get_info(g.device)->name);
    run(&g);
    zs_engine_destroy(&g.exact);
    zs_engine_destroy(&g.fast);
    zs_model_destroy(&g.model);
    zs_device_destroy(&g.device);
    printf("%u checks failed\n", g.failures);
    return g.failures != 0;
}
