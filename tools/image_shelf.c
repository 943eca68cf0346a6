#include "image_shelf.h"

#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static zs_status add(image_shelf *s, const char *path, zs_error *error) {
    if (s->count == s->capacity) {
        size_t more = s->capacity ? 2 * s->capacity : 64;
        shelved_image *grown = realloc(s->images, more * sizeof *grown);
        if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the images' names");
        s->images = grown;
        s->capacity = more;
    }
    char *copy = copy_text(path);
    if (!copy) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the images' names");
    s->images[s->count++] = (shelved_image){.path = copy};
    return ZS_OK;
}

zs_status image_shelf_add(image_shelf *s, const data_item *items, size_t count, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < count && !status; i++) {
        if (items[i].image) status = add(s, items[i].image, error);
    }
    return status;
}

static int compare(const void *a, const void *b) { return strcmp(((const shelved_image *)a)->path, ((const shelved_image *)b)->path); }

static void sort(image_shelf *s) {
    size_t kept = 0;
    if (s->count) qsort(s->images, s->count, sizeof *s->images, compare);
    for (size_t i = 0; i < s->count; i++) {
        if (i > 0 && strcmp(s->images[i].path, s->images[kept - 1].path) == 0)
            free(s->images[i].path);
        else
            s->images[kept++] = s->images[i];
    }
    s->count = kept;
}

static zs_status keep_problem(shelved_image *image, const zs_error *problem, zs_error *error) {
    image->problem = copy_text(problem->message);
    return image->problem ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the images");
}

static zs_status measure(shelved_image *image, const zs_model *model, zs_error *error) {
    zs_error problem;
    uint32_t width, height;
    zs_status status = zs_image_load(image->path, &image->image, &problem);
    if (!status) {
        zs_image_get_size(image->image, &width, &height);
        status = zs_model_count_image_tokens(model, width, height, &image->tokens, &problem);
    }
    zs_image_destroy(&image->image);
    return status ? keep_problem(image, &problem, error) : ZS_OK;
}

zs_status image_shelf_measure(image_shelf *s, const zs_model *model, const zs_progress *progress, zs_error *error) {
    zs_status status = ZS_OK;
    sort(s);
    for (size_t i = 0; i < s->count && !status; i++) {
        status = measure(&s->images[i], model, error);
        if (!status && !progress->report(progress->user, "images", (double)i + 1, (double)s->count))
            status = zs_error_set(error, ZS_ERROR_CANCELLED, "cancelled");
    }
    return status;
}

shelved_image *image_shelf_find(const image_shelf *s, const char *path) {
    const shelved_image key = {.path = (char *)(uintptr_t)path};
    return s->count ? bsearch(&key, s->images, s->count, sizeof key, compare) : NULL;
}

zs_status image_shelf_take(const image_shelf *s, const char *path, const zs_image **image, zs_error *error) {
    shelved_image *found = image_shelf_find(s, path);
    if (!found) return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s was not looked at", path);
    zs_status status = found->image ? ZS_OK : zs_image_load(path, &found->image, error);
    *image = found->image;
    return status;
}

void image_shelf_clear(image_shelf *s) {
    for (size_t i = 0; i < s->count; i++) zs_image_destroy(&s->images[i].image);
}

void image_shelf_free(image_shelf *s) {
    image_shelf_clear(s);
    for (size_t i = 0; i < s->count; i++) {
        free(s->images[i].path);
        free(s->images[i].problem);
    }
    free(s->images);
    *s = (image_shelf){0};
}
