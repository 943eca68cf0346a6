/// The inside of vision_encoder, which its buffers and its two directions share.
#ifndef VISION_ENCODER_PRIVATE_H
#define VISION_ENCODER_PRIVATE_H

#include "ops/ops.h"
#include "vision/encoder.h"

/// An activation buffer [rows, stride] of f32; what lies between a row's width and its stride stays zero.
typedef struct activation {
    gpu_buffer buffer;
    uint32_t stride;
} activation;

/// Matrices that share an input.
enum { GROUP_QKV, GROUP_OUT, GROUP_FC1, GROUP_FC2, GROUP_PROJECT, GROUP_PROJECT_SECOND, GROUP_COUNT };

enum {
    ACTIVATION_X,      // the stream that layers add to
    ACTIVATION_NORMED, // what a norm left, then what attention made of it; backwards the gradient by either
    ACTIVATION_QKV,
    ACTIVATION_FFN,     // backwards its gradient
    ACTIVATION_A,       // (Vᵀx) ⊙ σ ⊙ z of factored matrices; backwards the gradient by it, and by Vᵀx
    ACTIVATION_PICKED,  // patches that are features, or several side by side; backwards their gradient
    ACTIVATION_BETWEEN, // the projector's two layers; backwards the gradient
    // Only where gradients are wanted.
    ACTIVATION_ATTENDED,
    ACTIVATION_MID,                                // x between attention and feed-forward
    ACTIVATION_BEFORE_GELU,                        // of a layer
    ACTIVATION_PROJECTED,                          // before the projector's gelu
    ACTIVATION_KEPT,                               // Vᵀx of every group
    ACTIVATION_DX = ACTIVATION_KEPT + GROUP_COUNT, // the gradient by x: of the layer's output, then of its input
    ACTIVATION_D_QKV,
    ACTIVATION_COUNT
};

/// Attention takes the decoder's kernels. Two steps make it attend to all of a tile: under `places` a row's keys and values go to its own
/// position's place in the pages, under `views` every row is at the last position and so sees all.
typedef struct encoder_arrays {
    gpu_buffer buffer; // GPU_MEMORY_SHARED: all that follows
    Step *places, *views;
    Row *place_rows, *view_rows; // [rows]
    Span *spans, *back_spans;    // of op_attention, and of op_attention_back
    uint32_t *position_index;    // [rows]: of the table of positions
    uint32_t *feature_index;     // [features, shuffle²]: rows of X
    uint32_t *picked_begin;      // [rows + 1]: where in picked_from a row of X has its places, one or none
    uint32_t *picked_from;       // [rows]: floats of PICKED
    uint64_t *pages;             // [tiles, pages_per_tile]
    float *turns;                // (cos, sin) = (1, 0) [positions, head_dim / 2]: towers do not rotate
    float *patches;              // [rows, patch_stride]: pixels of each patch, nothing at class tokens
} encoder_arrays;

struct vision_encoder {
    zs_device *device;
    const vision_tower *tower;
    vision_encoder_params params;
    uint32_t positions, features; // of a tile
    uint32_t patch_stride, pages_per_tile, span_rows, spans_per_tile, back_span_rows, back_spans_per_tile;
    uint32_t qkv_offset[3];
    activation activations[ACTIVATION_COUNT];
    gpu_buffer *inputs;  // [layers + 1], with gradients: every layer's input, and the last one's output
    gpu_buffer stats;    // with gradients: of op_attention_back
    gpu_buffer operands; // of op_linear, where there are matrix units
    gpu_buffer pages;
    encoder_arrays arrays;
    uint64_t scales; // the row of them that the tiles are encoded under
};

typedef struct encoder_recording {
    const vision_encoder *encoder;
    op_recorder ops;
    uint32_t tiles, rows;
} encoder_recording;

typedef struct encoder_group {
    const vision_weight *weights;
    uint32_t count;
    uint32_t y_offsets[3], a_offsets[3]; // of each matrix in a row of results, and of Vᵀx, in which dense ones take no room
    uint32_t a_stride;                   // floats of Vᵀx
    const activation *kept;              // where that stays; NULL: nowhere
} encoder_group;

uint64_t encoder_address(const vision_encoder *encoder, const void *host);
/// layer: not looked at for the projector's.
encoder_group encoder_group_at(const vision_encoder *encoder, uint32_t layer, uint32_t which);
op_gelu_kind encoder_gelu_kind(const vision_encoder *encoder);
/// A layer forwards, x in place, with what its gradient needs. output: else only as far as the gradient needs it.
void encoder_record_layer(const encoder_recording *recording, uint32_t index, bool output);
/// Copies a buffer's rows.
void encoder_copy_rows(const encoder_recording *recording, const gpu_buffer *from, const gpu_buffer *to, uint32_t stride);

#endif
