#include "train_data.h"

#include "cli.h"

#include <stdlib.h>
#include <string.h>

zs_status train_data_read(const task_files *files, const task *under, train_data *data, zs_error *error) {
    *data = (train_data){.left_out = {.path = files->data}, .task = under};
    if (under) return task_read(under, files, left_out_tell, &data->left_out, &data->file, error);
    zs_status status = data_file_read(files->data, left_out_tell, &data->left_out, &data->file, error);
    return status ? status : task_place_images(files, &data->file, error);
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

/// Where a line becomes an item.
typedef struct encoding {
    train_data *data;
    const zs_model *model;
    const train_data_params *params;
    const uint32_t *end; // token that ends answers; NULL: none
} encoding;

/// Why a line cannot be used, as far as that is known before its text is looked at; NULL: it can.
static const char *find_problem(const encoding *e, const data_item *line) {
    const train_data *data = e->data;
    if (!line->image) return NULL;
    if (!zs_model_get_info(e->model)->images) return "it is about an image, and the model has no image tower";
    return data->images ? image_shelf_find(&data->shelf, line->image)->problem : "it is about an image";
}

static zs_status encode_question(const encoding *e, const data_item *line, zs_train_item *item, zs_error *error) {
    return zs_dispatch_encode(e->model, e->data->categories, line->messages[line->message_count - 1].content, line->image != NULL,
                              line->category ? line->category : line->answer, item, error);
}

static zs_status encode_image(const encoding *e, const data_item *line, zs_train_item *item, zs_error *error) {
    const zs_image **images = malloc(sizeof(*images));
    if (!images) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    item->images = images;
    item->image_count = 1;
    return image_shelf_take(&e->data->shelf, line->image, images, error);
}

/// *longest: tokens of the prompt, those of its image too.
static zs_status encode_line(const encoding *e, const data_item *line, zs_train_item *item, size_t *longest, zs_error *error) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(e->model);
    uint32_t *prompt = NULL, *answer = NULL;
    zs_status status = e->data->categories ? encode_question(e, line, item, error)
                                           : zs_model_encode_chat(e->model, line->messages, line->message_count, line->image != NULL,
                                                                  &prompt, &item->prompt_count, error);
    if (prompt) item->prompt = prompt;
    *longest = item->prompt_count;
    if (!status && line->image) status = encode_image(e, line, item, error);
    if (line->image) *longest += image_shelf_find(&e->data->shelf, line->image)->tokens - 1;
    if (status || e->data->task || e->data->categories) return status;
    status = zs_tokenizer_encode(tokenizer, line->answer, strlen(line->answer), false, &answer, &item->answer_count, error);
    if (!status && e->end) status = append(&answer, &item->answer_count, *e->end, error);
    item->answer = answer;
    return status;
}

static void free_item(const zs_train_item *item) {
    free((void *)(uintptr_t)item->prompt);
    free((void *)(uintptr_t)item->answer);
    free((void *)(uintptr_t)item->images);
}

/// Ids of a line; false after it was left out.
static bool encode(const encoding *e, const data_item *line, zs_train_item *item) {
    train_data *data = e->data;
    const char *problem = find_problem(e, line);
    if (problem) {
        left_out_tell(&data->left_out, line->line, problem);
        return false;
    }
    zs_error error;
    char reason[128];
    size_t prompt = 0, context = e->params->context, room = data->task ? e->params->room : 0;
    zs_status status = encode_line(e, line, item, &prompt, &error);
    if (!status && prompt + item->answer_count + room <= context) {
        if (prompt > data->longest) data->longest = prompt;
        return true;
    }
    snprintf(reason, sizeof reason, "prompt and answer have %zu tokens, and the context holds %zu", prompt + item->answer_count,
             context > room ? context - room : 0);
    free_item(item);
    *item = (zs_train_item){0};
    left_out_tell(&data->left_out, line->line, status ? error.message : reason);
    return false;
}

static zs_status look_at_images(train_data *data, const zs_model *model, const zs_progress *progress, zs_error *error) {
    zs_status status = image_shelf_add(&data->shelf, data->file.items, data->file.count, error);
    return status ? status : image_shelf_measure(&data->shelf, model, progress, error);
}

zs_status train_data_encode(train_data *data, const zs_model *model, const train_data_params *params, zs_error *error) {
    uint32_t end = 0;
    bool ends = params->end_token && find_end_token(zs_model_get_tokenizer(model), &end);
    const encoding e = {data, model, params, ends ? &end : NULL};
    data->items = calloc(data->file.count + 1, sizeof *data->items);
    data->lines = calloc(data->file.count + 1, sizeof *data->lines);
    data->pictures = calloc(data->file.count + 1, sizeof(*data->pictures));
    if (!data->items || !data->lines || !data->pictures) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    zs_status status = data->images ? look_at_images(data, model, &params->progress, error) : ZS_OK;
    if (status) return status;
    for (size_t i = 0; i < data->file.count; i++) {
        if (!encode(&e, &data->file.items[i], &data->items[data->count])) continue;
        data->pictures[data->count] = data->file.items[i].image;
        data->lines[data->count++] = i;
    }
    left_out_sum_up(&data->left_out);
    if (data->count) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT,
                        "%s has no line that can be used: {\"prompt\": …, \"answer\": …} is expected, one object a line",
                        data->left_out.path);
}

zs_status train_data_split(train_data *data, uint32_t seed, train_data *valid, zs_error *error) {
    *valid = (train_data){.left_out = {.path = data->left_out.path}};
    valid->items = calloc(data->count + 1, sizeof *valid->items);
    valid->lines = calloc(data->count + 1, sizeof *valid->lines);
    valid->pictures = calloc(data->count + 1, sizeof(*valid->pictures));
    if (!valid->items || !valid->lines || !valid->pictures) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the data");
    uint64_t state = seed;
    size_t wanted = data->count / 5;
    for (; valid->count < wanted; valid->count++) {
        state = state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator; its high bits
        size_t drawn = (size_t)((state >> 33) % data->count--);
        valid->items[valid->count] = data->items[drawn];
        valid->lines[valid->count] = data->lines[drawn];
        valid->pictures[valid->count] = data->pictures[drawn];
        data->items[drawn] = data->items[data->count];
        data->lines[drawn] = data->lines[data->count];
        data->pictures[drawn] = data->pictures[data->count];
    }
    if (wanted) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s has %zu lines that can be used, too few to keep a fifth for validation: give --valid",
                        data->left_out.path, data->count);
}

void train_data_free(train_data *data) {
    for (size_t i = 0; i < data->count; i++) free_item(&data->items[i]);
    free(data->items);
    free(data->lines);
    free(data->pictures);
    image_shelf_free(&data->shelf);
    data_file_free(&data->file);
    *data = (train_data){0};
}

// ---- overlap -------------------------------------------------------------------------------------------------------

typedef struct asked {
    const zs_train_item *item;
    const char *image; // NULL: none
} asked;

static int compare_asked(const void *a, const void *b) {
    const asked *x = a, *y = b;
    if (x->item->prompt_count != y->item->prompt_count) return x->item->prompt_count < y->item->prompt_count ? -1 : 1;
    int order = memcmp(x->item->prompt, y->item->prompt, x->item->prompt_count * sizeof *x->item->prompt);
    if (order || (!x->image && !y->image)) return order;
    return x->image && y->image ? strcmp(x->image, y->image) : (x->image != NULL) - (y->image != NULL);
}

static asked asked_of(const train_data *data, size_t i) { return (asked){&data->items[i], data->pictures[i]}; }

size_t train_data_overlap(const train_data *data, const train_data *other) {
    asked *sorted = malloc((other->count + 1) * sizeof *sorted);
    size_t both = 0;
    if (!sorted) return 0;
    for (size_t i = 0; i < other->count; i++) sorted[i] = asked_of(other, i);
    qsort(sorted, other->count, sizeof *sorted, compare_asked);
    for (size_t i = 0; i < data->count; i++) {
        const asked key = asked_of(data, i);
        both += bsearch(&key, sorted, other->count, sizeof *sorted, compare_asked) != NULL;
    }
    free(sorted);
    return both;
}
