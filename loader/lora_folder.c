#include "loader/lora_folder.h"

#include "loader/folder_vision.h"
#include "loader/json_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"

bool lora_folder_is(const char *path) { return json_file_exists(path, CONFIG); }

// ---- adapter_config.json -------------------------------------------------------------------------------------------

/// Options that leave ΔW = scale · B A, whatever they are, and those that are looked at one by one.
static bool is_harmless(const char *key) {
    static const char *const keys[] = {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "lora_alpha",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "r",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
        "qalora_group_size",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i], key) == 0) return true;
    }
    return false;
}

static bool is_off(const json_t *value) {
    return json_is_null(value) || json_is_false(value) || (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) || (json_is_string(value) && !*json_string_value(value));
}

static zs_status check_options(const char *path, const json_t *root, zs_error *error) {
    const char *key, *type = json_string_value(json_object_get(root, "peft_type"));
    const char *bias = json_string_value(json_object_get(root, "bias")),
               *init = json_string_value(json_object_get(root, "init_lora_weights"));
    json_t *value;
    if (!type || strcmp(type, "LORA") != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%.200s/" CONFIG ": peft_type is %.40s; LORA is known", path,
                            type ? type : "missing");
    if (bias && strcmp(bias, "none") != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%.200s/" CONFIG ": bias is %.40s, and biases are nothing that z can express",
                            path, bias);
    if (init && strcmp(init, "gaussian") != 0 && strcmp(init, "orthogonal") != 0)
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED,
                            "%.200s/" CONFIG
                            ": init_lora_weights is %.40s, which changes the base's weights: convert the adapter to plain LoRA",
                            path, init);
    json_object_foreach((json_t *)(uintptr_t)root, key, value) {
        if (!is_harmless(key) && !is_off(value))
            return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%.200s/" CONFIG ": %.60s is set, and not supported", path, key);
    }
    return ZS_OK;
}

static zs_status read_config(const char *path, lora_folder *lora, zs_error *error) {
    json_t *root;
    zs_status status = json_file_read(path, CONFIG, false, &root, error);
    if (status) return status;
    const char *base = json_string_value(json_object_get(root, "base_model_name_or_path"));
    const json_int_t rank = json_integer_value(json_object_get(root, "r"));
    const json_t *alpha = json_object_get(root, "lora_alpha");
    status = check_options(path, root, error);
    if (!status && (rank < 1 || rank > 1 << 20 || !json_is_number(alpha) || !isfinite(json_number_value(alpha))))
        status = zs_error_set(error, ZS_ERROR_FORMAT, "%.200s/" CONFIG ": r or lora_alpha is missing or no number that makes sense", path);
    lora->rank = (uint32_t)rank;
    if (!status)
        lora->scale = json_number_value(alpha) / (json_is_true(json_object_get(root, "use_rslora")) ? sqrt((double)rank) : (double)rank);
    if (!status && !(lora->base = strdup(base ? base : ""))) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    json_decref(root);
    return status;
}

// ---- adapter_model.safetensors -------------------------------------------------------------------------------------

/// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" → "model.layers.0.self_attn.q_proj" and 'A'; false for other names.
static bool split_name(const char *name, char *canonical, size_t room, char *part) {
    static const char prefix[] = "base_model.model.";
    char inner[256];
    const char *end = strstr(name, ".lora_");
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || !end) return false;
    if (strcmp(end, ".lora_A.weight") != 0 && strcmp(end, ".lora_B.weight") != 0) return false;
    const char *begin = name + sizeof prefix - 1;
    if (end <= begin || (size_t)(end - begin) >= sizeof inner) return false;
    snprintf(inner, sizeof inner, "%.*s", (int)(end - begin), begin);
    if (!folder_vision_translate(inner, canonical, room)) snprintf(canonical, room, "%s", inner);
    *part = end[6];
    return true;
}

/// Tensors come sorted: those of a matrix one after the other.
static lora_matrix *last_or_new(lora_folder *lora, const char *canonical) {
    lora_matrix *m = &lora->matrices[lora->matrix_count];
    if (lora->matrix_count && strcmp(m[-1].canonical, canonical) == 0) return m - 1;
    *m = (lora_matrix){.canonical = strdup(canonical)};
    lora->matrix_count += m->canonical != NULL;
    return m->canonical ? m : NULL;
}

/// Versions of transformers call the parts of a model that sees images by other names.
static zs_status two_names(const char *path, const char *canonical, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_FORMAT, "%.200s/" WEIGHTS " has %.120s under two names", path, canonical);
}

static zs_status add_tensor(const char *path, const safetensors_tensor *tensor, lora_folder *lora, zs_error *error) {
    char canonical[256], part;
    if (!split_name(tensor->name, canonical, sizeof canonical, &part))
        return zs_error_set(error, ZS_ERROR_UNSUPPORTED, "%.200s/" WEIGHTS ": tensor %.120s is none of a plain LoRA", path, tensor->name);
    lora_matrix *m = last_or_new(lora, canonical);
    if (!m) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    const safetensors_tensor **to = part == 'A' ? &m->a : &m->b;
    if (*to) return two_names(path, canonical, error);
    *to = tensor;
    if (tensor->dims == 2 && tensor->shape[part == 'A' ? 0 : 1] == lora->rank) return ZS_OK;
    return zs_error_set(error, ZS_ERROR_FORMAT, "%.200s/" WEIGHTS ": tensor %.120s is not of rank %u, which " CONFIG " tells", path,
                        tensor->name, lora->rank);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const lora_matrix *)a)->canonical, ((const lora_matrix *)b)->canonical);
}

static zs_status read_weights(const char *path, lora_folder *lora, zs_error *error) {
    char *name = json_file_path(path, WEIGHTS);
    if (!name) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    zs_status status = safetensors_open(name, &lora->file, error);
    free(name);
    if (status) return status;
    lora->matrices = calloc(lora->file.tensor_count + 1, sizeof *lora->matrices);
    if (!lora->matrices) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory for %s", path);
    for (size_t i = 0; i < lora->file.tensor_count && !status; i++) status = add_tensor(path, &lora->file.tensors[i], lora, error);
    for (size_t i = 0; i < lora->matrix_count && !status; i++) {
        const lora_matrix *m = &lora->matrices[i];
        if (!m->a || !m->b)
            status =
                zs_error_set(error, ZS_ERROR_FORMAT, "%.200s/" WEIGHTS ": %.120s has no lora_%c", path, m->canonical, m->a ? 'B' : 'A');
    }
    if (!status && !lora->matrix_count) status = zs_error_set(error, ZS_ERROR_FORMAT, "%.200s/" WEIGHTS " holds no matrix", path);
    if (status) return status;
    qsort(lora->matrices, lora->matrix_count, sizeof *lora->matrices, by_name);
    for (size_t i = 1; i < lora->matrix_count; i++) {
        if (by_name(&lora->matrices[i - 1], &lora->matrices[i]) == 0) return two_names(path, lora->matrices[i].canonical, error);
    }
    return ZS_OK;
}

zs_status lora_folder_open(const char *path, lora_folder *lora, zs_error *error) {
    *lora = (lora_folder){0};
    zs_status status = read_config(path, lora, error);
    if (!status) status = read_weights(path, lora, error);
    if (status) lora_folder_close(lora);
    return status;
}

void lora_folder_close(lora_folder *lora) {
    for (size_t i = 0; i < lora->matrix_count; i++) free(lora->matrices[i].canonical);
    free(lora->matrices);
    free(lora->base);
    safetensors_close(&lora->file);
    *lora = (lora_folder){0};
}

const lora_matrix *lora_folder_find(const lora_folder *lora, const char *canonical) {
    const lora_matrix key = {.canonical = (char *)(uintptr_t)canonical};
    return lora->matrix_count ? bsearch(&key, lora->matrices, lora->matrix_count, sizeof key, by_name) : NULL;
}
