#include "train/parameters.h"

#include "adapt/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static zs_status no_memory(zs_error *error) { return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for an expert's values"); }

static int compare_matrices(const void *a, const void *b) {
    return strcmp(((const parameter_matrix *)a)->weight->canonical, ((const parameter_matrix *)b)->weight->canonical);
}

// ---- life ----------------------------------------------------------------------------------------------------------

typedef struct kind {
    uint32_t bit; // ZS_MATRICES_*
    const char *name;
} kind;
static const kind kinds[] = {{ZS_MATRICES_MLP, "MLP"},
                             {ZS_MATRICES_ATTENTION, "attention"},
                             {ZS_MATRICES_TOWER, "image tower's"},
                             {ZS_MATRICES_PROJECTOR, "projector's"}};

/// Adds a matrix if it is of the kinds that are wanted.
static void collect_weight(parameters *p, const model_weight *w, uint32_t bit, uint32_t matrices, uint32_t *found) {
    if (!w->factored || !(matrices & bit)) return;
    p->matrices[p->matrix_count++].weight = w;
    *found |= bit;
}

/// All kinds that are asked for must be there; without any, those that are.
static zs_status collect(parameters *p, const parameters_form *form, zs_error *error) {
    const zs_model *model = p->model;
    const uint32_t tower = ZS_MATRICES_TOWER | ZS_MATRICES_PROJECTOR;
    const uint32_t matrices = form->matrices ? form->matrices : ZS_MATRICES_ALL | (form->images ? tower : 0);
    uint32_t found = 0;
    p->matrices = calloc(model->info.matrices + 1, sizeof *p->matrices);
    if (!p->matrices) return no_memory(error);
    if (matrices & tower && !form->images)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "the image tower and its projector learn from questions about images, and there are none");
    for (uint32_t i = 0; i < model->config.layers * MODEL_MATRICES; i++) {
        uint32_t m = i % MODEL_MATRICES, bit = m < MODEL_GATE ? ZS_MATRICES_ATTENTION : ZS_MATRICES_MLP;
        collect_weight(p, &model->layers[i / MODEL_MATRICES].weights[m], bit, matrices, &found);
    }
    for (uint32_t i = 0; i < model->tower_weight_count; i++) {
        bool layer = i < model->tower->config.layers * VISION_MATRICES;
        collect_weight(p, &model->tower_weights[i], layer ? ZS_MATRICES_TOWER : ZS_MATRICES_PROJECTOR, matrices, &found);
    }
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (form->matrices & ~found & kinds[k].bit)
            return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no factors of the %s matrices: make it anew with zsigma factor",
                                model->path, kinds[k].name);
    }
    if (found) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s has no factors: make it anew with zsigma factor", model->path);
}

/// Sorts the matrices, as expert files have them, and gives each its place.
static zs_status place(parameters *p, zs_error *error) {
    qsort(p->matrices, p->matrix_count, sizeof *p->matrices, compare_matrices);
    for (uint32_t i = 0; i < p->matrix_count; i++) {
        p->matrices[i].offset = p->count;
        p->count += p->matrices[i].weight->rank;
    }
    p->values = malloc(p->count * sizeof *p->values);
    return p->values ? ZS_OK : no_memory(error);
}

/// p with sigmoid(p) · max_mult = multiplier.
static double inverse_sigmoid(double multiplier, double max_mult) { return log(multiplier / (max_mult - multiplier)); }

zs_status parameters_create(const zs_model *model, const parameters_form *form, parameters *p, zs_error *error) {
    *p = (parameters){.model = model, .sigmoid = form->sigmoid, .trace = form->trace, .max_mult = form->sigmoid ? form->max_mult : 1};
    if (p->sigmoid && !p->trace && p->max_mult <= 1)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "a sigmoid times %g never gives a multiplier of 1: normalise by the trace, or choose a larger one",
                            p->max_mult);
    zs_status status = collect(p, form, error);
    if (!status) status = place(p, error);
    if (status) {
        parameters_destroy(p);
        return status;
    }
    for (size_t i = 0; i < p->count; i++) {
        double first = p->trace ? 0.1 + 0.01 * random_normal(form->seed, i) : inverse_sigmoid(1, p->max_mult);
        p->values[i] = p->sigmoid ? (float)first : 1;
    }
    return ZS_OK;
}

zs_status parameters_from_expert(const zs_model *model, const zs_expert *expert, bool transfer, parameters *p, zs_error *error) {
    const expert_file *file = &expert->file;
    *p = (parameters){.model = model, .sigmoid = file->sigmoid, .trace = file->trace, .max_mult = file->max_mult};
    p->matrices = calloc(file->matrix_count + 1, sizeof *p->matrices);
    zs_status status = p->matrices ? ZS_OK : no_memory(error);
    zs_expert_fit fit;
    const expert_base base = expert_model_base(model);
    if (!status) status = expert_fit_check(file, &base, transfer, &fit, error);
    for (size_t i = 0; i < file->matrix_count && !status; i++) {
        const model_weight *w = expert_model_weight(model, file->matrices[i].name);
        if (w) p->matrices[p->matrix_count++].weight = w;
    }
    if (!status) status = place(p, error);
    for (uint32_t i = 0; i < p->matrix_count && !status; i++) {
        const float *unused;
        const expert_matrix *from = expert_find(expert, p->matrices[i].weight->canonical, &unused);
        memcpy(p->values + p->matrices[i].offset, from->values, from->rank * sizeof *p->values);
    }
    if (status) parameters_destroy(p);
    return status;
}

void parameters_destroy(parameters *p) {
    free(p->matrices);
    free(p->values);
    *p = (parameters){0};
}

// ---- multipliers ---------------------------------------------------------------------------------------------------

static double multiplier(const parameters *p, float value) { return p->sigmoid ? p->max_mult / (1 + exp(-(double)value)) : (double)value; }

/// s = Σσ / Σ(σ ⊙ m), 1 without trace; and Σ(σ ⊙ m).
static double trace_scale(const parameters *p, const parameter_matrix *of, double *scaled) {
    double sum = 0;
    *scaled = 0;
    for (uint32_t r = 0; r < of->weight->rank; r++) {
        sum += (double)of->weight->sigma[r];
        *scaled += (double)of->weight->sigma[r] * multiplier(p, p->values[of->offset + r]);
    }
    return p->trace ? sum / *scaled : 1;
}

/// z = s ⊙ m, and s hangs on every m: dm_j = s dz_j − (Σ_i dz_i m_i) s σ_j / Σ(σ ⊙ m); then dp = dm m (1 − m / max_mult).
static void matrix_gradient(const parameters *p, const parameter_matrix *of, const float *dz, float *gradient) {
    double scaled, scale = trace_scale(p, of, &scaled), along = 0;
    const float *values = p->values + of->offset, *sigma = of->weight->sigma;
    uint32_t rank = of->weight->rank;
    for (uint32_t r = 0; r < rank && p->trace; r++) along += (double)dz[r] * multiplier(p, values[r]);
    for (uint32_t r = 0; r < rank; r++) {
        double m = multiplier(p, values[r]), dm = scale * (double)dz[r];
        if (p->trace) dm -= along * scale * (double)sigma[r] / scaled;
        gradient[r] = (float)(p->sigmoid ? dm * m * (1 - m / p->max_mult) : dm);
    }
}

void parameters_gradient(const parameters *p, const float *z_gradient, float *gradient) {
    for (uint32_t i = 0; i < p->matrix_count; i++)
        matrix_gradient(p, &p->matrices[i], z_gradient + p->matrices[i].weight->scale_offset, gradient + p->matrices[i].offset);
}

void parameters_centres(const parameters *p, float *centres) {
    for (uint32_t i = 0; i < p->matrix_count; i++) {
        double scaled, one = 1 / trace_scale(p, &p->matrices[i], &scaled); // the multiplier that takes effect as 1
        float centre = (float)(p->sigmoid ? inverse_sigmoid(one, p->max_mult) : one);
        for (uint32_t r = 0; r < p->matrices[i].weight->rank; r++) centres[p->matrices[i].offset + r] = centre;
    }
}

// ---- experts -------------------------------------------------------------------------------------------------------

static char *copy_text(const char *text) {
    size_t size = text ? strlen(text) + 1 : 1;
    char *copy = calloc(size, 1);
    return copy && text ? memcpy(copy, text, size) : copy;
}

static zs_status fill_file(const parameters *p, const float *values, const parameters_texts *texts, expert_file *file, zs_error *error) {
    *file = (expert_file){.name = copy_text(texts->name),
                          .description = copy_text(texts->description),
                          .base_model = copy_text(p->model->config.name),
                          .training = copy_text(texts->training),
                          .sources = copy_text(NULL),
                          .alpha = copy_text(NULL),
                          .dispatcher = texts->dispatcher,
                          .sigmoid = p->sigmoid,
                          .trace = p->trace,
                          .max_mult = p->max_mult,
                          .matrices = calloc(p->matrix_count, sizeof *file->matrices)};
    if (!file->name || !file->description || !file->base_model || !file->training || !file->sources || !file->alpha || !file->matrices)
        return no_memory(error);
    for (uint32_t i = 0; i < p->matrix_count; i++) {
        const model_weight *w = p->matrices[i].weight;
        expert_matrix *m = &file->matrices[file->matrix_count++];
        *m = (expert_matrix){
            .name = copy_text(w->canonical), .rank = w->rank, .values = malloc(w->rank * sizeof(float)), .has_sketch = w->has_sketch};
        if (!m->name || !m->values) return no_memory(error);
        memcpy(m->sketch, w->sketch, sizeof m->sketch);
        memcpy(m->values, values + p->matrices[i].offset, w->rank * sizeof *values);
    }
    return ZS_OK;
}

zs_status parameters_expert(const parameters *p, const float *values, const parameters_texts *texts, zs_expert **expert, zs_error *error) {
    expert_file file;
    zs_status status = fill_file(p, values, texts, &file, error);
    if (!status) return expert_from_file(&file, expert, error);
    expert_file_free(&file);
    return status;
}
