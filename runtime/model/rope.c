/// The table that RoPE turns by.
#include "model/workspace.h"

#include <math.h>

uint64_t model_rope_bytes(const zs_model *model, uint32_t context) { return 8ull * context * (model->config.head_dim / 2); }

/// The frequency is rounded to f32 as transformers does, the product too.
static zs_status fill(const zs_model *model, uint32_t context, bool window, const gpu_buffer *table, zs_error *error) {
    const model_config *c = &model->config;
    const double base = (double)(window ? c->window_rope_base : c->rope_base);
    const float divisor = window ? 1 : (float)c->rope_divisor;
    uint32_t half = model->config.head_dim / 2;
    gpu_upload *upload;
    zs_status status = gpu_upload_create(model->device, &upload, error);
    if (status) return status;
    uint32_t chunk = (uint32_t)(gpu_upload_max(upload) / (8ull * half));
    for (uint32_t first = 0; first < context && !status; first += chunk) {
        uint32_t count = context - first < chunk ? context - first : chunk;
        void *host;
        status = gpu_upload_map(upload, table, 8ull * half * first, 8ull * half * count, &host, error);
        if (status) break;
        float *turns = host;
        for (uint32_t i = 0; i < half; i++) {
            float frequency = (float)(1.0 / pow(base, 2.0 * i / c->head_dim)) / divisor;
            if (model->rope_factors && !window) frequency /= model->rope_factors[i];
            for (uint32_t p = 0; p < count; p++) {
                float angle = (float)(first + p) * frequency;
                turns[2 * ((size_t)p * half + i)] = cosf(angle);
                turns[2 * ((size_t)p * half + i) + 1] = sinf(angle);
            }
        }
    }
    zs_status finished = gpu_upload_finish(&upload, status ? NULL : error);
    return status ? status : finished;
}

zs_status model_rope_create(const zs_model *model, uint32_t context, bool window, gpu_buffer *table, zs_error *error) {
    zs_status status =
        gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, model_rope_bytes(model, context), false, "rope table", table, error);
    return status ? status : fill(model, context, window, table, error);
}
