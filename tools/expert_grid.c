#include "expert_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/// "model.layers.3.mlp.up_proj" → 3 and "up_proj".
static bool read_place(const char *name, uint32_t *layer, const char **kind) {
    static const char prefix[] = "model.layers.";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    unsigned long number = strtoul(name + sizeof prefix - 1, &end, 10);
    const char *dot = strrchr(name, '.');
    if (*end != '.' || number >= GRID_LAYERS || strlen(dot + 1) > 31) return false;
    *layer = (uint32_t)number;
    *kind = dot + 1;
    return true;
}

static const float *find_shared(const zs_expert *expert, const char *name, uint32_t rank) {
    const char *other;
    uint32_t other_rank;
    const float *m;
    for (uint32_t i = 0; zs_expert_matrix(expert, i, &other, &other_rank, &m); i++) {
        if (strcmp(other, name) == 0) return other_rank == rank ? m : NULL;
    }
    return NULL;
}

static uint32_t find_kind(expert_grid *grid, const char *kind) {
    uint32_t k = 0;
    while (k < grid->kind_count && strcmp(grid->kinds[k], kind) != 0) k++;
    if (k == grid->kind_count && k < GRID_KINDS) snprintf(grid->kinds[grid->kind_count++], sizeof *grid->kinds, "%s", kind);
    return k;
}

bool expert_grid_make(const zs_expert *a, const zs_expert *b, expert_grid *grid) {
    const char *name, *kind;
    uint32_t rank, layer;
    const float *za, *zb;
    *grid = (expert_grid){.cells = malloc(GRID_LAYERS * sizeof *grid->cells)};
    if (!grid->cells) return false;
    for (uint32_t i = 0; i < GRID_LAYERS; i++) {
        for (uint32_t k = 0; k < GRID_KINDS; k++) grid->cells[i][k] = -1;
    }
    for (uint32_t i = 0; zs_expert_matrix(a, i, &name, &rank, &za); i++) {
        if (!(zb = find_shared(b, name, rank)) || !read_place(name, &layer, &kind)) continue;
        uint32_t k = find_kind(grid, kind);
        double squares = 0;
        if (k == GRID_KINDS) continue;
        for (uint32_t r = 0; r < rank; r++) squares += ((double)za[r] - (double)zb[r]) * ((double)za[r] - (double)zb[r]);
        grid->cells[layer][k] = sqrt(squares / rank);
        grid->layers = layer >= grid->layers ? layer + 1 : grid->layers;
    }
    return true;
}

void expert_grid_free(expert_grid *grid) {
    free(grid->cells);
    *grid = (expert_grid){0};
}

void expert_grid_print(const expert_grid *grid) {
    if (grid->kind_count == 0) return;
    printf("\nroot mean square of the difference of z\nlayer");
    for (uint32_t k = 0; k < grid->kind_count; k++) printf(" %9s", grid->kinds[k]);
    for (uint32_t i = 0; i < grid->layers; i++) {
        printf("\n%5u", i);
        for (uint32_t k = 0; k < grid->kind_count; k++) {
            if (grid->cells[i][k] < 0)
                printf(" %9s", "–");
            else
                printf(" %9.4f", grid->cells[i][k]);
        }
    }
    putchar('\n');
}

json_t *expert_grid_json(const expert_grid *grid) {
    json_t *kinds = json_object();
    for (uint32_t k = 0; k < grid->kind_count; k++) {
        json_t *column = json_array();
        for (uint32_t i = 0; i < grid->layers; i++)
            json_array_append_new(column, grid->cells[i][k] < 0 ? json_null() : json_real(grid->cells[i][k]));
        json_object_set_new(kinds, grid->kinds[k], column);
    }
    return kinds;
}

/// XML's special characters and what is no text become points.
static void put_title(const char *title, FILE *file) {
    for (const char *c = title; *c; c++) fputc(strchr("<>&\"'", *c) || (unsigned char)*c < ' ' ? '.' : *c, file);
}

void expert_grid_draw(const expert_grid *grid, const char *title, FILE *file) {
    enum { CELL = 18, LEFT = 90, TOP = 50 };
    double most = 0;
    for (uint32_t i = 0; i < grid->layers; i++) {
        for (uint32_t k = 0; k < grid->kind_count; k++) most = fmax(most, grid->cells[i][k]);
    }
    uint32_t width = LEFT + CELL * grid->layers + 20, height = TOP + CELL * grid->kind_count + 60;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" font-family=\"sans-serif\" font-size=\"11\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"10\" y=\"20\" font-size=\"14\">",
            width > 400 ? width : 400, height);
    put_title(title, file);
    fprintf(
        file,
        "</text>\n<text x=\"10\" y=\"%u\">layers from left to right; white 0, darkest %.4f (root mean square of the difference)</text>\n",
        height - 15, most);
    for (uint32_t k = 0; k < grid->kind_count; k++) {
        uint32_t y = TOP + CELL * k;
        fprintf(file, "<text x=\"10\" y=\"%u\">", y + 13);
        put_title(grid->kinds[k], file);
        fputs("</text>\n", file);
        for (uint32_t i = 0; i < grid->layers; i++) {
            if (grid->cells[i][k] < 0) continue;
            int shade = most > 0 ? (int)(255 - 215 * grid->cells[i][k] / most) : 255;
            fprintf(file,
                    "<rect x=\"%u\" y=\"%u\" width=\"%d\" height=\"%d\" fill=\"rgb(%d,%d,255)\" stroke=\"#ccc\"><title>layer %u: "
                    "%.4f</title></rect>\n",
                    LEFT + CELL * i, y, CELL, CELL, shade, shade, i, grid->cells[i][k]);
        }
    }
    for (uint32_t i = 0; i < grid->layers; i += 5)
        fprintf(file, "<text x=\"%u\" y=\"%u\">%u</text>\n", LEFT + CELL * i + 3, TOP + CELL * grid->kind_count + 14, i);
    fputs("</svg>\n", file);
}
