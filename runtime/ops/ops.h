/// The operations of a decoder: each checks its shapes, picks a kernel and records one dispatch (a barrier follows only where
/// the caller records one). Activations are f32, row-major [rows, stride]; strides are multiples of 32 and what lies
/// between a row's width and its stride is zero. Pointers are device addresses. Failures are kept by the command.
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "gpu/command.h"
#include "ops/matrix.h"

/// Which kernels serve.
typedef struct op_policy {
    uint32_t tiers;     // ZS_TIER_* in use
    uint32_t subgroup_size;
    uint32_t weight_group; // how new matrices are laid out (matrix.h)
    bool lanes;         // kernels for CPU drivers: an invocation works alone, no shared memory in the inner loops
    bool deterministic; // one kernel and order of summation for any number of rows, prefill and decode alike
} op_policy;

op_policy op_policy_of(const zs_device *device);

typedef struct op_recorder {
    gpu_command *command;
    op_policy policy;
} op_recorder;

enum { OP_MAX_SEGMENTS = 3 };

/// One matrix of a linear operation: y[T, out] (at y_offset) = x[T, in] (at x_offset) · Wᵀ.
typedef struct op_segment {
    const matrix *weight;
    uint32_t x_offset, y_offset; // in floats, from the operation's x and y; multiples of 4
    uint32_t scale_offset;       // into a row of Step.scales
} op_segment;

typedef struct op_linear {
    op_segment segments[OP_MAX_SEGMENTS]; // all of one matrix type
    uint32_t segment_count;
    uint64_t x, y;
    uint32_t x_stride, y_stride; // floats
    uint32_t rows;               // T
    uint64_t step;               // Step; needed by scale
    uint64_t norm;               // f32 [in], zero up to the padded width: x[t] / rms(x[t]) ⊙ norm takes x's place; 0: none
    uint32_t norm_width;         // = in; rms = √(mean x² + norm_eps) over so many values
    float norm_eps;
    bool scale;                  // y *= scales[rows[t].expert, scale_offset + o]: the z epilogue
    bool residual;               // y += result instead of y = result
    bool silu_mul;               // two segments of equal shape: y = silu(x W0ᵀ) ⊙ (x W1ᵀ), at segment 0's y_offset
    bool decode;                 // few rows: matvec kernels; else matmul kernels whatever T
} op_linear;
void op_record_linear(const op_recorder *recorder, const op_linear *op);

/// y[j] = x[index[j]] / rms(x[index[j]]) ⊙ weight; index 0: y[j] from x[j]. rms = √(mean x² + eps).
typedef struct op_rms_norm {
    uint64_t x, weight, y, index;
    uint32_t width, x_stride, y_stride, rows;
    float eps;
} op_rms_norm;
void op_record_rms_norm(const op_recorder *recorder, const op_rms_norm *op);

/// x[t] = embedding row of rows[t].token.
typedef struct op_embed {
    const matrix *embedding;
    uint64_t step, x;
    uint32_t stride, rows;
} op_embed;
void op_record_embed(const op_recorder *recorder, const op_embed *op);

/// Rotates q [T, heads · head_dim] in place and k, and writes k and v to the rows' KV pages of a layer. q, k and v are parts of
/// one row (offsets in floats). Rotation in Hugging Face's order: pairs (i, i + head_dim/2) by angle
/// position · base^(−2i/head_dim), from the table [context, head_dim/2] of (cos, sin).
typedef struct op_rope_kv {
    uint64_t step, qkv, table;
    uint64_t bias; // [stride] added to q, k and v first, laid out like a row of qkv; 0: none
    uint32_t stride, q_offset, k_offset, v_offset;
    uint32_t heads, kv_heads, head_dim, layer;
    uint32_t rows;
    bool kv_f16;
} op_rope_kv;
void op_record_rope_kv(const op_recorder *recorder, const op_rope_kv *op);

/// out[t, h] = Σ_p softmax_p(q[t, h] · k[p, h / group] / √head_dim) v[p, h / group], rows[t].position − window < p ≤ rows[t].position, by online
/// softmax in f32 over the rows' pages. Work goes by spans (Step.spans) of at most op_span_rows rows.
typedef struct op_attention {
    uint64_t step, q, out;
    uint32_t q_stride, out_stride;
    uint32_t heads, kv_heads, head_dim, layer;
    uint32_t rows, spans;
    uint32_t longest; // bound on positions, for the work estimate
    uint32_t window;  // a row sees so many positions, its own among them; 0: all
    bool decode;      // every span is one row: its positions are split between invocations
    bool kv_f16;
    uint64_t partials; // scratch of op_attention_partials(…) bytes; used by decode on GPUs, which takes a second dispatch
} op_attention;
void op_record_attention(const op_recorder *recorder, const op_attention *op);
/// Longest span in rows.
uint32_t op_span_rows(op_policy policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim);
/// Bytes of scratch for a decode step of `rows` rows; 0 where none is used.
uint64_t op_attention_partials(op_policy policy, uint32_t heads, uint32_t head_dim, uint32_t rows);

/// Samples one token per logit row (Sampler, Sampled in shaders/shared.h); logit row j belongs to step row index[j].
typedef struct op_sample {
    uint64_t step, logits, index, samplers, results;
    uint32_t logits_stride, vocab, rows;
    bool advance; // also turn the step's row into the next step's
} op_sample;
void op_record_sample(const op_recorder *recorder, const op_sample *op);

/// out[j] = logits[j, targets[j]] − log Σ exp logits[j].
typedef struct op_logprobs {
    uint64_t logits, targets, out;
    uint32_t logits_stride, vocab, rows;
} op_logprobs;
void op_record_logprobs(const op_recorder *recorder, const op_logprobs *op);

#endif
