#include "vision/encoder.h"

#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 8192 }; // of one turn: some hundred megabytes of activations

/// An activation buffer [rows, stride] of f32; what lies between a row's width and its stride stays zero.
typedef struct activation {
    gpu_buffer buffer;
    uint32_t stride;
} activation;

enum {
    ACTIVATION_X,      // the stream that layers add to
    ACTIVATION_NORMED, // what a norm left, then what attention made of it
    ACTIVATION_QKV,
    ACTIVATION_FFN,
    ACTIVATION_A,       // Vᵀx of factored matrices
    ACTIVATION_PICKED,  // patches that are features, or several side by side
    ACTIVATION_BETWEEN, // the projector's two layers
    ACTIVATION_COUNT
};

/// Attention takes the decoder's kernels. Two steps make it attend to all of a tile: under `places` a row's keys and values go to its own
/// position's place in the pages, under `views` every row is at the last position and so sees all.
typedef struct encoder_arrays {
    gpu_buffer buffer; // GPU_MEMORY_SHARED: all that follows
    Step *places, *views;
    Row *place_rows, *view_rows; // [rows]
    Span *spans;
    uint32_t *position_index; // [rows]: of the table of positions
    uint32_t *feature_index;  // [features, shuffle²]: rows of X
    uint64_t *pages;          // [tiles, pages_per_tile]
    float *turns;             // (cos, sin) = (1, 0) [positions, head_dim / 2]: towers do not rotate
    float *patches;           // [rows, patch_stride]: pixels of each patch, nothing at class tokens
} encoder_arrays;

struct vision_encoder {
    zs_device *device;
    const vision_tower *tower;
    vision_encoder_params params;
    op_policy policy;
    uint32_t positions, features; // of a tile
    uint32_t patch_stride, pages_per_tile, span_rows, spans_per_tile;
    uint32_t qkv_offset[3];
    activation activations[ACTIVATION_COUNT];
    gpu_buffer pages;
    encoder_arrays arrays;
};

static uint64_t address_of(const vision_encoder *e, const void *host) {
    return e->arrays.buffer.address + (uint64_t)((const char *)host - (const char *)e->arrays.buffer.mapped);
}

uint32_t vision_encoder_tiles(const vision_tower *tower, uint32_t tiles) {
    uint32_t most = MOST_ROWS / vision_positions(&tower->config);
    if (most < 1) most = 1;
    return tiles < most ? tiles : most;
}

uint32_t vision_encoder_capacity(const vision_encoder *encoder) { return encoder->params.tiles; }

// ---- memory --------------------------------------------------------------------------------------------------------

/// Widest row of Vᵀx of a list of weights side by side.
static uint32_t factored_stride(const vision_weight *weights, uint32_t count) {
    uint32_t stride = 0;
    for (uint32_t i = 0; i < count; i++) stride += weights[i].factored ? vision_stride(weights[i].vt.out) : 0;
    return stride;
}

static uint32_t widest_factored(const vision_tower *tower) {
    static const uint32_t first[] = {VISION_Q, VISION_OUT, VISION_FC1, VISION_FC2}, count[] = {3, 1, 1, 1};
    uint32_t widest = 0;
    for (uint32_t l = 0; l < tower->config.layers; l++) {
        for (uint32_t g = 0; g < 4; g++) {
            uint32_t stride = factored_stride(&tower->layers[l].weights[first[g]], count[g]);
            widest = stride > widest ? stride : widest;
        }
    }
    for (uint32_t i = 0; i < tower->projector_count; i++) {
        uint32_t stride = factored_stride(&tower->projector[i], 1);
        widest = stride > widest ? stride : widest;
    }
    return widest;
}

static zs_status create_activations(vision_encoder *e, zs_error *error) {
    static const char *const names[ACTIVATION_COUNT] = {"tower x", "tower normed", "tower qkv", "tower ffn",
                                                        "tower a", "picked",       "between"};
    const vision_config *c = &e->tower->config;
    uint32_t rows = e->params.tiles * e->positions, features = e->params.tiles * e->features;
    const uint32_t strides[ACTIVATION_COUNT] = {
        [ACTIVATION_X] = vision_stride(c->hidden),
        [ACTIVATION_NORMED] = vision_stride(c->hidden),
        [ACTIVATION_QKV] = vision_qkv_offsets(c, e->qkv_offset),
        [ACTIVATION_FFN] = vision_stride(c->ffn),
        [ACTIVATION_A] = widest_factored(e->tower),
        [ACTIVATION_PICKED] = vision_stride(c->hidden * c->image.shuffle * c->image.shuffle),
        [ACTIVATION_BETWEEN] = e->tower->projector_count > 1 ? vision_stride(c->text_hidden) : 0,
    };
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < ACTIVATION_COUNT && !status; i++) {
        uint64_t bytes = 4ull * (i < ACTIVATION_PICKED ? rows : features) * strides[i];
        e->activations[i].stride = strides[i];
        if (bytes) status = gpu_buffer_create(e->device, GPU_MEMORY_DEVICE, bytes, true, names[i], &e->activations[i].buffer, error);
    }
    return status;
}

static uint64_t take(uint64_t *at, uint64_t bytes) {
    uint64_t place = *at;
    *at += (bytes + 255) / 256 * 256;
    return place;
}

static zs_status create_arrays(vision_encoder *e, zs_error *error) {
    const vision_config *c = &e->tower->config;
    uint64_t rows = (uint64_t)e->params.tiles * e->positions, size = 0;
    uint64_t places = take(&size, sizeof(Step)), views = take(&size, sizeof(Step)), place_rows = take(&size, rows * sizeof(Row)),
             view_rows = take(&size, rows * sizeof(Row)), spans = take(&size, e->params.tiles * e->spans_per_tile * sizeof(Span)),
             position_index = take(&size, rows * 4), feature_index = take(&size, rows * 4),
             pages = take(&size, 8ull * e->params.tiles * e->pages_per_tile),
             turns = take(&size, 8ull * e->positions * (c->hidden / c->heads / 2)), patches = take(&size, 4 * rows * e->patch_stride);
    encoder_arrays *a = &e->arrays;
    zs_status status = gpu_buffer_create(e->device, GPU_MEMORY_SHARED, size, true, "patches", &a->buffer, error);
    if (status) return status;
    char *host = a->buffer.mapped;
    a->places = (Step *)(void *)(host + places);
    a->views = (Step *)(void *)(host + views);
    a->place_rows = (Row *)(void *)(host + place_rows);
    a->view_rows = (Row *)(void *)(host + view_rows);
    a->spans = (Span *)(void *)(host + spans);
    a->position_index = (uint32_t *)(void *)(host + position_index);
    a->feature_index = (uint32_t *)(void *)(host + feature_index);
    a->pages = (uint64_t *)(void *)(host + pages);
    a->turns = (float *)(void *)(host + turns);
    a->patches = (float *)(void *)(host + patches);
    return ZS_OK;
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

static void fill_tile(const vision_encoder *e, uint32_t tile, uint64_t page_bytes) {
    const encoder_arrays *a = &e->arrays;
    uint32_t first = tile * e->positions, span = e->span_rows;
    for (uint32_t p = 0; p < e->positions; p++) {
        a->place_rows[first + p] = (Row){.position = p, .sequence = tile};
        a->view_rows[first + p] = (Row){.position = e->positions - 1, .sequence = tile};
        a->position_index[first + p] = p;
    }
    for (uint32_t i = 0; i < e->spans_per_tile; i++) {
        uint32_t left = e->positions - i * span;
        a->spans[tile * e->spans_per_tile + i] = (Span){.first_row = first + i * span, .rows = left < span ? left : span};
    }
    for (uint32_t i = 0; i < e->pages_per_tile; i++) {
        uint32_t page = tile * e->pages_per_tile + i;
        a->pages[page] = e->pages.address + page * page_bytes;
    }
    fill_features(e, tile);
}

static void fill_arrays(const vision_encoder *e, uint64_t page_bytes) {
    const encoder_arrays *a = &e->arrays;
    const vision_config *c = &e->tower->config;
    *a->places = (Step){.rows = address_of(e, a->place_rows), .pages = address_of(e, a->pages), .page_stride = e->pages_per_tile};
    *a->views = (Step){.rows = address_of(e, a->view_rows),
                       .spans = address_of(e, a->spans),
                       .pages = address_of(e, a->pages),
                       .page_stride = e->pages_per_tile};
    for (uint32_t tile = 0; tile < e->params.tiles; tile++) fill_tile(e, tile, page_bytes);
    for (uint32_t i = 0; i < e->positions * (c->hidden / c->heads / 2); i++) a->turns[2 * i] = 1;
}

zs_status vision_encoder_create(zs_device *device, const vision_tower *tower, const vision_encoder_params *params, vision_encoder **out,
                                zs_error *error) {
    vision_encoder *e = calloc(1, sizeof *e);
    if (!e) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an image encoder");
    const vision_config *c = &tower->config;
    e->device = device;
    e->tower = tower;
    e->params = *params;
    e->policy = op_policy_of(device);
    e->positions = vision_positions(c);
    e->features = vision_config_features(c);
    e->patch_stride = tower->patch.padded;
    e->pages_per_tile = (e->positions + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    e->span_rows = op_span_rows(e->policy, c->heads, c->heads, c->hidden / c->heads);
    e->spans_per_tile = (e->positions + e->span_rows - 1) / e->span_rows;
    uint64_t page_bytes = 2ull * KV_PAGE_TOKENS * c->hidden * (params->kv_f16 ? 2 : 4);
    zs_status status = create_activations(e, error);
    if (!status)
        status = gpu_buffer_create(device, GPU_MEMORY_DEVICE, page_bytes * e->pages_per_tile * params->tiles, true, "tower pages",
                                   &e->pages, error);
    if (!status) status = create_arrays(e, error);
    if (status) {
        vision_encoder_destroy(&e);
        return status;
    }
    fill_arrays(e, page_bytes);
    *out = e;
    return ZS_OK;
}

void vision_encoder_destroy(vision_encoder **handle) {
    vision_encoder *e = *handle;
    if (!e) return;
    *handle = NULL;
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) gpu_buffer_destroy(e->device, &e->activations[i].buffer);
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
    e->arrays.places->scales = scales->table;
    e->arrays.places->scale_stride = scales->stride;
    for (uint32_t t = 0; t < count * e->positions; t++) e->arrays.place_rows[t].expert = scales->row;
    for (uint32_t filled = 0; filled < count; images++) {
        const image_tiles *image = *images;
        for (; first < image->count && filled < count; first++) fill_patches(e, image->pixels + (size_t)first * 3 * edge * edge, filled++);
        first = first < image->count ? first : first - image->count;
    }
}

// ---- the operations ------------------------------------------------------------------------------------------------

typedef struct recording {
    const vision_encoder *encoder;
    op_recorder ops;
    uint32_t tiles, rows;
} recording;

static void barrier(const recording *r) { gpu_command_barrier(r->ops.command); }

static void record_by_type(const recording *r, op_linear *op) {
    op_linear part = *op;
    for (uint32_t s = 0; s < op->segment_count;) {
        part.segment_count = 0;
        matrix_type type = op->segments[s].weight->type;
        while (s < op->segment_count && op->segments[s].weight->type == type) part.segments[part.segment_count++] = op->segments[s++];
        op_record_linear(&r->ops, &part);
    }
}

/// Matrices that share an input, and what becomes of the result.
typedef struct group {
    const vision_weight *weights;
    uint32_t count, rows;
    uint64_t x, y;
    uint32_t x_stride, y_stride;
    const uint32_t *y_offsets; // NULL: zeros
    bool residual;
} group;

/// y = x · Wᵀ + bias, factored: ((x Vᵀ) ⊙ σ ⊙ z) Uᵀ + bias
static void record_group(const recording *r, const group *g) {
    const vision_encoder *e = r->encoder;
    const activation *a = &e->activations[ACTIVATION_A];
    op_linear dense = {.x = g->x, .y = g->y, .x_stride = g->x_stride, .y_stride = g->y_stride, .rows = g->rows, .residual = g->residual};
    dense.bias = g->weights[0].bias;
    op_linear u = dense, v = {.x = g->x, .x_stride = g->x_stride, .rows = g->rows, .scale = true};
    v.y = u.x = a->buffer.address;
    v.y_stride = u.x_stride = a->stride;
    v.step = address_of(e, e->arrays.places);
    uint32_t at = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        const vision_weight *w = &g->weights[i];
        uint32_t y_offset = g->y_offsets ? g->y_offsets[i] : 0;
        if (w->factored) {
            v.segments[v.segment_count++] = (op_segment){.weight = &w->vt, .y_offset = at, .scale_offset = w->scale_offset};
            u.segments[u.segment_count++] = (op_segment){.weight = &w->u, .x_offset = at, .y_offset = y_offset};
            at += vision_stride(w->vt.out);
        } else {
            dense.segments[dense.segment_count++] = (op_segment){.weight = &w->dense, .y_offset = y_offset};
        }
    }
    record_by_type(r, &v);
    if (v.segment_count) barrier(r);
    record_by_type(r, &u);
    record_by_type(r, &dense);
    barrier(r);
}

static void record_norm(const recording *r, const vision_norm *norm, const activation *to) {
    const activation *x = &r->encoder->activations[ACTIVATION_X];
    op_record_layer_norm(&r->ops, &(op_layer_norm){
                                      .x = x->buffer.address,
                                      .weight = norm->weight,
                                      .bias = norm->bias,
                                      .y = to->buffer.address,
                                      .width = r->encoder->tower->config.hidden,
                                      .x_stride = x->stride,
                                      .y_stride = to->stride,
                                      .rows = r->rows,
                                      .eps = r->encoder->tower->config.norm_eps,
                                  });
    barrier(r);
}

/// x[T, d] = patches · Wᵀ + positions
static void record_embedding(const recording *r) {
    const vision_encoder *e = r->encoder;
    const vision_tower *t = e->tower;
    const activation *x = &e->activations[ACTIVATION_X];
    gpu_command_label(r->ops.command, "patches");
    op_record_gather(&r->ops, &(op_gather){
                                  .x = t->positions,
                                  .y = x->buffer.address,
                                  .index = address_of(e, e->arrays.position_index),
                                  .width = t->config.hidden,
                                  .pieces = 1,
                                  .x_stride = x->stride,
                                  .y_stride = x->stride,
                                  .rows = r->rows,
                              });
    barrier(r);
    op_record_linear(&r->ops, &(op_linear){
                                  .segments = {{.weight = &t->patch}},
                                  .segment_count = 1,
                                  .x = address_of(e, e->arrays.patches),
                                  .y = x->buffer.address,
                                  .x_stride = e->patch_stride,
                                  .y_stride = x->stride,
                                  .rows = r->rows,
                                  .residual = true,
                              });
    barrier(r);
    if (t->pre_norm.weight) record_norm(r, &t->pre_norm, x);
}

/// normed[T, d] = attention over all of a row's tile
static void record_attention(const recording *r, const vision_layer *layer) {
    const vision_encoder *e = r->encoder;
    const vision_config *c = &e->tower->config;
    const activation *qkv = &e->activations[ACTIVATION_QKV], *out = &e->activations[ACTIVATION_NORMED];
    op_record_rope_kv(&r->ops, &(op_rope_kv){
                                   .step = address_of(e, e->arrays.places),
                                   .qkv = qkv->buffer.address,
                                   .table = address_of(e, e->arrays.turns),
                                   .bias = layer->qkv_bias,
                                   .stride = qkv->stride,
                                   .q_offset = e->qkv_offset[0],
                                   .k_offset = e->qkv_offset[1],
                                   .v_offset = e->qkv_offset[2],
                                   .heads = c->heads,
                                   .kv_heads = c->heads,
                                   .head_dim = c->hidden / c->heads,
                                   .rows = r->rows,
                                   .kv_f16 = e->params.kv_f16,
                               });
    barrier(r);
    op_record_attention(&r->ops, &(op_attention){
                                     .step = address_of(e, e->arrays.views),
                                     .q = qkv->buffer.address,
                                     .out = out->buffer.address,
                                     .q_stride = qkv->stride,
                                     .out_stride = out->stride,
                                     .heads = c->heads,
                                     .kv_heads = c->heads,
                                     .head_dim = c->hidden / c->heads,
                                     .rows = r->rows,
                                     .spans = r->tiles * e->spans_per_tile,
                                     .longest = e->positions,
                                     .kv_f16 = e->params.kv_f16,
                                 });
    barrier(r);
}

static void record_gelu(const recording *r, const activation *x, uint32_t width, uint32_t rows, op_gelu_kind kind) {
    op_record_gelu(&r->ops, &(op_gelu){.x = x->buffer.address, .width = width, .stride = x->stride, .rows = rows, .kind = kind});
    barrier(r);
}

static void record_layer(const recording *r, const vision_layer *layer) {
    static const op_gelu_kind kinds[] = {
        [VISION_QUICK_GELU] = OP_GELU_QUICK, [VISION_GELU] = OP_GELU_ERF, [VISION_GELU_TANH] = OP_GELU_TANH};
    const vision_encoder *e = r->encoder;
    const vision_config *c = &e->tower->config;
    const activation *x = &e->activations[ACTIVATION_X], *normed = &e->activations[ACTIVATION_NORMED],
                     *qkv = &e->activations[ACTIVATION_QKV], *ffn = &e->activations[ACTIVATION_FFN];
    gpu_command_label(r->ops.command, "tower attention");
    record_norm(r, &layer->norms[0], normed);
    record_group(r, &(group){
                        // q, k, v [T, d] = normed · Wᵀ
                        .weights = &layer->weights[VISION_Q],
                        .count = 3,
                        .rows = r->rows,
                        .x = normed->buffer.address,
                        .x_stride = normed->stride,
                        .y = qkv->buffer.address,
                        .y_stride = qkv->stride,
                        .y_offsets = e->qkv_offset,
                    });
    record_attention(r, layer);
    record_group(r, &(group){
                        // x[T, d] += attended · Woutᵀ + b
                        .weights = &layer->weights[VISION_OUT],
                        .count = 1,
                        .rows = r->rows,
                        .x = normed->buffer.address,
                        .x_stride = normed->stride,
                        .y = x->buffer.address,
                        .y_stride = x->stride,
                        .residual = true,
                    });
    gpu_command_label(r->ops.command, "tower mlp");
    record_norm(r, &layer->norms[1], normed);
    record_group(r, &(group){
                        // ffn[T, f] = normed · W1ᵀ + b
                        .weights = &layer->weights[VISION_FC1],
                        .count = 1,
                        .rows = r->rows,
                        .x = normed->buffer.address,
                        .x_stride = normed->stride,
                        .y = ffn->buffer.address,
                        .y_stride = ffn->stride,
                    });
    record_gelu(r, ffn, c->ffn, r->rows, kinds[c->activation]);
    record_group(r, &(group){
                        // x[T, d] += gelu(ffn) · W2ᵀ + b
                        .weights = &layer->weights[VISION_FC2],
                        .count = 1,
                        .rows = r->rows,
                        .x = ffn->buffer.address,
                        .x_stride = ffn->stride,
                        .y = x->buffer.address,
                        .y_stride = x->stride,
                        .residual = true,
                    });
}

/// features[F, text] from x[T, d]: class tokens dropped or patches put side by side, then the projector.
static void record_projector(const recording *r, uint64_t features, uint32_t features_stride) {
    const vision_encoder *e = r->encoder;
    const vision_tower *t = e->tower;
    const vision_config *c = &t->config;
    const activation *x = &e->activations[ACTIVATION_X], *picked = &e->activations[ACTIVATION_PICKED],
                     *between = &e->activations[ACTIVATION_BETWEEN];
    uint32_t rows = r->tiles * e->features;
    gpu_command_label(r->ops.command, "projector");
    op_record_gather(&r->ops, &(op_gather){
                                  .x = x->buffer.address,
                                  .y = picked->buffer.address,
                                  .index = address_of(e, e->arrays.feature_index),
                                  .width = c->hidden,
                                  .pieces = c->image.shuffle * c->image.shuffle,
                                  .x_stride = x->stride,
                                  .y_stride = picked->stride,
                                  .rows = rows,
                              });
    barrier(r);
    group last = {.weights = &t->projector[t->projector_count - 1],
                  .count = 1,
                  .rows = rows,
                  .x = picked->buffer.address,
                  .x_stride = picked->stride,
                  .y = features,
                  .y_stride = features_stride};
    if (t->projector_count > 1) { // gelu between the two
        group first = last;
        first.weights = &t->projector[0];
        first.y = last.x = between->buffer.address;
        first.y_stride = last.x_stride = between->stride;
        record_group(r, &first);
        record_gelu(r, between, c->text_hidden, rows, OP_GELU_ERF);
    }
    record_group(r, &last);
}

void vision_encoder_record(vision_encoder *encoder, gpu_command *command, uint32_t count, uint64_t features, uint32_t features_stride) {
    const vision_tower *t = encoder->tower;
    recording r = {
        .encoder = encoder, .ops = {.command = command, .policy = encoder->policy}, .tiles = count, .rows = count * encoder->positions};
    record_embedding(&r);
    for (uint32_t i = 0; i < t->config.layers; i++) record_layer(&r, &t->layers[i]);
    if (t->post_norm.weight) record_norm(&r, &t->post_norm, &encoder->activations[ACTIVATION_X]);
    record_projector(&r, features, features_stride);
}

void vision_encoder_record_rows(const vision_encoder *encoder, gpu_command *command, uint64_t features, uint32_t feature_rows,
                                uint64_t index, uint32_t rows, uint64_t to, uint32_t stride) {
    const vision_tower *t = encoder->tower;
    const op_recorder ops = {.command = command, .policy = encoder->policy};
    op_gather op = {.width = t->config.text_hidden, .pieces = 1, .x_stride = stride, .y_stride = stride, .rows = 1};
    gpu_command_label(command, "image rows");
    if (t->newline) {
        op.x = t->newline;
        op.y = features + 4ull * feature_rows * stride;
        op.index = address_of(encoder, encoder->arrays.position_index); // which begins with 0
        op_record_gather(&ops, &op);
        gpu_command_barrier(command);
    }
    op.x = features;
    op.y = to;
    op.index = index;
    op.rows = rows;
    op_record_gather(&ops, &op);
    gpu_command_barrier(command);
}
