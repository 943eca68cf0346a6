#include "support/tiny_expert.h"

#include "loader/model_file.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// Kinds of a layer in the order of names, which is that of expert files.
static const struct {
    const char *name;
    uint32_t rank;
    bool mlp;
} kinds[MODEL_MATRICES] = {
    {"mlp.down_proj", TINY_HIDDEN, true},
    {"mlp.gate_proj", TINY_HIDDEN, true},
    {"mlp.up_proj", TINY_HIDDEN, true},
    {"self_attn.k_proj", TINY_KV_HEADS *TINY_HEAD_DIM, false},
    {"self_attn.o_proj", TINY_HIDDEN, false},
    {"self_attn.q_proj", TINY_HIDDEN, false},
    {"self_attn.v_proj", TINY_KV_HEADS *TINY_HEAD_DIM, false},
};

static void *checked(void *memory) {
    if (memory) return memory;
    fprintf(stderr, "tiny expert: out of memory\n");
    abort();
}

static char *copy_text(const char *text) { return strcpy(checked(malloc(strlen(text) + 1)), text); }

/// Uniform in −1 … 1.
static float next_random(uint64_t *state) {
    uint64_t x = *state += 0x9E3779B97F4A7C15u; // splitmix64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (float)((x ^ x >> 31) >> 40) * (2.0f / (1 << 24)) - 1;
}

static void fill_matrix(const tiny_expert_params *params, uint32_t layer, size_t k, uint64_t *random, expert_matrix *m) {
    char name[80];
    float spread = params->spread > 0 ? params->spread : 0.5f;
    snprintf(name, sizeof name, "model.layers.%u.%s", layer, kinds[k].name);
    *m = (expert_matrix){.name = copy_text(name), .rank = kinds[k].rank, .values = checked(malloc(kinds[k].rank * sizeof *m->values))};
    for (uint32_t r = 0; r < m->rank; r++) m->values[r] = (params->sigmoid ? 0 : 1) + spread * next_random(random);
}

/// The base's sketches, where it has them.
static void add_sketches(const char *base, expert_file *file) {
    model_file model;
    zs_error error;
    if (model_file_open(base, &model, &error)) {
        fprintf(stderr, "tiny expert: %s\n", error.message);
        abort();
    }
    for (size_t i = 0; i < file->matrix_count; i++) {
        for (uint32_t at = 0; at < model.config.layers * MODEL_MATRICES; at++) {
            const model_matrix *m = &model.layers[at / MODEL_MATRICES].matrices[at % MODEL_MATRICES];
            if (!m->sketch || strcmp(m->canonical, file->matrices[i].name) != 0) continue;
            memcpy(file->matrices[i].sketch, m->sketch, sizeof file->matrices[i].sketch);
            file->matrices[i].has_sketch = true;
        }
    }
    model_file_close(&model);
}

void tiny_expert_make(const tiny_expert_params *params, expert_file *file) {
    uint64_t random = params->seed;
    char description[80];
    const char *name = params->name ? params->name : "tiny";
    snprintf(description, sizeof description, "questions of %s", name);
    *file = (expert_file){
        .name = copy_text(name),
        .description = copy_text(description),
        .base_model = copy_text("tiny"),
        .training = copy_text(""),
        .sources = copy_text(""),
        .alpha = copy_text(""),
        .dispatcher = params->dispatcher,
        .sigmoid = params->sigmoid,
        .trace = params->trace,
        .max_mult = params->max_mult > 0 ? (double)params->max_mult : 1,
        .matrices = checked(calloc(TINY_LAYERS * MODEL_MATRICES, sizeof *file->matrices)),
    };
    for (uint32_t layer = 0; layer < TINY_LAYERS; layer++) {
        for (size_t k = 0; k < MODEL_MATRICES; k++) {
            if (!params->mlp_only || kinds[k].mlp) fill_matrix(params, layer, k, &random, &file->matrices[file->matrix_count++]);
        }
    }
    if (params->base) add_sketches(params->base, file);
}

zs_status tiny_expert_write(const tiny_expert_params *params, const char *path, zs_error *error) {
    expert_file file;
    tiny_expert_make(params, &file);
    zs_status status = expert_file_save(path, true, &file, error);
    expert_file_free(&file);
    return status;
}
