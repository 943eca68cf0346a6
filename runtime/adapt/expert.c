#include "adapt/expert.h"
#include "loader/sketch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static zs_status make_multipliers(zs_expert *e, zs_error *error) {
    e->multipliers = calloc(e->file.matrix_count, sizeof *e->multipliers);
    if (!e->multipliers) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    for (size_t i = 0; i < e->file.matrix_count; i++) {
        const expert_matrix *m = &e->file.matrices[i];
        e->multipliers[i] = malloc(m->rank * sizeof(float));
        if (!e->multipliers[i]) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
        expert_file_multipliers(&e->file, m, e->multipliers[i]);
    }
    return ZS_OK;
}

zs_status expert_from_file(expert_file *file, zs_expert **expert, zs_error *error) {
    zs_expert *e = calloc(1, sizeof *e);
    if (!e) {
        expert_file_free(file);
        return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    }
    e->file = *file;
    *file = (expert_file){0};
    zs_status status = make_multipliers(e, error);
    if (status) {
        zs_expert_destroy(&e);
        return status;
    }
    e->info = (zs_expert_info){
        .name = e->file.name,
        .description = e->file.description,
        .base_model = e->file.base_model,
        .dispatcher = e->file.dispatcher,
        .sigmoid = e->file.sigmoid,
        .trace = e->file.trace,
        .max_mult = e->file.max_mult,
        .matrix_count = (uint32_t)e->file.matrix_count,
    };
    for (size_t i = 0; i < e->file.matrix_count; i++) e->info.value_count += e->file.matrices[i].rank;
    *expert = e;
    return ZS_OK;
}

zs_status zs_expert_load(const char *path, zs_expert **expert, zs_error *error) {
    expert_file file;
    zs_status status = expert_file_load(path, &file, error);
    return status ? status : expert_from_file(&file, expert, error);
}

void zs_expert_destroy(zs_expert **expert) {
    zs_expert *e = *expert;
    if (!e) return;
    *expert = NULL;
    for (size_t i = 0; e->multipliers && i < e->file.matrix_count; i++) free(e->multipliers[i]);
    free(e->multipliers);
    expert_file_free(&e->file);
    free(e);
}

const zs_expert_info *zs_expert_get_info(const zs_expert *expert) { return &expert->info; }

zs_status zs_expert_save(const zs_expert *expert, const char *path, bool force, zs_error *error) {
    return expert_file_save(path, force, &expert->file, error);
}

bool zs_expert_matrix(const zs_expert *expert, uint32_t i, const char **name, uint32_t *rank, const float **multipliers) {
    if (i >= expert->file.matrix_count) return false;
    *name = expert->file.matrices[i].name;
    *rank = expert->file.matrices[i].rank;
    *multipliers = expert->multipliers[i];
    return true;
}

static int compare_name(const void *name, const void *entry) { return strcmp(name, ((const expert_matrix *)entry)->name); }

const expert_matrix *expert_find(const zs_expert *expert, const char *canonical, const float **multipliers) {
    const expert_file *file = &expert->file;
    const expert_matrix *found = bsearch(canonical, file->matrices, file->matrix_count, sizeof *file->matrices, compare_name);
    if (found) *multipliers = expert->multipliers[found - file->matrices];
    return found;
}

const model_weight *expert_model_weight(const zs_model *model, const char *canonical) {
    for (uint32_t i = 0; i < model->config.layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
            const model_weight *w = &model->layers[i].weights[m];
            if (w->factored && strcmp(w->canonical, canonical) == 0) return w;
        }
    }
    for (uint32_t i = 0; i < model->tower_weight_count; i++) {
        const model_weight *w = &model->tower_weights[i];
        if (w->factored && strcmp(w->canonical, canonical) == 0) return w;
    }
    return NULL;
}

// ---- sketches ------------------------------------------------------------------------------------------------------

/// Two stacks of sketches, side by side.
typedef struct sketch_pairs {
    float *a, *b;
    size_t count;
} sketch_pairs;

static bool start_pairs(const zs_expert *expert, sketch_pairs *pairs) {
    *pairs = (sketch_pairs){.a = malloc((expert->file.matrix_count + 1) * SKETCH_SIZE * sizeof(float)),
                            .b = malloc((expert->file.matrix_count + 1) * SKETCH_SIZE * sizeof(float))};
    return pairs->a && pairs->b;
}

static void add_pair(sketch_pairs *pairs, const float *a, const float *b) {
    memcpy(pairs->a + pairs->count * SKETCH_SIZE, a, SKETCH_SIZE * sizeof *a);
    memcpy(pairs->b + pairs->count++ * SKETCH_SIZE, b, SKETCH_SIZE * sizeof *b);
}

static bool finish_pairs(sketch_pairs *pairs, double *cosine) {
    bool any = pairs->count > 0;
    if (any) *cosine = sketch_cosine(pairs->a, pairs->b, pairs->count);
    free(pairs->a);
    free(pairs->b);
    return any;
}

bool zs_expert_compare(const zs_expert *a, const zs_expert *b, double *cosine) {
    sketch_pairs pairs;
    bool room = start_pairs(a, &pairs);
    for (size_t i = 0; room && i < a->file.matrix_count; i++) {
        const expert_matrix *m = &a->file.matrices[i];
        const float *unused;
        const expert_matrix *other = expert_find(b, m->name, &unused);
        if (m->has_sketch && other && other->has_sketch) add_pair(&pairs, m->sketch, other->sketch);
    }
    return finish_pairs(&pairs, cosine);
}

bool expert_compare_model(const zs_expert *expert, const zs_model *model, double *cosine) {
    sketch_pairs pairs;
    bool room = start_pairs(expert, &pairs);
    for (size_t i = 0; room && i < expert->file.matrix_count; i++) {
        const expert_matrix *m = &expert->file.matrices[i];
        const model_weight *w = expert_model_weight(model, m->name);
        if (m->has_sketch && w && w->has_sketch) add_pair(&pairs, m->sketch, w->sketch);
    }
    return finish_pairs(&pairs, cosine);
}
