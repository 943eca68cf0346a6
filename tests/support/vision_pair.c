#include "support/vision_pair.h"

#include "loader/vision_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void need(zs_status status, const zs_error *error) {
    if (!status) return;
    fprintf(stderr, "vision_pair: %s\n", error->message);
    abort();
}

static bool is_images_tensor(const char *name) {
    return strncmp(name, "v.", 2) == 0 || strncmp(name, "mm.", 3) == 0 || strcmp(name, VISION_NEWLINE_TENSOR) == 0;
}

static bool key_begins(gguf_string key, const char *text) { return key.size >= strlen(text) && memcmp(key.data, text, strlen(text)) == 0; }
static bool key_is(gguf_string key, const char *text) { return key.size == strlen(text) && key_begins(key, text); }

/// The name in a file of the pair; NULL: left out.
static const char *name_of(const gguf_tensor *t, const vision_file *vision, const vision_pair_options *o, char buffer[80]) {
    unsigned layer;
    char part[24];
    if (o->without && strcmp(t->name, o->without) == 0) return NULL;
    snprintf(buffer, 80, "%s", t->name);
    if (!o->old || sscanf(t->name, "v.blk.%5u.%20s", &layer, part) != 2) return buffer;
    if (layer >= vision->config.layers) return NULL;
    if (strncmp(part, "ffn_up.", 7) == 0) snprintf(buffer, 80, "v.blk.%u.ffn_down.%s", layer, part + 7);
    if (strncmp(part, "ffn_down.", 9) == 0) snprintf(buffer, 80, "v.blk.%u.ffn_up.%s", layer, part + 9);
    return buffer;
}

static void add_key(gguf_writer *writer, const gguf_value *value, const vision_file *vision, bool images, const vision_pair_options *o) {
    bool ours = key_begins(value->key, "zsigma.vision."), clip = key_begins(value->key, "clip.");
    if (images != clip || ours || key_is(value->key, "general.architecture") || (o->without && key_is(value->key, o->without))) return;
    if (o->old && key_is(value->key, "clip.vision.feature_layer")) return;
    if (o->old && key_is(value->key, "clip.vision.block_count"))
        gguf_writer_add_u32(writer, "clip.vision.block_count", vision->config.layers);
    else
        gguf_writer_copy_value(writer, value);
}

static void write_file(const model_file *model, const char *path, bool images, const vision_pair_options *o) {
    gguf_writer *writer = NULL;
    zs_error error;
    char name[80];
    const gguf_file *in = &model->gguf;
    need(gguf_writer_create(path, true, &writer, &error), &error);
    gguf_writer_add_string(writer, "general.architecture", images ? "clip" : model->config.architecture);
    for (size_t i = 0; i < in->value_count; i++) add_key(writer, &in->values[i], model->vision, images, o);
    for (int data = 0; data < 2; data++) {
        for (size_t i = 0; i < in->tensor_count; i++) {
            const gguf_tensor *t = &in->tensors[i];
            const char *told = is_images_tensor(t->name) == images ? name_of(t, model->vision, o, name) : NULL;
            if (told && !data) gguf_writer_add_tensor(writer, told, t->type, t->dims, t->shape);
            if (told && data) need(gguf_writer_write(writer, t->data, (size_t)t->size, &error), &error);
        }
        if (!data) need(gguf_writer_start(writer, &error), &error);
    }
    need(gguf_writer_finish(&writer, &error), &error);
}

void vision_pair_write(const char *folder, const char *text, const char *mmproj, const vision_pair_options *options) {
    static const vision_pair_options none;
    model_file model;
    zs_error error;
    need(model_file_open(folder, &model, &error), &error);
    if (text) write_file(&model, text, false, options ? options : &none);
    if (mmproj) write_file(&model, mmproj, true, options ? options : &none);
    model_file_close(&model);
}
