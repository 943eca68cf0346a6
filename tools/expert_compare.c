/// zsigma expert compare: how z differs between experts.
#include "expert.h"
#include "expert_grid.h"
#include "whole_file.h"

#include <math.h>
#include <string.h>

typedef struct comparison {
    uint32_t shared, only_a, only_b;
    double dot, aa, bb; // of z − 1
    double largest;     // |z_a − z_b|
} comparison;

static bool find_matrix(const zs_expert *expert, const char *name, uint32_t *rank, const float **m) {
    const char *other;
    for (uint32_t i = 0; zs_expert_matrix(expert, i, &other, rank, m); i++) {
        if (strcmp(other, name) == 0) return true;
    }
    return false;
}

static comparison compare(const zs_expert *a, const zs_expert *b) {
    comparison c = {0};
    const char *name;
    const float *ma, *mb;
    uint32_t ra, rb;
    for (uint32_t i = 0; zs_expert_matrix(a, i, &name, &ra, &ma); i++) {
        if (!find_matrix(b, name, &rb, &mb) || ra != rb) {
            c.only_a++;
            continue;
        }
        c.shared++;
        for (uint32_t r = 0; r < ra; r++) {
            double da = (double)ma[r] - 1, db = (double)mb[r] - 1;
            c.dot += da * db;
            c.aa += da * da;
            c.bb += db * db;
            c.largest = fmax(c.largest, fabs(da - db));
        }
    }
    c.only_b = zs_expert_get_info(b)->matrix_count - c.shared;
    return c;
}

static void print_comparison(const cli_common *common, const zs_expert *a, const zs_expert *b, const expert_grid *grid) {
    comparison c = compare(a, b);
    double base = 0, cosine = c.aa > 0 && c.bb > 0 ? c.dot / sqrt(c.aa * c.bb) : 0;
    bool has_base = zs_expert_compare(a, b, &base);
    if (common->json) {
        cli_print_json(json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:o, s:o}", "shared_matrices", (int)c.shared, "only_first",
                                 (int)c.only_a, "only_second", (int)c.only_b, "cosine", cosine, "norm_first", sqrt(c.aa), "norm_second",
                                 sqrt(c.bb), "largest_difference", c.largest, "base_cosine", has_base ? json_real(base) : json_null(),
                                 "layers", expert_grid_json(grid)));
        return;
    }
    printf("shared matrices     %u (only in the first %u, only in the second %u)\n", c.shared, c.only_a, c.only_b);
    printf("‖z − 1‖             %.4f and %.4f\ncosine of z − 1     %.4f\nlargest difference  %.4f\n", sqrt(c.aa), sqrt(c.bb), cosine,
           c.largest);
    if (has_base)
        printf("same base model     %s (cosine of the sketches %.4f)\n", base >= ZS_SAME_BASE ? "yes" : "no", base);
    else
        puts("same base model     unknown (no sketches)");
    expert_grid_print(grid);
}

/// The drawing appears only when complete.
static zs_status draw(const expert_grid *grid, const zs_expert *a, const zs_expert *b, const char *path, bool force, zs_error *error) {
    char title[256];
    whole_file *file = NULL;
    zs_status status = whole_file_check(path, force, error);
    if (!status) status = whole_file_create(path, &file, error);
    if (status) return status;
    snprintf(title, sizeof title, "z of %.100s and %.100s", zs_expert_get_info(a)->name, zs_expert_get_info(b)->name);
    expert_grid_draw(grid, title, whole_file_stream(file));
    return whole_file_commit(&file, error);
}

int expert_compare(const cli_common *common, const char *first, const char *second, const char *svg) {
    zs_error error;
    zs_expert *a = NULL, *b = NULL;
    expert_grid grid = {0};
    zs_status status = zs_expert_load(first, &a, &error);
    if (!status) status = zs_expert_load(second, &b, &error);
    if (!status && !expert_grid_make(a, b, &grid)) status = zs_error_set(&error, ZS_ERROR_MEMORY, "out of memory for a comparison");
    if (!status && svg) status = draw(&grid, a, b, svg, common->force, &error);
    if (!status) print_comparison(common, a, b, &grid);
    expert_grid_free(&grid);
    zs_expert_destroy(&a);
    zs_expert_destroy(&b);
    return status ? cli_fail(&error) : CLI_DONE;
}
