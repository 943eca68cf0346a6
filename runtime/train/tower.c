#include "train/tower.h"

#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

zs_status train_tower_open(train_tower *t, const zs_model *model, const zs_engine *engine, uint32_t rows, zs_error *error) {
    *t = (train_tower){.model = model, .engine = engine, .rows = rows};
    return gpu_command_create(model->device, "images of a backward pass", &t->command, error);
}

void train_tower_clear(train_tower *t) {
    for (uint32_t i = 0; i < t->count; i++) image_tiles_free(&t->images[i].tiles);
    t->count = t->tiles = 0;
}

void train_tower_close(train_tower *t) {
    if (!t->model) return;
    train_tower_clear(t);
    free(t->images);
    vision_encoder_destroy(&t->encoder);
    gpu_command_destroy(&t->command);
    gpu_buffer *const buffers[] = {&t->features, &t->reference, &t->d_features, &t->takers};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) gpu_buffer_destroy(t->model->device, buffers[i]);
    *t = (train_tower){0};
}

// ---- whose ids are whose -------------------------------------------------------------------------------------------

/// The next image of a prompt from *at on, which moves behind its first row: the id of that row; NO_TOKEN behind the last.
static uint32_t next_image(const train_tower *t, const zs_gradient_item *item, size_t *at) {
    while (*at < item->prompt_count) {
        uint32_t id = item->prompt[(*at)++], first_id;
        if (engine_find_image(t->engine, id, &first_id) && id == first_id) return id;
    }
    return NO_TOKEN;
}

zs_status train_tower_check(const train_tower *t, const zs_gradient_item *item, size_t index, zs_error *error) {
    size_t at = 0, count = 0;
    while (next_image(t, item, &at) != NO_TOKEN) count++;
    if (count == item->image_count) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_ARGUMENT,
                        "item %zu: the prompt has %zu images and %zu are given: the tower of %s has a z, whose gradient needs them all",
                        index, count, item->image_count, t->model->path);
}

static const tower_image *find_image(const train_tower *t, uint32_t first_id) {
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->images[i].first_id == first_id) return &t->images[i];
    }
    return NULL;
}

static zs_status add_image(train_tower *t, uint32_t first_id, const zs_image *image, zs_error *error) {
    const vision_config *c = &t->model->tower->config;
    if (t->count == t->room) {
        uint32_t room = 2 * t->room + 8;
        tower_image *grown = realloc(t->images, room * sizeof *grown);
        if (!grown) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the images of a backward pass");
        t->images = grown;
        t->room = room;
    }
    tower_image *added = &t->images[t->count];
    *added = (tower_image){.first_id = first_id, .first_feature = t->tiles * vision_config_features(c)};
    zs_status status = image_tiles_make(&c->image, image, &added->tiles, error);
    if (status) return status;
    t->count++;
    t->tiles += added->tiles.count;
    return ZS_OK;
}

zs_status train_tower_add(train_tower *t, const zs_gradient_item *item, zs_error *error) {
    size_t at = 0;
    zs_status status = ZS_OK;
    for (size_t i = 0; i < item->image_count && !status; i++) {
        uint32_t first_id = next_image(t, item, &at);
        if (!find_image(t, first_id)) status = add_image(t, first_id, item->images[i], error);
    }
    return status;
}

static uint32_t feature_count(const train_tower *t) { return t->tiles * vision_config_features(&t->model->tower->config); }

static uint32_t stride_of(const train_tower *t) { return vision_stride(t->model->config.hidden); }

/// 0: the newline; else 1 + the number of the feature.
static uint32_t place_of(const train_tower *t, uint32_t id) {
    uint32_t first_id = NO_TOKEN;
    engine_find_image(t->engine, id, &first_id);
    const tower_image *image = find_image(t, first_id);
    uint32_t feature = image->tiles.tokens[id - first_id];
    return feature == IMAGE_NEWLINE ? 0 : 1 + image->first_feature + feature;
}

zs_status train_tower_number(train_tower *t, Row *rows, uint32_t row_count, uint32_t stride, zs_error *error) {
    const uint32_t vocab = t->model->config.vocab, features = feature_count(t);
    zs_status status =
        gpu_buffer_reserve(t->model->device, GPU_MEMORY_SHARED, 4ull * (features + 1 + row_count), "takers of features", &t->takers, error);
    if (status) return status;
    uint32_t *begin = t->takers.mapped, *from = begin + features + 1;
    memset(begin, 0, (features + 1) * sizeof *begin);
    for (uint32_t r = 0; r < row_count; r++) {
        if (rows[r].token < vocab) continue;
        uint32_t place = place_of(t, rows[r].token);
        rows[r].token = vocab + place;
        if (place) begin[place - 1]++;
    }
    // Ends first; from them backwards every feature's beginning is found while it is filled.
    for (uint32_t f = 1; f <= features; f++) begin[f] += begin[f - 1];
    for (uint32_t r = row_count; r-- > 0;) {
        if (rows[r].token > vocab) from[--begin[rows[r].token - vocab - 1]] = r * stride;
    }
    return ZS_OK;
}

// ---- through the tower ---------------------------------------------------------------------------------------------

static zs_status run(const train_tower *t, zs_error *error) {
    uint64_t value;
    zs_status status = gpu_command_end(t->command, error);
    if (!status) status = gpu_command_submit(t->command, &value, error);
    return status ? status : gpu_device_wait(t->model->device, value, error);
}

static zs_status prepare(train_tower *t, zs_error *error) {
    const vision_tower *tower = t->model->tower;
    uint32_t turn = vision_encoder_tiles(tower, t->tiles, t->rows);
    if (t->encoder && vision_encoder_capacity(t->encoder) < turn) vision_encoder_destroy(&t->encoder);
    if (t->encoder) return ZS_OK;
    return vision_encoder_create(
        t->model->device, tower,
        &(vision_encoder_params){.tiles = turn, .gradients = true, .policy = op_policy_within(&t->model->policy, false, KV_F32)},
        &t->encoder, error);
}

/// Puts tiles first … first + count − 1 into the encoder.
static zs_status fill(const train_tower *t, uint32_t first, uint32_t count, uint64_t scales, zs_error *error) {
    const image_tiles **tiles = malloc(t->count * sizeof(*tiles));
    if (!tiles) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the images of a backward pass");
    for (uint32_t i = 0; i < t->count; i++) tiles[i] = &t->images[i].tiles;
    vision_encoder_fill(t->encoder, tiles, first, count, &(vision_scales){.table = scales, .stride = t->model->scale_count});
    free(tiles);
    return ZS_OK;
}

/// Floats of the feature rows in front of a tile's.
static uint64_t floats_before(const train_tower *t, uint32_t tile) {
    return (1 + (uint64_t)tile * vision_config_features(&t->model->tower->config)) * stride_of(t);
}

/// Begins a command that makes the features of tiles first … first + count − 1.
static zs_status begin_turn(const train_tower *t, uint32_t first, uint32_t count, uint64_t scales, const gpu_buffer *to, zs_error *error) {
    zs_status status = fill(t, first, count, scales, error);
    if (!status) status = gpu_command_begin(t->command, error);
    if (!status) vision_encoder_record(t->encoder, t->command, count, to->address + 4 * floats_before(t, first), stride_of(t));
    return status;
}

static uint32_t turn_tiles(const train_tower *t, uint32_t first) {
    uint32_t turn = vision_encoder_capacity(t->encoder), left = t->tiles - first;
    return left < turn ? left : turn;
}

zs_status train_tower_encode(train_tower *t, uint64_t scales, bool reference, zs_error *error) {
    gpu_buffer *to = reference ? &t->reference : &t->features;
    zs_status status = t->tiles ? prepare(t, error) : ZS_OK;
    if (!status)
        status = gpu_buffer_reserve(t->model->device, GPU_MEMORY_DEVICE, 4 * floats_before(t, t->tiles), "features of a backward pass", to,
                                    error);
    for (uint32_t first = 0; first < t->tiles && !status;) {
        uint32_t count = turn_tiles(t, first);
        status = begin_turn(t, first, count, scales, to, error);
        if (!status && first == 0) vision_encoder_record_newline(t->encoder, t->command, to->address, stride_of(t));
        if (!status) status = run(t, error);
        first += count;
    }
    return status;
}

zs_status train_tower_back(train_tower *t, uint64_t dx, uint64_t scales, const gpu_buffer *sums, const gpu_buffer *results,
                           zs_error *error) {
    if (!t->tiles) return ZS_OK;
    const op_recorder ops = {.command = t->command, .policy = t->model->policy};
    const uint32_t stride = stride_of(t), features = feature_count(t);
    zs_status status = gpu_buffer_reserve(t->model->device, GPU_MEMORY_DEVICE, 4 * floats_before(t, t->tiles), "the gradient by features",
                                          &t->d_features, error);
    for (uint32_t first = 0; first < t->tiles && !status;) {
        uint32_t count = turn_tiles(t, first);
        // Where one turn took all tiles, what it left is still there.
        status = count < t->tiles ? begin_turn(t, first, count, scales, &t->features, error) : gpu_command_begin(t->command, error);
        if (status) return status;
        if (first == 0) {
            op_record_gather_sum(&ops, &(op_gather_sum){.x = dx,
                                                        .y = t->d_features.address + 4ull * stride,
                                                        .begin = t->takers.address,
                                                        .from = t->takers.address + 4ull * (features + 1),
                                                        .width = t->model->config.hidden,
                                                        .y_stride = stride,
                                                        .rows = features});
            gpu_command_barrier(t->command);
        }
        vision_encoder_record_back(t->encoder, t->command, count, t->d_features.address + 4 * floats_before(t, first), stride,
                                   sums->address);
        first += count;
        if (first == t->tiles) gpu_command_copy(t->command, sums, 0, results, 0, 4ull * t->model->scale_count);
        status = run(t, error);
    }
    return status;
}
