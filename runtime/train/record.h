/// The decoder forwards, with every layer's input kept, and backwards, layer by layer.
#ifndef TRAIN_RECORD_H
#define TRAIN_RECORD_H

#include "train/workspace.h"

/// One pass; the workspace's arrays hold its rows.
typedef struct train_pass {
    uint32_t rows;
    uint32_t copies;             // of keys and values, behind the rows (op_rope_kv)
    uint32_t spans[2];           // of arrays.spans
    uint32_t longest;            // sequence
    uint32_t logits;             // entries of arrays.logit_rows, targets and weights
    bool forward;                // log-probabilities are all that is wanted
    bool reference;              // divergences from the base model too, by arrays.kl_weights
    bool reverse;                // KL(base ‖ policy)
    uint64_t features;           // of images, as op_embed takes them; 0: none
    uint64_t reference_features; // as the base model sees them
    uint32_t feature_rows;
    bool embeddings; // TRAIN_DX holds the gradient by the rows' embeddings at the end
} train_pass;

/// Records a whole pass: workspace->results holds the gradient of Σ weights[j] log π(targets[j] | logit_rows[j]) by the scales, and
/// behind it those log-probabilities, and behind limits.rows of them the divergences. Forwards only, the first part is left as it is.
void train_record(const train_workspace *workspace, gpu_command *command, const train_pass *pass);

#endif
