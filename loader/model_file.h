/// A language model's file seen as hyper-parameters and named weights, dense or factored. Knows no GPU.
///
/// Rows of dense q and k are stored by llama-architecture GGUF files in interleaved RoPE order; the permutation to Hugging Face order is
/// told per weight (permute_heads) and applied by whoever reads the rows. Factors (U's rows) are in Hugging Face order.
#ifndef LOADER_MODEL_FILE_H
#define LOADER_MODEL_FILE_H

#include "loader/gguf.h"

typedef struct model_config {
    char architecture[64]; // of the base: "llama", "qwen2", "gemma3"
    char name[128];
    uint32_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, context;
    float norm_eps, rope_base;
    bool tied; // the output head is the embedding
    bool factored;
    bool qkv_bias;       // q, k and v have biases
    uint32_t window;     // a position attends to so many, itself among them; 0: to all before it
    double rope_divisor; // of every rotary frequency (linear scaling); 1: none

    // What Gemma 3 has beside that
    float embedding_scale;  // of the embedding on its way in; 0: none
    float score_scale;      // of attention scores; 0: 1 / √head_dim
    bool gelu;              // gelu, by its tanh approximation, has silu's place
    bool head_norms;        // RMS norms on every head of q and k before their rotation
    bool post_norms;        // RMS norms on what attention and feed-forward add to x
    uint32_t full_every;    // each so many-th layer has no window; 0: all have it
    float window_rope_base; // rope base of the layers with a window, which are not scaled by rope_divisor; 0: as the others
} model_config;

/// Whether a layer is one of those with a window (which config.window, when 0, makes as long as the context) and their rope base.
bool model_layer_has_window(const model_config *config, uint32_t layer);

/// One matrix [out, in], dense (dense != NULL) or factored (u, s, vt != NULL).
typedef struct model_matrix {
    const char *canonical;         // Hugging Face name without ".weight", owned by the model_file: "model.layers.0.mlp.gate_proj"
    uint32_t out, in, rank;        // rank: min(out, in), dense too
    const gguf_tensor *dense;      // [out, in]
    const gguf_tensor *u, *s, *vt; // [out, r], F32 [r], [r, in]
    const float *sketch;           // [8] or NULL (copied, aligned)
    uint32_t permute_heads;        // > 0: rows of dense are in GGUF's interleaved order over this many heads
} model_matrix;

enum { MODEL_Q, MODEL_K, MODEL_V, MODEL_O, MODEL_GATE, MODEL_UP, MODEL_DOWN, MODEL_MATRICES };

typedef struct model_layer_file {
    model_matrix matrices[MODEL_MATRICES];
    const gguf_tensor *attention_norm, *ffn_norm;           // [hidden]
    const gguf_tensor *q_norm, *k_norm;                     // [head_dim] with head_norms, else NULL
    const gguf_tensor *attention_post_norm, *ffn_post_norm; // [hidden] with post_norms, else NULL
    const gguf_tensor *biases[3]; // of q, k and v, [out]; rows in the order of the dense matrix; NULL without qkv_bias
} model_layer_file;

struct vision_file;

typedef struct model_file {
    gguf_file gguf;
    model_config config;
    model_layer_file *layers;
    const gguf_tensor *embedding; // [vocab, hidden]
    const gguf_tensor *head;      // [vocab, hidden]; == embedding when tied
    const gguf_tensor *output_norm;
    const gguf_tensor *rope_factors; // [head_dim / 2], each divides a rotary frequency (Llama 3.1); NULL: none
    bool rows_in_halves;             // dense q and k and their biases (MODEL_ROWS_KEY)
    struct vision_file *vision;      // the tower and projector (vision_file.h); NULL: none
    struct model_file *beside;       // the file that they come from where it is another one (model_file_add_images)
    bool *used;                      // [gguf.tensor_count] while the file is being opened, NULL after it
} model_file;

/// Key of our own: "halves" when the rows of dense q and k are in Hugging Face order (model folders, and factored models made
/// of them); absent: interleaved, as llama.cpp writes them.
#define MODEL_ROWS_KEY "zsigma.head_rows"

/// Opens a GGUF file of architecture llama, qwen2 or gemma3, or zsigma over one of them, or a Hugging Face folder (model_folder.h). Checks
/// that every tensor is there with the right shape and that sizes agree (heads · head_dim, kv_heads divides heads, …). A missing or
/// misshapen tensor is named. What would change the computation and is not implemented is refused (model_features.h).
zs_status model_file_open(const char *path, model_file *file, zs_error *error);
zs_status model_file_open_memory(const void *data, size_t size, model_file *file, zs_error *error);
void model_file_close(model_file *file);

/// Takes tower and projector from another file, one of llama.cpp's with images (general.architecture clip). ZS_ERROR_MISMATCH when it
/// does not belong to this model; ZS_ERROR_ARGUMENT when the model has its own.
zs_status model_file_add_images(model_file *file, const char *path, zs_error *error);

/// The matrix whose tensors are called prefix.weight, or prefix.zs_u and so on in a factored file: m's out and in are given, the rest is
/// filled in. Free with model_matrix_free.
zs_status model_file_find_matrix(const model_file *file, const char *prefix, const char *canonical, model_matrix *m, zs_error *error);
void model_matrix_free(model_matrix *matrix);

/// The decoder's matrix of a canonical name; NULL when there is none.
const model_matrix *model_file_find(const model_file *file, const char *canonical);

/// What GGUF files call one of the matrices of a layer: "attn_q", … "ffn_down".
const char *model_matrix_gguf_name(uint32_t matrix);

/// Row index in the file of Hugging Face row `row` of a matrix with permute_heads > 0 (head_dim = out / permute_heads):
/// HF row s·d/2 + i of a head ↔ GGUF row 2i + s. The identity otherwise.
uint32_t model_matrix_file_row(const model_matrix *matrix, uint32_t row);

/// The same for the bias of q, k or v (matrix 0, 1, 2): its row in the file of Hugging Face row `row`.
uint32_t model_bias_file_row(const model_file *file, uint32_t matrix, uint32_t row);

#endif
