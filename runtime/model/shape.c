/// Models without weights: the shape of one that is not loaded, for sizes.
#include "model/load_tower.h"
#include "ops/ops.h"

#include <stdlib.h>

model_weight model_shape_weight(const model_matrix *from, const op_policy *policy, uint32_t *scale_count) {
    model_weight w = {
        .factored = from->dense == NULL,
        .dense = model_tensor_matrix(from->dense, policy),
        .u = model_tensor_matrix(from->u, policy),
        .vt = model_tensor_matrix(from->vt, policy),
        .out = from->out,
        .in = from->in,
        .rank = from->rank,
        .scale_offset = *scale_count,
    };
    if (w.factored) *scale_count += (w.rank + 3) / 4 * 4;
    return w;
}

zs_status model_shape_create(zs_device *device, const model_file *file, zs_place factors, const op_policy *known, zs_model **out,
                             zs_error *error) {
    zs_model *model = calloc(1, sizeof *model);
    model_layer *layers = calloc(file->config.layers, sizeof *layers);
    if (!model || !layers) {
        free(model);
        free(layers);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a plan");
    }
    *model = (zs_model){.device = device, .config = file->config, .layers = layers, .factors = factors};
    const op_policy *policy = &model->policy;
    model->policy = known ? *known : op_policy_of(device);
    zs_status status = known ? ZS_OK : op_policy_measure(device, &model->policy, error);
    model->embedding = model_tensor_matrix(file->embedding, policy);
    model->head = model_tensor_matrix(file->head, policy);
    for (uint32_t i = 0; i < file->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++)
            layers[i].weights[m] = model_shape_weight(&file->layers[i].matrices[m], policy, &model->scale_count);
    }
    if (!status && file->vision) status = load_tower_shape(model, file->vision, error);
    model->info.factored = model->scale_count > 0;
    if (status)
        zs_model_destroy(&model);
    else
        *out = model;
    return status;
}

void model_shape_compose(zs_model *shape, matrix_type type) {
    for (uint32_t i = 0; i < shape->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            model_weight *w = &shape->layers[i].weights[m];
            if (w->factored) w->dense = matrix_of(type, w->out, w->in, shape->policy.weight_group);
            w->factored = false;
        }
    }
}
