#include "loader/image_keys.h"

#include <string.h>

#define FILTER_KEY "zsigma.vision.resample"
#define RESCALE_KEY "zsigma.vision.rescale_factor"
#define SHORTEST_KEY "zsigma.vision.shortest_edge"
#define LONGEST_KEY "zsigma.vision.longest_edge"
#define SQUARE_KEY "zsigma.vision.pad_square"
#define SPLIT_KEY "zsigma.vision.split"
#define PINPOINTS_KEY "clip.vision.image_grid_pinpoints"

static const char *const channel_keys[2] = {"clip.vision.image_mean", "clip.vision.image_std"};

void image_keys_write(const image_config *c, gguf_writer *keys) {
    const double *const channels[2] = {c->mean, c->std};
    for (int i = 0; i < 2; i++) {
        const float values[3] = {(float)channels[i][0], (float)channels[i][1], (float)channels[i][2]};
        gguf_writer_add_words(keys, channel_keys[i], GGUF_F32, values, 3);
    }
    gguf_writer_add_u32(keys, FILTER_KEY, (uint32_t)c->filter);
    gguf_writer_add_f32(keys, RESCALE_KEY, (float)c->rescale);
    gguf_writer_add_u32(keys, SHORTEST_KEY, c->shortest_edge);
    gguf_writer_add_u32(keys, LONGEST_KEY, c->longest_edge);
    gguf_writer_add_bool(keys, SQUARE_KEY, c->pad_square);
    gguf_writer_add_bool(keys, SPLIT_KEY, c->split);
    if (c->pinpoint_count) gguf_writer_add_words(keys, PINPOINTS_KEY, GGUF_U32, c->pinpoints, 2 * (size_t)c->pinpoint_count);
}

static zs_status bad_key(const gguf_file *file, const char *key, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: key %s is not what it should be", file->map.path ? file->map.path : "model data", key);
}

static zs_status read_channels(const gguf_file *file, image_config *c, zs_error *error) {
    double *const channels[2] = {c->mean, c->std};
    for (int i = 0; i < 2; i++) {
        const gguf_value *value = gguf_find_value(file, channel_keys[i]);
        if (!value) continue;
        for (uint32_t k = 0; k < 3; k++) {
            float number;
            if (value->count != 3 || !gguf_array_f32(value, k, &number)) return bad_key(file, channel_keys[i], error);
            channels[i][k] = (double)number;
        }
    }
    return ZS_OK;
}

static zs_status read_pinpoints(const gguf_file *file, image_config *c, zs_error *error) {
    const gguf_value *value = gguf_find_value(file, PINPOINTS_KEY);
    if (!value || c->family != IMAGE_LLAVA_NEXT) return ZS_OK;
    if (value->count % 2 || value->count > 2 * IMAGE_MOST_PINPOINTS) return bad_key(file, PINPOINTS_KEY, error);
    for (uint64_t i = 0; i < value->count; i++) {
        uint64_t side;
        if (!gguf_array_u64(value, i, &side) || side > IMAGE_MOST_EDGE) return bad_key(file, PINPOINTS_KEY, error);
        c->pinpoints[i / 2][i % 2] = (uint32_t)side;
    }
    c->pinpoint_count = (uint32_t)(value->count / 2);
    return ZS_OK;
}

/// Keys that may be missing; of another kind they are an error.
static zs_status read_rest(const gguf_file *file, image_config *c, zs_error *error) {
    uint32_t filter = (uint32_t)c->filter;
    float rescale = (float)c->rescale;
    const struct {
        const char *key;
        uint32_t *value;
    } counts[] = {{FILTER_KEY, &filter},
                  {SHORTEST_KEY, &c->shortest_edge},
                  {"clip.vision.preproc_image_size", &c->longest_edge}, // llama.cpp's
                  {LONGEST_KEY, &c->longest_edge}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (gguf_find_value(file, counts[i].key) && !gguf_get_u32(file, counts[i].key, counts[i].value))
            return bad_key(file, counts[i].key, error);
    }
    if (gguf_find_value(file, RESCALE_KEY) && !gguf_get_f32(file, RESCALE_KEY, &rescale)) return bad_key(file, RESCALE_KEY, error);
    if (gguf_find_value(file, SQUARE_KEY) && !gguf_get_bool(file, SQUARE_KEY, &c->pad_square)) return bad_key(file, SQUARE_KEY, error);
    if (gguf_find_value(file, SPLIT_KEY) && !gguf_get_bool(file, SPLIT_KEY, &c->split)) return bad_key(file, SPLIT_KEY, error);
    c->filter = (image_filter)filter;
    if (rescale != (float)c->rescale) c->rescale = (double)rescale; // else the default, which a float does not hold exactly
    return ZS_OK;
}

zs_status image_keys_read(const gguf_file *file, image_config *c, zs_error *error) {
    const image_config given = *c;
    image_config_defaults(given.family, c);
    c->tile = given.tile;
    c->patch = given.patch;
    c->shuffle = given.shuffle;
    if (c->family == IMAGE_IDEFICS3)
        c->longest_edge = 4 * given.tile;
    else
        c->shortest_edge = given.tile;
    zs_status status = read_channels(file, c, error);
    if (!status) status = read_pinpoints(file, c, error);
    if (!status) status = read_rest(file, c, error);
    return status ? status : image_config_check(c, file->map.path ? file->map.path : "model data", error);
}
