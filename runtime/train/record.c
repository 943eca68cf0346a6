/// Shapes: T rows; d hidden, r ranks, f ffn. y = x · U diag(s) Vᵀ with s = σ ⊙ z is a = x V, y = (s ⊙ a) Uᵀ; backwards
/// g = dy U, ds = Σ_t a ⊙ g, dx = (s ⊙ g) Vᵀ.
#include "train/record.h"

typedef struct recording {
    const zs_model *model;
    const train_workspace *w;
    const train_pass *pass;
    op_recorder ops;
    uint64_t step; // whose scales the forward pass applies
} recording;

/// Matrices that share an input, each dense or factored: y = x · W0ᵀ | x · W1ᵀ | …
typedef struct group {
    const model_weight *weights; // [count], consecutive in the layer
    uint32_t count;
    const activation *x, *a, *y;
    const uint32_t *y_offsets; // [count]
    uint64_t norm;             // weight of the RMS norm on x; 0: none
    bool residual;             // y += …
    bool silu_mul;             // y = silu(x · W0ᵀ) ⊙ (x · W1ᵀ)
    bool inner;                // only as far as a
    const char *label;
} group;

/// What a layer's gradient needs: its own, or what layers share in turn.
static const activation *layer_activations(const recording *r, uint32_t layer) {
    uint32_t place = train_kept_place(r->w, layer);
    return place ? &r->w->kept[(place - 1) * TRAIN_OF_LAYER] : r->w->activations;
}

static void barrier(const recording *r) { gpu_command_barrier(r->ops.command); }

// ---- forwards ------------------------------------------------------------------------------------------------------

static op_linear linear_of(const recording *r, const activation *x, const activation *y) {
    return (op_linear){
        .x = x->buffer.address,
        .y = y->buffer.address,
        .x_stride = x->stride,
        .y_stride = y->stride,
        .rows = r->pass->rows,
        .step = r->step,
        .norm_width = r->model->config.hidden,
        .norm_eps = r->model->config.norm_eps,
    };
}

/// scaled[T, r] = s ⊙ a[T, r]
static void record_scale(const recording *r, const group *g, const uint32_t *a_offsets) {
    const activation *scaled = &r->w->activations[TRAIN_SCALED];
    op_scale op = {.x = g->a->buffer.address,
                   .y = scaled->buffer.address,
                   .scales = r->w->scales.address,
                   .stride = g->a->stride,
                   .rows = r->pass->rows};
    for (uint32_t i = 0; i < g->count; i++) {
        const model_weight *w = &g->weights[i];
        if (w->factored) op.segments[op.segment_count++] = (op_scale_segment){a_offsets[i], w->rank, w->scale_offset};
    }
    if (op.segment_count == 0) return;
    op_record_scale(&r->ops, &op);
    barrier(r);
}

/// With g->a the products before the scales are kept there.
static void record_group(const recording *r, const group *g) {
    uint32_t a_offsets[OP_MAX_SEGMENTS];
    group_offsets(g->weights, g->count, a_offsets);
    activation scaled = r->w->activations[TRAIN_SCALED];
    if (g->a) scaled.stride = g->a->stride;
    op_linear v = linear_of(r, g->x, g->a ? g->a : &scaled); // a[T, r] = x V
    op_linear u = linear_of(r, &scaled, g->y);               // y[T, out] = (s ⊙ a) Uᵀ
    op_linear dense = linear_of(r, g->x, g->y);              // y[T, out] = x Wᵀ
    v.scale = !g->a;
    v.norm = dense.norm = g->norm;
    u.residual = dense.residual = g->residual;
    u.silu_mul = dense.silu_mul = g->silu_mul;
    group_segments(g->weights, g->count, a_offsets, g->y_offsets, &v, &u, &dense);
    gpu_command_label(r->ops.command, g->label);
    op_record_linear_mixed(&r->ops, &v);
    if (v.segment_count) barrier(r);
    if (g->inner) return;
    if (g->a) record_scale(r, g, a_offsets);
    op_record_linear_mixed(&r->ops, &u);
    op_record_linear_mixed(&r->ops, &dense);
    barrier(r);
}

static op_rope_kv rope_of(const recording *r, const activation *qkv, uint32_t layer) {
    const model_config *c = &r->model->config;
    return (op_rope_kv){
        .step = r->step,
        .qkv = qkv->buffer.address,
        .table = r->w->rope.address,
        .stride = qkv->stride,
        .q_offset = r->w->qkv_offset[0],
        .k_offset = r->w->qkv_offset[1],
        .v_offset = r->w->qkv_offset[2],
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .layer = train_kept_place(r->w, layer),
        .rows = r->pass->rows,
        .copies = r->pass->copies,
    };
}

/// attended[T, heads · head_dim] from qkv; keys and values go to the pages.
static void record_attention(const recording *r, uint32_t layer) {
    const model_config *c = &r->model->config;
    const activation *own = layer_activations(r, layer), *qkv = &own[TRAIN_QKV], *out = &own[TRAIN_ATTENDED];
    gpu_command_label(r->ops.command, "attention");
    op_rope_kv rope = rope_of(r, qkv, layer);
    rope.bias = r->model->layers[layer].qkv_bias;
    op_record_rope_kv(&r->ops, &rope);
    barrier(r);
    op_record_attention(&r->ops, &(op_attention){
                                     .step = r->step,
                                     .q = qkv->buffer.address,
                                     .out = out->buffer.address,
                                     .q_stride = qkv->stride,
                                     .out_stride = out->stride,
                                     .heads = c->heads,
                                     .kv_heads = c->kv_heads,
                                     .head_dim = c->head_dim,
                                     .layer = train_kept_place(r->w, layer),
                                     .rows = r->pass->rows,
                                     .spans = r->pass->spans[0],
                                     .longest = r->pass->longest,
                                     .window = c->window,
                                 });
    barrier(r);
}

static void copy_rows(const recording *r, const activation *from, const activation *to) {
    gpu_command_label(r->ops.command, "copy");
    gpu_command_copy(r->ops.command, &from->buffer, 0, &to->buffer, 0, 4ull * r->pass->rows * from->stride);
    barrier(r);
}

/// A layer forwards, from its input x. keep: what its gradient needs stays in the workspace. `output` becomes its output, if not NULL.
static void record_layer(const recording *r, uint32_t index, bool keep, const activation *output) {
    const model_layer *layer = &r->model->layers[index];
    const activation *own = layer_activations(r, index), *ffn = &r->w->activations[TRAIN_FFN];
    const activation *x = &r->w->inputs[index], *mid = keep ? &own[TRAIN_MID] : output;
    record_group(r, &(group){
                        // q, k, v [T, …] = norm(x) · Wᵀ
                        .weights = &layer->weights[MODEL_Q],
                        .count = 3,
                        .x = x,
                        .norm = layer->attention_norm,
                        .a = keep ? &own[TRAIN_A_QKV] : NULL,
                        .y = &own[TRAIN_QKV],
                        .y_offsets = r->w->qkv_offset,
                        .label = "qkv",
                    });
    record_attention(r, index);
    copy_rows(r, x, mid);
    record_group(r, &(group){
                        // mid[T, d] = x + attended · Woᵀ
                        .weights = &layer->weights[MODEL_O],
                        .count = 1,
                        .x = &own[TRAIN_ATTENDED],
                        .a = keep ? &own[TRAIN_A_O] : NULL,
                        .y = mid,
                        .residual = true,
                        .label = "o",
                    });
    record_group(r, &(group){
                        // gate, up [T, f] = norm(mid) · Wᵀ, or at once silu(gate) ⊙ up
                        .weights = &layer->weights[MODEL_GATE],
                        .count = 2,
                        .x = mid,
                        .norm = layer->ffn_norm,
                        .a = keep ? &own[TRAIN_A_FFN] : NULL,
                        .y = keep ? &own[TRAIN_GATE_UP] : ffn,
                        .y_offsets = keep ? r->w->ffn_offset : NULL,
                        .silu_mul = !keep,
                        .label = "gate up",
                    });
    const group down = {
        // output[T, d] = mid + ffn · Wdownᵀ
        .weights = &layer->weights[MODEL_DOWN],
        .count = 1,
        .x = ffn,
        .a = keep ? &own[TRAIN_A_DOWN] : NULL,
        .y = output ? output : mid,
        .residual = true,
        .inner = !output,
        .label = "down",
    };
    if (!output && !down.weights->factored) return;
    if (keep) {
        op_record_silu_mul(&r->ops, &(op_silu_mul){
                                        .x = own[TRAIN_GATE_UP].buffer.address,
                                        .y = ffn->buffer.address,
                                        .gate_offset = r->w->ffn_offset[0],
                                        .up_offset = r->w->ffn_offset[1],
                                        .width = r->model->config.ffn,
                                        .x_stride = own[TRAIN_GATE_UP].stride,
                                        .y_stride = ffn->stride,
                                        .rows = r->pass->rows,
                                    });
        barrier(r);
    }
    if (keep && output) copy_rows(r, mid, output);
    record_group(r, &down);
}

// ---- backwards -----------------------------------------------------------------------------------------------------

/// From dy (laid out as y): the gradient by the scales, and dx[T, in] where it is wanted.
static void record_group_back(const recording *r, const group *g, const activation *dy, const activation *dx) {
    uint32_t a_offsets[OP_MAX_SEGMENTS];
    group_offsets(g->weights, g->count, a_offsets);
    const activation *da = &r->w->activations[TRAIN_SCALED];
    uint32_t a_stride = g->a->stride;
    op_linear_back u = {.x = dy->buffer.address,
                        .y = da->buffer.address,
                        .x_stride = dy->stride,
                        .y_stride = a_stride,
                        .operands = r->w->operands.address,
                        .rows = r->pass->rows}; // g[T, r] = dy U
    op_scale_back scale = {.x = g->a->buffer.address,
                           .g = da->buffer.address,
                           .scales = r->w->scales.address,
                           .sums = r->w->sums.address,
                           .stride = a_stride,
                           .rows = r->pass->rows};
    op_linear_back v = {.sum = true, .operands = u.operands, .rows = u.rows}, dense = v;
    v.x = da->buffer.address, v.x_stride = a_stride;           // dx[T, in] = Σ (s ⊙ g) Vᵀ
    dense.x = dy->buffer.address, dense.x_stride = dy->stride; // dx[T, in] += Σ dy W
    for (uint32_t i = 0; i < g->count; i++) {
        const model_weight *w = &g->weights[i];
        uint32_t y_offset = g->y_offsets ? g->y_offsets[i] : 0;
        if (w->factored) {
            u.segments[u.segment_count++] = (op_segment){.weight = &w->u, .x_offset = y_offset, .y_offset = a_offsets[i]};
            scale.segments[scale.segment_count++] = (op_scale_segment){a_offsets[i], w->rank, w->scale_offset};
            v.segments[v.segment_count++] = (op_segment){.weight = &w->vt, .x_offset = a_offsets[i]};
        } else {
            dense.segments[dense.segment_count++] = (op_segment){.weight = &w->dense, .x_offset = y_offset};
        }
    }
    gpu_command_label(r->ops.command, g->label);
    if (u.segment_count) {
        op_record_linear_back_mixed(&r->ops, &u);
        barrier(r);
        op_record_scale_back(&r->ops, &scale);
        barrier(r);
    }
    if (!dx) return;
    v.y = dense.y = dx->buffer.address;
    v.y_stride = dense.y_stride = dx->stride;
    dense.residual = v.segment_count > 0;
    op_record_linear_back_mixed(&r->ops, &v);
    op_record_linear_back_mixed(&r->ops, &dense);
}

/// dx += the gradient of norm(x) by x, from dh.
static void record_norm_back(const recording *r, const activation *x, uint64_t weight) {
    const activation *dh = &r->w->activations[TRAIN_DH], *dx = &r->w->activations[TRAIN_DX];
    op_record_rms_norm_back(&r->ops, &(op_rms_norm_back){
                                         .x = x->buffer.address,
                                         .weight = weight,
                                         .g = dh->buffer.address,
                                         .dx = dx->buffer.address,
                                         .width = r->model->config.hidden,
                                         .x_stride = x->stride,
                                         .g_stride = dh->stride,
                                         .rows = r->pass->rows,
                                         .eps = r->model->config.norm_eps,
                                     });
    barrier(r);
}

/// d_qkv[T, …] from d_attended.
static void record_attention_back(const recording *r, uint32_t layer) {
    const model_config *c = &r->model->config;
    const activation *act = r->w->activations, *own = layer_activations(r, layer), *d_qkv = &act[TRAIN_D_QKV];
    gpu_command_label(r->ops.command, "attention back");
    op_record_attention_back(&r->ops, &(op_attention_back){
                                          .step = r->w->arrays.step_address[1],
                                          .q = own[TRAIN_QKV].buffer.address,
                                          .out = own[TRAIN_ATTENDED].buffer.address,
                                          .d_out = act[TRAIN_D_ATTENDED].buffer.address,
                                          .d_qkv = d_qkv->buffer.address,
                                          .stats = r->w->stats.address,
                                          .q_stride = own[TRAIN_QKV].stride,
                                          .out_stride = own[TRAIN_ATTENDED].stride,
                                          .d_stride = d_qkv->stride,
                                          .dq_offset = r->w->qkv_offset[0],
                                          .dk_offset = r->w->qkv_offset[1],
                                          .dv_offset = r->w->qkv_offset[2],
                                          .heads = c->heads,
                                          .kv_heads = c->kv_heads,
                                          .head_dim = c->head_dim,
                                          .layer = train_kept_place(r->w, layer),
                                          .rows = r->pass->rows,
                                          .spans = r->pass->spans[1],
                                          .longest = r->pass->longest,
                                          .window = c->window,
                                      });
    barrier(r);
    op_rope_kv rope = rope_of(r, d_qkv, layer);
    op_record_rope_back(&r->ops, &rope);
    barrier(r);
}

/// dx, the gradient by the layer's output, becomes that by its input, where it is wanted: of the first layer mostly only the scales' is.
static void record_layer_back(const recording *r, uint32_t index) {
    const model_layer *layer = &r->model->layers[index];
    const activation *act = r->w->activations, *own = layer_activations(r, index), *dx = &act[TRAIN_DX], *dh = &act[TRAIN_DH];
    if (!train_kept_place(r->w, index)) record_layer(r, index, true, NULL);

    const group down = {.weights = &layer->weights[MODEL_DOWN], .count = 1, .a = &own[TRAIN_A_DOWN], .label = "down back"};
    record_group_back(r, &down, dx, &act[TRAIN_FFN]); // d ffn[T, f]
    op_record_silu_mul(&r->ops, &(op_silu_mul){
                                    .x = own[TRAIN_GATE_UP].buffer.address,
                                    .y = act[TRAIN_FFN].buffer.address,
                                    .gate_offset = r->w->ffn_offset[0],
                                    .up_offset = r->w->ffn_offset[1],
                                    .width = r->model->config.ffn,
                                    .x_stride = own[TRAIN_GATE_UP].stride,
                                    .y_stride = act[TRAIN_FFN].stride,
                                    .rows = r->pass->rows,
                                    .back = true,
                                });
    barrier(r);
    const group gate_up = {
        .weights = &layer->weights[MODEL_GATE], .count = 2, .a = &own[TRAIN_A_FFN], .y_offsets = r->w->ffn_offset, .label = "gate up back"};
    record_group_back(r, &gate_up, &own[TRAIN_GATE_UP], dh); // d norm(mid)[T, d]
    record_norm_back(r, &own[TRAIN_MID], layer->ffn_norm);
    const group o = {.weights = &layer->weights[MODEL_O], .count = 1, .a = &own[TRAIN_A_O], .label = "o back"};
    record_group_back(r, &o, dx, &act[TRAIN_D_ATTENDED]);
    record_attention_back(r, index);
    const group qkv = {
        .weights = &layer->weights[MODEL_Q], .count = 3, .a = &own[TRAIN_A_QKV], .y_offsets = r->w->qkv_offset, .label = "qkv back"};
    const bool further = index > 0 || r->pass->embeddings;
    record_group_back(r, &qkv, &act[TRAIN_D_QKV], further ? dh : NULL); // d norm(x)[T, d]
    if (further) record_norm_back(r, &r->w->inputs[index], layer->attention_norm);
}

// ---- the head ------------------------------------------------------------------------------------------------------

/// logits[count, vocab] = norm(x) · headᵀ of the wanted rows first … first + count − 1.
static void record_logits(const recording *r, const activation *x, uint32_t first, uint32_t count, const gpu_buffer *logits) {
    const train_workspace *w = r->w;
    const zs_model *model = r->model;
    op_record_rms_norm(&r->ops, &(op_rms_norm){
                                    .x = x->buffer.address,
                                    .weight = model->output_norm,
                                    .y = w->hidden.address,
                                    .index = w->arrays.logit_rows_address + 4ull * first,
                                    .width = model->config.hidden,
                                    .x_stride = x->stride,
                                    .y_stride = x->stride,
                                    .rows = count,
                                    .eps = model->config.norm_eps,
                                });
    barrier(r);
    op_record_linear(&r->ops, &(op_linear){
                                  .segments = {{.weight = &model->head}},
                                  .segment_count = 1,
                                  .x = w->hidden.address,
                                  .y = logits->address,
                                  .x_stride = x->stride,
                                  .y_stride = w->logits_stride,
                                  .rows = count,
                              });
    barrier(r);
}

/// Log-probabilities, and divergences where they are wanted; but for a pass that only goes forwards, logits become the gradient by them.
static void record_results(const recording *r, uint32_t first, uint32_t count) {
    const train_workspace *w = r->w;
    const uint64_t rows_at = 4ull * first, targets = w->arrays.targets_address + rows_at,
                   out = w->results.address + 4ull * r->model->scale_count + rows_at;
    const uint32_t vocab = r->model->config.vocab;
    if (r->pass->forward) {
        op_record_logprobs(&r->ops, &(op_logprobs){.logits = w->logits.address,
                                                   .targets = targets,
                                                   .out = out,
                                                   .logits_stride = w->logits_stride,
                                                   .vocab = vocab,
                                                   .rows = count});
    } else if (r->pass->reference) {
        op_record_logprobs_kl_back(&r->ops, &(op_logprobs_kl_back){
                                                .logits = w->logits.address,
                                                .reference = w->reference_logits.address,
                                                .targets = targets,
                                                .weights = w->arrays.weights_address + rows_at,
                                                .kl_weights = w->arrays.kl_weights_address + rows_at,
                                                .out = out,
                                                .kl = out + 4ull * w->limits.rows,
                                                .logits_stride = w->logits_stride,
                                                .vocab = vocab,
                                                .rows = count,
                                                .reverse = r->pass->reverse,
                                            });
    } else {
        op_record_logprobs_back(&r->ops, &(op_logprobs_back){
                                             .logits = w->logits.address,
                                             .targets = targets,
                                             .weights = w->arrays.weights_address + rows_at,
                                             .out = out,
                                             .logits_stride = w->logits_stride,
                                             .vocab = vocab,
                                             .rows = count,
                                         });
    }
    barrier(r);
}

/// dx of the rows that the logits come from.
static void record_logits_back(const recording *r, const activation *x, uint32_t first, uint32_t count) {
    const train_workspace *w = r->w;
    const zs_model *model = r->model;
    op_record_linear_back(&r->ops, &(op_linear_back){
                                       // d norm(x)[count, d] = d logits · head
                                       .segments = {{.weight = &model->head}},
                                       .segment_count = 1,
                                       .x = w->logits.address,
                                       .y = w->d_hidden.address,
                                       .x_stride = w->logits_stride,
                                       .y_stride = x->stride,
                                       .operands = w->operands.address,
                                       .rows = count,
                                   });
    barrier(r);
    op_record_rms_norm_back(&r->ops, &(op_rms_norm_back){
                                         .x = x->buffer.address,
                                         .weight = model->output_norm,
                                         .g = w->d_hidden.address,
                                         .dx = w->activations[TRAIN_DX].buffer.address,
                                         .index = w->arrays.logit_rows_address + 4ull * first,
                                         .width = model->config.hidden,
                                         .x_stride = x->stride,
                                         .g_stride = x->stride,
                                         .rows = count,
                                         .eps = model->config.norm_eps,
                                     });
    barrier(r);
}

static void record_head(const recording *r) {
    const train_workspace *w = r->w;
    const activation *x = &w->inputs[r->model->config.layers], *dx = &w->activations[TRAIN_DX];
    gpu_command_label(r->ops.command, "head");
    gpu_command_fill(r->ops.command, &dx->buffer, 0, 4ull * r->pass->rows * dx->stride, 0);
    barrier(r);
    for (uint32_t first = 0; first < r->pass->logits; first += w->limits.logit_rows) {
        uint32_t left = r->pass->logits - first, count = left < w->limits.logit_rows ? left : w->limits.logit_rows;
        record_logits(r, x, first, count, &w->logits);
        if (r->pass->reference) record_logits(r, &w->reference, first, count, &w->reference_logits);
        record_results(r, first, count);
        if (!r->pass->forward) record_logits_back(r, x, first, count);
    }
}

// ---- a pass --------------------------------------------------------------------------------------------------------

/// Every layer's input, and the last one's output, under the scales of a step. keep: the activations of layers that keep theirs, too.
static void record_forward(recording *r, uint64_t step, uint64_t features, bool keep, const activation *output) {
    const train_workspace *w = r->w;
    const uint32_t layers = r->model->config.layers;
    r->step = step;
    gpu_command_label(r->ops.command, "embed");
    op_record_embed(&r->ops, &(op_embed){.embedding = &r->model->embedding,
                                         .step = step,
                                         .x = w->inputs[0].buffer.address,
                                         .stride = w->inputs[0].stride,
                                         .rows = r->pass->rows,
                                         .features = features,
                                         .feature_rows = r->pass->feature_rows});
    barrier(r);
    for (uint32_t i = 0; i < layers; i++) record_layer(r, i, keep && train_kept_place(w, i), i + 1 < layers ? &w->inputs[i + 1] : output);
}

void train_record(const train_workspace *w, gpu_command *command, const train_pass *pass) {
    const zs_model *model = w->model;
    const uint32_t layers = model->config.layers;
    recording r = {.model = model, .w = w, .pass = pass, .ops = {.command = command, .policy = w->policy}};
    if (!pass->forward) gpu_command_fill(command, &w->sums, 0, 4ull * model->scale_count, 0);
    if (pass->reference) record_forward(&r, w->arrays.step_address[2], pass->reference_features, false, &w->reference);
    record_forward(&r, w->arrays.step_address[0], pass->features, !pass->forward, &w->inputs[layers]);
    record_head(&r);
    if (pass->forward) return;
    for (uint32_t i = layers; i-- > 0;) record_layer_back(&r, i);
    gpu_command_copy(command, &w->sums, 0, &w->results, 0, 4ull * model->scale_count);
    barrier(&r);
}
