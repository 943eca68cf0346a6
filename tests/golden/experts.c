/// The starter experts' validation accuracy: 280 questions, each under the base weights and under its expert, eight of
/// both kinds in one engine at once. Greedy, 10 new tokens, chat template with the default system message.
///
///     golden_experts MODEL.gguf EXPERTS-FOLDER [EVERY]
///
/// MODEL is factored. EVERY n asks only each n-th question and prints without judging. Fails when a figure is more than
/// two questions off what PyTorch measured (assets/README.md).
#include "zsigma/zsigma.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 8, NEW_TOKENS = 10, TOLERANCE = 2, TEXT = 512 };

typedef struct task {
    const char *name;
    uint32_t base, expert; // right answers expected
} task;

static const task tasks[] = {{"math", 6, 62}, {"code", 0, 87}, {"reasoning", 8, 73}};

static void need(zs_status status, const zs_error *error) {
    if (!status) return;
    fprintf(stderr, "golden_experts: %s\n", error->message);
    exit(1);
}

// ---- the scorer ----------------------------------------------------------------------------------------------------

/// The last whole number in the text, thousands' commas left out; empty when there is none.
static void last_number(const char *text, char *number) {
    char plain[TEXT];
    size_t size = 0;
    for (; *text; text++) {
        if (*text != ',') plain[size++] = *text;
    }
    plain[size] = 0;
    number[0] = 0;
    for (size_t i = 0; i < size;) {
        size_t digits = i + (plain[i] == '-'), end = digits;
        while (isdigit((unsigned char)plain[end])) end++;
        if (end > digits) snprintf(number, TEXT, "%.*s", (int)(end - i), plain + i);
        i = end > digits ? end : i + 1;
    }
}

/// Without spaces at the ends, then without quotes and full stops there; lower case; one space for each run of them.
static void normalise(const char *text, char *out) {
    static const char quotes[] = "`'\".";
    size_t size = strlen(text), used = 0;
    while (size && isspace((unsigned char)*text)) text++, size--;
    while (size && isspace((unsigned char)text[size - 1])) size--;
    while (size && strchr(quotes, *text)) text++, size--;
    while (size && strchr(quotes, text[size - 1])) size--;
    for (size_t i = 0; i < size; i++) {
        bool space = isspace((unsigned char)text[i]);
        if (space && used && out[used - 1] == ' ') continue;
        out[used++] = space ? ' ' : (char)tolower((unsigned char)text[i]);
    }
    out[used] = 0;
}

static bool is_right(const char *task_name, const char *text, const char *answer) {
    char given[TEXT], expected[TEXT];
    if (strcmp(task_name, "math") == 0) {
        last_number(text, given);
        return strcmp(given, answer) == 0;
    }
    normalise(text, given);
    normalise(answer, expected);
    return strcmp(given, expected) == 0;
}

// ---- asking --------------------------------------------------------------------------------------------------------

static json_t *read_items(const char *name) {
    char path[1024], line[8192];
    snprintf(path, sizeof path, "%s/golden/experts/%s-valid.jsonl", TEST_DATA, name);
    FILE *file = fopen(path, "r");
    json_t *items = json_array();
    while (file && fgets(line, sizeof line, file)) {
        json_t *item = json_loads(line, 0, NULL);
        if (!item || json_array_append_new(items, item)) {
            fprintf(stderr, "golden_experts: %s: a line is not JSON\n", path);
            exit(1);
        }
    }
    if (!file || json_array_size(items) == 0) {
        fprintf(stderr, "golden_experts: cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    return items;
}

static zs_session *start(zs_engine *engine, const json_t *item, uint32_t expert) {
    zs_error error;
    zs_session *session = NULL;
    uint32_t *ids = NULL;
    size_t count = 0;
    const zs_message message = {"user", json_string_value(json_object_get(item, "prompt"))};
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(zs_engine_get_model(engine));
    need(zs_tokenizer_encode_chat(tokenizer, &message, 1, true, &ids, &count, &error), &error);
    need(zs_session_create(engine, &(zs_session_params){.expert = expert}, &session, &error), &error);
    need(zs_session_set_prompt(session, ids, count, &error), &error);
    need(zs_session_generate(session, NEW_TOKENS, &error), &error);
    free(ids);
    return session;
}

static void answer_text(const zs_tokenizer *tokenizer, const zs_session *session, char *text) {
    size_t count, used = 0;
    const uint32_t *tokens = zs_session_tokens(session, &count);
    for (size_t i = zs_session_prompt_count(session); i < count; i++) {
        const char *bytes = NULL;
        size_t size = zs_tokenizer_token_bytes(tokenizer, tokens[i], false, &bytes);
        if (size == 0 || used + size >= TEXT) continue;
        memcpy(text + used, bytes, size);
        used += size;
    }
    text[used] = 0;
}

/// Up to BATCH items at once, under the base weights and under the expert; counts the right answers of both.
static void ask_batch(zs_engine *engine, const char *name, const json_t *const *items, size_t count, uint32_t expert, uint32_t *right) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(zs_engine_get_model(engine));
    zs_session *sessions[2 * BATCH];
    zs_error error;
    for (size_t i = 0; i < 2 * count; i++) sessions[i] = start(engine, items[i / 2], i % 2 ? expert : 0);
    need(zs_engine_run(engine, NULL, NULL, &error), &error);
    for (size_t i = 0; i < 2 * count; i++) {
        char text[TEXT];
        answer_text(tokenizer, sessions[i], text);
        right[i % 2] += is_right(name, text, json_string_value(json_object_get(items[i / 2], "answer")));
        zs_session_destroy(&sessions[i]);
    }
}

static bool is_near(uint32_t a, uint32_t b) { return (a > b ? a - b : b - a) <= TOLERANCE; }

static bool run_task(zs_engine *engine, const zs_expert_set *experts, const task *t, size_t every) {
    zs_error error;
    uint32_t id, right[2] = {0};
    const zs_expert *expert = zs_expert_set_find(experts, t->name);
    if (!expert) need(zs_error_set(&error, ZS_ERROR_ARGUMENT, "there is no expert %s in the folder", t->name), &error);
    need(zs_engine_attach_expert(engine, expert, false, &id, &error), &error);
    json_t *items = read_items(t->name);
    const json_t *batch[BATCH];
    size_t asked = 0, waiting = 0, size = json_array_size(items);
    for (size_t i = 0; i < size; i += every) {
        batch[waiting++] = json_array_get(items, i);
        asked++;
        if (waiting < BATCH && i + every < size) continue;
        ask_batch(engine, t->name, batch, waiting, id, right);
        waiting = 0;
    }
    json_decref(items);
    zs_engine_detach_expert(engine, id);
    bool ok = every > 1 || (is_near(right[0], t->base) && is_near(right[1], t->expert));
    printf("%s  %-10s base %2u of %zu (%.1f %%), expert %2u (%.1f %%)", ok ? "ok    " : "FAILED", t->name, right[0], asked,
           100.0 * right[0] / (double)asked, right[1], 100.0 * right[1] / (double)asked);
    if (every == 1) printf("; expected %u and %u, within %d", t->base, t->expert, TOLERANCE);
    printf("\n");
    fflush(stdout);
    return ok;
}

int main(int argc, char **argv) {
    long every = argc == 4 ? atol(argv[3]) : 1;
    if (argc < 3 || argc > 4 || every < 1) {
        fprintf(stderr, "usage: golden_experts MODEL.gguf EXPERTS-FOLDER [EVERY]\n");
        return 2;
    }
    zs_error error;
    zs_device *device = NULL;
    zs_model *model = NULL;
    zs_engine *engine = NULL;
    zs_expert_set *experts = NULL;
    need(zs_expert_set_load(argv[2], &experts, &error), &error);
    need(zs_device_create(&(zs_device_params){0}, &device, &error), &error);
    need(zs_model_load(device, argv[1], NULL, &model, &error), &error);
    const zs_engine_params params = {.context = 512, .max_sessions = 2 * BATCH, .kv_tokens = 2 * BATCH * 512, .max_experts = 1};
    need(zs_engine_create(model, &params, &engine, &error), &error);
    printf("%s\n", zs_device_get_info(device)->name);
    bool ok = true;
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) ok = run_task(engine, experts, &tasks[i], (size_t)every) && ok;
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    zs_expert_set_destroy(&experts);
    return !ok;
}
