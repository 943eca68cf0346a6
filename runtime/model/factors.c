#include "model/factors.h"

typedef struct slot_bytes {
    uint64_t u, vt; // of the largest, each by itself
} slot_bytes;

static slot_bytes largest(const zs_model *model) {
    slot_bytes most = {0};
    for (uint32_t i = 0; model->factors != ZS_PLACE_DEVICE && i < model->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const model_weight *w = &model->layers[i].weights[m];
            if (!w->factored) continue;
            uint64_t u = matrix_bytes(&w->u), vt = matrix_bytes(&w->vt);
            most.u = u > most.u ? u : most.u;
            most.vt = vt > most.vt ? vt : most.vt;
        }
    }
    return most;
}

uint64_t factor_slot_bytes(const zs_model *model) {
    slot_bytes bytes = largest(model);
    return bytes.u + bytes.vt;
}

zs_status factor_slot_create(zs_model *model, factor_slot *slot, zs_error *error) {
    slot_bytes bytes = largest(model);
    *slot = (factor_slot){.model = model};
    if (bytes.u == 0) return ZS_OK;
    zs_status status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, bytes.u, false, "U", &slot->u, error);
    if (!status) status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, bytes.vt, false, "V", &slot->vt, error);
    if (!status) status = model_upload_create(model, NULL, 0, &slot->upload, error);
    return status;
}

void factor_slot_destroy(factor_slot *slot) {
    if (!slot->model) return;
    model_upload_finish(&slot->upload, NULL);
    gpu_buffer_destroy(slot->model->device, &slot->u);
    gpu_buffer_destroy(slot->model->device, &slot->vt);
    *slot = (factor_slot){0};
}

zs_status factor_slot_fetch(factor_slot *slot, uint32_t layer, uint32_t m, matrix *u, matrix *vt, zs_error *error) {
    const model_weight *w = &slot->model->layers[layer].weights[m];
    zs_status status;
    if (slot->model->factors == ZS_PLACE_HOST) {
        *u = w->u;
        *vt = w->vt;
        u->address = slot->u.address;
        vt->address = slot->vt.address;
        status = model_upload_packed(slot->upload, u, w->host_u, &slot->u, error);
        if (!status) status = model_upload_packed(slot->upload, vt, w->host_vt, &slot->vt, error);
    } else {
        const model_matrix *from = &slot->model->file->layers[layer].matrices[m];
        status = model_upload_into(slot->upload, from->u, from, u, &slot->u, error);
        if (!status) status = model_upload_into(slot->upload, from->vt, NULL, vt, &slot->vt, error);
    }
    return status ? status : model_upload_wait(slot->upload, error);
}
