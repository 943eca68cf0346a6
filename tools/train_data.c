#include "train_data.h"

#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_COMPLAINTS = 20 }; // told one by one; all are counted

static void leave_out(void *user, uint32_t line, const char *reason) {
    train_data *data = user;
    if (data->left_out++ < MOST_COMPLAINTS) cli_error("%s, line %u is left out: %s", data->path, line, reason);
}

zs_status train_data_read(const char *path, const task *under, train_data *data, zs_error *error) {
    *data = (train_data){.path = path, .task = under};
    if (under) return task_read(under, &(task_files){.data = path}, leave_out, data, &data->file, error);
    return data_file_read(path, leave_out, data, &data->file, error);
}

/// The token that ends an answer in the model's chat template; false when it has none.
static bool find_end_token(const zs_tokenizer *tokenizer, uint32_t *end) {
    const zs_message turn[] = {{"user", "a"}, {"assistant", "a"}};
    uint32_t *ids = NULL;
    size_t count = 0;
    if (zs_tokenizer_encode_chat(tokenizer, turn, 2, false, &ids, &count, NULL)) count = 0;
    while (count > 0 && !zs_tokenizer_is_end(tokenizer, ids[count - 1])) count--;
    if (count > 0) *end = ids[count - 1];
    free(ids);
    return count > 0;
}

static zs_status append(uint32_t **ids, size_t *count, uint32_t id, zs_error *error) {
    uint32_t *longer = realloc(*ids, (*count + 1) * sizeof **ids);
    if (!longer) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    longer[(*count)++] = id;
    *ids = longer;
    return ZS_OK;
}

/// Ids of a line; false after it was left out.
static bool encode(train_data *data, const data_item *line, const zs_tokenizer *tokenizer, uint32_t context, const uint32_t *end,
                   zs_train_item *item) {
    if (line->image || (!data->task && !line->answer)) {
        leave_out(data, line->line, line->image ? "it is about an image" : "it has no answer");
        return false;
    }
    uint32_t *prompt = NULL, *answer = NULL;
    size_t prompt_count = 0, answer_count = 0;
    zs_error error;
    char reason[128];
    zs_status status;
    if (data->categories) {
        zs_train_item question = {0};
        status = zs_dispatch_encode(tokenizer, data->categories, line->messages[line->message_count - 1].content,
                                    line->category ? line->category : line->answer, &question, &error);
        prompt = (uint32_t *)(uintptr_t)question.prompt;
        answer = (uint32_t *)(uintptr_t)question.answer;
        prompt_count = question.prompt_count;
        answer_count = question.answer_count;
    } else {
        status = zs_tokenizer_encode_chat(tokenizer, line->messages, line->message_count, true, &prompt, &prompt_count, &error);
    }
    bool as_it_is = !data->task && !data->categories;
    if (!status && as_it_is)
        status = zs_tokenizer_encode(tokenizer, line->answer, strlen(line->answer), false, &answer, &answer_count, &error);
    if (!status && end && as_it_is) status = append(&answer, &answer_count, *end, &error);
    if (!status && prompt_count + answer_count <= context) {
        *item = (zs_train_item){prompt, prompt_count, answer, answer_count};
        return true;
    }
    free(prompt);
    free(answer);
    snprintf(reason, sizeof reason, "prompt and answer have %zu tokens, and the context holds %u", prompt_count + answer_count, context);
    leave_out(data, line->line, status ? error.message : reason);
    return false;
}

zs_status train_data_encode(train_data *data, const zs_model *model, uint32_t context, uint32_t room, bool end_token, zs_error *error) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(model);
    uint32_t end = 0;
    bool ends = end_token && find_end_token(tokenizer, &end);
    data->items = calloc(data->file.count + 1, sizeof *data->items);
    data->lines = calloc(data->file.count + 1, sizeof *data->lines);
    if (!data->items || !data->lines) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    for (size_t i = 0; i < data->file.count; i++) {
        if (!encode(data, &data->file.items[i], tokenizer, data->task ? (context > room ? context - room : 0) : context, ends ? &end : NULL,
                    &data->items[data->count]))
            continue;
        data->lines[data->count++] = i;
    }
    if (data->left_out > MOST_COMPLAINTS) cli_error("%s: %u lines are left out in all", data->path, data->left_out);
    if (data->count) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT,
                        "%s has no line that can be used: {\"prompt\": …, \"answer\": …} is expected, one object a line", data->path);
}

zs_status train_data_split(train_data *data, uint32_t seed, train_data *valid, zs_error *error) {
    *valid = (train_data){.path = data->path, .count = 0};
    valid->items = calloc(data->count + 1, sizeof *valid->items);
    valid->lines = calloc(data->count + 1, sizeof *valid->lines);
    if (!valid->items || !valid->lines) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    uint64_t state = seed;
    size_t wanted = data->count / 5;
    for (; valid->count < wanted; valid->count++) {
        state = state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator; its high bits
        size_t drawn = (size_t)((state >> 33) % data->count--);
        valid->items[valid->count] = data->items[drawn];
        valid->lines[valid->count] = data->lines[drawn];
        data->items[drawn] = data->items[data->count];
        data->lines[drawn] = data->lines[data->count];
    }
    if (wanted) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s has %zu lines that can be used, too few to keep a fifth for validation: give --valid",
                        data->path, data->count);
}

void train_data_free(train_data *data) {
    for (size_t i = 0; i < data->count; i++) {
        free((void *)(uintptr_t)data->items[i].prompt);
        free((void *)(uintptr_t)data->items[i].answer);
    }
    free(data->items);
    free(data->lines);
    data_file_free(&data->file);
    *data = (train_data){0};
}

// ---- overlap -------------------------------------------------------------------------------------------------------

static int compare_prompts(const void *a, const void *b) {
    const zs_train_item *x = a, *y = b;
    if (x->prompt_count != y->prompt_count) return x->prompt_count < y->prompt_count ? -1 : 1;
    return memcmp(x->prompt, y->prompt, x->prompt_count * sizeof *x->prompt);
}

size_t train_data_overlap(const train_data *data, const train_data *other) {
    zs_train_item *sorted = malloc((other->count + 1) * sizeof *sorted);
    size_t both = 0;
    if (!sorted) return 0;
    memcpy(sorted, other->items, other->count * sizeof *sorted);
    qsort(sorted, other->count, sizeof *sorted, compare_prompts);
    for (size_t i = 0; i < data->count; i++)
        both += bsearch(&data->items[i], sorted, other->count, sizeof *sorted, compare_prompts) != NULL;
    free(sorted);
    return both;
}
