/// How z differs between two experts, by layer and kind of matrix.
#ifndef TOOLS_EXPERT_GRID_H
#define TOOLS_EXPERT_GRID_H

#include "cli.h"

enum { GRID_KINDS = 16, GRID_LAYERS = 1000 };

typedef struct expert_grid {
    char kinds[GRID_KINDS][32]; // "gate_proj", …
    uint32_t kind_count, layers;
    double (*cells)[GRID_KINDS]; // [layers]: root mean square of z_a − z_b; negative: the experts do not share the matrix
} expert_grid;

/// Matrices named model.layers.N.…; others have no place. False when memory runs out.
bool expert_grid_make(const zs_expert *a, const zs_expert *b, expert_grid *grid);
void expert_grid_free(expert_grid *grid);
void expert_grid_print(const expert_grid *grid);
json_t *expert_grid_json(const expert_grid *grid);
/// A square per matrix, the darker the more z differs. Whether it could be written, the file tells.
void expert_grid_draw(const expert_grid *grid, const char *title, FILE *file);

#endif
