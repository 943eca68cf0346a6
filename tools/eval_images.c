/// The images that an evaluation's questions are about.
#include "eval.h"

#include <stdlib.h>
#include <string.h>

enum { SEAM_TOKENS = 2 }; // at most, between an image and what is behind

static zs_status check_shots(const evaluation *e, zs_error *error) {
    for (size_t i = 0; i < e->around.count; i++) {
        const data_item *item = &e->around.items[i];
        const shelved_image *image = item->image ? image_shelf_find(&e->shelf, item->image) : NULL;
        if (image && image->problem)
            return zs_error_set(error, ZS_ERROR_FORMAT, "%s, line %u: %s", e->shots_path, item->line, image->problem);
    }
    return ZS_OK;
}

zs_status eval_images_open(evaluation *e, zs_error *error) {
    size_t count = 0;
    for (size_t i = 0; i < e->file.count; i++) count += e->file.items[i].image != NULL;
    if (!count || e->blind) return ZS_OK;
    if (!zs_model_get_info(e->asking.stack.model)->images)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%zu questions of %s are about images, and this model has no eyes (no vision tower); --blind asks them without",
                            count, e->data);
    e->around.images = true;
    const zs_progress progress = cli_progress(e->common);
    zs_status status = image_shelf_add(&e->shelf, e->file.items, e->file.count, error);
    if (!status) status = image_shelf_add(&e->shelf, e->around.items, e->around.count, error);
    if (!status) status = image_shelf_measure(&e->shelf, e->asking.stack.model, &progress, error);
    return status ? status : check_shots(e, error);
}

const char *eval_images_count(const evaluation *e, const shot_question *question, size_t *tokens) {
    for (size_t i = 0; i < question->question.image_count; i++) {
        const shelved_image *image = image_shelf_find(&e->shelf, question->image_paths[i]);
        if (image->problem) return image->problem;
        *tokens += image->tokens + SEAM_TOKENS;
    }
    return NULL;
}

// ---- asking --------------------------------------------------------------------------------------------------------

typedef struct asked {
    const char *image;
    size_t place;
} asked;

static int compare(const void *a, const void *b) {
    const asked *x = a, *y = b;
    int order = x->image && y->image ? strcmp(x->image, y->image) : (x->image != NULL) - (y->image != NULL);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

zs_status eval_images_order(evaluation *e, zs_error *error) {
    asked *list = malloc((e->file.count + 1) * sizeof *list);
    e->order = malloc((e->file.count + 1) * sizeof *e->order);
    if (!list || !e->order) {
        free(list);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the questions");
    }
    for (size_t i = 0; i < e->file.count; i++) list[i] = (asked){e->around.images ? e->file.items[i].image : NULL, i};
    qsort(list, e->file.count, sizeof *list, compare);
    for (size_t i = 0; i < e->file.count; i++) e->order[i] = list[i].place;
    free(list);
    return ZS_OK;
}

zs_status eval_images_take(const evaluation *e, const size_t *places, zs_question *questions, size_t count, const zs_image ***images,
                           zs_error *error) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += questions[i].image_count;
    const zs_image **next = *images = malloc((total + 1) * sizeof *next);
    if (!next) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the images");
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count; i++) {
        questions[i].images = next;
        for (size_t k = 0; k < questions[i].image_count && !status; k++)
            status = image_shelf_take(&e->shelf, e->questions[places[i]].image_paths[k], next++, error);
    }
    return status;
}
