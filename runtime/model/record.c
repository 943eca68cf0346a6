/// The decoder as a list of operations. Shapes: T rows; d hidden, r ranks, h heads, f ffn.
#include "model/workspace.h"

/// y = epilogue(x · W0ᵀ | x · W1ᵀ | …) for matrices that share an input; each dense or factored.
typedef struct group {
    const model_weight *weights; // [count], consecutive in the layer
    uint32_t count;
    const activation *x, *a, *y; // a: where Vᵀx goes
    const uint32_t *y_offsets;   // [count]
    uint64_t norm;               // weight of the RMS norm on x; 0: none
    uint64_t post_norm;          // with residual: weight of the RMS norm on what is added to y; 0: none
    bool residual, silu_mul;
    const char *v_label, *u_label;
} group;

typedef struct recording {
    const zs_model *model;
    model_workspace *workspace;
    const model_step *step;
    op_recorder ops;
    op_chain chain; // linear operations that are not recorded yet, so that what follows on them can go along
} recording;

static void barrier(const recording *r) { gpu_command_barrier(r->ops.command); }

static op_linear linear_of(const recording *r, const activation *x, const activation *y) {
    return (op_linear){
        .x = x->buffer.address,
        .y = y->buffer.address,
        .x_stride = x->stride,
        .y_stride = y->stride,
        .rows = r->step->rows,
        .step = r->step->step,
        .decode = r->step->decode,
        .norm_width = r->model->config.hidden,
        .norm_eps = r->model->config.norm_eps,
        .operands = r->workspace->operands.address,
    };
}

/// y[T, d] += norm(added[T, d])
static void record_post_norm(const recording *r, const group *g, const activation *added) {
    op_record_rms_norm(&r->ops, &(op_rms_norm){
                                    .x = added->buffer.address,
                                    .weight = g->post_norm,
                                    .y = g->y->buffer.address,
                                    .width = r->model->config.hidden,
                                    .x_stride = added->stride,
                                    .y_stride = g->y->stride,
                                    .rows = r->step->rows,
                                    .eps = r->model->config.norm_eps,
                                    .residual = true,
                                });
    barrier(r);
}

/// Records the linear operations that wait, before anything else is.
static void flush(recording *r) {
    op_record_chain(&r->ops, &r->chain);
    r->chain.count = 0;
}

/// A group's operations behind those that a chain has: Vᵀ, and in a stage after it U beside the dense ones.
static void add_stages(op_chain *chain, const op_linear *v, const op_linear *u, const op_linear *dense, const char *v_label,
                       const char *u_label) {
    const uint32_t stage = chain->count ? chain->stages[chain->count - 1] + 1 : 0;
    const op_linear *const ops[] = {v, u, dense};
    for (uint32_t i = 0; i < 3; i++) {
        chain->ops[chain->count] = *ops[i];
        chain->labels[chain->count] = i ? u_label : v_label;
        chain->stages[chain->count++] = stage + (i > 0);
    }
}

static void record_group(recording *r, const group *g) {
    uint32_t a_offsets[OP_MAX_SEGMENTS];
    group_offsets(g->weights, g->count, a_offsets);

    const activation *y = g->post_norm ? &r->workspace->activations[ACTIVATION_ADDED] : g->y;
    op_linear v = linear_of(r, g->x, g->a);  // a[T, r] = (x Vᵀ) ⊙ σ ⊙ z[expert(row)]
    op_linear u = linear_of(r, g->a, y);     // y[T, out] = a Uᵀ
    op_linear dense = linear_of(r, g->x, y); // y[T, out] = x Wᵀ
    v.scale = true;
    v.norm = dense.norm = g->norm;
    u.residual = dense.residual = g->residual && !g->post_norm;
    u.silu_mul = dense.silu_mul = g->silu_mul;
    u.gelu = dense.gelu = r->model->config.gelu;
    group_segments(g->weights, g->count, a_offsets, g->y_offsets, &v, &u, &dense);
    add_stages(&r->chain, &v, &u, &dense, g->v_label, g->u_label);
    if (!g->post_norm) return;
    flush(r);
    record_post_norm(r, g, y);
}

/// q[T, h, head_dim] and k[T, kv_heads, head_dim], each head normed by itself, in place.
static void record_head_norms(const recording *r, const model_layer *layer) {
    const model_config *c = &r->model->config;
    const activation *qkv = &r->workspace->activations[ACTIVATION_QKV];
    const uint64_t weights[2] = {layer->q_norm, layer->k_norm};
    const uint32_t heads[2] = {c->heads, c->kv_heads};
    gpu_command_label(r->ops.command, "head norms");
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t at = qkv->buffer.address + 4ull * r->workspace->qkv_offset[i];
        op_record_rms_norm(&r->ops, &(op_rms_norm){
                                        .x = at,
                                        .weight = weights[i],
                                        .y = at,
                                        .width = c->head_dim,
                                        .x_stride = qkv->stride,
                                        .y_stride = qkv->stride,
                                        .rows = r->step->rows,
                                        .parts = heads[i],
                                        .eps = c->norm_eps,
                                    });
    }
    barrier(r);
}

/// attended[T, h · head_dim] from qkv, with the rows' keys and values written to their pages.
static void record_attention(recording *r, uint32_t layer) {
    const model_config *c = &r->model->config;
    const model_workspace *w = r->workspace;
    const activation *qkv = &w->activations[ACTIVATION_QKV], *out = &w->activations[ACTIVATION_ATTENDED];
    const bool windowed = model_layer_has_window(c, layer);
    flush(r);
    if (c->head_norms) record_head_norms(r, &r->model->layers[layer]);
    gpu_command_label(r->ops.command, "rope kv");
    op_record_rope_kv(&r->ops, &(op_rope_kv){
                                   .step = r->step->step,
                                   .qkv = qkv->buffer.address,
                                   .table = windowed && c->window_rope_base > 0 ? w->window_rope.address : w->rope.address,
                                   .bias = r->model->layers[layer].qkv_bias,
                                   .stride = qkv->stride,
                                   .q_offset = w->qkv_offset[0],
                                   .k_offset = w->qkv_offset[1],
                                   .v_offset = w->qkv_offset[2],
                                   .heads = c->heads,
                                   .kv_heads = c->kv_heads,
                                   .head_dim = c->head_dim,
                                   .layer = layer,
                                   .rows = r->step->rows,
                                   .kv = w->params.kv,
                               });
    barrier(r);
    gpu_command_label(r->ops.command, "attention");
    op_attention attention = {
        .step = r->step->step,
        .q = qkv->buffer.address,
        .out = out->buffer.address,
        .q_stride = qkv->stride,
        .out_stride = out->stride,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .layer = layer,
        .rows = r->step->rows,
        .spans = r->step->spans,
        .longest = r->step->longest,
        .window = windowed ? c->window : 0,
        .scale = c->score_scale,
        .decode = r->step->decode,
        .kv = w->params.kv,
        .partials = w->partials.address,
    };
    const uint32_t decode_rows = r->step->decode_rows;
    if (decode_rows) {
        op_attention decode = attention;
        decode.rows = decode.spans = decode_rows;
        decode.decode = true;
        op_record_attention(&r->ops, &decode); // no barrier behind: only decode has partials, and the others write other rows
        attention.step = r->step->rest;
        attention.rows -= decode_rows;
        attention.spans -= decode_rows;
    }
    op_record_attention(&r->ops, &attention);
    barrier(r);
}

static void record_layer(recording *r, uint32_t index) {
    const model_layer *layer = &r->model->layers[index];
    const activation *act = r->workspace->activations;

    record_group(r, &(group){
                        // q, k, v [T, …] = norm(x) · Wᵀ
                        .weights = &layer->weights[MODEL_Q],
                        .count = 3,
                        .x = &act[ACTIVATION_X],
                        .norm = layer->attention_norm,
                        .a = &act[ACTIVATION_A_QKV],
                        .y = &act[ACTIVATION_QKV],
                        .y_offsets = r->workspace->qkv_offset,
                        .v_label = "V qkv",
                        .u_label = "U qkv",
                    });
    record_attention(r, index);
    record_group(r, &(group){
                        // x[T, d] += attended · Woᵀ, or its norm
                        .weights = &layer->weights[MODEL_O],
                        .count = 1,
                        .x = &act[ACTIVATION_ATTENDED],
                        .a = &act[ACTIVATION_A_O],
                        .y = &act[ACTIVATION_X],
                        .post_norm = layer->attention_post_norm,
                        .residual = true,
                        .v_label = "V o",
                        .u_label = "U o",
                    });
    record_group(r, &(group){
                        // ffn[T, f] = silu(norm(x) · Wgateᵀ) ⊙ (norm(x) · Wupᵀ), or by gelu
                        .weights = &layer->weights[MODEL_GATE],
                        .count = 2,
                        .x = &act[ACTIVATION_X],
                        .norm = layer->ffn_norm,
                        .a = &act[ACTIVATION_A_FFN],
                        .y = &act[ACTIVATION_FFN],
                        .silu_mul = true,
                        .v_label = "V gate up",
                        .u_label = "U gate up",
                    });
    record_group(r, &(group){
                        // x[T, d] += ffn · Wdownᵀ, or its norm
                        .weights = &layer->weights[MODEL_DOWN],
                        .count = 1,
                        .x = &act[ACTIVATION_FFN],
                        .a = &act[ACTIVATION_A_DOWN],
                        .y = &act[ACTIVATION_X],
                        .post_norm = layer->ffn_post_norm,
                        .residual = true,
                        .v_label = "V down",
                        .u_label = "U down",
                    });
}

/// logits[L, vocab] = norm(x[logit rows]) · headᵀ
static void record_head(const recording *r) {
    const model_workspace *w = r->workspace;
    const activation *x = &w->activations[ACTIVATION_X];
    uint32_t rows = r->step->logit_count;
    gpu_command_label(r->ops.command, "head");
    op_record_rms_norm(&r->ops, &(op_rms_norm){
                                    .x = x->buffer.address,
                                    .weight = r->model->output_norm,
                                    .y = w->logit_hidden.address,
                                    .index = r->step->logit_rows,
                                    .width = r->model->config.hidden,
                                    .x_stride = x->stride,
                                    .y_stride = x->stride,
                                    .rows = rows,
                                    .eps = r->model->config.norm_eps,
                                });
    barrier(r);
    op_record_linear(&r->ops, &(op_linear){
                                  .segments = {{.weight = &r->model->head}},
                                  .segment_count = 1,
                                  .x = w->logit_hidden.address,
                                  .y = w->logits.address,
                                  .x_stride = x->stride,
                                  .y_stride = w->logits_stride,
                                  .rows = rows,
                                  .decode = r->step->decode,
                                  .operands = w->operands.address,
                              });
    barrier(r);
}

static recording recording_of(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step) {
    return (recording){.model = model, .workspace = workspace, .step = step, .ops = {.command = command, .policy = workspace->policy}};
}

static bool step_fits(const model_workspace *workspace, gpu_command *command, const model_step *step) {
    const model_workspace_params *limits = &workspace->params;
    if (step->rows >= 1 && step->rows <= limits->max_rows && step->logit_count <= limits->max_logit_rows &&
        step->longest <= limits->context)
        return true;
    zs_error error;
    zs_error_set(&error, ZS_ERROR_ARGUMENT, "a step of %u rows, %u logits and positions up to %u exceeds its workspace (%u, %u, %u)",
                 step->rows, step->logit_count, step->longest, limits->max_rows, limits->max_logit_rows, limits->context);
    gpu_command_fail(command, &error);
    return false;
}

void model_record(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step) {
    if (!step_fits(workspace, command, step)) return;
    recording r = recording_of(model, workspace, command, step);
    const activation *x = &workspace->activations[ACTIVATION_X];
    gpu_command_label(command, "embed");
    op_record_embed(&r.ops, &(op_embed){
                                .embedding = &model->embedding,
                                .step = step->step,
                                .x = x->buffer.address,
                                .stride = x->stride,
                                .rows = step->rows,
                                .scale = model->config.embedding_scale,
                                .features = step->features,
                                .feature_rows = step->feature_rows,
                            });
    barrier(&r);
    for (uint32_t i = 0; i < model->config.layers; i++) record_layer(&r, i);
    flush(&r);
    if (step->logit_count) record_head(&r);
}

void model_record_sample(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step, uint64_t samplers,
                         uint64_t results, bool advance) {
    recording r = recording_of(model, workspace, command, step);
    gpu_command_label(command, "sample");
    op_record_sample(&r.ops, &(op_sample){
                                 .step = step->step,
                                 .logits = workspace->logits.address,
                                 .index = step->logit_rows,
                                 .samplers = samplers,
                                 .results = results,
                                 .logits_stride = workspace->logits_stride,
                                 .vocab = model->config.vocab,
                                 .rows = step->logit_count,
                                 .advance = advance,
                             });
    barrier(&r);
}

void model_record_logprobs(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step,
                           uint64_t targets, uint64_t out) {
    recording r = recording_of(model, workspace, command, step);
    gpu_command_label(command, "logprobs");
    op_record_logprobs(&r.ops, &(op_logprobs){
                                   .logits = workspace->logits.address,
                                   .targets = targets,
                                   .out = out,
                                   .logits_stride = workspace->logits_stride,
                                   .vocab = model->config.vocab,
                                   .rows = step->logit_count,
                               });
    barrier(&r);
}

uint32_t model_span_rows(const model_workspace *workspace, const zs_model *model) {
    return op_span_rows(workspace->policy, model->config.heads, model->config.kv_heads, model->config.head_dim);
}

uint64_t model_page_bytes(const zs_model *model, kv_type kv) {
    const model_config *c = &model->config;
    return c->layers * kv_page_bytes(kv, c->kv_heads, c->head_dim);
}

static void add_group(op_chain *chain, const model_weight *weights, uint32_t count, bool silu_mul) {
    uint32_t a_offsets[OP_MAX_SEGMENTS];
    op_linear v = {.rows = 1, .decode = true}, u = {.rows = 1, .decode = true, .silu_mul = silu_mul}, dense = u;
    group_offsets(weights, count, a_offsets);
    group_segments(weights, count, a_offsets, NULL, &v, &u, &dense);
    add_stages(chain, &v, &u, &dense, NULL, NULL);
}

/// Of linear operations that nothing else comes between.
static uint32_t finish_chain(const op_policy *policy, op_chain *chain) {
    uint32_t dispatches = op_chain_dispatches(policy, chain);
    chain->count = 0;
    return dispatches;
}

uint32_t model_layer_dispatches(const zs_model *model, const model_workspace *workspace) {
    const model_weight *w = model->layers[0].weights;
    const op_policy *policy = &workspace->policy;
    const bool post_norms = model->config.post_norms;
    op_chain chain = {0};
    uint32_t dispatches = 2u + (model->config.head_norms ? 2u : 0u) + (post_norms ? 2u : 0u);
    // From one attention to the next.
    add_group(&chain, &w[MODEL_O], 1, false);
    if (post_norms) dispatches += finish_chain(policy, &chain);
    add_group(&chain, &w[MODEL_GATE], 2, true);
    add_group(&chain, &w[MODEL_DOWN], 1, false);
    if (post_norms) dispatches += finish_chain(policy, &chain);
    add_group(&chain, &w[MODEL_Q], 3, false);
    return dispatches + finish_chain(policy, &chain);
}
