#include "model/random.h"

#include "loader/model_file.h"
#include "model/model.h"
#include "model/random_tower.h"
#include "zsigma/zsigma_lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- values --------------------------------------------------------------------------------------------------------

/// Vigna's splitmix64.
static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static void fill_bytes(uint64_t *state, uint8_t *to, size_t size) {
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = next_random(state);
        memcpy(to + at, &word, size - at < 8 ? size - at : 8);
    }
}

/// Floats keep a random sign and fraction, and get one exponent: ±2^e (1 … 2), whose mean square is 7/3 · 4^e.
static void set_exponent_f32(uint8_t *row, size_t count, int e) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, row + 4 * i, sizeof bits);
        bits = (bits & 0x807fffffu) | (uint32_t)(e + 127) << 23;
        memcpy(row + 4 * i, &bits, sizeof bits);
    }
}

static void set_exponent_16(uint8_t *row, size_t count, uint16_t kept, uint16_t exponent) {
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, row + 2 * i, sizeof bits);
        bits = (uint16_t)((bits & kept) | exponent);
        memcpy(row + 2 * i, &bits, sizeof bits);
    }
}

/// Quants keep any bits, and their blocks get a scale that makes up for the quants' deviation: 73.9 of −128 … 127, 4.61 of
/// 0 … 15, whose mean is 7.5.
static void set_scales(uint8_t *row, size_t size, uint32_t type, float deviation) {
    size_t block = tensor_type_get_info(type)->block_bytes;
    uint16_t d = half_from_float(deviation / (type == TENSOR_Q8_0 ? 73.9f : 4.61f)), m = half_from_float(-7.5f * half_to_float(d));
    for (size_t at = 0; at < size; at += block) {
        memcpy(row + at, &d, sizeof d);
        if (type == TENSOR_Q4_1) memcpy(row + at + 2, &m, sizeof m);
    }
}

/// FNV-1a.
static uint64_t hash_name(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++) hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return hash;
}

void random_weights_fill(const gguf_tensor *tensor, uint32_t first, uint32_t rows, void *dst) {
    uint32_t in = (uint32_t)tensor->shape[1];
    size_t row_bytes = (size_t)(tensor->size / tensor->shape[0]);
    float deviation = 1 / sqrtf((float)in);
    int e = (int)floorf(log2f(deviation / 1.53f) + 0.5f);
    uint64_t name = hash_name(tensor->name);
    for (uint32_t i = 0; i < rows; i++) {
        uint8_t *row = (uint8_t *)dst + i * row_bytes;
        uint64_t state = name + ((uint64_t)(first + i) << 32);
        fill_bytes(&state, row, row_bytes);
        if (tensor->type == TENSOR_F32)
            set_exponent_f32(row, in, e);
        else if (tensor->type == TENSOR_F16)
            set_exponent_16(row, in, 0x83ff, (uint16_t)((e + 15) << 10));
        else if (tensor->type == TENSOR_BF16)
            set_exponent_16(row, in, 0x807f, (uint16_t)((e + 127) << 7));
        else
            set_scales(row, row_bytes, tensor->type, deviation);
    }
}

// ---- shapes --------------------------------------------------------------------------------------------------------

// clang-format off
static const model_config shapes[] = {
    {.name = "smollm2-135m", .layers = 30, .hidden = 576, .ffn = 1536, .heads = 9, .kv_heads = 3, .head_dim = 64, .vocab = 49152, .context = 8192, .rope_base = 1e5f, .tied = true},
    {.name = "smollm2-360m", .layers = 32, .hidden = 960, .ffn = 2560, .heads = 15, .kv_heads = 5, .head_dim = 64, .vocab = 49152, .context = 8192, .rope_base = 1e5f, .tied = true},
    {.name = "smollm2-1.7b", .layers = 24, .hidden = 2048, .ffn = 8192, .heads = 32, .kv_heads = 32, .head_dim = 64, .vocab = 49152, .context = 8192, .rope_base = 1.3e5f, .tied = true},
    {.name = "llama3.2-1b", .layers = 16, .hidden = 2048, .ffn = 8192, .heads = 32, .kv_heads = 8, .head_dim = 64, .vocab = 128256, .context = 131072, .rope_base = 5e5f, .tied = true},
    {.name = "llama3.2-3b", .layers = 28, .hidden = 3072, .ffn = 8192, .heads = 24, .kv_heads = 8, .head_dim = 128, .vocab = 128256, .context = 131072, .rope_base = 5e5f, .tied = true},
    {.name = "llama3-8b", .layers = 32, .hidden = 4096, .ffn = 14336, .heads = 32, .kv_heads = 8, .head_dim = 128, .vocab = 128256, .context = 8192, .rope_base = 5e5f},
    {.name = "llava-next-8b", .layers = 32, .hidden = 4096, .ffn = 14336, .heads = 32, .kv_heads = 8, .head_dim = 128, .vocab = 128320, .context = 8192, .rope_base = 5e5f},
    {.name = "llama3-70b", .layers = 80, .hidden = 8192, .ffn = 28672, .heads = 64, .kv_heads = 8, .head_dim = 128, .vocab = 128256, .context = 8192, .rope_base = 5e5f},
    {.name = "mistral-7b", .layers = 32, .hidden = 4096, .ffn = 14336, .heads = 32, .kv_heads = 8, .head_dim = 128, .vocab = 32768, .context = 32768, .rope_base = 1e6f},
};
// clang-format on
enum { SHAPES = sizeof shapes / sizeof *shapes };

/// The shape that sees images, and the token that stands for one.
static const char image_arch[] = "llava-next-8b";
static const uint32_t image_token = 128256;

const char *zs_random_model_arch(uint32_t i) { return i < SHAPES ? shapes[i].name : NULL; }

static const struct {
    const char *name;
    tensor_type type;
} kinds[] = {{"f32", TENSOR_F32},   {"f16", TENSOR_F16},   {"bf16", TENSOR_BF16},
             {"q8_0", TENSOR_Q8_0}, {"q4_0", TENSOR_Q4_0}, {"q4_1", TENSOR_Q4_1}};
enum { KINDS = sizeof kinds / sizeof *kinds };

// ---- a file that does not exist ------------------------------------------------------------------------------------

enum { SKETCH_FLOATS = 8 };

/// Tensors point into one array, as those of a mapped file do; vectors are the only ones with data.
struct random_file {
    model_file file;
    uint32_t type;
    float *ones, *sigma; // [the longest vector]
    random_tower tower;  // of a shape that sees images
};

static gguf_tensor *next_tensor(random_file *r, const char *name) {
    gguf_tensor *tensor = &r->file.gguf.tensors[r->file.gguf.tensor_count++];
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    return tensor;
}

static const gguf_tensor *add_vector(random_file *r, const char *name, uint32_t count, const float *data) {
    gguf_tensor *tensor = next_tensor(r, name);
    tensor->type = TENSOR_F32;
    tensor->dims = 1;
    tensor->shape[0] = tensor->elements = count;
    tensor->size = 4ull * count;
    tensor->data = data;
    return tensor;
}

static const gguf_tensor *add_matrix(random_file *r, const char *name, uint32_t type, uint32_t out, uint32_t in) {
    gguf_tensor *tensor = next_tensor(r, name);
    tensor->type = type;
    tensor->dims = 2;
    tensor->shape[0] = out;
    tensor->shape[1] = in;
    tensor->elements = (uint64_t)out * in;
    tensor->size = tensor_type_bytes(type, tensor->elements);
    return tensor;
}

static bool add_weight(random_file *r, uint32_t layer, uint32_t m, uint32_t out, uint32_t in) {
    static const char *const names[MODEL_MATRICES] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    model_matrix *w = &r->file.layers[layer].matrices[m];
    char *canonical = malloc(56), name[64];
    if (!canonical) return false;
    snprintf(canonical, 56, "model.layers.%u.%s", layer, names[m]);
    *w = (model_matrix){.canonical = canonical, .out = out, .in = in, .rank = out < in ? out : in};
    if (!r->file.config.factored) {
        w->dense = add_matrix(r, canonical, r->type, out, in);
        return true;
    }
    uint64_t state = hash_name(canonical);
    float *sketch = malloc(SKETCH_FLOATS * sizeof *sketch);
    if (!sketch) return false;
    w->sketch = sketch;
    for (uint32_t i = 0; i < SKETCH_FLOATS; i++)
        sketch[i] = 1 + (float)(next_random(&state) >> 40) / 16777216.0f; // tells this model from others
    snprintf(name, sizeof name, "%s.u", canonical);
    w->u = add_matrix(r, name, r->type, out, w->rank);
    snprintf(name, sizeof name, "%s.s", canonical);
    w->s = add_vector(r, name, w->rank, r->sigma);
    snprintf(name, sizeof name, "%s.vt", canonical);
    w->vt = add_matrix(r, name, r->type, w->rank, in);
    return true;
}

static bool add_layer(random_file *r, uint32_t layer) {
    const model_config *c = &r->file.config;
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const uint32_t shape[MODEL_MATRICES][2] = {{q, c->hidden},      {kv, c->hidden},     {kv, c->hidden},    {c->hidden, q},
                                               {c->ffn, c->hidden}, {c->ffn, c->hidden}, {c->hidden, c->ffn}};
    r->file.layers[layer].attention_norm = add_vector(r, "attention_norm", c->hidden, r->ones);
    r->file.layers[layer].ffn_norm = add_vector(r, "ffn_norm", c->hidden, r->ones);
    for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
        if (!add_weight(r, layer, m, shape[m][0], shape[m][1])) return false;
    }
    return true;
}

/// Embedding and head keep 8 bits where the matrices have 4, as files do.
static bool describe(random_file *r) {
    const model_config *c = &r->file.config;
    uint32_t longest = c->ffn > c->hidden ? c->ffn : c->hidden,
             edge = r->type == TENSOR_Q4_0 || r->type == TENSOR_Q4_1 ? TENSOR_Q8_0 : r->type;
    r->file.layers = calloc(c->layers, sizeof *r->file.layers);
    r->file.gguf.tensors = calloc(3 + c->layers * (2 + 3 * (size_t)MODEL_MATRICES), sizeof *r->file.gguf.tensors);
    r->ones = malloc(longest * sizeof *r->ones);
    r->sigma = malloc(longest * sizeof *r->sigma);
    if (!r->file.layers || !r->file.gguf.tensors || !r->ones || !r->sigma) return false;
    for (uint32_t i = 0; i < longest; i++) {
        r->ones[i] = 1;
        r->sigma[i] = 1.25f - 0.5f * (float)i / (float)longest; // falling, as σ does
    }
    r->file.embedding = r->file.head = add_matrix(r, "embedding", edge, c->vocab, c->hidden);
    if (!c->tied) r->file.head = add_matrix(r, "head", edge, c->vocab, c->hidden);
    r->file.output_norm = add_vector(r, "output_norm", c->hidden, r->ones);
    for (uint32_t i = 0; i < c->layers; i++) {
        if (!add_layer(r, i)) return false;
    }
    return true;
}

static zs_status choose(const zs_random_model_params *params, random_file *r, zs_error *error) {
    const char *arch = params->arch ? params->arch : "", *type = params->type ? params->type : "f16";
    uint32_t shape = 0, kind = 0;
    while (shape < SHAPES && strcmp(shapes[shape].name, arch) != 0) shape++;
    if (shape == SHAPES) return zs_error_set(error, ZS_ERROR_ARGUMENT, "no shape is known by the name %s", arch);
    while (kind < KINDS && strcmp(kinds[kind].name, type) != 0) kind++;
    if (kind == KINDS)
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "%s is not a type that random weights can be made in: f32, f16, bf16, q8_0, q4_0 and q4_1 are", type);
    if (params->layers > 1000)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%u layers are more than the 1000 that are possible", params->layers);
    model_config *c = &r->file.config;
    *c = shapes[shape];
    c->rope_divisor = 1;
    snprintf(c->architecture, sizeof c->architecture, "llama");
    c->norm_eps = 1e-5f;
    c->factored = params->factored;
    if (params->layers) c->layers = params->layers;
    r->type = kinds[kind].type;
    return ZS_OK;
}

zs_status random_file_create(const zs_random_model_params *params, random_file **file, zs_error *error) {
    random_file *r = calloc(1, sizeof *r);
    if (!r) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a random model");
    zs_status status = choose(params, r, error);
    if (!status && !describe(r)) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for a random model");
    if (!status && strcmp(r->file.config.name, image_arch) == 0) {
        status = random_tower_create(r->file.config.hidden, image_token, r->type, &r->tower, error);
        r->file.vision = r->tower.file;
    }
    if (status)
        random_file_destroy(&r);
    else
        *file = r;
    return status;
}

const model_file *random_file_get(const random_file *file) { return &file->file; }

void random_file_destroy(random_file **file) {
    random_file *r = *file;
    if (!r) return;
    *file = NULL;
    model_file_close(&r->file);
    free(r->ones);
    free(r->sigma);
    random_tower_free(&r->tower);
    free(r);
}

zs_status zs_model_create_random(zs_device *device, const zs_random_model_params *params, zs_model **model, zs_error *error) {
    random_file *r = NULL;
    zs_status status = random_file_create(params, &r, error);
    if (!status)
        status = model_from_file(device, r->file.config.name, &r->file, &(zs_model_params){.progress = params->progress}, model, error);
    random_file_destroy(&r);
    return status;
}
