// Structs shared between C and GLSL. Pointers are 64-bit device addresses in C and buffer references in GLSL, always
// used as ref.v[i]. ADDRESS(…) is a
// plain number there too, made a reference where it is used, RowRef(step.rows).v[i]: for addresses that lie in memory and those
// read as more than one type, since SwiftShader's compiler fails on casts from reference to reference. Push-constant structs are at most 128 bytes; std430 rules, so every 8-byte member is 8-aligned.
#ifndef SHADERS_SHARED_H
#define SHADERS_SHARED_H

#ifdef GL_core_profile // GLSL
#define REF(name) name
#define ADDRESS(name) uvec2
#define STRUCT(name) struct name
#define END(name) ;
#else
#include <assert.h>
#include <stdint.h>
#define REF(name) uint64_t
#define ADDRESS(name) uint64_t
#define uint uint32_t
#define STRUCT(name) typedef struct name
#define END(name) name;
#endif

#define KV_PAGE_TOKENS 32u // positions per page of the KV pool
#define KV_BLOCK 32u       // keys or values that share a scale, where they are bytes
#define NO_TOKEN 0xffffffffu

// One row of a step: a token of a sequence at a position, under an expert.
STRUCT(Row) {
    uint token;    // from the vocabulary's size on: a row of image features; of a copy (rope_kv.comp): the row it is one of
    uint position; // in its sequence, 0-based; the row attends to positions 0 … position
    uint sequence; // row of the page table
    uint expert;   // row of the scale table; 0 is the base model
} END(Row)

// Consecutive rows of one sequence at consecutive positions: the unit of attention.
STRUCT(Span) {
    uint first_row;
    uint rows;
} END(Span)

// What all kernels of a step share. Lives in a GPU_MEMORY_SHARED buffer.
STRUCT(Step) {
    ADDRESS(RowRef) rows;
    ADDRESS(SpanRef) spans;
    ADDRESS(FloatRef) scales; // [experts, scale_stride]: σ ⊙ z of every factored matrix, one after another
    ADDRESS(PageTableRef) pages; // [sequences, page_stride]: device addresses of KV pages
    uint scale_stride;
    uint page_stride;
    uint pad0;
    uint pad1;
} END(Step)

// How one sequence samples; indexed by Row.sequence.
STRUCT(Sampler) {
    ADDRESS(UintRef) allowed; // bit per token id, or 0: all allowed
    ADDRESS(UintRef) seen;    // bit per token id, for the repetition penalty; the kernel adds the sampled token
    float temperature;    // 0: greedy
    float top_p;          // 1: off
    float min_p;          // 0: off
    float repetition_penalty; // 1: off
    uint top_k;           // 0: off
    uint seed_low;
    uint seed_high;
    uint stream_low;
    uint stream_high;
    uint pad0;
    uint pad1;
    uint pad2;
} END(Sampler)

// What sampling leaves per sequence and position, in a ring: results[sequence · SAMPLED_RING + position % SAMPLED_RING]
// where position is that of the sampled token (the row's position + 1).
#define SAMPLED_RING 16u
#define SAMPLED_NAN 1u // logits held NaN: token is NO_TOKEN
STRUCT(Sampled) {
    uint token;
    float logprob; // under the model itself: before penalty, temperature and truncation
    uint flags;
    uint position; // of the token, so that a reader can tell a fresh entry
} END(Sampled)

// linear.comp, linear_lanes.comp, matvec.comp, matmul.comp, matmul_matrix.comp, matmul_combine.comp:
// y[t, o] = epilogue(Σ_k W[o, k] x[t, k]) for up to three matrices of one type. Offsets and strides in floats; the weights' planes follow one another from weights[s].
STRUCT(PushLinear) {
    ADDRESS(WordRef) weights[3];
    ADDRESS(FloatRef) x;
    REF(FloatRef) y;
    REF(StepRef) step;
    ADDRESS(FloatRef) norm; // LINEAR_NORM: [in], zero up to the padded width; LINEAR_BIAS: biases, laid out like a row of y
    uint out_rows[3];
    uint in_units[3]; // padded inner dimension / 8
    uint x_offset[3];
    uint y_offset[3];
    uint scale_offset[3];
    uint rows;
    uint x_stride;
    uint y_stride;
} END(PushLinear)
#define LINEAR_SCALE 1u
#define LINEAR_RESIDUAL 2u
#define LINEAR_SILU_MUL 4u
#define LINEAR_GELU 32u // gelu's tanh approximation in the place of LINEAR_SILU_MUL's silu
#define LINEAR_NORM 8u // x[t, :] / √(mean x[t, :]² + eps) ⊙ norm takes x's place
#define LINEAR_BIAS 64u // added to the sum; not together with LINEAR_NORM
#define LINEAR_TWO_X 128u // LINEAR_SILU_MUL whose matrices have an x each

// linear_chain.comp: a matrix, or gate and up, of one of the operations that follow each other; offsets are in the addresses
STRUCT(ChainPiece) {
    ADDRESS(WordRef) weights;
    ADDRESS(WordRef) up_weights; // LINEAR_SILU_MUL: weights are gate's
    ADDRESS(FloatRef) x;
    ADDRESS(FloatRef) up_x;
    ADDRESS(FloatRef) y;
    ADDRESS(FloatRef) norm; // [in], zero up to the padded width; a pair of ones without LINEAR_NORM
    // in workgroups for a single block of step rows
    uint first;  // those of the pieces before it
    uint before; // those of the stage before its own, which have to be done; 0: there is none
    uint last;   // of the last stage: all of its; else 0
    uint stage;
    uint out_rows;
    uint in_units; // padded inner dimension / 8
    uint x_stride;
    uint y_stride;
    uint scale_offset;
    uint flags; // as PushLinear's kernels have them
} END(ChainPiece)
STRUCT(PushLinearChain) {
    ADDRESS(PieceRef) table; // [pieces], by the numbers of their workgroups
    ADDRESS(CounterRef) counters; // [stages + 1]
    REF(StepRef) step;
    uint pieces;
    uint rows;
} END(PushLinearChain)

// half_rows.comp: rows of f32 as matmul_matrix.comp takes them in place of x, with undo behind them
STRUCT(PushHalfRows) {
    REF(ConstVec4Ref) x;
    REF(ConstVec4Ref) norm; // [width], zero behind the norm's; or 0
    REF(Uint2Ref) h;        // f16 [rows, width]
    REF(FloatRef) undo;     // [rows]
    uint width;             // a multiple of 32
    uint end;               // x has values up to here; zeros stand for what lies behind
    uint x_stride;
    uint pad0;
} END(PushHalfRows)

// rms_norm.comp
STRUCT(PushRmsNorm) {
    REF(FloatRef) x;
    REF(FloatRef) weight;
    REF(FloatRef) y;
    REF(UintRef) index; // or 0
    uint width;
    uint x_stride;
    uint y_stride;
    uint part_stride; // floats from one of a row's parts to the next, each with a norm of its own
    float eps;
    uint pad0;
} END(PushRmsNorm)

// layer_norm.comp
STRUCT(PushLayerNorm) {
    REF(FloatRef) x;
    REF(FloatRef) weight;
    REF(FloatRef) bias;
    REF(FloatRef) y; // may be x
    uint width;
    uint x_stride;
    uint y_stride;
    float eps;
} END(PushLayerNorm)

// gelu.comp
STRUCT(PushGelu) {
    REF(FloatRef) x;
    REF(FloatRef) y; // may be x, but for the gradient
    uint width;
    uint stride;
} END(PushGelu)
#define GELU_ERF 0u
#define GELU_TANH 1u
#define GELU_QUICK 2u

// gather.comp
STRUCT(PushGather) {
    REF(FloatRef) x;
    REF(FloatRef) y;
    REF(UintRef) index; // [rows, pieces]
    uint width;
    uint pieces;
    uint x_stride;
    uint y_stride;
} END(PushGather)

// gather_sum.comp
STRUCT(PushGatherSum) {
    REF(FloatRef) x;
    REF(FloatRef) y;
    REF(UintRef) begin; // [rows + 1]
    REF(UintRef) from;  // [begin[rows]], in floats of x
    uint width;
    uint y_stride;
} END(PushGatherSum)

// embed.comp
STRUCT(PushEmbed) {
    ADDRESS(WordRef) embedding;
    REF(StepRef) step;
    REF(FloatRef) x;
    ADDRESS(FloatRef) features; // [feature_rows, stride]; with the FEATURES constant only
    ADDRESS(FloatRef) columns;  // [width]; with the COLUMNS constant only
    uint vocab;
    uint first; // row of the vocabulary's at which this part of the embedding begins
    uint part;  // its rows
    uint in_units; // padded width / 8
    uint width;
    uint stride;
    float scale;
    uint feature_rows;
} END(PushEmbed)

// rope_kv.comp
STRUCT(PushRopeKv) {
    REF(StepRef) step;
    REF(FloatRef) qkv;
    REF(Vec2Ref) table; // (cos, sin) [context, head_dim / 2]
    ADDRESS(FloatRef) bias; // of q, k and v, laid out like a row of qkv; with the BIAS constant only
    uint stride;
    uint q_offset;
    uint k_offset;
    uint v_offset;
    uint heads;
    uint kv_heads;
    uint page_base; // of the layer's keys in a page, in elements
    uint rows;
} END(PushRopeKv)

// attention_*.comp
STRUCT(PushAttention) {
    REF(StepRef) step;
    ADDRESS(FloatRef) q;
    ADDRESS(FloatRef) out_;
    uint q_stride;
    uint out_stride;
    uint kv_heads;
    uint page_base; // of the layer's keys in a page, in elements
    uint spans;
    float scale; // of scores: 1 / √head_dim unless the model says otherwise
    uint window; // a row sees so many positions, its own among them; 0: all
    uint pad0;
    ADDRESS(CounterRef) partials; // attention_decode.comp's
} END(PushAttention)
#define ATTENTION_SHARES 32u // that a row's positions are split into in decode, at most
#define ATTENTION_FILL 512u  // workgroups of decode at most where positions are split

// sample.comp
STRUCT(PushSample) {
    REF(StepRef) step;
    REF(FloatRef) logits;
    REF(UintRef) index;
    REF(SamplerRef) samplers;
    REF(SampledRef) results;
    uint logits_stride;
    uint vocab;
    uint advance;
    uint pad0;
} END(PushSample)

// logprobs.comp
STRUCT(PushLogprobs) {
    REF(FloatRef) logits;
    REF(UintRef) targets;
    REF(FloatRef) out_;
    uint logits_stride;
    uint vocab;
} END(PushLogprobs)

// ---- the backward pass ----

// linear_back.comp, matmul_back.comp, matmul_matrix.comp: y[t, i] = Σ_o W[o, i] x[t, o] for up to three matrices of one type, as PushLinear
STRUCT(PushLinearBack) {
    ADDRESS(WordRef) weights[3];
    ADDRESS(FloatRef) x;
    ADDRESS(FloatRef) y;
    uint out_rows[3];
    uint in_units[3]; // padded inner dimension / 8
    uint x_offset[3];
    uint y_offset[3];
    uint first; // rows of W that count: first … end − 1
    uint end;
    uint rows;
    uint x_stride;
    uint y_stride;
    uint pad0;
} END(PushLinearBack)
#define LINEAR_SUM 16u // the segments' products are added

// scale.comp; offsets and strides in floats
STRUCT(PushScale) {
    REF(FloatRef) x;
    REF(FloatRef) y;
    REF(FloatRef) scales;
    uint offset[3]; // of a segment in a row of x and y
    uint width[3];
    uint scale_offset[3];
    uint stride;
} END(PushScale)

// scale_back.comp
STRUCT(PushScaleBack) {
    REF(FloatRef) x;
    REF(FloatRef) g;
    REF(FloatRef) scales;
    REF(FloatRef) sums; // beside scales
    uint offset[3];
    uint width[3];
    uint scale_offset[3];
    uint stride;
    uint rows;
    uint pad0;
} END(PushScaleBack)

// silu_mul.comp
STRUCT(PushSiluMul) {
    REF(FloatRef) x; // gate and up
    REF(FloatRef) y;
    uint gate_offset;
    uint up_offset;
    uint width;
    uint x_stride;
    uint y_stride;
    uint pad0;
} END(PushSiluMul)

// rms_norm_back.comp
STRUCT(PushRmsNormBack) {
    REF(FloatRef) x;
    REF(FloatRef) weight;
    REF(FloatRef) g;
    REF(FloatRef) dx; // beside x
    REF(UintRef) index; // or 0
    uint width;
    uint x_stride;
    uint g_stride;
    float eps;
} END(PushRmsNormBack)

// layer_norm_back.comp
STRUCT(PushLayerNormBack) {
    REF(FloatRef) x;
    REF(FloatRef) weight;
    REF(FloatRef) g;
    REF(FloatRef) dx; // beside x
    uint width;
    uint x_stride;
    uint g_stride;
    float eps;
} END(PushLayerNormBack)

// attention_back_*.comp
STRUCT(PushAttentionBack) {
    REF(StepRef) step;
    ADDRESS(FloatRef) q;
    ADDRESS(FloatRef) out_;
    ADDRESS(FloatRef) d_out; // beside out_
    ADDRESS(FloatRef) d_qkv;
    REF(Vec2Ref) stats; // [rows, heads]
    uint q_stride;
    uint out_stride;
    uint d_stride;
    uint dq_offset;
    uint dk_offset;
    uint dv_offset;
    uint heads;
    uint kv_heads;
    uint page_base; // of the layer's keys in a page, in elements
    uint rows;
    float scale; // 1 / √head_dim
    uint window; // a row sees so many positions, its own among them; 0: all
    uint whole;  // not 0: every sequence has so many rows, and each sees all of them
} END(PushAttentionBack)

// logprobs_back.comp
STRUCT(PushLogprobsBack) {
    REF(FloatRef) logits;
    REF(UintRef) targets;
    REF(FloatRef) weights;
    REF(FloatRef) out_;
    uint logits_stride;
    uint vocab;
} END(PushLogprobsBack)

// peak.comp
STRUCT(PushPeak) {
    ADDRESS(Word4Ref) in_;
    REF(FloatRef) out_;
    float factor; // between 0 and 1
    uint count;   // rounds
    uint step;    // READ: in elements of 16 bytes
    uint apart;
} END(PushPeak)

// logprobs_kl_back.comp
STRUCT(PushLogprobsKlBack) {
    REF(FloatRef) logits;
    REF(FloatRef) reference;
    REF(UintRef) targets;
    REF(FloatRef) weights;
    REF(FloatRef) kl_weights;
    REF(FloatRef) out_;
    REF(FloatRef) kl;
    uint logits_stride; // and the reference's
    uint vocab;
    uint reverse;
    uint pad0;
} END(PushLogprobsKlBack)

// pack.comp: rows of f32 into a matrix' layout
STRUCT(PushPack) {
    ADDRESS(Vec4Ref) x; // [rows, x_stride], zero up to the padded width
    ADDRESS(UintRef) words; // of the matrix
    uint out_rows; // of the matrix
    uint in_units; // padded inner dimension / 8
    uint first; // row of the matrix that x's first becomes
    uint rows;
    uint x_stride;
    uint pad0;
} END(PushPack)

// probe.comp: the self-test of a device: out[i] = in[i] * factor + i over count elements.
STRUCT(PushProbe) {
    REF(FloatRef) in_;
    REF(FloatRef) out_;
    float factor;
    uint count;
} END(PushProbe)

#ifndef GL_core_profile
#undef uint
static_assert(sizeof(Row) == 16, "matches GLSL");
static_assert(sizeof(Step) == 48, "matches GLSL");
static_assert(sizeof(Sampler) == 64, "matches GLSL");
static_assert(sizeof(Sampled) == 16, "matches GLSL");
static_assert(sizeof(PushLinear) == 128, "matches GLSL");
static_assert(sizeof(ChainPiece) == 88, "matches GLSL");
static_assert(sizeof(PushLinearChain) == 32, "matches GLSL");
static_assert(sizeof(PushHalfRows) == 48, "matches GLSL");
static_assert(sizeof(PushRmsNorm) == 56, "matches GLSL");
static_assert(sizeof(PushLayerNorm) == 48, "matches GLSL");
static_assert(sizeof(PushGelu) == 24, "matches GLSL");
static_assert(sizeof(PushGather) == 40, "matches GLSL");
static_assert(sizeof(PushGatherSum) == 40, "matches GLSL");
static_assert(sizeof(PushEmbed) == 72, "matches GLSL");
static_assert(sizeof(PushRopeKv) == 64, "matches GLSL");
static_assert(sizeof(PushAttention) == 64, "matches GLSL");
static_assert(sizeof(PushSample) == 56, "matches GLSL");
static_assert(sizeof(PushLogprobs) == 32, "matches GLSL");
static_assert(sizeof(PushLinearBack) == 112, "matches GLSL");
static_assert(sizeof(PushScale) == 64, "matches GLSL");
static_assert(sizeof(PushScaleBack) == 80, "matches GLSL");
static_assert(sizeof(PushSiluMul) == 40, "matches GLSL");
static_assert(sizeof(PushRmsNormBack) == 56, "matches GLSL");
static_assert(sizeof(PushLayerNormBack) == 48, "matches GLSL");
static_assert(sizeof(PushAttentionBack) == 104, "matches GLSL");
static_assert(sizeof(PushLogprobsBack) == 40, "matches GLSL");
static_assert(sizeof(PushPeak) == 32, "matches GLSL");
static_assert(sizeof(PushLogprobsKlBack) == 72, "matches GLSL");
static_assert(sizeof(PushPack) == 40, "matches GLSL");
static_assert(sizeof(PushProbe) == 24, "matches GLSL");
#endif
#endif
