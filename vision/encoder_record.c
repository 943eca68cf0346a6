/// The tower and its projector as a list of operations.
#include "vision/encoder_private.h"

static void barrier(const encoder_recording *r) { gpu_command_barrier(r->ops.command); }

void encoder_copy_rows(const encoder_recording *r, const gpu_buffer *from, const gpu_buffer *to, uint32_t stride) {
    gpu_command_copy(r->ops.command, from, 0, to, 0, 4ull * r->rows * stride);
    barrier(r);
}

/// What a group's matrices multiply, and where to.
typedef struct product {
    uint32_t rows;
    uint64_t x, y;
    uint32_t x_stride, y_stride;
    bool residual;
    bool inner; // only as far as Vᵀx, of factored matrices
} product;

/// a ⊙ σ ⊙ z, from where Vᵀx stays.
static void record_scale(const encoder_recording *r, const encoder_group *g, const op_linear *v) {
    const vision_encoder *e = r->encoder;
    op_scale scale = {
        .x = v->y, .y = e->activations[ACTIVATION_A].buffer.address, .scales = e->scales, .stride = v->y_stride, .rows = v->rows};
    for (uint32_t i = 0; i < g->count; i++) {
        const vision_weight *w = &g->weights[i];
        if (w->factored) scale.segments[scale.segment_count++] = (op_scale_segment){g->a_offsets[i], w->vt.out, w->scale_offset};
    }
    op_record_scale(&r->ops, &scale);
    barrier(r);
}

/// y = x · Wᵀ + bias, factored: ((x Vᵀ) ⊙ σ ⊙ z) Uᵀ + bias
static void record_group(const encoder_recording *r, const encoder_group *g, const product *p) {
    const vision_encoder *e = r->encoder;
    const activation *a = &e->activations[ACTIVATION_A], *of_v = g->kept ? g->kept : a;
    op_linear dense = {.x = p->x, .y = p->y, .x_stride = p->x_stride, .y_stride = p->y_stride, .rows = p->rows, .residual = p->residual};
    dense.bias = g->weights[0].bias;
    dense.operands = e->operands.address;
    op_linear u = dense, v = {.x = p->x, .x_stride = p->x_stride, .rows = p->rows, .scale = !g->kept, .operands = dense.operands};
    v.y = of_v->buffer.address;
    u.x = a->buffer.address;
    v.y_stride = u.x_stride = of_v->stride;
    v.step = encoder_address(e, e->arrays.places);
    for (uint32_t i = 0; i < g->count; i++) {
        const vision_weight *w = &g->weights[i];
        uint32_t a_offset = g->a_offsets[i], y_offset = g->y_offsets[i];
        if (w->factored) {
            v.segments[v.segment_count++] = (op_segment){.weight = &w->vt, .y_offset = a_offset, .scale_offset = w->scale_offset};
            u.segments[u.segment_count++] = (op_segment){.weight = &w->u, .x_offset = a_offset, .y_offset = y_offset};
        } else {
            dense.segments[dense.segment_count++] = (op_segment){.weight = &w->dense, .y_offset = y_offset};
        }
    }
    op_record_linear_mixed(&r->ops, &v);
    if (v.segment_count) barrier(r);
    if (p->inner) return;
    if (v.segment_count && g->kept) record_scale(r, g, &v);
    op_record_linear_mixed(&r->ops, &u);
    op_record_linear_mixed(&r->ops, &dense);
    barrier(r);
}

/// A group of a layer, on its rows.
static void record_layer_group(const encoder_recording *r, uint32_t layer, uint32_t which, const activation *x, const activation *y,
                               bool inner) {
    const encoder_group g = encoder_group_at(r->encoder, layer, which);
    record_group(r, &g,
                 &(product){.rows = r->rows,
                            .x = x->buffer.address,
                            .x_stride = x->stride,
                            .y = y->buffer.address,
                            .y_stride = y->stride,
                            .residual = which == GROUP_OUT || which == GROUP_FC2,
                            .inner = inner});
}

static void record_norm(const encoder_recording *r, const vision_norm *norm, const activation *to) {
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
static void record_embedding(const encoder_recording *r) {
    const vision_encoder *e = r->encoder;
    const vision_tower *t = e->tower;
    const activation *x = &e->activations[ACTIVATION_X];
    gpu_command_label(r->ops.command, "patches");
    op_record_gather(&r->ops, &(op_gather){
                                  .x = t->positions,
                                  .y = x->buffer.address,
                                  .index = encoder_address(e, e->arrays.position_index),
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
                                  .x = encoder_address(e, e->arrays.patches),
                                  .y = x->buffer.address,
                                  .x_stride = e->patch_stride,
                                  .y_stride = x->stride,
                                  .rows = r->rows,
                                  .operands = e->operands.address,
                                  .residual = true,
                              });
    barrier(r);
    if (t->pre_norm.weight) record_norm(r, &t->pre_norm, x);
}

/// out[T, d] = attention over all of a row's tile
static void record_attention(const encoder_recording *r, const vision_layer *layer, const activation *out) {
    const vision_encoder *e = r->encoder;
    const vision_config *c = &e->tower->config;
    const activation *qkv = &e->activations[ACTIVATION_QKV];
    op_record_rope_kv(&r->ops, &(op_rope_kv){
                                   .step = encoder_address(e, e->arrays.places),
                                   .qkv = qkv->buffer.address,
                                   .table = encoder_address(e, e->arrays.turns),
                                   .bias = layer->qkv_bias,
                                   .stride = qkv->stride,
                                   .q_offset = e->qkv_offset[0],
                                   .k_offset = e->qkv_offset[1],
                                   .v_offset = e->qkv_offset[2],
                                   .heads = c->heads,
                                   .kv_heads = c->heads,
                                   .head_dim = c->hidden / c->heads,
                                   .rows = r->rows,
                                   .kv = e->params.kv,
                               });
    barrier(r);
    op_record_attention(&r->ops, &(op_attention){
                                     .step = encoder_address(e, e->arrays.views),
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
                                     .kv = e->params.kv,
                                 });
    barrier(r);
}

static void record_gelu(const encoder_recording *r, const activation *x, const activation *y, uint32_t width, uint32_t rows,
                        op_gelu_kind kind) {
    op_record_gelu(
        &r->ops,
        &(op_gelu){.x = x->buffer.address, .y = y->buffer.address, .width = width, .stride = x->stride, .rows = rows, .kind = kind});
    barrier(r);
}

op_gelu_kind encoder_gelu_kind(const vision_encoder *e) {
    static const op_gelu_kind kinds[] = {
        [VISION_QUICK_GELU] = OP_GELU_QUICK, [VISION_GELU] = OP_GELU_ERF, [VISION_GELU_TANH] = OP_GELU_TANH};
    return kinds[e->tower->config.activation];
}

void encoder_record_layer(const encoder_recording *r, uint32_t index, bool output) {
    const vision_encoder *e = r->encoder;
    const vision_layer *layer = &e->tower->layers[index];
    const bool keep = e->params.gradients;
    const activation *a = e->activations, *x = &a[ACTIVATION_X], *normed = &a[ACTIVATION_NORMED], *ffn = &a[ACTIVATION_FFN],
                     *attended = keep ? &a[ACTIVATION_ATTENDED] : normed, *before = keep ? &a[ACTIVATION_BEFORE_GELU] : ffn;
    gpu_command_label(r->ops.command, "tower attention");
    record_norm(r, &layer->norms[0], normed);
    record_layer_group(r, index, GROUP_QKV, normed, &a[ACTIVATION_QKV], false); // q, k, v [T, d] = normed · Wᵀ
    record_attention(r, layer, attended);
    record_layer_group(r, index, GROUP_OUT, attended, x, false); // x[T, d] += attended · Woutᵀ + b
    if (keep) encoder_copy_rows(r, &x->buffer, &a[ACTIVATION_MID].buffer, x->stride);
    gpu_command_label(r->ops.command, "tower mlp");
    record_norm(r, &layer->norms[1], normed);
    record_layer_group(r, index, GROUP_FC1, normed, before, false); // before[T, f] = normed · W1ᵀ + b
    record_gelu(r, before, ffn, e->tower->config.ffn, r->rows, encoder_gelu_kind(e));
    record_layer_group(r, index, GROUP_FC2, ffn, x, !output); // x[T, d] += gelu(before) · W2ᵀ + b
}

/// features[F, text] from x[T, d]: class tokens dropped or patches put side by side, then the projector.
static void record_projector(const encoder_recording *r, uint64_t features, uint32_t features_stride) {
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
                                  .index = encoder_address(e, e->arrays.feature_index),
                                  .width = c->hidden,
                                  .pieces = c->image.shuffle * c->image.shuffle,
                                  .x_stride = x->stride,
                                  .y_stride = picked->stride,
                                  .rows = rows,
                              });
    barrier(r);
    const encoder_group first = encoder_group_at(e, 0, GROUP_PROJECT), second = encoder_group_at(e, 0, GROUP_PROJECT_SECOND);
    product last = {.rows = rows, .x = picked->buffer.address, .x_stride = picked->stride, .y = features, .y_stride = features_stride};
    if (t->projector_count > 1) { // gelu between the two
        const activation *before = e->params.gradients ? &e->activations[ACTIVATION_PROJECTED] : between;
        product into = last;
        into.y = before->buffer.address;
        into.y_stride = before->stride;
        record_group(r, &first, &into);
        record_gelu(r, before, between, c->text_hidden, rows, OP_GELU_ERF);
        last.x = between->buffer.address;
        last.x_stride = between->stride;
    }
    record_group(r, t->projector_count > 1 ? &second : &first, &last);
}

void vision_encoder_record(vision_encoder *encoder, gpu_command *command, uint32_t count, uint64_t features, uint32_t features_stride) {
    const vision_tower *t = encoder->tower;
    const encoder_recording r = {.encoder = encoder,
                                 .ops = {.command = command, .policy = encoder->params.policy},
                                 .tiles = count,
                                 .rows = count * encoder->positions};
    record_embedding(&r);
    const activation *x = &encoder->activations[ACTIVATION_X];
    for (uint32_t i = 0; i < t->config.layers; i++) {
        if (encoder->inputs) encoder_copy_rows(&r, &x->buffer, &encoder->inputs[i], x->stride);
        encoder_record_layer(&r, i, true);
    }
    if (encoder->inputs) encoder_copy_rows(&r, &x->buffer, &encoder->inputs[t->config.layers], x->stride);
    if (t->post_norm.weight) record_norm(&r, &t->post_norm, x);
    record_projector(&r, features, features_stride);
}

void vision_encoder_record_newline(const vision_encoder *encoder, gpu_command *command, uint64_t to, uint32_t stride) {
    const vision_tower *t = encoder->tower;
    const op_recorder ops = {.command = command, .policy = encoder->params.policy};
    if (!t->newline) return;
    op_record_gather(&ops, &(op_gather){.x = t->newline,
                                        .y = to,
                                        .index = encoder_address(encoder, encoder->arrays.position_index), // which begins with 0
                                        .width = t->config.text_hidden,
                                        .pieces = 1,
                                        .x_stride = stride,
                                        .y_stride = stride,
                                        .rows = 1});
    gpu_command_barrier(command);
}

void vision_encoder_record_rows(const vision_encoder *encoder, gpu_command *command, uint64_t features, uint32_t feature_rows,
                                uint64_t index, uint32_t rows, uint64_t to, uint32_t stride) {
    const op_recorder ops = {.command = command, .policy = encoder->params.policy};
    gpu_command_label(command, "image rows");
    vision_encoder_record_newline(encoder, command, features + 4ull * feature_rows * stride, stride);
    op_record_gather(&ops, &(op_gather){.x = features,
                                        .y = to,
                                        .index = index,
                                        .width = encoder->tower->config.text_hidden,
                                        .pieces = 1,
                                        .x_stride = stride,
                                        .y_stride = stride,
                                        .rows = rows});
    gpu_command_barrier(command);
}
