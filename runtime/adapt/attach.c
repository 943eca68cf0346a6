/// Experts become rows of the engine's table.
#include "adapt/expert.h"
#include "engine/engine.h"

#include <stdlib.h>

zs_status zs_engine_attach_expert(zs_engine *engine, const zs_expert *expert, bool transfer, uint32_t *id, zs_error *error) {
    const zs_model *model = engine->model;
    float *row = malloc((model->scale_count + 1u) * sizeof *row);
    if (!row) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    zs_status status = expert_fill_scales(expert, model, transfer, row, error);
    if (!status) status = engine_drain(engine, error);
    if (!status) status = expert_table_attach(&engine->experts, row, id, error);
    free(row);
    return status;
}

void zs_engine_detach_expert(zs_engine *engine, uint32_t id) { expert_table_detach(&engine->experts, id); }
