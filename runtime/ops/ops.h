/// The operations of a decoder: each checks its shapes, picks a kernel and records it, in one dispatch or, where that is said, in several
/// (a barrier follows only where the caller records one). Activations are f32, row-major [rows, stride]; strides are multiples of 32 and
/// what lies between a row's width and its stride is zero. Pointers are device addresses. Failures are kept by the command.
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "gpu/command.h"
#include "ops/matrix.h"

/// How matvec.comp is specialised: output rows of a subgroup (of each matrix of a pair), units on their way for each of them, subgroups of
/// a workgroup (of at most 256 invocations).
typedef struct op_matvec {
    uint32_t rows, depth, subgroups;
} op_matvec;
/// What it is chosen by: the rows of all matrices together, or silu_mul.
typedef enum op_matvec_class { OP_MATVEC_FEW_ROWS, OP_MATVEC_MANY_ROWS, OP_MATVEC_PAIR, OP_MATVEC_CLASSES } op_matvec_class;
enum { OP_MATVEC_MANY = 8192 };
/// few_rows, many_rows, pair; static.
const char *op_matvec_class_name(op_matvec_class class);

/// How matmul_matrix.comp is specialised: rows of its tiles, units of eight values it takes of the inner dimension at a time, subgroups of
/// a workgroup.
typedef struct op_matrix_shape {
    uint32_t tile, units, subgroups;
} op_matrix_shape;
/// The smallest one for a device's matrix units.
op_matrix_shape op_matrix_smallest(const gpu_matrix_units *units);
/// Whether its tiles divide into the loads and the matrices of its invocations, for pairs (silu_mul) too.
bool op_matrix_divides(const op_matrix_shape *shape, const gpu_matrix_units *units, uint32_t subgroup_size);
/// Bytes of shared memory that it takes.
uint32_t op_matrix_shared_bytes(const op_matrix_shape *shape, const gpu_matrix_units *units);

/// Which kernels serve.
typedef struct op_policy {
    uint32_t tiers; // ZS_TIER_* in use
    uint32_t subgroup_size;
    uint32_t weight_group;        // how new matrices are laid out (matrix.h)
    uint64_t part_limit;          // bytes of a new matrix's parts: an allocation, and what 32-bit indices reach with any driver
    op_matrix_shape matrix_shape; // many rows on matrix units, where an operation has operands; tile 0: not
    uint32_t matrix_fill;         // workgroups that fill the device: of fewer, sums are split between several; 0: never
    uint32_t matrix_attention; // attention of many rows on matrix units, where it fits, by the kernel of ZS_TIER_MATRIX or ZS_TIER_MATRIX2;
                               // keys and values are not f32 then; 0: not
    gpu_matrix_units matrix;
    op_matvec matvec[MATRIX_TYPES][OP_MATVEC_CLASSES];
    op_matvec integers[MATRIX_TYPES][OP_MATVEC_CLASSES]; // by products of integers, where dot allows it; rows 0: not
    uint32_t shared_bytes;                               // shared memory of a workgroup; 0: 16 KiB, which every device has
    uint32_t wide;                                       // invocations of a workgroup that takes a long row by itself; 0: 128
    bool dot;                                            // decode may take x as 16-bit integers: precision fast, and ZS_TIER_DOT
    bool lanes;         // kernels for CPU drivers: an invocation works alone, no shared memory in the inner loops
    bool deterministic; // one kernel and order of summation for any number of rows, prefill and decode alike
} op_policy;

/// How keys and values are kept: kv.glsl.
typedef enum kv_type { KV_F32, KV_F16, KV_Q8, KV_TYPES } kv_type;
/// Bytes of the keys and values of KV_PAGE_TOKENS positions in one layer. KV_Q8 takes heads of a multiple of KV_BLOCK, at most 256.
uint64_t kv_page_bytes(kv_type type, uint32_t kv_heads, uint32_t head_dim);
/// "f32", "f16", "q8_0"; static.
const char *kv_type_name(kv_type type);
/// Whether such heads can be kept so.
bool kv_type_suits(kv_type type, uint32_t head_dim);

enum { OP_MATRIX_SPLITS = 8 }; // shares of a sum at most
/// Workgroups that a linear operation on matrix units has for so many outputs and rows, before sums are split.
uint32_t op_matrix_groups(const op_policy *policy, uint32_t out, uint32_t rows);

op_policy op_policy_of(const zs_device *device);
/// The policy under a precision: matrix units and products of integers only where less than f32 is asked for (fast), and in attention only
/// for keys and values of 16 bits or fewer.
op_policy op_policy_within(const op_policy *policy, bool fast, kv_type kv);
/// policy.wide of a device: a power of two.
uint32_t op_wide(const gpu_caps *caps);
/// Whether a type has products of integers.
bool op_matvec_has_dot(matrix_type type);
/// Sets policy->matvec to what serves where nothing was measured; on CPU drivers, which only tests have use it, to what compiles fastest.
/// Products of integers do not serve then.
void op_matvec_defaults(op_policy *policy, bool cpu);
/// Sets it and policy->integers to what op_policy_tune left in the cache folder for this device and driver, if there is anything.
void op_matvec_recall(zs_device *device, op_policy *policy);

/// What op_policy_tune found for a class of operations of a type.
typedef struct op_tuned {
    matrix_type type;
    op_matvec_class class;
    op_matvec shape;
    bool integers;        // it is the one by products of integers
    double bytes;         // of weights that an operation reads
    double before_ms, ms; // an operation under the policy as it was, and under the shape found
} op_tuned;
/// Measures every shape of matvec.comp for a type, sets policy->matvec to the fastest, policy->integers to the fastest by products of
/// integers where that is faster still, and keeps them in the cache folder. Takes some
/// seconds, mostly the driver's compiler's. Errors: ZS_ERROR_UNSUPPORTED on CPU drivers and without subgroups, ZS_ERROR_DEVICE_MEMORY where
/// its weights find no room.
zs_status op_policy_tune(zs_device *device, op_policy *policy, matrix_type type, op_tuned tuned[OP_MATVEC_CLASSES], zs_error *error);
/// Whether the device's matrix units are worth using: right, and faster than the kernels without them. Measured once per device and
/// driver, and kept in the cache folder. Sets policy->matrix_shape,
/// matrix_fill and matrix_attention.
zs_status op_policy_measure(zs_device *device, op_policy *policy, zs_error *error);

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
    uint64_t bias;     // f32, laid out like a row of y, added to the result; not together with norm; 0: none
    bool scale;        // y *= scales[rows[t].expert, scale_offset + o]: the z epilogue
    bool residual;     // y += result instead of y = result
    bool silu_mul;     // two segments of equal shape: y = silu(x W0ᵀ) ⊙ (x W1ᵀ), at segment 0's y_offset
    bool gelu;         // silu_mul by gelu's tanh approximation instead of silu
    bool decode;       // few rows: matvec kernels; else matmul kernels whatever T
    uint64_t operands; // scratch of op_linear_operands(…) bytes for matrix units: x in f16 and shares of sums, with a dispatch each; 0: f32
} op_linear;
/// Bytes of scratch for `rows` rows of up to `stride` floats; 0 where none is used.
uint64_t op_linear_operands(const op_policy *policy, uint32_t rows, uint32_t stride);
void op_record_linear(const op_recorder *recorder, const op_linear *op);
/// Dispatches that it becomes without operands: more than one where matrices lie in parts.
uint32_t op_linear_dispatches(const op_linear *op);
/// The segments from *first on that are of one matrix type, as an operation; *first moves behind them.
op_linear op_linear_next_type(const op_linear *op, uint32_t *first);
/// Of segments of several matrix types, each run of one a dispatch of its own.
void op_record_linear_mixed(const op_recorder *recorder, const op_linear *op);

/// The gradient of a linear operation by its input, y[T, in] = x[T, out] · W: here x is the gradient by the operation's output and lies at
/// x_offset, y the one by its input. Whole padded rows of y are written, zeros behind the width. scale_offset is not used.
typedef struct op_linear_back {
    op_segment segments[OP_MAX_SEGMENTS]; // all of one matrix type
    uint32_t segment_count;
    uint64_t x, y;
    uint32_t x_stride, y_stride; // floats
    uint32_t rows;               // T
    bool sum;                    // matrices of one inner size: their products are added, at segment 0's y_offset
    bool residual;               // y += result instead of y = result
    // Scratch of op_linear_back_operands bytes for rows of x_stride floats, in which x may become f16 for matrix units: what lies between
    // segments is numbers then. 0: none.
    uint64_t operands;
} op_linear_back;
/// Bytes of scratch for `rows` rows of up to `stride` floats; 0 where none is used.
uint64_t op_linear_back_operands(const op_policy *policy, uint32_t rows, uint32_t stride);
void op_record_linear_back(const op_recorder *recorder, const op_linear_back *op);
/// Of segments of several matrix types, each run of one a dispatch of its own. Where they are summed, those behind the first add to it.
void op_record_linear_back_mixed(const op_recorder *recorder, const op_linear_back *op);

/// y[j] = x[index[j]] / rms(x[index[j]]) ⊙ weight; index 0: y[j] from x[j]. rms = √(mean x² + eps). With parts, each `width` floats of
/// a row, side by side, by themselves. x and y may be the same.
typedef struct op_rms_norm {
    uint64_t x, weight, y, index;
    uint32_t width, x_stride, y_stride, rows;
    uint32_t parts; // 0: 1
    float eps;
    bool residual; // y += …
} op_rms_norm;
void op_record_rms_norm(const op_recorder *recorder, const op_rms_norm *op);

/// y[t] = (x[t] − mean x[t]) / √(variance x[t] + eps) ⊙ weight + bias; y may be x.
typedef struct op_layer_norm {
    uint64_t x, weight, bias, y;
    uint32_t width, x_stride, y_stride, rows;
    float eps;
} op_layer_norm;
void op_record_layer_norm(const op_recorder *recorder, const op_layer_norm *op);

/// y[t] = x Φ(x), Φ the normal distribution's: exactly (erf), by a tanh, or as x / (1 + e^(−1.702 x)). y may be x. back: y holds the
/// gradient by the result, and it becomes the one by x.
typedef enum op_gelu_kind { OP_GELU_ERF, OP_GELU_TANH, OP_GELU_QUICK } op_gelu_kind;
typedef struct op_gelu {
    uint64_t x, y;
    uint32_t width, stride, rows; // stride: of both
    op_gelu_kind kind;
    bool back;
} op_gelu;
void op_record_gelu(const op_recorder *recorder, const op_gelu *op);

/// y[t, j · width …] = x[index[t · pieces + j]]: rows picked by number, `pieces` of them side by side.
typedef struct op_gather {
    uint64_t x, y, index; // index: uint32_t[rows, pieces], of rows of x
    uint32_t width, pieces, x_stride, y_stride, rows;
} op_gather;
void op_record_gather(const op_recorder *recorder, const op_gather *op);

/// y[t] = Σ_k x[from[k] …], begin[t] ≤ k < begin[t + 1], `width` floats from each place on: the gradient of op_gather, or of any rows that
/// were taken several times.
typedef struct op_gather_sum {
    uint64_t x, y, begin, from; // begin: uint32_t[rows + 1]; from: in floats of x
    uint32_t width, y_stride, rows;
} op_gather_sum;
void op_record_gather_sum(const op_recorder *recorder, const op_gather_sum *op);

/// x[t] = scale · embedding row of rows[t].token; where there are features and the token lies outside the vocabulary, feature row
/// token − vocabulary.
typedef struct op_embed {
    const matrix *embedding;
    uint64_t step, x;
    uint32_t stride, rows;
    float scale;       // 0: 1
    uint64_t features; // f32 [feature_rows, stride]; 0: none
    uint32_t feature_rows;
    uint64_t columns; // f32 [embedding's in] that each column is multiplied by; 0: none
} op_embed;
void op_record_embed(const op_recorder *recorder, const op_embed *op);

/// Linear operations on the same rows that follow each other: those of a stage may read what stages before it wrote.
enum { OP_CHAIN_MOST = 16, OP_CHAIN_STAGES = 8 }; // stages: of a dispatch, at most
typedef struct op_chain {
    op_linear ops[OP_CHAIN_MOST]; // segments may be of several matrix types; none at all: left out
    const char *labels[OP_CHAIN_MOST];
    uint32_t stages[OP_CHAIN_MOST]; // never falling
    uint32_t count;
} op_chain;
/// With barriers between the stages and behind them; as far as ZS_TIER_CHAIN allows, several stages of few rows in one dispatch.
void op_record_chain(const op_recorder *recorder, const op_chain *chain);
/// Dispatches that it becomes without operands.
uint32_t op_chain_dispatches(const op_policy *policy, const op_chain *chain);

/// Rotates q [T, heads · head_dim] in place and k, and writes k and v to the rows' KV pages of a layer. q, k and v are parts of
/// one row (offsets in floats). Rotation in Hugging Face's order: pairs (i, i + head_dim/2) by angle
/// position · base^(−2i/head_dim), from the table [context, head_dim/2] of (cos, sin).
typedef struct op_rope_kv {
    uint64_t step, qkv, table;
    uint64_t bias; // [stride] added to q, k and v first, laid out like a row of qkv; 0: none
    uint32_t stride, q_offset, k_offset, v_offset;
    uint32_t heads, kv_heads, head_dim, layer;
    uint32_t rows;
    uint32_t copies; // so many rows behind them put k and v of row Row.token into their own sequence's page
    kv_type kv;
} op_rope_kv;
void op_record_rope_kv(const op_recorder *recorder, const op_rope_kv *op);

/// out[t, h] = Σ_p softmax_p(q[t, h] · k[p, h / group] · scale) v[p, h / group], rows[t].position − window < p ≤ rows[t].position, by
/// online softmax over the rows' pages, in f32 or, under policy.matrix_attention, from products of f16. Work goes by spans (Step.spans) of
/// at most op_span_rows rows.
typedef struct op_attention {
    uint64_t step, q, out;
    uint32_t q_stride, out_stride;
    uint32_t heads, kv_heads, head_dim, layer;
    uint32_t rows, spans;
    uint32_t longest; // bound on positions, for the work estimate
    uint32_t window;  // a row sees so many positions, its own among them; 0: all
    float scale;      // 0: 1 / √head_dim
    bool decode;      // span i is row i alone: its positions are split between invocations
    kv_type kv;
    uint64_t partials; // scratch of op_attention_partials(…) bytes, zero at first; used by decode on GPUs
} op_attention;
void op_record_attention(const op_recorder *recorder, const op_attention *op);
/// Whether policy.matrix_attention serves such heads.
bool op_attention_on_matrix(const op_policy *policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim);
/// Longest span in rows.
uint32_t op_span_rows(op_policy policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim);
/// Bytes of scratch for decode; 0 where none is used.
uint64_t op_attention_partials(op_policy policy, uint32_t heads, uint32_t kv_heads, uint32_t head_dim);

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

// ---- making weights ------------------------------------------------------------------------------------------------

/// Rows first … of a matrix from x f32 [rows, x_stride], zero up to the padded width; rounded as ggml's reference does: f16 to nearest
/// even, Q8 d = max|x| / 127, Q4 d = the value of largest magnitude / −8 (matrix.h).
typedef struct op_pack {
    uint64_t x;
    const matrix *to;     // F16, Q8 or Q4
    uint32_t x_stride;    // floats
    uint32_t first, rows; // multiples of op_pack_rows, but for the matrix' last rows
} op_pack;
void op_record_pack(const op_recorder *recorder, const op_pack *op);
/// Rows that are packed together: no word of the matrix is shared with others.
uint32_t op_pack_rows(const matrix *to);

/// Rows first … of W' = U diag(s) Vᵀ: a = those rows of U ⊙ s; y = a Vᵀ; packed. f32 up to the packing (with operands as op_linear_back).
/// Four operations with barriers between them.
typedef struct op_compose {
    const matrix *u, *vt; // [out, r], [r, in]
    const matrix *to;     // [out, in]: F16, Q8 or Q4
    uint64_t scales;      // f32 [r]: s = σ ⊙ z
    uint64_t step;        // a Step whose rows[i].token is first + i
    uint64_t a, y;        // scratch: f32 [rows, r padded to 32], [rows, in padded to 32]
    uint64_t operands;    // scratch as op_linear_back's, for a; 0: none
    uint32_t first, rows; // as op_pack's
} op_compose;
void op_record_compose(const op_recorder *recorder, const op_compose *op);

// ---- the backward pass ---------------------------------------------------------------------------------------------

/// Parts of a row, side by side, and where each one's factors lie in a row of scales; offsets in floats.
typedef struct op_scale_segment {
    uint32_t offset, width, scale_offset;
} op_scale_segment;

/// y[t] = x[t] ⊙ scales, segment by segment: the z epilogue as a step of its own.
typedef struct op_scale {
    op_scale_segment segments[OP_MAX_SEGMENTS];
    uint32_t segment_count;
    uint64_t x, y, scales;
    uint32_t stride, rows; // floats, of x and y
} op_scale;
void op_record_scale(const op_recorder *recorder, const op_scale *op);

/// Its gradients, from g = that by y: sums += Σ_t x[t] ⊙ g[t] (at scale_offset, f32 in one fixed order), and g[t] ⊙= scales in place.
typedef struct op_scale_back {
    op_scale_segment segments[OP_MAX_SEGMENTS];
    uint32_t segment_count;
    uint64_t x, g, scales, sums;
    uint32_t stride, rows;
} op_scale_back;
void op_record_scale_back(const op_recorder *recorder, const op_scale_back *op);

/// y[t] = silu(x[t, gate]) ⊙ x[t, up]; back: y holds the gradient by the result, and gate and up become the gradients by themselves.
typedef struct op_silu_mul {
    uint64_t x, y;
    uint32_t gate_offset, up_offset, width, x_stride, y_stride, rows;
    bool back;
} op_silu_mul;
void op_record_silu_mul(const op_recorder *recorder, const op_silu_mul *op);

/// dx[index[j]] += the gradient of op_rms_norm's y[j] by x[index[j]], from g[j] = that by y[j]; no two of index are alike. dx lies like x.
typedef struct op_rms_norm_back {
    uint64_t x, weight, g, dx, index;
    uint32_t width, x_stride, g_stride, rows;
    float eps;
} op_rms_norm_back;
void op_record_rms_norm_back(const op_recorder *recorder, const op_rms_norm_back *op);

/// dx[t] += the gradient of op_layer_norm's y[t] by x[t], from g[t] = that by y[t]. dx lies like x.
typedef struct op_layer_norm_back {
    uint64_t x, weight, g, dx;
    uint32_t width, x_stride, g_stride, rows;
    float eps;
} op_layer_norm_back;
void op_record_layer_norm_back(const op_recorder *recorder, const op_layer_norm_back *op);

/// Turns gradients by rotated q and k back, in place; v, bias, kv and layer are not used.
void op_record_rope_back(const op_recorder *recorder, const op_rope_kv *op);

/// The gradients of op_attention by q, k (both after their rotation) and v, from d_out = that by out. A sequence's positions are rows of
/// the step, in order; where its first row is not at position 0, those in front are the positions of the sequence just before it, whose
/// keys get gradients from both. Keys and values are read from f32 pages. Two dispatches; no row of probabilities is kept.
typedef struct op_attention_back {
    uint64_t step, q, out, d_out; // out as op_attention left it; d_out lies like it
    uint64_t d_qkv;               // [rows, d_stride]: dq, dk, dv at their offsets
    uint64_t stats;               // scratch of 8 · rows · heads bytes
    uint32_t q_stride, out_stride, d_stride, dq_offset, dk_offset, dv_offset;
    uint32_t heads, kv_heads, head_dim, layer;
    uint32_t rows, spans;
    uint32_t window;  // as op_attention's
    uint32_t whole;   // not 0: every sequence has so many rows, and each sees all of them, as in an image tower
    uint32_t longest; // bound on positions, for the work estimate
} op_attention_back;
void op_record_attention_back(const op_recorder *recorder, const op_attention_back *op);
/// Longest span in rows of a step that op_attention_back is given.
uint32_t op_attention_back_span_rows(op_policy policy);

/// out[j] = log π(targets[j]) as op_logprobs, and logits[j] become the gradient of weights[j] · out[j] by themselves.
typedef struct op_logprobs_back {
    uint64_t logits, targets, weights, out;
    uint32_t logits_stride, vocab, rows;
} op_logprobs_back;
void op_record_logprobs_back(const op_recorder *recorder, const op_logprobs_back *op);

/// The same with kl[j] = KL(π ‖ π'), or KL(π' ‖ π) where reverse, π' by `reference` [rows, logits_stride]; logits[j] become the gradient of
/// weights[j] · out[j] − kl_weights[j] · kl[j].
typedef struct op_logprobs_kl_back {
    uint64_t logits, reference, targets, weights, kl_weights, out, kl;
    uint32_t logits_stride, vocab, rows;
    bool reverse;
} op_logprobs_kl_back;
void op_record_logprobs_kl_back(const op_recorder *recorder, const op_logprobs_kl_back *op);

#endif
