/// The inside of model_workspace: where activations live and how wide their rows are.
#ifndef MODEL_WORKSPACE_H
#define MODEL_WORKSPACE_H

#include "model/model.h"
#include "ops/ops.h"

/// An activation buffer [max_rows, stride] of f32; what lies between a row's width and its stride stays zero.
typedef struct activation {
    gpu_buffer buffer;
    uint32_t stride;
} activation;

enum {
    ACTIVATION_X,
    ACTIVATION_QKV,
    ACTIVATION_ATTENDED,
    ACTIVATION_FFN,
    ACTIVATION_A_QKV,
    ACTIVATION_A_O,
    ACTIVATION_A_FFN,
    ACTIVATION_A_DOWN,
    ACTIVATION_ADDED, // what post norms are on; not there without them
    ACTIVATION_COUNT
};

struct model_workspace {
    zs_device *device;
    model_workspace_params params;
    op_policy policy;
    activation activations[ACTIVATION_COUNT];
    uint32_t qkv_offset[3]; // of q, k, v in a row of ACTIVATION_QKV
    uint32_t logits_stride;
    gpu_buffer logits;       // [max_logit_rows, logits_stride]
    gpu_buffer logit_hidden; // [max_logit_rows, stride of X]
    gpu_buffer partials;     // scratch of split attention
    gpu_buffer operands;     // scratch of matrix units
    gpu_buffer rope;         // (cos, sin) [context, head_dim / 2]
    gpu_buffer window_rope;  // of layers with a window where theirs differ
};

/// Offset of each of `count` widths laid side by side at multiples of 32; returns the stride.
uint32_t activation_offsets(const uint32_t *widths, uint32_t count, uint32_t *offsets);

/// offsets[count] of Vᵀx of matrices that share an input; dense ones take no room. Returns the stride.
uint32_t group_offsets(const model_weight *weights, uint32_t count, uint32_t *offsets);
/// The widest such stack that matrices first … first + count − 1 have in any layer; 0 where none is factored.
uint32_t group_stride(const zs_model *model, uint32_t first, uint32_t count);
/// Appends a group's matrices to the operations that multiply by them: Vᵀ to v, U to u, dense ones to `dense`. y_offsets NULL: zeros.
void group_segments(const model_weight *weights, uint32_t count, const uint32_t *a_offsets, const uint32_t *y_offsets, op_linear *v,
                    op_linear *u, op_linear *dense);

/// Fills in how wide the activations' rows are.
void workspace_strides(const zs_model *model, model_workspace *workspace);

/// (cos, sin) of position · base^(−2i/head_dim) / factor: [context, head_dim / 2]. window: of the layers with a window, where the model
/// has another base for them. On failure the buffer may be there; the caller destroys it.
zs_status model_rope_create(const zs_model *model, uint32_t context, bool window, gpu_buffer *table, zs_error *error);
uint64_t model_rope_bytes(const zs_model *model, uint32_t context);

#endif
