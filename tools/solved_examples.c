#include "solved_examples.h"

#include <stdlib.h>
#include <string.h>

/// What is being made.
typedef struct making {
    const data_file *file;
    const solved_params *params;
    const cli_common *common;
    const zs_model *model;
    solved_examples *made;
} making;

static zs_status look_at_images(const making *m, zs_error *error) {
    const zs_progress progress = cli_progress(m->common);
    image_shelf *shelf = &m->made->shelf;
    for (size_t i = 0; i < m->file->count && !zs_model_get_info(m->model)->images; i++) {
        if (m->file->items[i].image)
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s, line %u is about an image, and this model has no image tower (--mmproj)",
                                m->params->path, m->file->items[i].line);
    }
    zs_status status = image_shelf_add(shelf, m->file->items, m->file->count, error);
    if (!status) status = image_shelf_measure(shelf, m->model, &progress, error);
    for (size_t i = 0; i < m->file->count && !status; i++) {
        const data_item *item = &m->file->items[i];
        const char *problem = item->image ? image_shelf_find(shelf, item->image)->problem : NULL;
        if (problem) status = zs_error_set(error, ZS_ERROR_FORMAT, "%s, line %u: %s", m->params->path, item->line, problem);
    }
    return status;
}

/// The example's image, for its question and for its rows.
static zs_status take_image(const making *m, const char *path, solved_example *to, zs_error *error) {
    zs_status status = image_shelf_take(&m->made->shelf, path, &to->image, error);
    to->question.question.images = &to->image;
    to->rows += image_shelf_find(&m->made->shelf, path)->tokens - 1; // the mark has its place already
    return status;
}

/// The conversation up to the answer, as the engine is asked it.
static zs_status encode_prompt(const making *m, solved_example *to, bool image, zs_error *error) {
    const shot_question *q = &to->question;
    zs_message *messages = malloc((q->count + 1) * sizeof *messages);
    if (!messages) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the examples");
    const size_t system = m->params->system != NULL;
    messages[0] = (zs_message){"system", m->params->system};
    memcpy(messages + system, q->messages, q->count * sizeof *messages);
    zs_status status = zs_model_encode_chat(m->model, messages, q->count + system, image, &to->prompt, &to->prompt_count, error);
    free(messages);
    return status;
}

static zs_status encode(const making *m, const data_item *item, solved_example *to, zs_error *error) {
    const zs_tokenizer *tokenizer = zs_model_get_tokenizer(m->model);
    const shots around = {.instruction = m->params->instruction, .images = true};
    zs_status status = shots_apply(&around, item, m->params->system != NULL, &to->question, error);
    if (!status) status = encode_prompt(m, to, item->image != NULL, error);
    to->rows = to->prompt_count;
    if (!status && item->image) status = take_image(m, item->image, to, error);
    if (!status) status = zs_tokenizer_encode(tokenizer, item->answer, strlen(item->answer), false, &to->answer, &to->answer_count, error);
    return status;
}

zs_status solved_examples_make(const data_file *file, const solved_params *params, const cli_common *common, const zs_model *model,
                               solved_examples *made, zs_error *error) {
    const making m = {file, params, common, model, made};
    const uint32_t context = cli_context(common, model);
    *made = (solved_examples){.count = file->count};
    made->items = calloc(file->count, sizeof *made->items);
    if (!made->items) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the examples");
    zs_status status = look_at_images(&m, error);
    for (size_t i = 0; i < file->count && !status; i++) {
        solved_example *e = &made->items[i];
        status = encode(&m, &file->items[i], e, error);
        if (status) break;
        const size_t length = e->rows + (e->answer_count > params->max_tokens ? e->answer_count : params->max_tokens);
        made->rows += e->rows;
        made->longest = length > made->longest ? length : made->longest;
        if (length > context)
            status = zs_error_set(error, ZS_ERROR_CONTEXT, "%s, line %u: question and answer have %zu tokens, and the context holds %u",
                                  params->path, file->items[i].line, length, context);
    }
    return status;
}

void solved_examples_free(solved_examples *examples) {
    for (size_t i = 0; examples->items && i < examples->count; i++) {
        shots_free(&examples->items[i].question);
        free(examples->items[i].prompt);
        free(examples->items[i].answer);
    }
    free(examples->items);
    image_shelf_free(&examples->shelf);
    *examples = (solved_examples){0};
}

zs_status solved_example_prompt(const solved_example *example, zs_engine *engine, uint32_t expert, uint32_t **ids, size_t *count,
                                zs_error *error) {
    const zs_prompt prompt = {.ids = example->prompt,
                              .id_count = example->prompt_count,
                              .images = &example->image,
                              .image_count = example->image != NULL,
                              .expert = expert};
    return zs_engine_encode_prompt(engine, &prompt, ids, count, error);
}
