#include "engine/expert_table.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_row(const float *row, uint32_t count) {
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a over words
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3u;
    }
    return hash;
}

static zs_status upload_row(const expert_table *table, uint32_t id, const float *row, zs_error *error) {
    uint64_t bytes = table->model->scale_count * sizeof *row;
    return gpu_buffer_write(table->model->device, &table->scales, id * bytes, bytes, row, error);
}

zs_status expert_table_create(const zs_model *model, uint32_t experts, expert_table *table, zs_error *error) {
    *table = (expert_table){.model = model, .count = experts + 1, .next_serial = 1};
    table->rows = calloc(table->count, sizeof *table->rows);
    if (!table->rows) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the expert table");
    table->rows[0] = (expert_row){.serial = table->next_serial++, .attached = 1};
    if (model->scale_count == 0) return ZS_OK; // dense: nothing to scale
    float *base = malloc(model->scale_count * sizeof *base);
    zs_status status = base ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for the expert table");
    if (!status)
        status = gpu_buffer_create(model->device, GPU_MEMORY_DEVICE, (uint64_t)table->count * model->scale_count * sizeof *base, false,
                                   "expert table", &table->scales, error);
    if (!status) {
        model_base_scales(model, base);
        table->rows[0].hash = hash_row(base, model->scale_count);
        status = upload_row(table, 0, base, error);
    }
    free(base);
    if (status) expert_table_destroy(table);
    return status;
}

void expert_table_destroy(expert_table *table) {
    if (table->model) gpu_buffer_destroy(table->model->device, &table->scales);
    free(table->rows);
    *table = (expert_table){0};
}

/// A row for new contents: one never used, else the idle one that was left alone for longest; 0 when all are in use.
static uint32_t find_room(const expert_table *table) {
    uint32_t room = 0;
    for (uint32_t i = 1; i < table->count; i++) {
        const expert_row *row = &table->rows[i];
        if (!row->attached && (!room || row->used < table->rows[room].used)) room = i;
    }
    return room;
}

zs_status expert_table_attach(expert_table *table, const float *row, uint32_t *id, zs_error *error) {
    uint64_t hash = hash_row(row, table->model->scale_count);
    uint32_t found = 0;
    for (uint32_t i = 1; i < table->count && !found; i++) found = table->rows[i].serial && table->rows[i].hash == hash ? i : 0;
    if (!found) {
        found = find_room(table);
        if (!found)
            return zs_error_set(error, ZS_ERROR_ARGUMENT,
                                "the expert table is full (%u experts): detach one or create the engine with a larger max_experts",
                                table->count - 1);
        table->rows[found] = (expert_row){0};
        zs_status status = upload_row(table, found, row, error);
        if (status) return status;
        table->rows[found] = (expert_row){.serial = table->next_serial++, .hash = hash};
    }
    table->rows[found].attached++;
    *id = found;
    return ZS_OK;
}

void expert_table_retain(expert_table *table, uint32_t id) { table->rows[id].attached += id > 0; }

void expert_table_detach(expert_table *table, uint32_t id) {
    if (id == 0 || id >= table->count || !table->rows[id].attached) return;
    table->rows[id].attached--;
    table->rows[id].used = ++table->clock;
}

uint64_t expert_table_serial(const expert_table *table, uint32_t id) {
    return id < table->count && table->rows[id].attached ? table->rows[id].serial : 0;
}
