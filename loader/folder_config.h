/// config.json of a Hugging Face folder, told as GGUF's keys.
#ifndef LOADER_FOLDER_CONFIG_H
#define LOADER_FOLDER_CONFIG_H

#include "loader/gguf.h"

#include <jansson.h>

/// What the tensors of such a model are, as config.json says it.
typedef struct folder_config {
    const char *architecture; // GGUF's: llama, qwen2, gemma3
    const char *family;       // of models that see images (folder_vision.h); NULL: of text alone
    uint32_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, context;
    bool tied;
    bool qkv_bias, o_bias, mlp_bias;
    bool gemma_norms; // norms of every head, norms behind attention and feed-forward, all stored as their distance from 1
    double rope_theta;
    struct {
        double factor, low_freq_factor, high_freq_factor, original_context;
        bool used;
    } llama3; // rope scaling by wavelength, which GGUF files tell by a tensor of factors
} folder_config;

/// LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Gemma3ForCausalLM, and those with a tower around the decoders of the first three
/// (folder_vision.h). What is missing or no number is named. What this version cannot run is told as keys all the same; what has no key is
/// ZS_ERROR_UNSUPPORTED here. folder: for the model's name.
zs_status folder_config_read(const json_t *root, const char *folder, folder_config *config, gguf_writer *keys, zs_error *error);

#endif
