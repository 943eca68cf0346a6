#include "train/workspace.h"

#include <stdlib.h>

static void fill_strides(const zs_model *model, uint32_t strides[TRAIN_ACTIVATIONS], uint32_t qkv_offset[3], uint32_t ffn_offset[2]) {
    const model_config *c = &model->config;
    const uint32_t qkv[3] = {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim}, ffn[2] = {c->ffn, c->ffn};
    strides[TRAIN_MID] = strides[TRAIN_DX] = strides[TRAIN_DH] = pad32(c->hidden);
    strides[TRAIN_QKV] = strides[TRAIN_D_QKV] = activation_offsets(qkv, 3, qkv_offset);
    strides[TRAIN_ATTENDED] = strides[TRAIN_D_ATTENDED] = pad32(qkv[0]);
    strides[TRAIN_GATE_UP] = activation_offsets(ffn, 2, ffn_offset);
    strides[TRAIN_FFN] = pad32(c->ffn);
    const uint32_t groups[4][3] = {
        {TRAIN_A_QKV, MODEL_Q, 3}, {TRAIN_A_O, MODEL_O, 1}, {TRAIN_A_FFN, MODEL_GATE, 2}, {TRAIN_A_DOWN, MODEL_DOWN, 1}};
    strides[TRAIN_SCALED] = 0;
    for (uint32_t g = 0; g < 4; g++) {
        uint32_t stride = group_stride(model, groups[g][1], groups[g][2]);
        strides[groups[g][0]] = stride;
        if (stride > strides[TRAIN_SCALED]) strides[TRAIN_SCALED] = stride;
    }
}

/// What the buffers besides the activations take.
typedef struct rest_bytes {
    uint64_t logits, hidden, stats, pages, rope, scales, results, arrays, operands;
} rest_bytes;

static op_policy policy_of(const zs_model *model, const train_limits *limits) {
    return op_policy_within(&model->policy, limits->fast, KV_F32);
}

/// Of whatever has a gradient by it: activations and logits.
static uint64_t operand_bytes(const zs_model *model, const train_limits *limits) {
    const op_policy policy = policy_of(model, limits);
    uint32_t strides[TRAIN_ACTIVATIONS], qkv_offset[3], ffn_offset[2];
    fill_strides(model, strides, qkv_offset, ffn_offset);
    uint64_t most = op_linear_back_operands(&policy, limits->logit_rows, pad32(model->config.vocab));
    for (uint32_t i = 0; i < TRAIN_ACTIVATIONS; i++) {
        uint64_t bytes = op_linear_back_operands(&policy, limits->rows, strides[i]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

uint64_t train_page_count(const train_limits *limits) { return limits->rows / KV_PAGE_TOKENS + limits->sequences; }
/// Of one layer's keys and values.
static uint64_t layer_floats(const zs_model *model) { return kv_page_bytes(KV_F32, model->config.kv_heads, model->config.head_dim) / 4; }
uint64_t train_page_floats(const zs_model *model, const train_limits *limits) { return (limits->kept + 1ull) * layer_floats(model); }
/// Rows, and copies of rows in front of a sequence's own in its first page.
static uint64_t row_count(const train_limits *limits) { return limits->rows + (KV_PAGE_TOKENS - 1ull) * limits->sequences; }
static uint32_t page_stride(const train_limits *limits) { return limits->rows / KV_PAGE_TOKENS + 1; }

static rest_bytes rest_of(const zs_model *model, const train_limits *limits) {
    const model_config *c = &model->config;
    uint64_t rows = limits->rows;
    return (rest_bytes){
        .logits = 4ull * limits->logit_rows * pad32(c->vocab),
        .hidden = 4ull * limits->logit_rows * pad32(c->hidden),
        .stats = 8 * rows * c->heads,
        .pages = 4 * train_page_count(limits) * train_page_floats(model, limits),
        .rope = model_rope_bytes(model, limits->rows),
        .scales = 4ull * (model->scale_count ? model->scale_count : 1),
        .results = 4ull * model->scale_count + 8 * rows,
        .arrays = 3 * sizeof(Step) + row_count(limits) * sizeof(Row) + rows * (2 * sizeof(Span) + 16) +
                  8ull * limits->sequences * page_stride(limits),
        .operands = operand_bytes(model, limits),
    };
}

/// Of those activations that are a layer's own.
static uint64_t own_bytes(const train_limits *limits, const uint32_t strides[TRAIN_ACTIVATIONS]) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < TRAIN_OF_LAYER; i++) bytes += 4ull * limits->rows * strides[i];
    return bytes;
}

uint64_t train_layer_bytes(const zs_model *model, const train_limits *limits) {
    uint32_t strides[TRAIN_ACTIVATIONS], qkv_offset[3], ffn_offset[2];
    fill_strides(model, strides, qkv_offset, ffn_offset);
    return 4 * train_page_count(limits) * layer_floats(model) + own_bytes(limits, strides);
}

uint32_t train_kept_place(const train_workspace *w, uint32_t layer) {
    uint32_t first = w->model->config.layers - w->limits.kept;
    return layer < first ? 0 : layer - first + 1;
}

uint64_t train_workspace_bytes(const zs_model *model, const train_limits *limits) {
    uint32_t strides[TRAIN_ACTIVATIONS], qkv_offset[3], ffn_offset[2];
    fill_strides(model, strides, qkv_offset, ffn_offset);
    rest_bytes rest = rest_of(model, limits);
    uint64_t bytes =
        rest.logits + 2 * rest.hidden + rest.stats + rest.pages + rest.rope + 2 * rest.scales + rest.results + rest.arrays + rest.operands;
    if (limits->reference) bytes += rest.logits + rest.scales + 4ull * limits->rows * pad32(model->config.hidden);
    for (uint32_t i = 0; i < TRAIN_ACTIVATIONS; i++) bytes += 4ull * limits->rows * strides[i];
    bytes += limits->kept * own_bytes(limits, strides);
    return bytes + 4ull * (model->config.layers + 1) * limits->rows * pad32(model->config.hidden);
}

static zs_status create_arrays(const zs_model *model, const train_limits *limits, train_arrays *a, zs_error *error) {
    zs_status status = gpu_buffer_create(model->device, GPU_MEMORY_SHARED, rest_of(model, limits).arrays, true, "rows of a backward pass",
                                         &a->buffer, error);
    if (status) return status;
    // In order of alignment: 16 bytes, 8, 4.
    uint64_t rows = limits->rows, rows_at = 3 * sizeof(Step), spans_at = rows_at + row_count(limits) * sizeof(Row),
             pages_at = spans_at + 2 * rows * sizeof(Span);
    a->page_stride = page_stride(limits);
    uint64_t logit_rows_at = pages_at + 8ull * limits->sequences * a->page_stride, targets_at = logit_rows_at + 4 * rows,
             weights_at = targets_at + 4 * rows, kl_weights_at = weights_at + 4 * rows;
    char *host = a->buffer.mapped;
    a->step = (Step *)(void *)host;
    a->rows = (Row *)(void *)(host + rows_at);
    a->pages = (uint64_t *)(void *)(host + pages_at);
    a->logit_rows = (uint32_t *)(void *)(host + logit_rows_at);
    a->targets = (uint32_t *)(void *)(host + targets_at);
    a->weights = (float *)(void *)(host + weights_at);
    a->kl_weights = (float *)(void *)(host + kl_weights_at);
    for (uint32_t i = 0; i < 2; i++) a->spans[i] = (Span *)(void *)(host + spans_at + i * rows * sizeof(Span));
    for (uint32_t i = 0; i < 3; i++) a->step_address[i] = a->buffer.address + i * sizeof(Step);
    a->logit_rows_address = a->buffer.address + logit_rows_at;
    a->targets_address = a->buffer.address + targets_at;
    a->weights_address = a->buffer.address + weights_at;
    a->kl_weights_address = a->buffer.address + kl_weights_at;
    return ZS_OK;
}

/// The parts of `arrays` that stay the same from pass to pass.
static void fill_steps(train_workspace *w) {
    train_arrays *a = &w->arrays;
    uint64_t base = a->buffer.address;
    const char *host = a->buffer.mapped;
    for (uint32_t i = 0; i < 3; i++) {
        a->step[i] = (Step){
            .rows = base + (uint64_t)((const char *)a->rows - host),
            .spans = base + (uint64_t)((const char *)a->spans[i % 2] - host),
            .scales = i < 2 ? w->scales.address : w->base_scales.address,
            .pages = base + (uint64_t)((const char *)a->pages - host),
            .scale_stride = w->model->scale_count,
            .page_stride = a->page_stride,
        };
    }
}

static zs_status create_activation(const train_workspace *w, const char *name, activation *to, zs_error *error) {
    if (to->stride == 0) return ZS_OK;
    return gpu_buffer_create(w->model->device, GPU_MEMORY_DEVICE, 4ull * w->limits.rows * to->stride, true, name, &to->buffer, error);
}

static zs_status create_activations(train_workspace *w, zs_error *error) {
    static const char *const names[TRAIN_ACTIVATIONS] = {"x between", "qkv",       "attended", "a qkv", "a o", "a ffn",      "a down",
                                                         "gate, up",  "silu · up", "σ z a",    "dx",    "dh",  "d attended", "d qkv"};
    zs_status status = ZS_OK;
    for (uint32_t i = 0; i <= w->model->config.layers && !status; i++)
        status = create_activation(w, "a layer's input", &w->inputs[i], error);
    for (uint32_t i = 0; i < TRAIN_ACTIVATIONS && !status; i++) status = create_activation(w, names[i], &w->activations[i], error);
    for (uint32_t i = 0; i < w->limits.kept * TRAIN_OF_LAYER && !status; i++)
        status = create_activation(w, names[i % TRAIN_OF_LAYER], &w->kept[i], error);
    return status ? status : create_activation(w, "the base model's output", &w->reference, error);
}

zs_status train_workspace_layout(const zs_model *model, const train_limits *limits, train_workspace *w, zs_error *error) {
    *w = (train_workspace){.model = model, .limits = *limits, .logits_stride = pad32(model->config.vocab)};
    w->policy = policy_of(model, limits);
    uint32_t strides[TRAIN_ACTIVATIONS], layers = model->config.layers;
    fill_strides(model, strides, w->qkv_offset, w->ffn_offset);
    w->inputs = calloc(layers + 1u, sizeof *w->inputs);
    w->kept = calloc(limits->kept * TRAIN_OF_LAYER + 1u, sizeof *w->kept);
    if (!w->inputs || !w->kept) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a backward pass");
    for (uint32_t i = 0; i <= layers; i++) w->inputs[i].stride = pad32(model->config.hidden);
    for (uint32_t i = 0; i < TRAIN_ACTIVATIONS; i++) w->activations[i].stride = strides[i];
    for (uint32_t i = 0; i < limits->kept * TRAIN_OF_LAYER; i++) w->kept[i].stride = strides[i % TRAIN_OF_LAYER];
    if (limits->reference) w->reference.stride = pad32(model->config.hidden);
    return ZS_OK;
}

zs_status train_workspace_create(const zs_model *model, const train_limits *limits, train_workspace *w, zs_error *error) {
    zs_status status = train_workspace_layout(model, limits, w, error);
    rest_bytes rest = rest_of(model, limits);
    const struct {
        gpu_buffer *buffer;
        uint64_t bytes;
        gpu_memory memory;
        const char *name;
    } buffers[] = {
        {&w->logits, rest.logits, GPU_MEMORY_DEVICE, "logits and their gradient"},
        {&w->hidden, rest.hidden, GPU_MEMORY_DEVICE, "the head's input"},
        {&w->d_hidden, rest.hidden, GPU_MEMORY_DEVICE, "the gradient by the head's input"},
        {&w->stats, rest.stats, GPU_MEMORY_DEVICE, "attention's sums"},
        {&w->pages, rest.pages, GPU_MEMORY_DEVICE, "keys and values of layers"},
        {&w->scales, rest.scales, GPU_MEMORY_DEVICE, "scales"},
        {&w->sums, rest.scales, GPU_MEMORY_DEVICE, "the gradient by the scales"},
        {&w->reference_logits, limits->reference ? rest.logits : 0, GPU_MEMORY_DEVICE, "the base model's logits"},
        {&w->base_scales, limits->reference ? rest.scales : 0, GPU_MEMORY_DEVICE, "the base model's scales"},
        {&w->results, rest.results, GPU_MEMORY_READBACK, "results of a backward pass"},
        {&w->operands, rest.operands, GPU_MEMORY_DEVICE, "operands of a backward pass"},
    };
    if (!status) status = create_activations(w, error);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers && !status; i++) {
        if (buffers[i].bytes)
            status = gpu_buffer_create(model->device, buffers[i].memory, buffers[i].bytes, true, buffers[i].name, buffers[i].buffer, error);
    }
    if (!status) status = model_rope_create(model, limits->rows, false, &w->rope, error);
    if (!status) status = create_arrays(model, limits, &w->arrays, error);
    if (status)
        train_workspace_destroy(w);
    else
        fill_steps(w);
    return status;
}

void train_workspace_destroy(train_workspace *w) {
    if (!w->model) return;
    zs_device *device = w->model->device;
    for (uint32_t i = 0; w->inputs && i <= w->model->config.layers; i++) gpu_buffer_destroy(device, &w->inputs[i].buffer);
    for (uint32_t i = 0; i < TRAIN_ACTIVATIONS; i++) gpu_buffer_destroy(device, &w->activations[i].buffer);
    gpu_buffer *const rest[] = {&w->logits,      &w->hidden,        &w->d_hidden,         &w->stats,
                                &w->pages,       &w->rope,          &w->scales,           &w->sums,
                                &w->results,     &w->arrays.buffer, &w->reference.buffer, &w->reference_logits,
                                &w->base_scales, &w->operands};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) gpu_buffer_destroy(device, rest[i]);
    for (uint32_t i = 0; w->kept && i < w->limits.kept * TRAIN_OF_LAYER; i++) gpu_buffer_destroy(device, &w->kept[i].buffer);
    free(w->inputs);
    free(w->kept);
    *w = (train_workspace){0};
}
