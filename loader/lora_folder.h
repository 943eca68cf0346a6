/// A LoRA as PEFT saves it: a folder with adapter_config.json and adapter_model.safetensors. W_ft = W + scale · B A of some matrices.
#ifndef LOADER_LORA_FOLDER_H
#define LOADER_LORA_FOLDER_H

#include "loader/safetensors.h"

typedef struct lora_matrix {
    char *canonical;             // as model_matrix has it
    const safetensors_tensor *a; // [rank, in]
    const safetensors_tensor *b; // [out, rank]
} lora_matrix;

typedef struct lora_folder {
    safetensors_file file;
    lora_matrix *matrices; // sorted by name
    size_t matrix_count;
    uint32_t rank;
    double scale; // lora_alpha / rank, or lora_alpha / √rank under use_rslora
    char *base;   // base_model_name_or_path; "" when not told
} lora_folder;

/// Whether a folder holds an adapter_config.json.
bool lora_folder_is(const char *path);
/// Refused by name, as ZS_ERROR_UNSUPPORTED: other adapters than LoRA, and what changes more than B A says — every option of
/// adapter_config.json that is set and not known to be harmless (use_dora, fan_in_fan_out, modules_to_save, rank_pattern, …), first values
/// that changed the base (PiSSA, OLoRA, LoftQ, …). ZS_ERROR_FORMAT: tensors that are no A or B, one without the other, other ranks.
zs_status lora_folder_open(const char *path, lora_folder *lora, zs_error *error);
void lora_folder_close(lora_folder *lora);
/// NULL when the matrix is not among them.
const lora_matrix *lora_folder_find(const lora_folder *lora, const char *canonical);

#endif
