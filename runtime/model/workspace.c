#include "model/workspace.h"

#include <stdlib.h>

uint32_t activation_offsets(const uint32_t *widths, uint32_t count, uint32_t *offsets) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        offsets[i] = at;
        at += pad32(widths[i]);
    }
    return at;
}

uint32_t group_offsets(const model_weight *weights, uint32_t count, uint32_t *offsets) {
    uint32_t ranks[OP_MAX_SEGMENTS];
    for (uint32_t i = 0; i < count; i++) ranks[i] = weights[i].factored ? weights[i].rank : 0;
    return activation_offsets(ranks, count, offsets);
}

uint32_t group_stride(const zs_model *model, uint32_t first, uint32_t count) {
    uint32_t widest = 0, offsets[OP_MAX_SEGMENTS];
    for (uint32_t i = 0; i < model->config.layers; i++) {
        uint32_t stride = group_offsets(&model->layers[i].weights[first], count, offsets);
        if (stride > widest) widest = stride;
    }
    return widest;
}

void group_segments(const model_weight *weights, uint32_t count, const uint32_t *a_offsets, const uint32_t *y_offsets, op_linear *v,
                    op_linear *u, op_linear *dense) {
    for (uint32_t i = 0; i < count; i++) {
        const model_weight *w = &weights[i];
        uint32_t y_offset = y_offsets ? y_offsets[i] : 0;
        if (w->factored) {
            v->segments[v->segment_count++] = (op_segment){.weight = &w->vt, .y_offset = a_offsets[i], .scale_offset = w->scale_offset};
            u->segments[u->segment_count++] = (op_segment){.weight = &w->u, .x_offset = a_offsets[i], .y_offset = y_offset};
        } else {
            dense->segments[dense->segment_count++] = (op_segment){.weight = &w->dense, .y_offset = y_offset};
        }
    }
}

static void fill_strides(const zs_model *model, uint32_t strides[ACTIVATION_COUNT], uint32_t qkv_offset[3]) {
    const model_config *c = &model->config;
    uint32_t widths[3] = {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim};
    strides[ACTIVATION_X] = pad32(c->hidden);
    strides[ACTIVATION_QKV] = activation_offsets(widths, 3, qkv_offset);
    strides[ACTIVATION_ATTENDED] = pad32(widths[0]);
    strides[ACTIVATION_FFN] = pad32(c->ffn);
    strides[ACTIVATION_A_QKV] = group_stride(model, MODEL_Q, 3);
    strides[ACTIVATION_A_O] = group_stride(model, MODEL_O, 1);
    strides[ACTIVATION_A_FFN] = group_stride(model, MODEL_GATE, 2);
    strides[ACTIVATION_A_DOWN] = group_stride(model, MODEL_DOWN, 1);
    strides[ACTIVATION_ADDED] = c->post_norms ? pad32(c->hidden) : 0;
}

void workspace_strides(const zs_model *model, model_workspace *workspace) {
    uint32_t strides[ACTIVATION_COUNT];
    fill_strides(model, strides, workspace->qkv_offset);
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) workspace->activations[i].stride = strides[i];
    workspace->logits_stride = pad32(model->config.vocab);
}

op_policy model_workspace_policy(const zs_model *model, const model_workspace_params *params) {
    op_policy policy = op_policy_within(&model->policy, params->fast, params->kv);
    policy.deterministic = params->deterministic;
    return policy;
}

/// What the buffers behind the activations take.
typedef struct tail_bytes {
    uint64_t logits, logit_hidden, partials, operands, rope;
} tail_bytes;

static tail_bytes tail_of(const zs_model *model, const model_workspace_params *params) {
    const model_config *c = &model->config;
    uint32_t most = params->max_rows > params->max_logit_rows ? params->max_rows : params->max_logit_rows;
    op_policy policy = model_workspace_policy(model, params);
    uint32_t strides[ACTIVATION_COUNT], qkv_offset[3], widest = 0;
    fill_strides(model, strides, qkv_offset);
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) widest = strides[i] > widest ? strides[i] : widest;
    return (tail_bytes){
        .logits = 4ull * params->max_logit_rows * pad32(c->vocab),
        .logit_hidden = 4ull * params->max_logit_rows * pad32(c->hidden),
        .partials = op_attention_partials(policy, c->heads, c->kv_heads, c->head_dim),
        .operands = op_linear_operands(&policy, most, widest),
        .rope = model_rope_bytes(model, params->context) * (c->window_rope_base > 0 ? 2 : 1),
    };
}

uint64_t model_workspace_bytes(const zs_model *model, const model_workspace_params *params) {
    uint32_t strides[ACTIVATION_COUNT], qkv_offset[3];
    fill_strides(model, strides, qkv_offset);
    tail_bytes tail = tail_of(model, params);
    uint64_t bytes = tail.logits + tail.logit_hidden + tail.partials + tail.operands + tail.rope;
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) bytes += 4ull * params->max_rows * strides[i];
    return bytes;
}

static zs_status create_optional(zs_device *device, uint64_t bytes, bool zero, const char *name, gpu_buffer *buffer, zs_error *error) {
    return bytes ? gpu_buffer_create(device, GPU_MEMORY_DEVICE, bytes, zero, name, buffer, error) : ZS_OK;
}

zs_status model_workspace_create(const zs_model *model, const model_workspace_params *params, model_workspace **out, zs_error *error) {
    static const char *const names[ACTIVATION_COUNT] = {"x", "qkv", "attended", "ffn", "a qkv", "a o", "a ffn", "a down", "added"};
    model_workspace *w = calloc(1, sizeof *w);
    if (!w) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a workspace");
    w->device = model->device;
    w->params = *params;
    w->policy = model_workspace_policy(model, params);
    workspace_strides(model, w);
    tail_bytes tail = tail_of(model, params);

    zs_status status = ZS_OK;
    for (uint32_t i = 0; i < ACTIVATION_COUNT && !status; i++) {
        status = create_optional(w->device, 4ull * params->max_rows * w->activations[i].stride, true, names[i], &w->activations[i].buffer,
                                 error);
    }
    if (!status) status = create_optional(w->device, tail.logits, true, "logits", &w->logits, error);
    if (!status) status = create_optional(w->device, tail.logit_hidden, true, "logit hidden", &w->logit_hidden, error);
    if (!status) status = create_optional(w->device, tail.partials, true, "attention partials", &w->partials, error);
    if (!status) status = create_optional(w->device, tail.operands, false, "matrix operands", &w->operands, error);
    if (!status) status = model_rope_create(model, params->context, false, &w->rope, error);
    if (!status && model->config.window_rope_base > 0) status = model_rope_create(model, params->context, true, &w->window_rope, error);
    if (status)
        model_workspace_destroy(&w);
    else
        *out = w;
    return status;
}

void model_workspace_destroy(model_workspace **handle) {
    model_workspace *w = *handle;
    if (!w) return;
    *handle = NULL;
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) gpu_buffer_destroy(w->device, &w->activations[i].buffer);
    gpu_buffer *const rest[] = {&w->logits, &w->logit_hidden, &w->partials, &w->operands, &w->rope, &w->window_rope};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) gpu_buffer_destroy(w->device, rest[i]);
    free(w);
}

const gpu_buffer *model_logits(const model_workspace *workspace) { return &workspace->logits; }
