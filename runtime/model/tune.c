#include "model/model.h"
#include "zsigma/zsigma_lab.h"

#include <stdlib.h>

static void add_type(bool used[MATRIX_TYPES], const matrix *w) {
    if (w->out) used[w->type] = true;
}

static void find_types(const zs_model *model, bool used[MATRIX_TYPES]) {
    add_type(used, &model->head);
    for (uint32_t i = 0; i < model->config.layers * MODEL_MATRICES; i++) {
        const model_weight *w = &model->layers[i / MODEL_MATRICES].weights[i % MODEL_MATRICES];
        add_type(used, &w->dense);
        add_type(used, &w->u);
        add_type(used, &w->vt);
    }
}

static zs_tuned tuned_of(const op_tuned *t) {
    return (zs_tuned){.type = matrix_type_name(t->type),
                      .kind = op_matvec_class_name(t->class),
                      .rows = t->shape.rows,
                      .depth = t->shape.depth,
                      .subgroups = t->shape.subgroups,
                      .integers = t->integers,
                      .gb_per_s = t->bytes / t->ms * 1e-6,
                      .gb_per_s_before = t->bytes / t->before_ms * 1e-6};
}

zs_status zs_tune(zs_model *model, zs_tuned **tuned, size_t *count, zs_error *error) {
    bool used[MATRIX_TYPES] = {0};
    zs_tuned *list = malloc(sizeof *list * MATRIX_TYPES * OP_MATVEC_CLASSES);
    if (!list) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for tuning");
    find_types(model, used);
    *count = 0;
    zs_status status = ZS_OK;
    for (uint32_t type = 0; type < MATRIX_TYPES && !status; type++) {
        op_tuned found[OP_MATVEC_CLASSES];
        if (!used[type]) continue;
        status = op_policy_tune(model->device, &model->policy, (matrix_type)type, found, error);
        for (uint32_t i = 0; i < OP_MATVEC_CLASSES && !status; i++) list[(*count)++] = tuned_of(&found[i]);
    }
    if (status)
        free(list);
    else
        *tuned = list;
    return status;
}
