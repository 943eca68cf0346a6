#include "model/warm.h"

#include "model/workspace.h"

#include <pthread.h>
#include <stdlib.h>

/// A model of one layer without weights, in the shape of the file's first.
struct model_warm {
    pthread_t thread;
    zs_model model;
    model_layer layer;
    model_workspace workspace;
};

/// Stands for a device address where zero means that something is absent; nothing reads it.
enum { ANY_ADDRESS = 256, ROWS = 32 };

static matrix shape_of(const gguf_tensor *tensor, uint32_t group) {
    if (!tensor) return (matrix){0};
    return matrix_of(matrix_type_from_gguf(tensor->type), (uint32_t)tensor->shape[0], (uint32_t)tensor->shape[1], group);
}

static void fill_model(model_warm *w, zs_device *device, const model_file *file) {
    uint32_t group = w->workspace.policy.weight_group;
    w->model = (zs_model){.device = device, .config = file->config, .layers = &w->layer, .output_norm = ANY_ADDRESS};
    w->model.config.layers = 1;
    w->model.embedding = shape_of(file->embedding, group);
    w->model.head = file->config.tied ? w->model.embedding : shape_of(file->head, group);
    w->layer.attention_norm = w->layer.ffn_norm = ANY_ADDRESS;
    w->layer.qkv_bias = file->config.qkv_bias ? ANY_ADDRESS : 0;
    for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
        const model_matrix *from = &file->layers[0].matrices[m];
        w->layer.weights[m] = (model_weight){
            .factored = from->dense == NULL,
            .dense = shape_of(from->dense, group),
            .u = shape_of(from->u, group),
            .vt = shape_of(from->vt, group),
            .out = from->out,
            .in = from->in,
            .rank = from->rank,
        };
    }
}

/// A prefill step whose dispatches are empty.
static zs_status run_empty(model_warm *w, gpu_command *command, zs_error *error) {
    uint32_t span = model_span_rows(&w->workspace, &w->model);
    const model_step step = {
        .step = ANY_ADDRESS, .rows = ROWS, .spans = (ROWS + span - 1) / span, .longest = ROWS, .logit_rows = ANY_ADDRESS, .logit_count = 1};
    uint64_t value;
    gpu_command_set_empty(command, true);
    zs_status status = gpu_command_begin(command, error);
    if (status) return status;
    model_record(&w->model, &w->workspace, command, &step);
    model_record_sample(&w->model, &w->workspace, command, &step, ANY_ADDRESS, ANY_ADDRESS, false);
    status = gpu_command_end(command, error);
    if (!status) status = gpu_command_submit(command, &value, error);
    return status ? status : gpu_device_wait(w->model.device, value, error);
}

static void *run_thread(void *user) {
    model_warm *w = user;
    gpu_command *command = NULL;
    zs_error error;
    if (!gpu_command_create(w->model.device, "warm", &command, &error)) run_empty(w, command, &error);
    gpu_command_destroy(&command);
    return NULL;
}

model_warm *model_warm_start(zs_device *device, const model_file *file) {
    model_warm *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    const gpu_caps *caps = gpu_device_caps(device);
    w->workspace = (model_workspace){
        .device = device,
        .params = {.max_rows = ROWS, .max_logit_rows = 1, .context = ROWS, .kv_f16 = !caps->cpu, .fast = !caps->cpu},
        .policy = op_policy_of(device),
    };
    fill_model(w, device, file);
    workspace_strides(&w->model, &w->workspace);
    if (pthread_create(&w->thread, NULL, run_thread, w) == 0) return w;
    free(w);
    return NULL;
}

void model_warm_finish(model_warm **warm) {
    model_warm *w = *warm;
    if (!w) return;
    *warm = NULL;
    pthread_join(w->thread, NULL);
    free(w);
}
