#include "adapt/expert.h"
#include "adapt/random.h"
#include "loader/sketch.h"

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

/// Dense ones too.
static const model_weight *find_weight(const zs_model *model, const char *canonical) {
    const model_weight *w;
    for (uint32_t i = 0; (w = model_weight_at(model, i)); i++) {
        if (w->canonical && strcmp(w->canonical, canonical) == 0) return w;
    }
    return NULL;
}

const model_weight *expert_model_weight(const zs_model *model, const char *canonical) {
    const model_weight *w = find_weight(model, canonical);
    return w && w->factored ? w : NULL;
}

// ---- fit -----------------------------------------------------------------------------------------------------------

bool zs_expert_compare(const zs_expert *a, const zs_expert *b, double *cosine) {
    sketch_pairs pairs = {0};
    for (size_t i = 0; i < a->file.matrix_count; i++) {
        const expert_matrix *m = &a->file.matrices[i];
        const float *unused;
        const expert_matrix *other = expert_find(b, m->name, &unused);
        if (m->has_sketch && other && other->has_sketch) sketch_pairs_add(&pairs, m->sketch, other->sketch);
    }
    if (pairs.count) *cosine = sketch_pairs_cosine(&pairs);
    return pairs.count > 0;
}

static bool find_target(const void *model, const char *canonical, expert_target *target) {
    const model_weight *w = find_weight(model, canonical);
    if (!w) return false;
    *target = (expert_target){w->factored ? w->rank : 0, w->has_sketch ? w->sketch : NULL};
    return true;
}

expert_base expert_model_base(const zs_model *model) { return (expert_base){model->path, model, find_target}; }

void zs_expert_get_fit(const zs_expert *expert, const zs_model *model, zs_expert_fit *fit) {
    const expert_base base = expert_model_base(model);
    expert_fit_measure(&expert->file, &base, fit);
}

const char *zs_expert_misfit(const zs_expert *expert, const zs_model *model, uint32_t i) {
    const expert_base base = expert_model_base(model);
    return i < expert->file.matrix_count ? expert_misfit(&expert->file, i, &base) : NULL;
}

// ---- shuffling -----------------------------------------------------------------------------------------------------

static void reorder(float *values, const size_t *order, float *scratch, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) scratch[i] = values[order[i]];
    memcpy(values, scratch, count * sizeof *values);
}

zs_status zs_expert_shuffle(zs_expert *expert, uint64_t seed, zs_error *error) {
    uint32_t longest = 0;
    for (size_t i = 0; i < expert->file.matrix_count; i++)
        if (expert->file.matrices[i].rank > longest) longest = expert->file.matrices[i].rank;
    size_t *order = malloc((longest + 1u) * sizeof *order);
    float *scratch = malloc((longest + 1u) * sizeof *scratch);
    zs_status status = order && scratch ? ZS_OK : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert");
    for (size_t i = 0; i < expert->file.matrix_count && !status; i++) {
        expert_matrix *m = &expert->file.matrices[i];
        uint64_t key = 0; // of the name, so that what else an expert holds changes nothing
        for (const char *c = m->name; *c; c++) key = random_bits(key, (unsigned char)*c);
        random_order(seed, key, order, m->rank);
        reorder(m->values, order, scratch, m->rank);
        reorder(expert->multipliers[i], order, scratch, m->rank);
    }
    free(order);
    free(scratch);
    return status;
}
