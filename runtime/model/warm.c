#include "model/warm.h"

#include "model/workspace.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { LEAST_THREADS = 2, MOST_THREADS = 8 };

/// A thread's share of the kernels, and a model without weights in the shape of the file's, but of one layer.
typedef struct part {
    pthread_t thread;
    bool running;
    uint32_t share, shares;
    zs_model model;
    model_layer layer;
    model_workspace workspace;
} part;

struct model_warm {
    part parts[MOST_THREADS];
    uint32_t count;
};

/// Stands for a device address where zero means that something is absent; nothing reads it.
enum { ANY_ADDRESS = 256, ROWS = 32 };

static void fill_model(part *w, zs_device *device, const model_file *file) {
    const op_policy *policy = &w->workspace.policy;
    w->model = (zs_model){.device = device, .config = file->config, .layers = &w->layer, .output_norm = ANY_ADDRESS};
    w->model.config.layers = 1;
    w->model.embedding = model_tensor_matrix(file->embedding, policy);
    w->model.head = file->config.tied ? w->model.embedding : model_tensor_matrix(file->head, policy);
    w->layer.attention_norm = w->layer.ffn_norm = ANY_ADDRESS;
    if (file->config.head_norms) w->layer.q_norm = w->layer.k_norm = ANY_ADDRESS;
    if (file->config.post_norms) w->layer.attention_post_norm = w->layer.ffn_post_norm = ANY_ADDRESS;
    w->layer.qkv_bias = file->config.qkv_bias ? ANY_ADDRESS : 0;
    for (uint32_t m = 0; m < MODEL_MATRICES; m++) {
        const model_matrix *from = &file->layers[0].matrices[m];
        w->layer.weights[m] = (model_weight){
            .factored = from->dense == NULL,
            .dense = model_tensor_matrix(from->dense, policy),
            .u = model_tensor_matrix(from->u, policy),
            .vt = model_tensor_matrix(from->vt, policy),
            .out = from->out,
            .in = from->in,
            .rank = from->rank,
        };
    }
}

/// The share of a prefill step whose dispatches are empty.
static zs_status run_empty(part *w, gpu_command *command, zs_error *error) {
    uint32_t span = model_span_rows(&w->workspace, &w->model);
    const model_step step = {
        .step = ANY_ADDRESS, .rows = ROWS, .spans = (ROWS + span - 1) / span, .longest = ROWS, .logit_rows = ANY_ADDRESS, .logit_count = 1};
    uint64_t value;
    gpu_command_set_empty(command, w->share, w->shares);
    zs_status status = gpu_command_begin(command, error);
    if (status) return status;
    model_record(&w->model, &w->workspace, command, &step);
    model_record_sample(&w->model, &w->workspace, command, &step, ANY_ADDRESS, ANY_ADDRESS, false);
    status = gpu_command_end(command, error);
    if (!status) status = gpu_command_submit(command, &value, error);
    return status ? status : gpu_device_wait(w->model.device, value, error);
}

static void *run_thread(void *user) {
    part *w = user;
    gpu_command *command = NULL;
    zs_error error;
    if (!gpu_command_create(w->model.device, "warm", &command, &error)) run_empty(w, command, &error);
    gpu_command_destroy(&command);
    return NULL;
}

static void start_part(part *w, zs_device *device, const op_policy *policy, const model_file *file) {
    bool cpu = gpu_device_caps(device)->cpu; // what engines make of it by default
    w->workspace = (model_workspace){
        .device = device,
        .params = {.max_rows = ROWS, .max_logit_rows = 1, .context = ROWS, .kv = cpu ? KV_F32 : KV_F16, .fast = !cpu},
        .policy = op_policy_within(policy, !cpu, cpu ? KV_F32 : KV_F16),
    };
    fill_model(w, device, file);
    w->workspace.operands.address = ANY_ADDRESS;
    workspace_strides(&w->model, &w->workspace);
    w->running = pthread_create(&w->thread, NULL, run_thread, w) == 0;
}

model_warm *model_warm_start(zs_device *device, const op_policy *policy, const model_file *file) {
    model_warm *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    w->count = processors < LEAST_THREADS ? LEAST_THREADS : processors > MOST_THREADS ? MOST_THREADS : (uint32_t)processors;
    for (uint32_t i = 0; i < w->count; i++) {
        w->parts[i].share = i;
        w->parts[i].shares = w->count;
        start_part(&w->parts[i], device, policy, file);
    }
    return w;
}

void model_warm_finish(model_warm **warm) {
    model_warm *w = *warm;
    if (!w) return;
    *warm = NULL;
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->parts[i].running) pthread_join(w->parts[i].thread, NULL);
    }
    free(w);
}
