/// The inside of zs_model: the Llama decoder and its relatives on a device, dense or factored, as a list of operations over rows. z comes
/// as scale buffers (σ ⊙ z per factored matrix); experts are not known here.
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "gpu/buffer.h"
#include "gpu/command.h"
#include "loader/model_file.h"
#include "ops/ops.h"
#include "vision/tower.h"

/// One matrix on the device, with what an expert needs to know of it.
typedef struct model_weight {
    bool factored;
    matrix dense; // [out, in]
    matrix u, vt; // [out, r], [r, in]
    uint32_t out, in, rank;
    uint32_t scale_offset;  // of its σ ⊙ z in a row of the scale table (factored only)
    const char *canonical;  // "model.layers.0.mlp.gate_proj", owned by the model
    float *sigma;           // [rank] on the host (factored only)
    void *host_u, *host_vt; // u and vt in the device's layout (ZS_PLACE_HOST only)
    bool has_sketch;
    float sketch[8];
} model_weight;

typedef struct model_layer {
    model_weight weights[MODEL_MATRICES];        // MODEL_Q … MODEL_DOWN
    uint64_t attention_norm, ffn_norm;           // device addresses, f32 [hidden]
    uint64_t q_norm, k_norm;                     // f32 [head_dim], of every head; 0: none
    uint64_t attention_post_norm, ffn_post_norm; // f32 [hidden], on what is added to x; 0: none
    uint64_t qkv_bias;                           // f32, laid out like a row of q, k and v (ACTIVATION_QKV); 0: none
} model_layer;

struct zs_model {
    zs_device *device;
    zs_model_info info;
    model_config config;
    zs_tokenizer *tokenizer;
    model_layer *layers;
    matrix embedding, head; // [vocab, hidden]
    uint64_t output_norm;
    uint32_t scale_count; // floats in a row of the scale table: Σ ranks, each rounded up to 4
    gpu_buffer *buffers;  // what holds all of the above
    uint32_t buffer_count;
    zs_place factors;            // where u and vt lie; with another place than the device they have no addresses
    model_file *file;            // open, for factors that stay in it (ZS_PLACE_FILE), or NULL
    vision_tower *tower;         // what sees images, with its layers behind it; NULL: the model reads text alone
    model_weight *tower_weights; // [tower_weight_count]: of the layers, VISION_Q … VISION_FC2, then of the projector
    uint32_t tower_weight_count;
    float *rope_factors; // [head_dim / 2] on the host, each divides a rotary frequency; NULL: none
    char *names;         // canonical names
    char *path;          // for messages
    op_policy policy;    // the device's kernels, as they were measured
    uint64_t id;         // differs between loaded models: part of every cache key
};

/// Brings a file that was opened onto the device; path is for messages. A file may have no tokenizer.
zs_status model_from_file(zs_device *device, const char *path, const model_file *file, const zs_model_params *params, zs_model **model,
                          zs_error *error);
/// The device layout of a file's tensor, without an address; all zero for NULL.
matrix model_tensor_matrix(const gguf_tensor *tensor, const op_policy *policy);
/// What a file's weights take on the device with its factors in that place; file_bytes: what is read of the file at once.
uint64_t model_weight_bytes(const op_policy *policy, const model_file *file, zs_place factors, uint64_t *file_bytes);
/// A model without weights in the shape of a file's: sizes can be asked of it. To be destroyed like another. policy: as of another shape;
/// NULL: measured.
zs_status model_shape_create(zs_device *device, const model_file *file, zs_place factors, const op_policy *policy, zs_model **model,
                             zs_error *error);
/// Makes the factored matrices of a shape dense ones of a type.
void model_shape_compose(zs_model *shape, matrix_type type);
/// The error for images where the model has no tower.
zs_status model_refuse_images(const zs_model *model, zs_error *error);
/// i-th matrix: the decoder's, layer by layer, then the tower's; NULL behind the last. Dense ones too.
const model_weight *model_weight_at(const zs_model *model, uint32_t i);
/// Whether tower or projector have a z.
bool model_tower_is_factored(const zs_model *model);
/// Writes σ of every factored matrix into row[scale_count] (host): the base model's row of the scale table.
void model_base_scales(const zs_model *model, float *row);

// ---- KV pages --------------------------------------------------------------------------------------------------------

/// A page holds KV_PAGE_TOKENS positions of all layers: page[layer][k, v][KV_PAGE_TOKENS][kv_heads · head_dim] (shaders/kv.glsl).
uint64_t model_page_bytes(const zs_model *model, kv_type kv);

// ---- workspace and steps ---------------------------------------------------------------------------------------------

/// Stride of rows of n values in work spaces.
static inline uint32_t pad32(uint32_t n) { return (n + 31) / 32 * 32; }

/// Activation buffers for one engine. RoPE tables reach `context` positions.
typedef struct model_workspace model_workspace;

typedef struct model_workspace_params {
    uint32_t max_rows;       // rows of one step
    uint32_t max_logit_rows; // rows whose logits one step can give
    uint32_t context;
    kv_type kv;
    bool fast;          // ZS_PRECISION_FAST
    bool deterministic; // one kernel and one order of summation whatever the number of rows
} model_workspace_params;

uint64_t model_workspace_bytes(const zs_model *model, const model_workspace_params *params);
/// What serves under them.
op_policy model_workspace_policy(const zs_model *model, const model_workspace_params *params);
zs_status model_workspace_create(const zs_model *model, const model_workspace_params *params, model_workspace **workspace, zs_error *error);
void model_workspace_destroy(model_workspace **workspace);

/// What one step computes. Device structures (Row, Span, Step: shaders/shared.h) are the caller's and may change between
/// replays of the recorded command, except for the counts given here.
typedef struct model_step {
    uint64_t step;        // device address of a Step
    uint32_t rows;        // ≤ max_rows
    uint32_t spans;       // entries of Step.spans; each covers ≤ model_span_rows rows; they cover the rows in order
    bool decode;          // every span is one row (generation): matvec and split attention; else prefill kernels. The choice
                          // goes by this flag alone, so a row's bits do not depend on how many rows share a prefill step
    uint32_t decode_rows; // of a step that is not decode: its first rows, a span each, that attention takes as decode does
    uint64_t rest;        // where decode_rows: device address of a Step like `step`, but whose spans begin with number decode_rows
    uint32_t longest;     // bound on positions over all replays, for work estimates and checks
    uint64_t features;    // f32 [feature_rows, stride of X]: what rows with tokens outside the vocabulary take (Row); 0: none
    uint32_t feature_rows;
    uint64_t logit_rows;  // device address of uint32_t[logit_count]: rows whose logits are wanted
    uint32_t logit_count; // ≤ max_logit_rows; 0: none (a prefill chunk that is not the last)
} model_step;

/// Longest span in rows: constant for a workspace.
uint32_t model_span_rows(const model_workspace *workspace, const zs_model *model);

/// Records embedding, all layers and, when logit_count > 0, final norm and head. Logits f32 [logit_count, vocab] are
/// left in the workspace until the next step.
void model_record(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step);
/// Dispatches that model_record puts into one layer for a decode step of one row.
uint32_t model_layer_dispatches(const zs_model *model, const model_workspace *workspace);

/// Records sampling from the logits of the step just recorded: samplers is the device address of Sampler[sequences],
/// results of Sampled[sequences · SAMPLED_RING]. With advance, rows[logit row] becomes the next step's row: its token the
/// sampled one, its position one further (decode replay).
void model_record_sample(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step, uint64_t samplers,
                         uint64_t results, bool advance);
/// Records log-probabilities: out[i] = log π(targets[i]) under the logits of logit row i; device addresses of
/// uint32_t[logit_count] and float[logit_count]. NaN logits give NaN.
void model_record_logprobs(const zs_model *model, model_workspace *workspace, gpu_command *command, const model_step *step,
                           uint64_t targets, uint64_t out);
/// The logits buffer, for the rare read by the host: f32 [max_logit_rows, vocab].
const gpu_buffer *model_logits(const model_workspace *workspace);

#endif
