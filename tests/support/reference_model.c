#include "support/reference_model.h"

#include "loader/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// A tensor in double; rows in Hugging Face's order.
typedef struct weights {
    uint32_t rows, cols; // cols 1: a vector
    double *values;
} weights;

typedef struct matrix_weights {
    const char *canonical;
    weights dense, u, sigma, vt; // dense, or the three others
} matrix_weights;

typedef struct layer_weights {
    matrix_weights matrices[MODEL_MATRICES];
    weights attention_norm, ffn_norm;
} layer_weights;

struct reference_model {
    model_file file;
    layer_weights *layers;
    weights embedding, head, output_norm;
};

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory) return memory;
    fprintf(stderr, "reference model: out of memory\n");
    abort();
}

// ---- reading -------------------------------------------------------------------------------------------------------

static weights read_weights(const gguf_tensor *tensor, const model_matrix *order) {
    weights w = {.rows = (uint32_t)tensor->shape[0], .cols = tensor->dims > 1 ? (uint32_t)tensor->shape[1] : 1};
    size_t count = (size_t)w.rows * w.cols;
    float *values = allocate(count, sizeof *values);
    tensor_type_dequantise(tensor->type, tensor->data, values, count);
    w.values = allocate(count, sizeof *w.values);
    for (uint32_t i = 0; i < w.rows; i++) {
        size_t from = order ? model_matrix_file_row(order, i) : i;
        for (uint32_t j = 0; j < w.cols; j++) w.values[(size_t)i * w.cols + j] = (double)values[from * w.cols + j];
    }
    free(values);
    return w;
}

static matrix_weights read_matrix(const model_matrix *m) {
    matrix_weights w = {.canonical = m->canonical};
    if (m->dense) {
        w.dense = read_weights(m->dense, m);
    } else {
        w.u = read_weights(m->u, m);
        w.sigma = read_weights(m->s, NULL);
        w.vt = read_weights(m->vt, NULL);
    }
    return w;
}

reference_model *reference_model_open(const char *path) {
    zs_error error;
    reference_model *m = allocate(1, sizeof *m);
    if (model_file_open(path, &m->file, &error)) {
        fprintf(stderr, "reference model: %s\n", error.message);
        abort();
    }
    m->layers = allocate(m->file.config.layers, sizeof *m->layers);
    for (uint32_t i = 0; i < m->file.config.layers; i++) {
        const model_layer_file *from = &m->file.layers[i];
        for (uint32_t k = 0; k < MODEL_MATRICES; k++) m->layers[i].matrices[k] = read_matrix(&from->matrices[k]);
        m->layers[i].attention_norm = read_weights(from->attention_norm, NULL);
        m->layers[i].ffn_norm = read_weights(from->ffn_norm, NULL);
    }
    m->embedding = read_weights(m->file.embedding, NULL);
    m->head = read_weights(m->file.head, NULL);
    m->output_norm = read_weights(m->file.output_norm, NULL);
    return m;
}

void reference_model_close(reference_model **model) {
    reference_model *m = *model;
    if (!m) return;
    *model = NULL;
    for (uint32_t i = 0; i < m->file.config.layers; i++) {
        for (uint32_t k = 0; k < MODEL_MATRICES; k++) {
            const matrix_weights *w = &m->layers[i].matrices[k];
            double *const parts[] = {w->dense.values, w->u.values, w->sigma.values, w->vt.values};
            for (size_t p = 0; p < 4; p++) free(parts[p]);
        }
        free(m->layers[i].attention_norm.values);
        free(m->layers[i].ffn_norm.values);
    }
    free(m->layers);
    free(m->embedding.values);
    free(m->head.values);
    free(m->output_norm.values);
    model_file_close(&m->file);
    free(m);
}

// ---- the computation -----------------------------------------------------------------------------------------------

/// y[rows] = W[rows, cols] x[cols]
static void multiply(const weights *w, const double *x, double *y) {
    for (uint32_t i = 0; i < w->rows; i++) {
        y[i] = 0;
        for (uint32_t j = 0; j < w->cols; j++) y[i] += w->values[(size_t)i * w->cols + j] * x[j];
    }
}

static const expert_matrix *find_matrix(const expert_file *expert, const char *canonical) {
    for (size_t i = 0; expert && i < expert->matrix_count; i++) {
        if (strcmp(expert->matrices[i].name, canonical) == 0) return &expert->matrices[i];
    }
    return NULL;
}

/// m = z, or sigmoid(p) · max_mult
static double multiplier(const expert_file *expert, const expert_matrix *z, uint32_t r) {
    double value = (double)z->values[r];
    return expert->sigmoid ? expert->max_mult / (1 + exp(-value)) : value;
}

/// a[r] ⊙= s · m, s = Σσ / Σ(σ m) under normalise=trace; what the expert leaves out stays.
static void apply_expert(const expert_file *expert, const matrix_weights *w, double *a) {
    const expert_matrix *z = find_matrix(expert, w->canonical);
    double sum = 0, scaled = 0;
    for (uint32_t r = 0; z && r < z->rank; r++) {
        sum += w->sigma.values[r];
        scaled += w->sigma.values[r] * multiplier(expert, z, r);
    }
    for (uint32_t r = 0; z && r < z->rank; r++) a[r] *= multiplier(expert, z, r) * (expert->trace ? sum / scaled : 1);
}

/// y[out] = W' x[in], W' dense or U diag(σ ⊙ m) Vᵀ.
static void adapt(const matrix_weights *w, const expert_file *expert, const double *x, double *y) {
    if (w->dense.values) {
        multiply(&w->dense, x, y);
        return;
    }
    double *a = allocate(w->vt.rows, sizeof *a);
    multiply(&w->vt, x, a);
    for (uint32_t r = 0; r < w->vt.rows; r++) a[r] *= w->sigma.values[r];
    apply_expert(expert, w, a);
    multiply(&w->u, a, y);
    free(a);
}

/// y = x / √(mean x² + eps) ⊙ weight
static void normalise(const weights *weight, double eps, const double *x, double *y) {
    double squares = 0;
    for (uint32_t i = 0; i < weight->rows; i++) squares += x[i] * x[i];
    for (uint32_t i = 0; i < weight->rows; i++) y[i] = x[i] / sqrt(squares / weight->rows + eps) * weight->values[i];
}

/// Turns the pairs (i, i + d/2) of each head by position · base^(−2i/d).
static void rotate(const model_config *c, double *x, uint32_t heads, uint32_t position) {
    uint32_t d = c->head_dim;
    for (uint32_t h = 0; h < heads; h++) {
        for (uint32_t i = 0; i < d / 2; i++) {
            double angle = position * pow((double)c->rope_base, -2.0 * i / d), *a = &x[h * d + i], *b = a + d / 2, first = *a;
            *a = first * cos(angle) - *b * sin(angle);
            *b = *b * cos(angle) + first * sin(angle);
        }
    }
}

/// out[heads · d] of one query over the keys and values [count, kv_heads · d].
static void attend(const model_config *c, const double *q, const double *k, const double *v, uint32_t count, double *out) {
    uint32_t d = c->head_dim, kv = c->kv_heads * d;
    double *p = allocate(count, sizeof *p);
    for (uint32_t h = 0; h < c->heads; h++) {
        uint32_t at = h / (c->heads / c->kv_heads) * d;
        double largest = -INFINITY, total = 0;
        for (uint32_t t = 0; t < count; t++) {
            p[t] = 0;
            for (uint32_t i = 0; i < d; i++) p[t] += q[h * d + i] * k[(size_t)t * kv + at + i] / sqrt(d);
            largest = fmax(largest, p[t]);
        }
        for (uint32_t t = 0; t < count; t++) total += p[t] = exp(p[t] - largest);
        for (uint32_t i = 0; i < d; i++) {
            out[h * d + i] = 0;
            for (uint32_t t = 0; t < count; t++) out[h * d + i] += p[t] / total * v[(size_t)t * kv + at + i];
        }
    }
    free(p);
}

/// x[count, hidden] through one layer, in place.
static void run_layer(const reference_model *m, const layer_weights *layer, const expert_file *expert, double *x, uint32_t count) {
    const model_config *c = &m->file.config;
    uint32_t d = c->hidden, wide = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    double *normed = allocate(d, sizeof *normed), *q = allocate((size_t)count * wide, sizeof *q),
           *k = allocate((size_t)count * kv, sizeof *k);
    double *v = allocate((size_t)count * kv, sizeof *v), *attended = allocate(wide, sizeof *attended), *y = allocate(d, sizeof *y);
    double *gate = allocate(c->ffn, sizeof *gate), *up = allocate(c->ffn, sizeof *up);
    for (uint32_t t = 0; t < count; t++) {
        normalise(&layer->attention_norm, (double)c->norm_eps, x + (size_t)t * d, normed);
        adapt(&layer->matrices[MODEL_Q], expert, normed, q + (size_t)t * wide);
        adapt(&layer->matrices[MODEL_K], expert, normed, k + (size_t)t * kv);
        adapt(&layer->matrices[MODEL_V], expert, normed, v + (size_t)t * kv);
        rotate(c, q + (size_t)t * wide, c->heads, t);
        rotate(c, k + (size_t)t * kv, c->kv_heads, t);
    }
    for (uint32_t t = 0; t < count; t++) {
        double *row = x + (size_t)t * d;
        attend(c, q + (size_t)t * wide, k, v, t + 1, attended);
        adapt(&layer->matrices[MODEL_O], expert, attended, y);
        for (uint32_t i = 0; i < d; i++) row[i] += y[i];
        normalise(&layer->ffn_norm, (double)c->norm_eps, row, normed);
        adapt(&layer->matrices[MODEL_GATE], expert, normed, gate);
        adapt(&layer->matrices[MODEL_UP], expert, normed, up);
        for (uint32_t i = 0; i < c->ffn; i++) gate[i] *= up[i] / (1 + exp(-gate[i])); // silu(gate) ⊙ up
        adapt(&layer->matrices[MODEL_DOWN], expert, gate, y);
        for (uint32_t i = 0; i < d; i++) row[i] += y[i];
    }
    double *const buffers[] = {normed, q, k, v, attended, y, gate, up};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) free(buffers[i]);
}

void reference_model_run(const reference_model *m, const expert_file *expert, const uint32_t *ids, uint32_t count, double *logprobs) {
    const model_config *c = &m->file.config;
    double *x = allocate((size_t)count * c->hidden, sizeof *x), *normed = allocate(c->hidden, sizeof *normed);
    for (uint32_t t = 0; t < count; t++)
        memcpy(x + (size_t)t * c->hidden, m->embedding.values + (size_t)ids[t] * c->hidden, c->hidden * sizeof *x);
    for (uint32_t i = 0; i < c->layers; i++) run_layer(m, &m->layers[i], expert, x, count);
    for (uint32_t t = 0; t < count; t++) {
        double *logits = logprobs + (size_t)t * c->vocab, largest = -INFINITY, total = 0;
        normalise(&m->output_norm, (double)c->norm_eps, x + (size_t)t * c->hidden, normed);
        multiply(&m->head, normed, logits);
        for (uint32_t i = 0; i < c->vocab; i++) largest = fmax(largest, logits[i]);
        for (uint32_t i = 0; i < c->vocab; i++) total += exp(logits[i] - largest);
        for (uint32_t i = 0; i < c->vocab; i++) logits[i] -= largest + log(total);
    }
    free(x);
    free(normed);
}
