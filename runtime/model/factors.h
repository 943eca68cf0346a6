/// Factors that do not lie on the device, and the slot there into which one matrix' factors are brought.
#ifndef MODEL_FACTORS_H
#define MODEL_FACTORS_H

#include "model/upload.h"

/// Room for the factors of any one matrix of the model; empty where they all lie on the device.
typedef struct factor_slot {
    zs_model *model;
    model_upload *upload;
    gpu_buffer u, vt;
} factor_slot;

uint64_t factor_slot_bytes(const zs_model *model);
zs_status factor_slot_create(zs_model *model, factor_slot *slot, zs_error *error);
void factor_slot_destroy(factor_slot *slot);
/// Brings U and Vᵀ of matrix m of a layer into the slot and waits; nothing submitted may be reading it.
zs_status factor_slot_fetch(factor_slot *slot, uint32_t layer, uint32_t m, matrix *u, matrix *vt, zs_error *error);

#endif
