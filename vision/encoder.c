#include "vision/encoder_private.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 8192 }; // of one turn: some hundred megabytes of activations

uint64_t encoder_address(const vision_encoder *e, const void *host) {
    return e->arrays.buffer.address + (uint64_t)((const char *)host - (const char *)e->arrays.buffer.mapped);
}

encoder_group encoder_group_at(const vision_encoder *e, uint32_t layer, uint32_t which) {
    static const uint32_t first[] = {[GROUP_QKV] = VISION_Q, [GROUP_OUT] = VISION_OUT, [GROUP_FC1] = VISION_FC1, [GROUP_FC2] = VISION_FC2};
    encoder_group g = {
        .weights = which < GROUP_PROJECT ? &e->tower->layers[layer].weights[first[which]] : &e->tower->projector[which - GROUP_PROJECT],
        .count = which == GROUP_QKV ? 3 : 1,
        .kept = e->params.gradients ? &e->activations[ACTIVATION_KEPT + which] : NULL,
    };
    for (uint32_t i = 0; i < g.count; i++) {
        g.y_offsets[i] = which == GROUP_QKV ? e->qkv_offset[i] : 0;
        g.a_offsets[i] = g.a_stride;
        g.a_stride += g.weights[i].factored ? vision_stride(g.weights[i].vt.out) : 0;
    }
    return g;
}

uint32_t vision_encoder_tiles(const vision_tower *tower, uint32_t tiles, uint32_t rows) {
    uint32_t most = (rows ? rows : MOST_ROWS) / vision_positions(&tower->config);
    if (most < 1) most = 1;
    return tiles < most ? tiles : most;
}

uint32_t vision_encoder_capacity(const vision_encoder *encoder) { return encoder->params.tiles; }

// ---- memory --------------------------------------------------------------------------------------------------------

/// Floats of a row of Vᵀx in the layer where a group has the widest.
static uint32_t widest_factored(const vision_encoder *e, uint32_t which) {
    const vision_tower *tower = e->tower;
    uint32_t widest = 0, layers = which < GROUP_PROJECT ? tower->config.layers : which - GROUP_PROJECT < tower->projector_count;
    for (uint32_t l = 0; l < layers; l++) {
        const uint32_t stride = encoder_group_at(e, l, which).a_stride;
        widest = stride > widest ? stride : widest;
    }
    return widest;
}

static void fill_strides(vision_encoder *e) {
    const vision_config *c = &e->tower->config;
    const uint32_t between = e->tower->projector_count > 1 ? vision_stride(c->text_hidden) : 0;
    activation *a = e->activations;
    a[ACTIVATION_X].stride = a[ACTIVATION_NORMED].stride = vision_stride(c->hidden);
    a[ACTIVATION_QKV].stride = vision_qkv_offsets(c, e->qkv_offset);
    a[ACTIVATION_FFN].stride = vision_stride(c->ffn);
    a[ACTIVATION_PICKED].stride = vision_stride(c->hidden * c->image.shuffle * c->image.shuffle);
    a[ACTIVATION_BETWEEN].stride = between;
    for (uint32_t g = 0; g < GROUP_COUNT; g++) {
        uint32_t stride = widest_factored(e, g);
        if (stride > a[ACTIVATION_A].stride) a[ACTIVATION_A].stride = stride;
        if (e->params.gradients) a[ACTIVATION_KEPT + g].stride = stride;
    }
    if (!e->params.gradients) return;
    a[ACTIVATION_ATTENDED].stride = a[ACTIVATION_MID].stride = a[ACTIVATION_DX].stride = a[ACTIVATION_X].stride;
    a[ACTIVATION_BEFORE_GELU].stride = a[ACTIVATION_FFN].stride;
    a[ACTIVATION_D_QKV].stride = a[ACTIVATION_QKV].stride;
    a[ACTIVATION_PROJECTED].stride = between;
}

/// Whether an activation's rows are features, not patches.
static bool is_of_features(uint32_t which) {
    return which == ACTIVATION_PICKED || which == ACTIVATION_BETWEEN || which == ACTIVATION_PROJECTED ||
           (which >= ACTIVATION_KEPT + GROUP_PROJECT && which < ACTIVATION_DX);
}

static uint32_t tile_rows(const vision_encoder *e, uint32_t which) {
    return e->params.tiles * (is_of_features(which) ? e->features : e->positions);
}

static uint64_t activation_bytes(const vision_encoder *e, uint32_t which) {
    return 4ull * tile_rows(e, which) * e->activations[which].stride;
}

/// Scratch for whatever a linear operation reads.
static uint64_t operands_bytes(const vision_encoder *e) {
    uint64_t most = op_linear_operands(&e->params.policy, e->params.tiles * e->positions, e->patch_stride);
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) {
        uint64_t bytes = op_linear_operands(&e->params.policy, tile_rows(e, i), e->activations[i].stride);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static uint64_t page_bytes_of(const vision_encoder *e) {
    const vision_config *c = &e->tower->config;
    return kv_page_bytes(e->params.kv, c->heads, c->hidden / c->heads);
}

static uint64_t pages_bytes(const vision_encoder *e) { return page_bytes_of(e) * e->pages_per_tile * e->params.tiles; }

/// Of op_attention_back.
static uint64_t stats_bytes(const vision_encoder *e) {
    return e->params.gradients ? 8ull * e->params.tiles * e->positions * e->tower->config.heads : 0;
}

/// The next bytes of host memory, NULL where there is none yet.
static void *take(char *host, uint64_t *at, uint64_t bytes) {
    char *place = host ? host + *at : NULL;
    *at += (bytes + 255) / 256 * 256;
    return place;
}

/// Where the arrays lie in their buffer's host memory (NULL: only for the size, which it returns).
static uint64_t lay_arrays(const vision_encoder *e, char *host, encoder_arrays *a) {
    const vision_config *c = &e->tower->config;
    const uint64_t tiles = e->params.tiles, rows = tiles * e->positions;
    uint64_t size = 0;
    a->places = take(host, &size, sizeof(Step));
    a->views = take(host, &size, sizeof(Step));
    a->place_rows = take(host, &size, rows * sizeof(Row));
    a->view_rows = take(host, &size, rows * sizeof(Row));
    a->spans = take(host, &size, tiles * e->spans_per_tile * sizeof(Span));
    a->back_spans = take(host, &size, tiles * e->back_spans_per_tile * sizeof(Span));
    a->position_index = take(host, &size, rows * 4);
    a->feature_index = take(host, &size, rows * 4);
    a->picked_begin = take(host, &size, 4 * (rows + 1));
    a->picked_from = take(host, &size, rows * 4);
    a->pages = take(host, &size, 8 * tiles * e->pages_per_tile);
    a->turns = take(host, &size, 8ull * e->positions * (c->hidden / c->heads / 2));
    a->patches = take(host, &size, 4 * rows * e->patch_stride);
    return size;
}

static uint64_t arrays_bytes(const vision_encoder *e) { return lay_arrays(e, NULL, &(encoder_arrays){0}); }

/// An encoder's counts and strides, without its buffers.
static vision_encoder shape_of(const vision_tower *tower, const vision_encoder_params *params) {
    const vision_config *c = &tower->config;
    vision_encoder e = {.tower = tower, .params = *params};
    e.positions = vision_positions(c);
    e.features = vision_config_features(c);
    e.patch_stride = tower->patch.padded;
    e.pages_per_tile = (e.positions + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    e.span_rows = op_span_rows(params->policy, c->heads, c->heads, c->hidden / c->heads);
    e.spans_per_tile = (e.positions + e.span_rows - 1) / e.span_rows;
    e.back_span_rows = op_attention_back_span_rows(params->policy);
    e.back_spans_per_tile = (e.positions + e.back_span_rows - 1) / e.back_span_rows;
    fill_strides(&e);
    return e;
}

uint64_t vision_encoder_bytes(const vision_tower *tower, const vision_encoder_params *params) {
    const vision_encoder e = shape_of(tower, params);
    uint64_t bytes = operands_bytes(&e) + pages_bytes(&e) + arrays_bytes(&e) + stats_bytes(&e);
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) bytes += activation_bytes(&e, i);
    return params->gradients ? bytes + (tower->config.layers + 1ull) * activation_bytes(&e, ACTIVATION_X) : bytes;
}

static zs_status create_activations(vision_encoder *e, zs_error *error) {
    static const char *const names[ACTIVATION_COUNT] = {"tower x",        "tower normed", "tower qkv", "tower ffn",  "tower a",
                                                        "picked",         "between",      "attended",  "x between",  "before gelu",
                                                        "before gelu",    "a qkv",        "a out",     "a fc1",      "a fc2",
                                                        "a of projector", "a of second",  "tower dx",  "tower d qkv"};
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < ACTIVATION_COUNT && !status; i++) {
        uint64_t bytes = activation_bytes(e, i);
        if (bytes) status = gpu_buffer_create(e->device, GPU_MEMORY_DEVICE, bytes, true, names[i], &e->activations[i].buffer, error);
    }
    return status;
}

/// What only gradients need.
static zs_status create_inputs(vision_encoder *e, zs_error *error) {
    const vision_config *c = &e->tower->config;
    if (!e->params.gradients) return ZS_OK;
    e->inputs = calloc(c->layers + 1u, sizeof *e->inputs);
    if (!e->inputs) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image encoder");
    zs_status status = gpu_buffer_create(e->device, GPU_MEMORY_DEVICE, stats_bytes(e), true, "tower sums", &e->stats, error);
    for (uint32_t l = 0; l <= c->layers && !status; l++)
        status = gpu_buffer_create(e->device, GPU_MEMORY_DEVICE, activation_bytes(e, ACTIVATION_X), true, "a tower layer's input",
                                   &e->inputs[l], error);
    return status;
}

static zs_status create_arrays(vision_encoder *e, zs_error *error) {
    encoder_arrays *a = &e->arrays;
    zs_status status = gpu_buffer_create(e->device, GPU_MEMORY_SHARED, arrays_bytes(e), true, "patches", &a->buffer, error);
    if (!status) lay_arrays(e, a->buffer.mapped, a);
    return status;
}

// ---- what does not change ------------------------------------------------------------------------------------------

/// Feature (i, j) of a tile takes the patches (i s + a, j s + b), a and b < s, in that order (Idefics3's pixel shuffle).
static void fill_features(const vision_encoder *e, uint32_t tile) {
    const vision_config *c = &e->tower->config;
    uint32_t side = vision_config_side(c), s = c->image.shuffle, *to = e->arrays.feature_index + (size_t)tile * e->features * s * s;
    uint32_t first = tile * e->positions + c->class_token;
    for (uint32_t i = 0; i < side; i += s)
        for (uint32_t j = 0; j < side; j += s)
            for (uint32_t piece = 0; piece < s * s; piece++) *to++ = first + (i + piece / s) * side + j + piece % s;
}

/// The way back: which float of PICKED a row of X went to.
static void fill_picked(const vision_encoder *e) {
    const vision_config *c = &e->tower->config;
    const encoder_arrays *a = &e->arrays;
    uint32_t pieces = c->image.shuffle * c->image.shuffle, entries = e->params.tiles * e->features * pieces;
    for (uint32_t row = 0; row < e->params.tiles * e->positions; row++)
        a->picked_begin[row + 1] = a->picked_begin[row] + (row % e->positions >= c->class_token);
    for (uint32_t i = 0; i < entries; i++)
        a->picked_from[a->picked_begin[a->feature_index[i]]] =
            i / pieces * e->activations[ACTIVATION_PICKED].stride + i % pieces * c->hidden;
}

/// A tile's rows in spans of so many.
static void fill_spans(Span *spans, uint32_t count, uint32_t first_row, uint32_t rows, uint32_t limit) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t left = rows - i * limit;
        spans[i] = (Span){.first_row = first_row + i * limit, .rows = left < limit ? left : limit};
    }
}

static void fill_tile(const vision_encoder *e, uint32_t tile, uint64_t page_bytes) {
    const encoder_arrays *a = &e->arrays;
    uint32_t first = tile * e->positions;
    for (uint32_t p = 0; p < e->positions; p++) {
        a->place_rows[first + p] = (Row){.position = p, .sequence = tile};
        a->view_rows[first + p] = (Row){.position = e->positions - 1, .sequence = tile};
        a->position_index[first + p] = p;
    }
    fill_spans(a->spans + tile * e->spans_per_tile, e->spans_per_tile, first, e->positions, e->span_rows);
    fill_spans(a->back_spans + tile * e->back_spans_per_tile, e->back_spans_per_tile, first, e->positions, e->back_span_rows);
    for (uint32_t i = 0; i < e->pages_per_tile; i++) {
        uint32_t page = tile * e->pages_per_tile + i;
        a->pages[page] = e->pages.address + page * page_bytes;
    }
    fill_features(e, tile);
}

static void fill_arrays(const vision_encoder *e, uint64_t page_bytes) {
    const encoder_arrays *a = &e->arrays;
    const vision_config *c = &e->tower->config;
    *a->places = (Step){.rows = encoder_address(e, a->place_rows),
                        .spans = encoder_address(e, a->back_spans),
                        .pages = encoder_address(e, a->pages),
                        .page_stride = e->pages_per_tile};
    *a->views = (Step){.rows = encoder_address(e, a->view_rows),
                       .spans = encoder_address(e, a->spans),
                       .pages = encoder_address(e, a->pages),
                       .page_stride = e->pages_per_tile};
    for (uint32_t tile = 0; tile < e->params.tiles; tile++) fill_tile(e, tile, page_bytes);
    fill_picked(e);
    for (uint32_t i = 0; i < e->positions * (c->hidden / c->heads / 2); i++) a->turns[2 * i] = 1;
}

zs_status vision_encoder_create(zs_device *device, const vision_tower *tower, const vision_encoder_params *params, vision_encoder **out,
                                zs_error *error) {
    vision_encoder *e = malloc(sizeof *e);
    if (!e) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image encoder");
    *e = shape_of(tower, params);
    e->device = device;
    zs_status status = create_activations(e, error);
    uint64_t operands = operands_bytes(e);
    if (!status && operands) status = gpu_buffer_create(device, GPU_MEMORY_DEVICE, operands, false, "tower operands", &e->operands, error);
    if (!status) status = create_inputs(e, error);
    if (!status) status = gpu_buffer_create(device, GPU_MEMORY_DEVICE, pages_bytes(e), true, "tower pages", &e->pages, error);
    if (!status) status = create_arrays(e, error);
    if (status) {
        vision_encoder_destroy(&e);
        return status;
    }
    fill_arrays(e, page_bytes_of(e));
    *out = e;
    return ZS_OK;
}

void vision_encoder_destroy(vision_encoder **handle) {
    vision_encoder *e = *handle;
    if (!e) return;
    *handle = NULL;
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) gpu_buffer_destroy(e->device, &e->activations[i].buffer);
    for (uint32_t l = 0; e->inputs && l <= e->tower->config.layers; l++) gpu_buffer_destroy(e->device, &e->inputs[l]);
    free(e->inputs);
    gpu_buffer_destroy(e->device, &e->stats);
    gpu_buffer_destroy(e->device, &e->operands);
    gpu_buffer_destroy(e->device, &e->pages);
    gpu_buffer_destroy(e->device, &e->arrays.buffer);
    free(e);
}

// ---- pixels --------------------------------------------------------------------------------------------------------

/// patches[row, (c, y, x)] of a tile's pixels [3, side, side]: the order of the convolution's weights.
static void fill_patches(const vision_encoder *e, const float *pixels, uint32_t tile) {
    const vision_config *c = &e->tower->config;
    uint32_t patch = c->image.patch, edge = c->image.tile, side = vision_config_side(c);
    for (uint32_t p = 0; p < side * side; p++) {
        float *to = e->arrays.patches + (size_t)(tile * e->positions + c->class_token + p) * e->patch_stride;
        const float *from = pixels + (size_t)(p / side * patch) * edge + p % side * patch;
        for (uint32_t channel = 0; channel < 3; channel++)
            for (uint32_t y = 0; y < patch; y++, to += patch) memcpy(to, from + ((size_t)channel * edge + y) * edge, patch * sizeof *to);
    }
}

void vision_encoder_fill(vision_encoder *e, const image_tiles *const *images, uint32_t first, uint32_t count, const vision_scales *scales) {
    uint32_t edge = e->tower->config.image.tile;
    e->scales = scales->table + 4ull * scales->stride * scales->row;
    e->arrays.places->scales = scales->table;
    e->arrays.places->scale_stride = scales->stride;
    for (uint32_t t = 0; t < count * e->positions; t++) e->arrays.place_rows[t].expert = scales->row;
    for (uint32_t filled = 0; filled < count; images++) {
        const image_tiles *image = *images;
        for (; first < image->count && filled < count; first++) fill_patches(e, image->pixels + (size_t)first * 3 * edge * edge, filled++);
        first = first < image->count ? first : first - image->count;
    }
}
