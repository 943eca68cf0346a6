/// The tower and projector of a model that sees images: hyper-parameters and named weights, under llama.cpp's names. They lie in the
/// model's own file (a folder, a factored model), or in one beside it (llama.cpp's mmproj).
#ifndef LOADER_VISION_FILE_H
#define LOADER_VISION_FILE_H

#include "loader/image_config.h"
#include "loader/model_file.h"

/// Keys of our own: which family's preprocessing and prompt ("llava", "llava_next", "idefics3"), the tower's activation as transformers
/// calls it, the id of the token that stands for a feature.
#define VISION_FAMILY_KEY "zsigma.vision.family"
#define VISION_ACTIVATION_KEY "zsigma.vision.hidden_act"
#define VISION_TOKEN_KEY "zsigma.vision.image_token"
#define VISION_NEWLINE_TENSOR "model.image_newline"

typedef enum vision_activation { VISION_QUICK_GELU, VISION_GELU, VISION_GELU_TANH } vision_activation;

typedef struct vision_config {
    image_config image; // how it wants its images; tells the family
    vision_activation activation;
    uint32_t hidden, ffn, heads;
    uint32_t layers;      // that are computed
    uint32_t text_hidden; // width of a feature
    uint32_t image_token; // 0: not told
    float norm_eps;
    bool class_token; // before the patches; not among the features
} vision_config;

enum { VISION_Q, VISION_K, VISION_V, VISION_OUT, VISION_FC1, VISION_FC2, VISION_MATRICES };

typedef struct vision_norm_file {
    const gguf_tensor *weight, *bias; // [hidden]
} vision_norm_file;

typedef struct vision_layer_file {
    model_matrix matrices[VISION_MATRICES];     // canonical: "vision.layers.0.self_attn.q_proj", … "vision.layers.0.mlp.fc2"
    const gguf_tensor *biases[VISION_MATRICES]; // [out]
    vision_norm_file norms[2];                  // before attention and before fc1
} vision_layer_file;

typedef struct vision_file {
    vision_config config;
    gguf_tensor patch;               // [hidden, 3 · patch_size²]: the convolution seen as a matrix
    const gguf_tensor *patch_bias;   // [hidden] or NULL
    const gguf_tensor *class_vector; // [hidden] or NULL
    const gguf_tensor *positions;    // [class_token + patches, hidden]
    vision_norm_file pre_norm;       // on the embeddings; NULL: none
    vision_norm_file post_norm;      // on the last layer's output where that is used; NULL: none
    vision_layer_file *layers;
    model_matrix projector[2];            // canonical: "projector.0", "projector.1"
    const gguf_tensor *projector_bias[2]; // or NULL
    uint32_t projector_count;             // 2 with a gelu between; 1 (Idefics3)
    const gguf_tensor *newline;           // [text_hidden] (LLaVA-NeXT), or NULL
} vision_file;

/// Patches of a side, and features that a tile becomes.
uint32_t vision_config_side(const vision_config *config);
uint32_t vision_config_features(const vision_config *config);

/// The i-th matrix: the layers', VISION_Q … VISION_FC2, then the projector's; NULL past the last. *bias (may be NULL): what is added to its
/// result, or NULL.
const model_matrix *vision_file_matrix(const vision_file *file, uint32_t i, const gguf_tensor **bias);

/// Reads the tower out of `file`, whose keys and tensors are open; *vision stays NULL when it has none. text_hidden: width of the decoder's
/// embeddings, which the projector must give (else ZS_ERROR_MISMATCH). Free with vision_file_close.
zs_status vision_file_read(const model_file *file, uint32_t text_hidden, vision_file **vision, zs_error *error);
void vision_file_close(vision_file **vision);

#endif
