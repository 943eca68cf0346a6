/// The encoder backwards. Of y = x · U diag(s) Vᵀ + b with s = σ ⊙ z: a = x V, g = dy U, ds = Σ_t a ⊙ g, dx = (s ⊙ g) Vᵀ.
#include "vision/encoder_private.h"

static void barrier(const encoder_recording *r) { gpu_command_barrier(r->ops.command); }

/// The gradient on its way through a group.
typedef struct back_product {
    uint32_t rows;
    uint64_t dy, dx; // dx: 0 where only the scales' gradient is wanted
    uint32_t dy_stride, dx_stride;
    uint64_t sums;
} back_product;

static void record_group_back(const encoder_recording *r, const encoder_group *g, const back_product *p) {
    const activation *da = &r->encoder->activations[ACTIVATION_A];
    op_linear_back dense = {.x = p->dy, .y = p->dx, .x_stride = p->dy_stride, .y_stride = p->dx_stride, .rows = p->rows, .sum = true};
    op_linear_back v = dense, u = {.x = p->dy, .x_stride = p->dy_stride, .rows = p->rows};
    u.y = v.x = da->buffer.address;
    u.y_stride = v.x_stride = g->kept->stride;
    op_scale_back scale = {.x = g->kept->buffer.address,
                           .g = da->buffer.address,
                           .scales = r->encoder->scales,
                           .sums = p->sums,
                           .stride = g->kept->stride,
                           .rows = p->rows};
    for (uint32_t i = 0; i < g->count; i++) {
        const vision_weight *w = &g->weights[i];
        uint32_t a_offset = g->a_offsets[i], y_offset = g->y_offsets[i];
        if (w->factored) {
            u.segments[u.segment_count++] = (op_segment){.weight = &w->u, .x_offset = y_offset, .y_offset = a_offset};
            scale.segments[scale.segment_count++] = (op_scale_segment){a_offset, w->vt.out, w->scale_offset};
            v.segments[v.segment_count++] = (op_segment){.weight = &w->vt, .x_offset = a_offset};
        } else {
            dense.segments[dense.segment_count++] = (op_segment){.weight = &w->dense, .x_offset = y_offset};
        }
    }
    if (u.segment_count) {
        op_record_linear_back_mixed(&r->ops, &u);
        barrier(r);
        op_record_scale_back(&r->ops, &scale);
        barrier(r);
    }
    if (!p->dx) return;
    dense.residual = v.segment_count > 0;
    op_record_linear_back_mixed(&r->ops, &v);
    op_record_linear_back_mixed(&r->ops, &dense);
}

static void record_gelu_back(const encoder_recording *r, const activation *x, const activation *dy, uint32_t width, uint32_t rows,
                             op_gelu_kind kind) {
    op_record_gelu(&r->ops, &(op_gelu){.x = x->buffer.address,
                                       .y = dy->buffer.address,
                                       .width = width,
                                       .stride = x->stride,
                                       .rows = rows,
                                       .kind = kind,
                                       .back = true});
    barrier(r);
}

/// dx += the gradient of norm(x) by x, from that by what it left, in NORMED.
static void record_norm_back(const encoder_recording *r, const vision_norm *norm, const gpu_buffer *x) {
    const activation *g = &r->encoder->activations[ACTIVATION_NORMED], *dx = &r->encoder->activations[ACTIVATION_DX];
    op_record_layer_norm_back(&r->ops, &(op_layer_norm_back){.x = x->address,
                                                             .weight = norm->weight,
                                                             .g = g->buffer.address,
                                                             .dx = dx->buffer.address,
                                                             .width = r->encoder->tower->config.hidden,
                                                             .x_stride = dx->stride,
                                                             .g_stride = g->stride,
                                                             .rows = r->rows,
                                                             .eps = r->encoder->tower->config.norm_eps});
    barrier(r);
}

/// d_qkv[T, …] from the gradient by what attention made, in NORMED.
static void record_attention_back(const encoder_recording *r) {
    const vision_encoder *e = r->encoder;
    const vision_config *c = &e->tower->config;
    const activation *a = e->activations;
    gpu_command_label(r->ops.command, "tower attention back");
    op_record_attention_back(&r->ops, &(op_attention_back){.step = encoder_address(e, e->arrays.places),
                                                           .q = a[ACTIVATION_QKV].buffer.address,
                                                           .out = a[ACTIVATION_ATTENDED].buffer.address,
                                                           .d_out = a[ACTIVATION_NORMED].buffer.address,
                                                           .d_qkv = a[ACTIVATION_D_QKV].buffer.address,
                                                           .stats = e->stats.address,
                                                           .q_stride = a[ACTIVATION_QKV].stride,
                                                           .out_stride = a[ACTIVATION_ATTENDED].stride,
                                                           .d_stride = a[ACTIVATION_D_QKV].stride,
                                                           .dq_offset = e->qkv_offset[0],
                                                           .dk_offset = e->qkv_offset[1],
                                                           .dv_offset = e->qkv_offset[2],
                                                           .heads = c->heads,
                                                           .kv_heads = c->heads,
                                                           .head_dim = c->hidden / c->heads,
                                                           .rows = r->rows,
                                                           .spans = r->tiles * e->back_spans_per_tile,
                                                           .whole = e->positions,
                                                           .longest = e->positions});
    barrier(r);
}

static back_product of_layer(const encoder_recording *r, const activation *dy, const activation *dx, uint64_t sums) {
    return (back_product){.rows = r->rows,
                          .dy = dy->buffer.address,
                          .dy_stride = dy->stride,
                          .dx = dx ? dx->buffer.address : 0,
                          .dx_stride = dx ? dx->stride : 0,
                          .sums = sums};
}

/// dx, the gradient by the layer's output, becomes that by its input; of the lowest layer only the scales' is wanted.
static void record_layer_back(const encoder_recording *r, uint32_t index, bool lowest, uint64_t sums) {
    const vision_encoder *e = r->encoder;
    const vision_layer *layer = &e->tower->layers[index];
    const activation *a = e->activations, *dx = &a[ACTIVATION_DX], *normed = &a[ACTIVATION_NORMED], *ffn = &a[ACTIVATION_FFN];
    const encoder_group qkv = encoder_group_at(e, index, GROUP_QKV), out = encoder_group_at(e, index, GROUP_OUT),
                        fc1 = encoder_group_at(e, index, GROUP_FC1), fc2 = encoder_group_at(e, index, GROUP_FC2);
    encoder_copy_rows(r, &e->inputs[index], &a[ACTIVATION_X].buffer, a[ACTIVATION_X].stride);
    encoder_record_layer(r, index, false);

    gpu_command_label(r->ops.command, "tower mlp back");
    const back_product into_ffn = of_layer(r, dx, ffn, sums), into_mid = of_layer(r, ffn, normed, sums),
                       into_attended = of_layer(r, dx, normed, sums),
                       into_input = of_layer(r, &a[ACTIVATION_D_QKV], lowest ? NULL : normed, sums);
    record_group_back(r, &fc2, &into_ffn);
    record_gelu_back(r, &a[ACTIVATION_BEFORE_GELU], ffn, e->tower->config.ffn, r->rows, encoder_gelu_kind(e));
    record_group_back(r, &fc1, &into_mid);
    record_norm_back(r, &layer->norms[1], &a[ACTIVATION_MID].buffer);
    record_group_back(r, &out, &into_attended);
    record_attention_back(r);
    record_group_back(r, &qkv, &into_input);
    if (!lowest) record_norm_back(r, &layer->norms[0], &e->inputs[index]);
}

/// PICKED, the gradient by the patches side by side, from that by the features.
static void record_projector_back(const encoder_recording *r, uint64_t d_features, uint32_t stride, bool further, uint64_t sums) {
    const vision_encoder *e = r->encoder;
    const activation *picked = &e->activations[ACTIVATION_PICKED], *between = &e->activations[ACTIVATION_BETWEEN];
    const encoder_group first = encoder_group_at(e, 0, GROUP_PROJECT), second = encoder_group_at(e, 0, GROUP_PROJECT_SECOND);
    back_product p = {.rows = r->tiles * e->features, .dy = d_features, .dy_stride = stride, .sums = sums};
    gpu_command_label(r->ops.command, "projector back");
    if (e->tower->projector_count > 1) {
        p.dx = between->buffer.address;
        p.dx_stride = between->stride;
        record_group_back(r, &second, &p);
        record_gelu_back(r, &e->activations[ACTIVATION_PROJECTED], between, e->tower->config.text_hidden, p.rows, OP_GELU_ERF);
        p.dy = p.dx;
        p.dy_stride = p.dx_stride;
    }
    p.dx = further ? picked->buffer.address : 0;
    p.dx_stride = picked->stride;
    record_group_back(r, &first, &p);
}

/// dx of the last layer's output, from PICKED.
static void record_picked_back(const encoder_recording *r) {
    const vision_encoder *e = r->encoder;
    const vision_tower *t = e->tower;
    const activation *normed = &e->activations[ACTIVATION_NORMED], *dx = &e->activations[ACTIVATION_DX];
    const bool norm = t->post_norm.weight != 0;
    if (norm) gpu_command_fill(r->ops.command, &dx->buffer, 0, 4ull * r->rows * dx->stride, 0);
    op_record_gather_sum(&r->ops, &(op_gather_sum){.x = e->activations[ACTIVATION_PICKED].buffer.address,
                                                   .y = norm ? normed->buffer.address : dx->buffer.address,
                                                   .begin = encoder_address(e, e->arrays.picked_begin),
                                                   .from = encoder_address(e, e->arrays.picked_from),
                                                   .width = t->config.hidden,
                                                   .y_stride = dx->stride,
                                                   .rows = r->rows});
    barrier(r);
    if (norm) record_norm_back(r, &t->post_norm, &e->inputs[t->config.layers]);
}

/// The first layer that has a factored matrix; the number of layers where none has.
static uint32_t lowest_factored(const vision_tower *tower) {
    for (uint32_t l = 0; l < tower->config.layers; l++) {
        for (uint32_t m = 0; m < VISION_MATRICES; m++) {
            if (tower->layers[l].weights[m].factored) return l;
        }
    }
    return tower->config.layers;
}

void vision_encoder_record_back(const vision_encoder *encoder, gpu_command *command, uint32_t count, uint64_t d_features,
                                uint32_t features_stride, uint64_t sums) {
    const encoder_recording r = {.encoder = encoder,
                                 .ops = {.command = command, .policy = encoder->params.policy},
                                 .tiles = count,
                                 .rows = count * encoder->positions};
    const uint32_t layers = encoder->tower->config.layers, lowest = lowest_factored(encoder->tower);
    record_projector_back(&r, d_features, features_stride, lowest < layers, sums);
    if (lowest == layers) return;
    record_picked_back(&r);
    for (uint32_t l = layers; l-- > lowest;) record_layer_back(&r, l, l == lowest, sums);
}
