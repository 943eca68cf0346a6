#include "train/checkpoint.h"

#include "loader/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNTERS = 7, ARRAYS = 4, FIXED = 2 };

static const char format[] = "zsigma-checkpoint", version[] = "1", prefix[] = "setting ";

// ---- settings ------------------------------------------------------------------------------------------------------

void setting_add_text(setting_list *list, const char *name, const char *value) {
    if (list->count == SETTINGS_MAX) return;
    setting *s = &list->items[list->count++];
    s->name = name;
    snprintf(s->value, sizeof s->value, "%s", value);
}

void setting_add(setting_list *list, const char *name, double value) {
    char text[NUMBER_BYTES];
    number_write(value, text);
    setting_add_text(list, name, text);
}

void setting_add_bits(setting_list *list, const char *name, uint64_t value) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    setting_add_text(list, name, text);
}

static zs_status check_settings(const safetensors_file *file, const char *path, const setting_list *settings, zs_error *error) {
    for (size_t i = 0; i < settings->count; i++) {
        const setting *s = &settings->items[i];
        char key[sizeof prefix + 64];
        snprintf(key, sizeof key, "%s%s", prefix, s->name);
        const char *value = safetensors_find_meta(file, key);
        if (value && strcmp(value, s->value) == 0) continue;
        return zs_error_set(
            error, ZS_ERROR_MISMATCH,
            "%s is of a training with another setting: %s was %.80s and is %s now: give it again to go on, or remove the file to "
            "begin anew",
            path, s->name, value ? value : "not set", s->value);
    }
    return ZS_OK;
}

// ---- what there is -------------------------------------------------------------------------------------------------

typedef struct counter {
    const char *name;
    double value;
} counter;

static void list_counters(const checkpoint *c, counter counters[COUNTERS]) {
    const counter list[COUNTERS] = {
        {"step", c->step},
        {"best_step", c->best_step},
        {"worse", c->worse},
        {"evaluated", c->evaluated},
        {"tokens", (double)c->tokens},
        {"first_valid", c->first_valid},
        {"best_valid", c->best_valid},
    };
    memcpy(counters, list, sizeof list);
}

static void list_arrays(const checkpoint *c, safetensors_entry entries[ARRAYS]) {
    static const char *const names[ARRAYS] = {"values", "best", "mean", "square"};
    const float *const data[ARRAYS] = {c->values, c->best, c->mean, c->square};
    for (int i = 0; i < ARRAYS; i++) entries[i] = (safetensors_entry){.name = names[i], .dims = 1, .shape = {c->count}, .data = data[i]};
}

// ---- writing -------------------------------------------------------------------------------------------------------

zs_status checkpoint_save(const char *path, const checkpoint *c, const setting_list *settings, zs_error *error) {
    safetensors_entry entries[ARRAYS];
    counter counters[COUNTERS];
    char numbers[COUNTERS][NUMBER_BYTES], keys[SETTINGS_MAX][sizeof prefix + 64];
    safetensors_meta meta[FIXED + COUNTERS + SETTINGS_MAX] = {{(char[]){"format"}, (char *)(uintptr_t)format},
                                                              {(char[]){"version"}, (char *)(uintptr_t)version}};
    size_t count = FIXED;
    list_arrays(c, entries);
    list_counters(c, counters);
    for (int i = 0; i < COUNTERS; i++) {
        number_write(counters[i].value, numbers[i]);
        meta[count++] = (safetensors_meta){(char *)(uintptr_t)counters[i].name, numbers[i]};
    }
    for (size_t i = 0; i < settings->count; i++) {
        snprintf(keys[i], sizeof keys[i], "%s%s", prefix, settings->items[i].name);
        meta[count++] = (safetensors_meta){keys[i], (char *)(uintptr_t)settings->items[i].value};
    }
    return safetensors_save(path, true, entries, ARRAYS, meta, count, error);
}

// ---- reading -------------------------------------------------------------------------------------------------------

static zs_status damaged(const char *path, const char *what, const char *name, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s is damaged: %s %s: remove it to begin the training anew", path, what, name);
}

static zs_status read_array(const safetensors_file *file, const char *path, const char *name, float *to, size_t count, zs_error *error) {
    const safetensors_tensor *tensor = safetensors_find(file, name);
    if (!tensor || tensor->type != TENSOR_F32 || tensor->elements != count) return damaged(path, "there is no right tensor", name, error);
    memcpy(to, tensor->data, count * sizeof *to);
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(to[i])) return damaged(path, "a number is none in", name, error);
    }
    return ZS_OK;
}

/// A counter is a whole number up to `most`; a score is any.
static zs_status read_number(const safetensors_file *file, const char *path, const char *name, double most, double *to, zs_error *error) {
    const char *text = safetensors_find_meta(file, name);
    bool good = text && number_read(text, to) && isfinite(*to);
    if (good && most > 0) good = *to >= 0 && *to <= most && *to == floor(*to);
    return good ? ZS_OK : damaged(path, "there is no right", name, error);
}

static zs_status read_counters(const safetensors_file *file, const char *path, checkpoint *c, zs_error *error) {
    counter counters[COUNTERS];
    zs_status status = ZS_OK;
    list_counters(c, counters);
    for (int i = 0; i < COUNTERS && !status; i++) {
        bool score = i >= 5;
        double most = i == 4 ? 9e15 : UINT32_MAX;
        status = read_number(file, path, counters[i].name, score ? 0 : most, &counters[i].value, error);
    }
    if (status) return status;
    c->step = (uint32_t)counters[0].value;
    c->best_step = (uint32_t)counters[1].value;
    c->worse = (uint32_t)counters[2].value;
    c->evaluated = (uint32_t)counters[3].value;
    c->tokens = (uint64_t)counters[4].value;
    c->first_valid = counters[5].value;
    c->best_valid = counters[6].value;
    return ZS_OK;
}

zs_status checkpoint_read(const safetensors_file *file, const char *path, const setting_list *settings, checkpoint *c, zs_error *error) {
    const char *kind = safetensors_find_meta(file, "format"), *made = safetensors_find_meta(file, "version");
    safetensors_entry arrays[ARRAYS];
    float *const to[ARRAYS] = {c->values, c->best, c->mean, c->square};
    if (!kind || strcmp(kind, format) != 0)
        return zs_error_set(error, ZS_ERROR_FORMAT, "%s is no checkpoint of a training: it is left alone, choose another name", path);
    if (!made || strcmp(made, version) != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: a checkpoint of version '%.20s'; version %s is known", path, made ? made : "",
                            version);
    zs_status status = check_settings(file, path, settings, error);
    list_arrays(c, arrays);
    for (int i = 0; i < ARRAYS && !status; i++) status = read_array(file, path, arrays[i].name, to[i], c->count, error);
    return status ? status : read_counters(file, path, c, error);
}

zs_status checkpoint_load(const char *path, const setting_list *settings, checkpoint *c, zs_error *error) {
    safetensors_file file;
    zs_status status = safetensors_open(path, &file, error);
    if (status) return status;
    status = checkpoint_read(&file, path, settings, c, error);
    safetensors_close(&file);
    return status;
}
