#include "model/compose.h"

#include "model/factors.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

struct model_composer {
    zs_model *model;
    zs_model dense; // `model` with W' for its factored matrices
    op_policy policy;
    gpu_buffer *buffers; // of W'
    uint32_t buffer_count;
    uint32_t block;   // rows that are made at once
    gpu_buffer a, y;  // scratch: f32 [block, r], [block, in]
    gpu_buffer half;  // scratch: a as operands of matrix units; none where they do not serve
    gpu_buffer rows;  // Step [blocks], then Row [blocks · block] whose tokens count up
    factor_slot slot; // where factors are brought to that do not lie on the device
    gpu_command *command;
    model_compose_done *done; // told of each submit; may be NULL
    void *user;
};

// ---- sizes ---------------------------------------------------------------------------------------------------------

/// Operations of one dispatch: about ten milliseconds of a card's time, and enough rows to fill it.
static const double block_flops = 5e10;
enum { BLOCK_ROWS = 2048, BLOCK_STEP = 64 };

typedef struct extent {
    uint32_t out, rank, in; // of the largest factored matrix, each by itself
} extent;

static extent extent_of(const zs_model *model) {
    extent e = {0};
    for (uint32_t i = 0; i < model->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const model_weight *w = &model->layers[i].weights[m];
            if (!w->factored) continue;
            e.out = w->out > e.out ? w->out : e.out;
            e.rank = w->rank > e.rank ? w->rank : e.rank;
            e.in = w->in > e.in ? w->in : e.in;
        }
    }
    return e;
}

static uint32_t round_up(uint32_t n, uint32_t step) { return (n + step - 1) / step * step; }

static uint32_t block_rows(const extent *e) {
    double rows = block_flops / (2.0 * e->rank * e->in);
    uint32_t block = rows < BLOCK_ROWS ? (uint32_t)rows / BLOCK_STEP * BLOCK_STEP : BLOCK_ROWS, all = round_up(e->out, BLOCK_STEP);
    if (block < BLOCK_STEP) block = BLOCK_STEP;
    return all == 0 || block < all ? block : all;
}

static uint32_t blocks_of(const extent *e) { return (e->out + block_rows(e) - 1) / block_rows(e); }
static uint64_t a_bytes(const extent *e) { return 4ull * block_rows(e) * round_up(e->rank, 32); }
static uint64_t y_bytes(const extent *e) { return 4ull * block_rows(e) * round_up(e->in, 32); }
static uint64_t steps_bytes(const extent *e) { return (blocks_of(e) * sizeof(Step) + 255) / 256 * 256; }
static uint64_t rows_bytes(const extent *e) { return steps_bytes(e) + (uint64_t)blocks_of(e) * block_rows(e) * sizeof(Row); }

static uint64_t half_bytes(const op_policy *policy, const extent *e) {
    return op_linear_back_operands(policy, block_rows(e), round_up(e->rank, 32));
}

uint64_t model_composer_bytes(const zs_model *model, matrix_type type, bool fast, uint64_t *scratch) {
    const op_policy policy = op_policy_within(&model->policy, fast, KV_F32);
    uint32_t group = model->policy.weight_group;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < model->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const model_weight *w = &model->layers[i].weights[m];
            const matrix dense = matrix_of(type, w->out, w->in, group);
            if (w->factored) bytes += matrix_bytes(&dense);
        }
    }
    extent e = extent_of(model);
    uint64_t rest = bytes ? a_bytes(&e) + y_bytes(&e) + half_bytes(&policy, &e) + rows_bytes(&e) + factor_slot_bytes(model) : 0;
    if (scratch) *scratch = rest;
    return bytes + rest;
}

double model_compose_flops(const zs_model *model) {
    double flops = 0;
    for (uint32_t i = 0; i < model->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const model_weight *w = &model->layers[i].weights[m];
            if (w->factored) flops += 2.0 * w->out * (double)w->rank * w->in;
        }
    }
    return flops;
}

// ---- creation ------------------------------------------------------------------------------------------------------

/// Rows that name themselves, and a Step for each block of them.
static zs_status create_rows(model_composer *c, const extent *e, zs_error *error) {
    zs_status status = gpu_buffer_create(c->model->device, GPU_MEMORY_SHARED, rows_bytes(e), true, "compose rows", &c->rows, error);
    if (status) return status;
    uint64_t at = steps_bytes(e);
    Step *steps = c->rows.mapped;
    Row *rows = (Row *)(void *)((uint8_t *)c->rows.mapped + at);
    for (uint32_t i = 0; i < blocks_of(e) * c->block; i++) rows[i].token = i;
    for (uint32_t i = 0; i < blocks_of(e); i++) steps[i].rows = c->rows.address + at + (uint64_t)i * c->block * sizeof(Row);
    return ZS_OK;
}

static zs_status create_weight(model_composer *c, model_weight *w, matrix_type type, zs_error *error) {
    w->factored = false;
    w->dense = matrix_of(type, w->out, w->in, c->policy.weight_group);
    uint64_t needed;
    if (!matrix_split(&w->dense, c->policy.part_limit, &needed))
        return zs_error_set(error, ZS_ERROR_DEVICE_MEMORY, "%s as %s would need %.0f MB in one piece, more than the device allows",
                            w->canonical, matrix_type_name(type), (double)needed / 1e6);
    zs_status status = ZS_OK;
    for (uint32_t p = 0; p < matrix_part_count(&w->dense) && !status; p++) {
        const matrix part = matrix_part(&w->dense, p);
        gpu_buffer *buffer = &c->buffers[c->buffer_count];
        status = gpu_buffer_create(c->model->device, GPU_MEMORY_DEVICE, matrix_bytes(&part), false, w->canonical, buffer, error);
        if (status) break;
        c->buffer_count++;
        matrix_set_part_address(&w->dense, p, buffer->address);
    }
    return status;
}

static zs_status create_weights(model_composer *c, matrix_type type, zs_error *error) {
    uint32_t layers = c->model->config.layers;
    c->dense = *c->model;
    c->dense.layers = malloc(layers * sizeof *c->dense.layers);
    c->buffers = calloc((size_t)layers * MODEL_MATRICES * MATRIX_MAX_PARTS, sizeof *c->buffers);
    if (!c->dense.layers || !c->buffers) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for composed weights");
    memcpy(c->dense.layers, c->model->layers, layers * sizeof *c->dense.layers);
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES && !status; m++) {
            model_weight *w = &c->dense.layers[i].weights[m];
            if (w->factored) status = create_weight(c, w, type, error);
        }
    }
    return status;
}

zs_status model_composer_create(zs_model *model, matrix_type type, bool fast, model_composer **out, zs_error *error) {
    model_composer *c = calloc(1, sizeof *c);
    if (!c) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for composed weights");
    extent e = extent_of(model);
    c->model = model;
    c->policy = op_policy_within(&model->policy, fast, KV_F32);
    c->block = block_rows(&e);
    zs_status status = create_weights(c, type, error);
    if (!status) status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, a_bytes(&e), false, "compose a", &c->a, error);
    if (!status) status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, y_bytes(&e), false, "compose y", &c->y, error);
    uint64_t half = half_bytes(&c->policy, &e);
    if (!status && half) status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, half, false, "compose operands", &c->half, error);
    if (!status) status = create_rows(c, &e, error);
    if (!status) status = factor_slot_create(model, &c->slot, error);
    if (!status) status = gpu_command_create(model->device, "compose", &c->command, error);
    if (status)
        model_composer_destroy(&c);
    else
        *out = c;
    return status;
}

void model_composer_destroy(model_composer **composer) {
    model_composer *c = *composer;
    if (!c) return;
    *composer = NULL;
    zs_device *device = c->model->device;
    for (uint32_t i = 0; i < c->buffer_count; i++) gpu_buffer_destroy(device, &c->buffers[i]);
    gpu_buffer *const scratch[] = {&c->a, &c->y, &c->half, &c->rows};
    for (size_t i = 0; i < sizeof scratch / sizeof *scratch; i++) gpu_buffer_destroy(device, scratch[i]);
    factor_slot_destroy(&c->slot);
    gpu_command_destroy(&c->command);
    free(c->buffers);
    free(c->dense.layers);
    free(c);
}

const zs_model *model_composed(const model_composer *composer) { return &composer->dense; }

void model_composer_watch(model_composer *composer, model_compose_done *done, void *user) {
    composer->done = done;
    composer->user = user;
    gpu_command_set_profiling(composer->command, done != NULL);
}

// ---- composing -----------------------------------------------------------------------------------------------------

/// W'[out, in] = U diag(s) Vᵀ, a block of rows after the other.
static void record_weight(model_composer *c, const matrix *u, const matrix *vt, const model_weight *to, uint64_t scales) {
    op_recorder recorder = {.command = c->command, .policy = c->policy};
    gpu_command_label(c->command, "compose");
    for (uint32_t first = 0, i = 0; first < to->out; first += c->block, i++) {
        op_record_compose(&recorder, &(op_compose){
                                         .u = u,
                                         .vt = vt,
                                         .to = &to->dense,
                                         .scales = scales + 4ull * to->scale_offset,
                                         .step = c->rows.address + i * sizeof(Step),
                                         .a = c->a.address,
                                         .y = c->y.address,
                                         .operands = c->half.address,
                                         .first = first,
                                         .rows = to->out - first < c->block ? to->out - first : c->block,
                                     });
        gpu_command_barrier(c->command); // the scratch is used again
    }
}

static zs_status run(model_composer *c, zs_error *error) {
    uint64_t value;
    zs_status status = gpu_command_end(c->command, error);
    if (!status) status = gpu_command_submit(c->command, &value, error);
    if (!status) status = gpu_device_wait(c->model->device, value, error);
    return status || !c->done ? status : c->done(c->user, c->command, error);
}

/// The factored matrices of a layer: together where their factors lie on the device, else one after the other.
static zs_status compose_layer(model_composer *c, uint32_t layer, uint64_t scales, zs_error *error) {
    bool resident = c->model->factors == ZS_PLACE_DEVICE;
    zs_status status = resident ? gpu_command_begin(c->command, error) : ZS_OK;
    for (uint32_t m = 0; m < MODEL_MATRICES && !status; m++) {
        const model_weight *from = &c->model->layers[layer].weights[m], *to = &c->dense.layers[layer].weights[m];
        matrix u = from->u, vt = from->vt;
        if (!from->factored) continue;
        if (!resident) status = factor_slot_fetch(&c->slot, layer, m, &u, &vt, error);
        if (!status && !resident) status = gpu_command_begin(c->command, error);
        if (status) break;
        record_weight(c, &u, &vt, to, scales);
        if (!resident) status = run(c, error);
    }
    return status || !resident ? status : run(c, error);
}

zs_status model_compose(model_composer *composer, uint64_t scales, zs_error *error) {
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < composer->model->config.layers && !status; i++) status = compose_layer(composer, i, scales, error);
    return status;
}
