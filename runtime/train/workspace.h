/// What a backward pass works in. Its size follows from the rows of a pass alone and is known before anything is allocated.
#ifndef TRAIN_WORKSPACE_H
#define TRAIN_WORKSPACE_H

#include "model/workspace.h"

typedef struct train_limits {
    uint32_t rows;       // of a pass
    uint32_t sequences;  // of a pass
    uint32_t logit_rows; // whose logits exist at a time
    uint32_t kept;       // so many of the last layers keep their activations on the way forwards; the others are computed again
    bool reference;      // the base model's logits too
    bool fast;           // matrix units on the way back
} train_limits;

/// A layer's activations, which its gradient needs, and what gradients pass through.
enum {
    TRAIN_MID,      // x between attention and feed-forward [rows, d]
    TRAIN_QKV,      // q after its rotation; k and v are in pages
    TRAIN_ATTENDED, // [rows, heads · head_dim]
    TRAIN_A_QKV,    // Vᵀx before σ ⊙ z, of every factored matrix
    TRAIN_A_O,
    TRAIN_A_FFN,
    TRAIN_A_DOWN,
    TRAIN_GATE_UP,              // gate and up; then their gradients
    TRAIN_OF_LAYER,             // so many are a layer's own
    TRAIN_FFN = TRAIN_OF_LAYER, // silu(gate) ⊙ up; then its gradient
    TRAIN_SCALED,               // σ ⊙ z ⊙ Vᵀx; then the gradient by it, and by Vᵀx
    TRAIN_DX,                   // gradient by x: of the layer's output, then of its input
    TRAIN_DH,                   // by a norm's output
    TRAIN_D_ATTENDED,
    TRAIN_D_QKV,
    TRAIN_ACTIVATIONS
};

/// What the kernels read of a pass, written by the host: one GPU_MEMORY_SHARED buffer.
typedef struct train_arrays {
    gpu_buffer buffer;
    Step *step;                     // [3]: spans of op_attention, of op_attention_back, and of op_attention under the base model's scales
    Row *rows;                      // [rows + copies of (KV_PAGE_TOKENS − 1) · sequences]
    Span *spans[2];                 // [rows]
    uint64_t *pages;                // [sequences, page_stride]
    uint32_t *logit_rows, *targets; // [rows]
    float *weights, *kl_weights;    // [rows]
    uint64_t step_address[3], logit_rows_address, targets_address, weights_address, kl_weights_address;
    uint32_t page_stride;
} train_arrays;

typedef struct train_workspace {
    const zs_model *model;
    train_limits limits;
    op_policy policy;
    activation *inputs; // [layers + 1]: every layer's input x [rows, d], and the last one's output
    activation activations[TRAIN_ACTIVATIONS];
    activation *kept;     // [limits.kept][TRAIN_OF_LAYER]: of the last layers; the others use the ones above in turn
    activation reference; // the base model's output of the last layer [rows, d]
    uint32_t qkv_offset[3], ffn_offset[2];
    uint32_t logits_stride;
    gpu_buffer logits;           // [logit_rows, logits_stride]; then the gradient by them
    gpu_buffer reference_logits; // beside them
    gpu_buffer hidden;           // [logit_rows, d]: the head's input
    gpu_buffer d_hidden;         // beside it
    gpu_buffer stats;            // of op_attention_back
    gpu_buffer pages;            // keys and values of one layer, and then of those that are kept
    gpu_buffer rope;
    gpu_buffer scales, sums; // [scale_count]: σ ⊙ z, and the gradient by it
    gpu_buffer base_scales;  // [scale_count]: σ
    gpu_buffer operands;     // scratch of op_linear_back, where matrix units serve
    gpu_buffer results;      // read by the host: [scale_count] sums, then [rows] log-probabilities, then [rows] divergences
    train_arrays arrays;
} train_workspace;

/// Where layer `layer` is among those that are kept, from 1 on; 0: it is not.
uint32_t train_kept_place(const train_workspace *workspace, uint32_t layer);
/// Pages of keys and values that a pass has.
uint64_t train_page_count(const train_limits *limits);
/// Floats of one of them.
uint64_t train_page_floats(const zs_model *model, const train_limits *limits);
/// Bytes that keeping one more layer takes.
uint64_t train_layer_bytes(const zs_model *model, const train_limits *limits);
/// Bytes on the device for passes within the limits.
uint64_t train_workspace_bytes(const zs_model *model, const train_limits *limits);
/// How wide everything is, without any buffer: the first part of train_workspace_create.
zs_status train_workspace_layout(const zs_model *model, const train_limits *limits, train_workspace *workspace, zs_error *error);
/// On failure what was made is destroyed.
zs_status train_workspace_create(const zs_model *model, const train_limits *limits, train_workspace *workspace, zs_error *error);
void train_workspace_destroy(train_workspace *workspace);

#endif
