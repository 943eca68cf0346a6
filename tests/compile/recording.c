#include "compile/recording.h"

#include "model/workspace.h"
#include "train/record.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 256, FEW_ROWS = 64, CONTEXT = 2048, SOMEWHERE = 0x10000 };

static matrix matrix_somewhere(matrix_type type, uint32_t out, uint32_t in, uint32_t group) {
    matrix m = matrix_of(type, out, in, group);
    m.address = SOMEWHERE;
    return m;
}

static model_weight weight_of(matrix_type type, bool factored, uint32_t out, uint32_t in, uint32_t group) {
    model_weight w = {.factored = factored, .out = out, .in = in, .rank = out < in ? out : in};
    w.dense = matrix_somewhere(type, out, in, group);
    w.u = matrix_somewhere(type, out, w.rank, group);
    w.vt = matrix_somewhere(type, w.rank, in, group);
    return w;
}

static void fill_layer(model_layer *layer, const compile_shape *s, matrix_type type, bool factored, uint32_t group) {
    uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const uint32_t shapes[MODEL_MATRICES][2] = {
        [MODEL_Q] = {q, s->hidden},         [MODEL_K] = {kv, s->hidden},        [MODEL_V] = {kv, s->hidden},
        [MODEL_O] = {s->hidden, q},         [MODEL_GATE] = {s->ffn, s->hidden}, [MODEL_UP] = {s->ffn, s->hidden},
        [MODEL_DOWN] = {s->hidden, s->ffn},
    };
    for (uint32_t m = 0; m < MODEL_MATRICES; m++) layer->weights[m] = weight_of(type, factored, shapes[m][0], shapes[m][1], group);
    layer->attention_norm = layer->ffn_norm = SOMEWHERE;
    if (s->gemma) layer->q_norm = layer->k_norm = layer->attention_post_norm = layer->ffn_post_norm = SOMEWHERE;
}

/// Wide models get the largest tiles where there are matrix units, narrow ones the smallest.
static op_policy policy_of(zs_device *device, const compile_shape *s) {
    op_policy policy = op_policy_of(device);
    const op_matrix_shape largest = {8 * policy.matrix.m, 8, 8};
    memcpy(policy.integers, policy.matvec, sizeof policy.integers);
    if (!(policy.tiers & ZS_TIER_MATRIX)) return policy;
    bool large = s->hidden >= 2048 && op_matrix_divides(&largest, &policy.matrix, policy.subgroup_size);
    policy.matrix_shape = large ? largest : op_matrix_smallest(&policy.matrix);
    policy.matrix_fill = large ? 4096 : 0;
    policy.matrix_attention = policy.tiers & ZS_TIER_MATRIX2 ? ZS_TIER_MATRIX2 : ZS_TIER_MATRIX;
    return policy;
}

static zs_model model_of(zs_device *device, const compile_shape *s, matrix_type type, model_layer *layer, uint32_t group) {
    return (zs_model){
        .policy = policy_of(device, s),
        .device = device,
        .config = {.layers = 1,
                   .hidden = s->hidden,
                   .ffn = s->ffn,
                   .heads = s->heads,
                   .kv_heads = s->kv_heads,
                   .head_dim = s->head_dim,
                   .vocab = s->vocab,
                   .context = CONTEXT,
                   .norm_eps = 1e-5f,
                   .gelu = s->gemma,
                   .head_norms = s->gemma,
                   .post_norms = s->gemma},
        .layers = layer,
        .embedding = matrix_somewhere(type, s->vocab, s->hidden, group),
        .head = matrix_somewhere(type, s->vocab, s->hidden, group),
        .output_norm = SOMEWHERE,
    };
}

/// What model_workspace_create makes, less the memory.
static model_workspace workspace_of(const zs_model *model, kv_type kv, bool deterministic) {
    model_workspace made = {
        .device = model->device,
        .params = {.max_rows = MAX_ROWS, .max_logit_rows = MAX_ROWS, .context = CONTEXT, .kv = kv, .deterministic = deterministic},
        .policy = model->policy,
    };
    made.policy.deterministic = deterministic;
    if (kv == KV_F32) made.policy = op_policy_within(&made.policy, false, KV_F32);
    workspace_strides(model, &made);
    for (uint32_t i = 0; i < ACTIVATION_COUNT; i++) made.activations[i].buffer.address = SOMEWHERE;
    made.logits.address = made.logit_hidden.address = made.partials.address = made.operands.address = made.rope.address = SOMEWHERE;
    return made;
}

static void record_step(const zs_model *model, model_workspace *workspace, gpu_command *command, uint32_t rows, bool decode) {
    uint32_t span = decode ? 1 : model_span_rows(workspace, model);
    const model_step step = {
        .step = SOMEWHERE,
        .rows = rows,
        .spans = (rows + span - 1) / span,
        .decode = decode,
        .longest = CONTEXT,
        .logit_rows = SOMEWHERE,
        .logit_count = decode ? rows : 1,
    };
    model_record(model, workspace, command, &step);
    model_record_sample(model, workspace, command, &step, SOMEWHERE, SOMEWHERE, decode);
    model_record_logprobs(model, workspace, command, &step, SOMEWHERE, SOMEWHERE);
}

zs_status compile_record(zs_device *device, const compile_shape *shape, matrix_type type, bool factored, kv_type kv, bool deterministic,
                         zs_error *error) {
    model_layer layer = {0};
    uint32_t group = op_policy_of(device).weight_group;
    fill_layer(&layer, shape, type, factored, group);
    zs_model model = model_of(device, shape, type, &layer, group);
    model_workspace workspace = workspace_of(&model, kv, deterministic);
    gpu_command *command = NULL;
    zs_status status = gpu_command_create(device, "compile", &command, error);
    if (status) return status;
    status = gpu_command_begin(command, error);
    if (!status) {
        record_step(&model, &workspace, command, MAX_ROWS, false);
        record_step(&model, &workspace, command, FEW_ROWS, false); // which matrix units take in other tiles
        for (uint32_t rows = 1; rows <= 16; rows *= 2) record_step(&model, &workspace, command, rows, true);
        workspace.policy.dot = kv != KV_F32 && (workspace.policy.tiers & ZS_TIER_DOT); // by products of integers too
        for (uint32_t rows = 1; rows <= 2 && workspace.policy.dot; rows *= 2) record_step(&model, &workspace, command, rows, true);
        status = gpu_command_end(command, error);
    }
    gpu_command_destroy(&command);
    return status;
}

zs_status compile_record_compose(zs_device *device, const compile_shape *shape, matrix_type type, zs_error *error) {
    static const matrix_type types[] = {MATRIX_F16, MATRIX_Q8, MATRIX_Q4};
    const op_policy policy = policy_of(device, shape);
    const matrix u = matrix_somewhere(type, shape->ffn, shape->hidden, policy.weight_group),
                 vt = matrix_somewhere(type, shape->hidden, shape->hidden, policy.weight_group);
    gpu_command *command = NULL;
    zs_status status = gpu_command_create(device, "compile", &command, error);
    if (!status) status = gpu_command_begin(command, error);
    for (size_t i = 0; i < sizeof types / sizeof *types && !status; i++) {
        const matrix to = matrix_somewhere(types[i], shape->ffn, shape->hidden, policy.weight_group);
        op_record_compose(&(op_recorder){.command = command, .policy = policy}, &(op_compose){.u = &u,
                                                                                              .vt = &vt,
                                                                                              .to = &to,
                                                                                              .scales = SOMEWHERE,
                                                                                              .step = SOMEWHERE,
                                                                                              .a = SOMEWHERE,
                                                                                              .y = SOMEWHERE,
                                                                                              .operands = SOMEWHERE,
                                                                                              .rows = op_pack_rows(&to)});
    }
    if (!status) status = gpu_command_end(command, error);
    gpu_command_destroy(&command);
    return status;
}

/// A buffer of any size without memory; its handle is passed to functions that do nothing.
static gpu_buffer buffer_somewhere(void) {
    return (gpu_buffer){.handle = (VkBuffer)(uintptr_t)SOMEWHERE, .address = SOMEWHERE, .size = UINT64_MAX / 2};
}

static void fill_buffers(train_workspace *w) {
    gpu_buffer *const all[] = {&w->logits,  &w->hidden,      &w->d_hidden,         &w->stats,
                               &w->pages,   &w->rope,        &w->scales,           &w->sums,
                               &w->results, &w->base_scales, &w->reference.buffer, &w->reference_logits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i] = buffer_somewhere();
    for (uint32_t i = 0; i < TRAIN_ACTIVATIONS; i++) w->activations[i].buffer = buffer_somewhere();
    for (uint32_t i = 0; i <= w->model->config.layers; i++) w->inputs[i].buffer = buffer_somewhere();
    w->arrays.step_address[0] = w->arrays.step_address[1] = w->arrays.step_address[2] = SOMEWHERE;
    w->arrays.logit_rows_address = w->arrays.targets_address = w->arrays.weights_address = w->arrays.kl_weights_address = SOMEWHERE;
}

zs_status compile_record_gradient(zs_device *device, const compile_shape *shape, matrix_type type, bool factored, zs_error *error) {
    model_layer layer = {0};
    uint32_t group = op_policy_of(device).weight_group;
    fill_layer(&layer, shape, type, factored, group);
    zs_model model = model_of(device, shape, type, &layer, group);
    model.scale_count = factored ? 4 : 0;
    train_workspace workspace;
    gpu_command *command = NULL;
    zs_status status = train_workspace_layout(
        &model, &(train_limits){.rows = MAX_ROWS, .sequences = 2, .logit_rows = 16, .reference = factored}, &workspace, error);
    if (!status) status = gpu_command_create(device, "compile", &command, error);
    if (!status) status = gpu_command_begin(command, error);
    if (!status) {
        fill_buffers(&workspace);
        train_record(
            &workspace, command,
            &(train_pass){.rows = MAX_ROWS, .spans = {MAX_ROWS, MAX_ROWS}, .longest = MAX_ROWS, .logits = 20, .reference = factored});
        status = gpu_command_end(command, error);
    }
    gpu_command_destroy(&command);
    free(workspace.inputs);
    return status;
}

/// Sizes of CLIP's large tower; sixteen patches become one in SmolVLM's.
static void record_tower(const op_recorder *recorder, const matrix *weight, kv_type kv) {
    enum { ROWS = 577, WIDTH = 1024, HEADS = 16, HEAD_DIM = 64, PIECES = 16 };
    op_record_layer_norm(recorder, &(op_layer_norm){.x = SOMEWHERE,
                                                    .weight = SOMEWHERE,
                                                    .bias = SOMEWHERE,
                                                    .y = SOMEWHERE,
                                                    .width = WIDTH,
                                                    .x_stride = WIDTH,
                                                    .y_stride = WIDTH,
                                                    .rows = ROWS});
    for (uint32_t residual = 0; residual < 2; residual++)
        op_record_linear(recorder, &(op_linear){.segments = {{.weight = weight}},
                                                .segment_count = 1,
                                                .x = SOMEWHERE,
                                                .y = SOMEWHERE,
                                                .bias = SOMEWHERE,
                                                .operands = SOMEWHERE,
                                                .x_stride = WIDTH,
                                                .y_stride = WIDTH,
                                                .rows = ROWS,
                                                .residual = residual != 0});
    op_record_attention(recorder, &(op_attention){.step = SOMEWHERE,
                                                  .q = SOMEWHERE,
                                                  .out = SOMEWHERE,
                                                  .q_stride = 3 * WIDTH,
                                                  .out_stride = WIDTH,
                                                  .heads = HEADS,
                                                  .kv_heads = HEADS,
                                                  .head_dim = HEAD_DIM,
                                                  .rows = ROWS,
                                                  .spans = ROWS,
                                                  .longest = ROWS,
                                                  .kv = kv});
    for (uint32_t k = 0; k < 6; k++)
        op_record_gelu(recorder, &(op_gelu){.x = SOMEWHERE,
                                            .y = SOMEWHERE,
                                            .width = WIDTH,
                                            .stride = WIDTH,
                                            .rows = ROWS,
                                            .kind = (op_gelu_kind)(k / 2),
                                            .back = k % 2});
    op_record_gather(recorder, &(op_gather){.x = SOMEWHERE,
                                            .y = SOMEWHERE,
                                            .index = SOMEWHERE,
                                            .width = WIDTH,
                                            .pieces = PIECES,
                                            .x_stride = WIDTH,
                                            .y_stride = PIECES * WIDTH,
                                            .rows = ROWS / PIECES});
    // Backwards; attention's kernels are the decoder's.
    op_record_layer_norm_back(recorder, &(op_layer_norm_back){.x = SOMEWHERE,
                                                              .weight = SOMEWHERE,
                                                              .g = SOMEWHERE,
                                                              .dx = SOMEWHERE,
                                                              .width = WIDTH,
                                                              .x_stride = WIDTH,
                                                              .g_stride = WIDTH,
                                                              .rows = ROWS});
    op_record_gather_sum(
        recorder,
        &(op_gather_sum){
            .x = SOMEWHERE, .y = SOMEWHERE, .begin = SOMEWHERE, .from = SOMEWHERE, .width = WIDTH, .y_stride = WIDTH, .rows = ROWS});
}

zs_status compile_record_tower(zs_device *device, matrix_type type, kv_type kv, zs_error *error) {
    op_policy policy = op_policy_of(device);
    if (policy.tiers & ZS_TIER_MATRIX) policy.matrix_shape = op_matrix_smallest(&policy.matrix);
    matrix weight = matrix_somewhere(type, 1024, 1024, policy.weight_group);
    gpu_command *command = NULL;
    zs_status status = gpu_command_create(device, "compile", &command, error);
    if (!status) status = gpu_command_begin(command, error);
    if (!status) {
        record_tower(&(op_recorder){.command = command, .policy = policy}, &weight, kv);
        status = gpu_command_end(command, error);
    }
    gpu_command_destroy(&command);
    return status;
}
