/// Rows of σ ⊙ z on the device, one per expert; row 0 is the base model. Knows rows of floats, not experts.
#ifndef ENGINE_EXPERT_TABLE_H
#define ENGINE_EXPERT_TABLE_H

#include "model/model.h"

typedef struct expert_row {
    uint64_t serial;   // 0: free. Never used twice: part of the key of cached prefixes
    uint64_t hash;     // of the row's contents
    uint32_t attached; // how often attached; 0: idle, kept as long as its room is not needed
    uint64_t used;     // the table's clock when it became idle
} expert_row;

typedef struct expert_table {
    const zs_model *model;
    gpu_buffer scales; // [count, scale_count]
    expert_row *rows;
    uint32_t count;
    uint64_t next_serial, clock;
} expert_table;

zs_status expert_table_create(const zs_model *model, uint32_t experts, expert_table *table, zs_error *error);
void expert_table_destroy(expert_table *table);
/// Puts row[scale_count] into the table, or finds an equal one, idle or not, so that prefixes cached under it stay good;
/// nothing submitted may be running. ZS_ERROR_ARGUMENT when full.
zs_status expert_table_attach(expert_table *table, const float *row, uint32_t *id, zs_error *error);
/// One more use of a row that is there, idle or not.
void expert_table_retain(expert_table *table, uint32_t id);
void expert_table_detach(expert_table *table, uint32_t id);
/// 0 when no such row is attached.
uint64_t expert_table_serial(const expert_table *table, uint32_t id);

#endif
