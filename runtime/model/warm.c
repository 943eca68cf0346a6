#include "model/warm.h"

#include "model/load_tower.h"
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

static void fill_model(part *p, zs_device *device, const model_file *file) {
    const op_policy *policy = &p->workspace.policy;
    uint32_t scales = 0;
    p->model = (zs_model){.device = device, .config = file->config, .layers = &p->layer, .output_norm = ANY_ADDRESS};
    p->model.config.layers = 1;
    p->model.embedding = model_tensor_matrix(file->embedding, policy);
    p->model.head = file->config.tied ? p->model.embedding : model_tensor_matrix(file->head, policy);
    p->layer.attention_norm = p->layer.ffn_norm = ANY_ADDRESS;
    if (file->config.head_norms) p->layer.q_norm = p->layer.k_norm = ANY_ADDRESS;
    if (file->config.post_norms) p->layer.attention_post_norm = p->layer.ffn_post_norm = ANY_ADDRESS;
    p->layer.qkv_bias = file->config.qkv_bias ? ANY_ADDRESS : 0;
    for (uint32_t m = 0; m < MODEL_MATRICES; m++) p->layer.weights[m] = model_shape_weight(&file->layers[0].matrices[m], policy, &scales);
}

/// The share of a prefill step whose dispatches are empty.
static zs_status run_empty(part *p, gpu_command *command, zs_error *error) {
    uint32_t span = model_span_rows(&p->workspace, &p->model);
    const model_step step = {
        .step = ANY_ADDRESS, .rows = ROWS, .spans = (ROWS + span - 1) / span, .longest = ROWS, .logit_rows = ANY_ADDRESS, .logit_count = 1};
    uint64_t value;
    gpu_command_set_empty(command, p->share, p->shares);
    zs_status status = gpu_command_begin(command, error);
    if (status) return status;
    model_record(&p->model, &p->workspace, command, &step);
    model_record_sample(&p->model, &p->workspace, command, &step, ANY_ADDRESS, ANY_ADDRESS, false);
    status = gpu_command_end(command, error);
    if (!status) status = gpu_command_submit(command, &value, error);
    return status ? status : gpu_device_wait(p->model.device, value, error);
}

static void *run_thread(void *user) {
    part *p = user;
    gpu_command *command = NULL;
    zs_error error;
    if (!gpu_command_create(p->model.device, "warm", &command, &error)) run_empty(p, command, &error);
    gpu_command_destroy(&command);
    return NULL;
}

static void start_part(part *p, zs_device *device, const op_policy *policy, const model_file *file) {
    bool cpu = gpu_device_caps(device)->cpu; // what engines make of it by default
    p->workspace = (model_workspace){
        .device = device,
        .params = {.max_rows = ROWS, .max_logit_rows = 1, .context = ROWS, .kv = cpu ? KV_F32 : KV_F16, .fast = !cpu},
        .policy = op_policy_within(policy, !cpu, cpu ? KV_F32 : KV_F16),
    };
    fill_model(p, device, file);
    p->workspace.operands.address = ANY_ADDRESS;
    workspace_strides(&p->model, &p->workspace);
    p->running = pthread_create(&p->thread, NULL, run_thread, p) == 0;
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
