#include "loader/image_config.h"

#include "loader/json_file.h"

#include <math.h>
#include <string.h>

static const double clip_mean[3] = {0.48145466, 0.4578275, 0.40821073}, clip_deviation[3] = {0.26862954, 0.26130258, 0.27577711};

void image_config_defaults(image_family family, image_config *config) {
    *config = (image_config){.family = family, .filter = IMAGE_BICUBIC, .shuffle = 1, .rescale = 1.0 / 255};
    if (family == IMAGE_IDEFICS3) {
        config->filter = IMAGE_LANCZOS;
        config->split = true;
        config->tile = 364;
        config->longest_edge = 4 * 364;
        config->shuffle = 2;
        for (int c = 0; c < 3; c++) config->mean[c] = config->std[c] = 0.5;
    } else {
        memcpy(config->mean, clip_mean, sizeof clip_mean);
        memcpy(config->std, clip_deviation, sizeof clip_deviation);
        config->tile = config->shortest_edge = 224;
    }
}

// ---- numbers that make sense ---------------------------------------------------------------------------------------

static zs_status refuse(const char *name, const char *what, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: %s", name, what);
}

static zs_status check_pinpoints(const image_config *config, const char *name, zs_error *error) {
    if (config->pinpoint_count == 0 || config->pinpoint_count > IMAGE_MOST_PINPOINTS)
        return refuse(name, "image_grid_pinpoints are missing or too many", error);
    for (uint32_t i = 0; i < config->pinpoint_count; i++) {
        for (int k = 0; k < 2; k++) {
            uint32_t side = config->pinpoints[i][k];
            if (side == 0 || side % config->tile || side > IMAGE_MOST_EDGE)
                return zs_error_set(error, ZS_ERROR_FORMAT,
                                    "%s: image_grid_pinpoints[%u] is no whole number of tiles of %u pixels, up to %d", name, i,
                                    config->tile, IMAGE_MOST_EDGE);
        }
    }
    return ZS_OK;
}

zs_status image_config_check(const image_config *config, const char *name, zs_error *error) {
    if (config->filter != IMAGE_LANCZOS && config->filter != IMAGE_BILINEAR && config->filter != IMAGE_BICUBIC)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%s: resampling filter %d is not supported; 1 (Lanczos), 2 (bilinear) and 3 (bicubic) are", name,
                            (int)config->filter);
    if (config->tile == 0 || config->tile > IMAGE_MOST_EDGE) return refuse(name, "the size of images is missing or makes no sense", error);
    if (config->patch == 0 || config->patch > config->tile) return refuse(name, "the size of patches is missing or makes no sense", error);
    if (config->shuffle == 0 || config->tile / config->patch % config->shuffle)
        return refuse(name, "the factor of the pixel shuffle does not divide the patches of an image", error);
    if (!(config->rescale > 0) || !isfinite(1 / config->rescale)) return refuse(name, "the factor of pixels makes no sense", error);
    for (int c = 0; c < 3; c++)
        if (!isfinite(config->mean[c]) || !isfinite(config->std[c]) || !(config->std[c] > 0))
            return refuse(name, "mean or deviation of pixels make no sense", error);
    if (config->family == IMAGE_LLAVA && config->shortest_edge &&
        (config->shortest_edge < config->tile || config->shortest_edge > IMAGE_MOST_EDGE))
        return refuse(name, "images are cut out larger than they are made", error);
    if (config->family == IMAGE_IDEFICS3 && (config->longest_edge == 0 || config->longest_edge > 1u << 20))
        return refuse(name, "the length of an image's longer side is missing or makes no sense", error);
    return config->family == IMAGE_LLAVA_NEXT ? check_pinpoints(config, name, error) : ZS_OK;
}

// ---- a folder's files ------------------------------------------------------------------------------------------------

/// The three files, and the object that tells about images.
typedef struct image_files {
    json_t *config, *preprocessor, *processor;
    const json_t *images;
    const char *name; // of the file that holds it
} image_files;

static const json_t *get(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) ? value : NULL;
}

static zs_status no_number(const char *name, const char *key, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%s: %s is no number that makes sense", name, key);
}

/// Leaves *value where the key is missing.
static zs_status read_count(const json_t *object, const char *name, const char *key, uint32_t *value, zs_error *error) {
    const json_t *found = get(object, key);
    if (!found) return ZS_OK;
    if (!json_is_integer(found) || json_integer_value(found) <= 0 || json_integer_value(found) > 1 << 20)
        return no_number(name, key, error);
    *value = (uint32_t)json_integer_value(found);
    return ZS_OK;
}

/// One number for all channels, or three.
static zs_status read_channels(const image_files *files, const char *key, double values[3], zs_error *error) {
    const json_t *found = get(files->images, key);
    if (!found) return ZS_OK;
    for (size_t c = 0; c < 3; c++) {
        const json_t *number = json_is_array(found) && json_array_size(found) == 3 ? json_array_get(found, c) : found;
        if (!json_is_number(number)) return no_number(files->name, key, error);
        values[c] = json_number_value(number);
    }
    return ZS_OK;
}

/// {"height", "width"} of a square, or one number. *side stays where the key is missing or has other sides.
static zs_status read_square(const image_files *files, const char *key, uint32_t *side, zs_error *error) {
    const json_t *found = get(files->images, key);
    if (!json_is_object(found)) return read_count(files->images, files->name, key, side, error);
    uint32_t height = 0, width = 0;
    zs_status status = read_count(found, files->name, "height", &height, error);
    if (!status) status = read_count(found, files->name, "width", &width, error);
    if (!status && height != width) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %s is no square", files->name, key);
    if (!status && height) *side = height;
    return status;
}

/// Steps that no checkpoint of these families goes without.
static zs_status check_steps(const image_files *files, zs_error *error) {
    static const char *const steps[] = {"do_resize", "do_rescale", "do_normalize"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (json_is_false(get(files->images, steps[i])))
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %s false is not supported", files->name, steps[i]);
    return ZS_OK;
}

/// CLIP's and LLaVA's processors: an edge and a cut, or a fixed size.
static zs_status read_llava(const image_files *files, image_config *c, zs_error *error) {
    const json_t *size = get(files->images, "size");
    uint32_t edge = 0, square = 0, cut = c->tile;
    zs_status status;
    if (json_is_object(size)) {
        status = read_count(size, files->name, "shortest_edge", &edge, error);
        if (!status) status = read_square(files, "size", &square, error);
    } else {
        edge = c->shortest_edge;
        status = read_count(files->images, files->name, "size", &edge, error);
    }
    if (!status) status = read_square(files, "crop_size", &cut, error);
    if (status) return status;
    if (!edge && !square)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: size has neither shortest_edge nor height and width", files->name);
    bool cuts = !json_is_false(get(files->images, "do_center_crop"));
    if (!cuts && edge && c->family == IMAGE_LLAVA)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: do_center_crop false is not supported with a shortest_edge", files->name);
    c->tile = cuts ? cut : edge ? edge : square;
    c->shortest_edge = edge;
    if (c->tile != (edge ? edge : square) && (!edge || c->family == IMAGE_LLAVA_NEXT))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: a crop_size other than size is not supported", files->name);
    const char *type = json_string_value(get(files->images, "image_processor_type"));
    c->pad_square = c->family == IMAGE_LLAVA && type && strncmp(type, "Llava", 5) == 0 && json_is_true(get(files->images, "do_pad"));
    return ZS_OK;
}

static zs_status read_pinpoints(const image_files *files, image_config *c, zs_error *error) {
    const json_t *list = get(files->images, "image_grid_pinpoints");
    if (!list) list = get(files->config, "image_grid_pinpoints");
    size_t count = json_array_size(list);
    if (count > IMAGE_MOST_PINPOINTS)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: %zu image_grid_pinpoints are too many", files->name, count);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *number = json_array_get(json_array_get(list, i), k);
            if (!json_is_integer(number) || json_integer_value(number) <= 0 || json_integer_value(number) > IMAGE_MOST_EDGE)
                return no_number(files->name, "image_grid_pinpoints", error);
            c->pinpoints[i][k] = (uint32_t)json_integer_value(number);
        }
    }
    c->pinpoint_count = (uint32_t)count;
    return ZS_OK;
}

static zs_status read_idefics3(const image_files *files, image_config *c, zs_error *error) {
    const json_t *size = get(files->images, "size"), *tile = get(files->images, "max_image_size");
    if (size && !get(size, "longest_edge")) return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s: size has no longest_edge", files->name);
    c->split = !json_is_false(get(files->images, "do_image_splitting"));
    zs_status status = read_count(size, files->name, "longest_edge", &c->longest_edge, error);
    if (!status) status = read_count(tile, files->name, "longest_edge", &c->tile, error);
    if (!status) status = read_count(files->config, "config.json", "scale_factor", &c->shuffle, error);
    return status;
}

/// The tower's own sizes.
static zs_status read_tower(const image_files *files, image_config *c, zs_error *error) {
    const json_t *tower = get(files->config, "vision_config");
    uint32_t side = 0;
    zs_status status = read_count(files->processor, "processor_config.json", "patch_size", &c->patch, error);
    if (!status) status = read_count(tower, "config.json", "patch_size", &c->patch, error);
    if (!status) status = read_count(tower, "config.json", "image_size", &side, error);
    if (!status && side && side != c->tile)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%s makes tiles of %u pixels, but the tower of config.json takes %u", files->name,
                            c->tile, side);
    return status;
}

static zs_status read_family(const image_files *files, image_family *family, zs_error *error) {
    static const struct {
        const char *type;
        image_family family;
    } types[] = {{"llava", IMAGE_LLAVA}, {"llava_next", IMAGE_LLAVA_NEXT}, {"idefics3", IMAGE_IDEFICS3}, {"smolvlm", IMAGE_IDEFICS3}};
    const char *type = json_string_value(get(files->config, "model_type"));
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++) {
        *family = types[i].family;
        if (strcmp(types[i].type, type) == 0) return ZS_OK;
    }
    return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                        "config.json: model_type %.60s is not supported; llava, llava_next, idefics3 and smolvlm are",
                        type ? type : "(none)");
}

static zs_status read_images(const image_files *files, image_config *config, zs_error *error) {
    image_config c;
    image_family family = IMAGE_LLAVA;
    zs_status status = read_family(files, &family, error);
    if (!status) status = check_steps(files, error);
    if (status) return status;
    image_config_defaults(family, &c);
    uint32_t filter = c.filter;
    status = read_count(files->images, files->name, "resample", &filter, error);
    c.filter = (image_filter)filter;
    const json_t *factor = get(files->images, "rescale_factor");
    if (json_is_number(factor)) c.rescale = json_number_value(factor);
    if (!status) status = read_channels(files, "image_mean", c.mean, error);
    if (!status) status = read_channels(files, "image_std", c.std, error);
    if (!status) status = family == IMAGE_IDEFICS3 ? read_idefics3(files, &c, error) : read_llava(files, &c, error);
    if (!status && family == IMAGE_LLAVA_NEXT) status = read_pinpoints(files, &c, error);
    if (!status) status = read_tower(files, &c, error);
    if (!status) status = image_config_check(&c, files->name, error);
    if (!status) *config = c;
    return status;
}

zs_status image_config_read_folder(const char *folder, image_config *config, zs_error *error) {
    image_files files = {0};
    zs_status status = json_file_read(folder, "config.json", false, &files.config, error);
    if (!status) status = json_file_read(folder, "preprocessor_config.json", true, &files.preprocessor, error);
    if (!status) status = json_file_read(folder, "processor_config.json", true, &files.processor, error);
    if (!status) {
        files.images = get(files.processor, "image_processor");
        files.name = files.images ? "processor_config.json" : "preprocessor_config.json";
        if (!files.images) files.images = files.preprocessor;
        status = files.images
                     ? read_images(&files, config, error)
                     : zs_error_set(error, ZS_ERROR_IO,
                                    "%s has neither preprocessor_config.json nor a processor_config.json that tells how images are made",
                                    folder);
    }
    json_decref(files.processor);
    json_decref(files.preprocessor);
    json_decref(files.config);
    return status;
}
