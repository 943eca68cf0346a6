/// The expert files of the paper's authors (PyTorch): policy_params.pt, learnable_params.pt, and mixes of experts.
///
/// They hold p before the sigmoid, m = sigmoid(p), W' = s · U diag(σ ⊙ m) Vᵀ with s = Σσ / Σ(σ ⊙ m): parameterisation sigmoid,
/// max_mult 1, normalise trace. A mix holds m of each expert and α.
#ifndef LOADER_AUTHORS_FILE_H
#define LOADER_AUTHORS_FILE_H

#include "loader/expert_file.h"

typedef enum authors_format {
    AUTHORS_POLICY, // learnable_params_module_list.{3 · layer + (0 gate, 1 up, 2 down)}, bf16
    AUTHORS_NAMES,  // model.layers.0.mlp.gate_proj.weight, f32
} authors_format;

/// Tells the kinds by their keys. A mix becomes the sum of its experts, Σ α m, stored as z. Names and descriptions stay "". Keys of none
/// of the kinds, gaps in a policy's numbers and values that are no numbers are errors.
zs_status authors_file_load(const char *path, expert_file *expert, zs_error *error);
zs_status authors_file_load_memory(const void *data, size_t size, expert_file *expert, zs_error *error);

/// Whether the matrices are gate, up and down of layers 0 … n − 1 and no others, which is what a policy can hold.
bool authors_file_fits_policy(const expert_file *expert);
/// expert: of parameterisation sigmoid, whose values are written.
zs_status authors_file_save(const char *path, bool force, authors_format format, const expert_file *expert, zs_error *error);

#endif
