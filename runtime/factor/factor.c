#include "factor/partial.h"
#include "factor/svd.h"
#include "loader/file_output.h"
#include "loader/vision_file.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64 };

/// Kinds of matrices that are reported together: the decoder's, the tower's, the projector's.
enum { KIND_TOWER = MODEL_MATRICES, KIND_PROJECTOR = KIND_TOWER + VISION_MATRICES, KINDS };

/// One matrix to be factored.
typedef struct job {
    const model_matrix *matrix;
    uint32_t kind;
} job;

typedef struct work {
    const char *input, *output;
    const zs_factor_params *params;
    model_file model;
    job *jobs;
    factored *plans; // shapes, types and, when done, errors
    bool *taken;     // [count]: finished or at work
    uint32_t count, finished;
    partial_file partial;
    double done, total;               // floating-point operations
    uint64_t memory, held, held_most; // bytes: the bound, of the matrices at work, the most there were
    uint32_t at_work, at_work_most;   // matrices
    pthread_mutex_t lock;
    pthread_cond_t room; // a matrix is done
    zs_status status;    // the first failure
    zs_error error;
} work;

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool is_chosen(uint32_t matrices, uint32_t kind) {
    if (kind >= KIND_PROJECTOR) return matrices & ZS_MATRICES_PROJECTOR;
    if (kind >= KIND_TOWER) return matrices & ZS_MATRICES_TOWER;
    return matrices & (kind >= MODEL_GATE ? ZS_MATRICES_MLP : ZS_MATRICES_ATTENTION);
}

static void add_job(work *w, const model_matrix *matrix, uint32_t kind, uint32_t matrices) {
    if (!is_chosen(matrices, kind)) return;
    w->jobs[w->count] = (job){matrix, kind};
    w->plans[w->count++] = factored_plan(matrix, w->params->type);
    w->total += svd_cost(matrix->out, matrix->in);
}

static zs_status plan(work *w, uint32_t matrices, zs_error *error) {
    const vision_file *vision = w->model.vision;
    uint32_t layers = w->model.config.layers, tower = vision ? vision->config.layers * VISION_MATRICES : 0;
    size_t most = (size_t)layers * MODEL_MATRICES + tower + 2;
    if (!vision && matrices & (ZS_MATRICES_TOWER | ZS_MATRICES_PROJECTOR))
        return zs_error_set(error, ZS_ERROR_ARGUMENT,
                            "%s has no image tower and no projector: leave them out of --matrices, or give --mmproj", w->input);
    w->jobs = calloc(most, sizeof *w->jobs);
    w->plans = calloc(most, sizeof *w->plans);
    w->taken = calloc(most, sizeof *w->taken);
    if (!w->jobs || !w->plans || !w->taken) return zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while factoring %s", w->input);
    for (uint32_t i = 0; i < layers; i++) {
        for (uint32_t m = 0; m < MODEL_MATRICES; m++) add_job(w, &w->model.layers[i].matrices[m], m, matrices);
    }
    for (uint32_t i = 0; vision && i < tower + vision->projector_count; i++)
        add_job(w, vision_file_matrix(vision, i, NULL), i < tower ? KIND_TOWER + i % VISION_MATRICES : KIND_PROJECTOR, matrices);
    return ZS_OK;
}

/// Half of the system's memory, but no more than an 8B model needs to keep some processors busy.
static uint64_t default_memory(void) {
    const uint64_t most = 8000000000;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t half = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 2 : most;
    return half < most ? half : most;
}

/// The parameters that a partial file is good for.
static uint64_t work_key(const work *w, uint32_t matrices) {
    const uint64_t parts[] = {(uint64_t)w->params->type, matrices, w->count};
    return partial_hash(0, parts, sizeof parts);
}

/// All that a matrix's factors come from. The file's name and time say nothing: a file may be replaced by another of its size.
static uint64_t weights_key(const model_matrix *m) {
    const uint64_t shape[] = {m->out, m->in, m->permute_heads, m->dense->type};
    uint64_t hash = partial_hash(partial_hash(0, shape, sizeof shape), m->dense->data, (size_t)m->dense->size);
    gguf_tensor_release(m->dense);
    return hash;
}

// ---- the threads ---------------------------------------------------------------------------------------------------

/// With the lock held.
static void fail(work *w, const zs_error *error) {
    if (w->status) return;
    w->status = error->status;
    w->error = *error;
}

/// With the lock held.
static void report(work *w) {
    const zs_progress *p = &w->params->progress;
    zs_error error;
    if (!p->report || p->report(p->user, "factor", w->done, w->total)) return;
    zs_error_set(&error, ZS_ERROR_CANCELLED, "cancelled; %s.partial keeps %u of %u matrices, the same command goes on from there",
                 w->output, w->finished, w->count);
    fail(w, &error);
}

/// The next matrix for which there is room, with the lock held; false when none is left. A matrix larger than all the room comes when
/// nothing else is at work.
static bool take_job(work *w, uint32_t *index) {
    for (;;) {
        bool left = false;
        for (uint32_t i = 0; i < w->count && !w->status; i++) {
            if (w->taken[i]) continue;
            left = true;
            uint64_t bytes = factored_bytes(w->jobs[i].matrix, &w->plans[i]);
            if (w->at_work > 0 && (w->held > w->memory || bytes > w->memory - w->held)) continue;
            w->taken[i] = true;
            w->held += bytes;
            w->at_work++;
            if (w->held > w->held_most) w->held_most = w->held;
            if (w->at_work > w->at_work_most) w->at_work_most = w->at_work;
            *index = i;
            return true;
        }
        if (!left) return false;
        pthread_cond_wait(&w->room, &w->lock);
    }
}

/// With the lock held.
static void give_back_room(work *w, uint32_t index) {
    w->held -= factored_bytes(w->jobs[index].matrix, &w->plans[index]);
    w->at_work--;
    pthread_cond_broadcast(&w->room);
}

static void *run_thread(void *argument) {
    work *w = argument;
    uint32_t i;
    pthread_mutex_lock(&w->lock);
    while (take_job(w, &i)) {
        pthread_mutex_unlock(&w->lock);
        zs_error error;
        factored f = w->plans[i];
        zs_status status = factored_compute(w->jobs[i].matrix, w->input, &f, &error);
        uint64_t weights = status ? 0 : weights_key(w->jobs[i].matrix);
        pthread_mutex_lock(&w->lock);
        if (!status) status = partial_append(&w->partial, i, weights, &f, &error);
        if (status) {
            fail(w, &error);
        } else {
            w->plans[i].error = f.error;
            w->finished++;
            w->done += svd_cost(f.out, f.in);
            report(w);
        }
        factored_free(&f);
        give_back_room(w, i);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static zs_status run_threads(work *w, zs_error *error) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = w->params->threads ? w->params->threads : processors > 0 ? (uint32_t)processors : 1;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    pthread_t ids[MAX_THREADS];
    uint32_t started = 0;
    svd_use_one_thread();
    pthread_mutex_lock(&w->lock);
    report(w);
    pthread_mutex_unlock(&w->lock);
    while (started + 1 < threads && pthread_create(&ids[started], NULL, run_thread, w) == 0) started++;
    run_thread(w);
    for (uint32_t i = 0; i < started; i++) pthread_join(ids[i], NULL);
    if (w->status && error) *error = w->error;
    return w->status;
}

// ---- the output ----------------------------------------------------------------------------------------------------

static bool is_factored_tensor(const work *w, const gguf_tensor *tensor) {
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->jobs[i].matrix->dense == tensor) return true;
    }
    return false;
}

static bool begins(gguf_string key, const char *text) { return key.size >= strlen(text) && memcmp(key.data, text, strlen(text)) == 0; }

static void add_matrices_key(gguf_writer *writer, uint32_t matrices) {
    static const char *const names[] = {"mlp", "attention", "tower", "projector"};
    char list[64] = "";
    for (uint32_t i = 0; i < 4; i++) {
        if (!(matrices >> i & 1)) continue;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? "," : "", names[i]);
    }
    gguf_writer_add_string(writer, "zsigma.matrices", list);
}

static void add_keys(const work *w, gguf_writer *writer, uint32_t matrices) {
    static const char *const types[] = {"f16", "f32", "q8_0"};
    const gguf_file *in = &w->model.gguf, *beside = w->model.beside ? &w->model.beside->gguf : NULL;
    for (size_t i = 0; i < in->value_count; i++) {
        gguf_string key = in->values[i].key;
        if (key.size == 20 && memcmp(key.data, "general.architecture", 20) == 0) continue;
        gguf_writer_copy_value(writer, &in->values[i]);
    }
    for (size_t i = 0; beside && i < beside->value_count; i++) {
        gguf_string key = beside->values[i].key;
        if (begins(key, "clip.") || begins(key, "zsigma.vision.")) gguf_writer_copy_value(writer, &beside->values[i]);
    }
    gguf_writer_add_string(writer, "general.architecture", "zsigma");
    gguf_writer_add_string(writer, "zsigma.base_architecture", w->model.config.architecture);
    gguf_writer_add_u32(writer, "zsigma.version", 1);
    add_matrices_key(writer, matrices);
    gguf_writer_add_string(writer, "zsigma.factor_type", types[w->params->type]);
}

/// The tensors that stay as they are, of the input or of the file beside it.
static void add_copied(const work *w, const gguf_file *from, gguf_writer *writer) {
    for (size_t i = 0; i < from->tensor_count; i++) {
        const gguf_tensor *t = &from->tensors[i];
        if (!is_factored_tensor(w, t)) gguf_writer_add_tensor(writer, t->name, t->type, t->dims, t->shape);
    }
}

static void add_tensors(const work *w, gguf_writer *writer) {
    add_copied(w, &w->model.gguf, writer);
    if (w->model.beside) add_copied(w, &w->model.beside->gguf, writer);
    for (uint32_t i = 0; i < w->count; i++) {
        const factored *f = &w->plans[i];
        const char *dense = w->jobs[i].matrix->dense->name; // "blk.0.attn_q.weight": parts take its place
        char name[96];
        int stem = (int)(strlen(dense) - strlen(".weight"));
        snprintf(name, sizeof name, "%.*s.zs_u", stem, dense);
        gguf_writer_add_tensor(writer, name, f->u_type, 2, (const uint64_t[]){f->out, f->rank});
        snprintf(name, sizeof name, "%.*s.zs_s", stem, dense);
        gguf_writer_add_tensor(writer, name, TENSOR_F32, 1, (const uint64_t[]){f->rank});
        snprintf(name, sizeof name, "%.*s.zs_vt", stem, dense);
        gguf_writer_add_tensor(writer, name, f->vt_type, 2, (const uint64_t[]){f->rank, f->in});
        snprintf(name, sizeof name, "%.*s.zs_sketch", stem, dense);
        gguf_writer_add_tensor(writer, name, TENSOR_F32, 1, (const uint64_t[]){8});
    }
}

static zs_status write_copied(const work *w, const gguf_file *from, gguf_writer *writer, zs_error *error) {
    zs_status status = ZS_OK;
    for (size_t i = 0; i < from->tensor_count && !status; i++) {
        if (is_factored_tensor(w, &from->tensors[i])) continue;
        status = gguf_writer_write(writer, from->tensors[i].data, (size_t)from->tensors[i].size, error);
        gguf_tensor_release(&from->tensors[i]);
    }
    return status;
}

static zs_status write_tensors(work *w, gguf_writer *writer, zs_error *error) {
    zs_status status = write_copied(w, &w->model.gguf, writer, error);
    if (!status && w->model.beside) status = write_copied(w, &w->model.beside->gguf, writer, error);
    for (uint32_t i = 0; i < w->count && !status; i++) {
        factored f = w->plans[i];
        status = partial_read(&w->partial, i, &f, error);
        if (status) break;
        w->plans[i].error = f.error;
        status = gguf_writer_write(writer, f.u, f.u_bytes, error);
        if (!status) status = gguf_writer_write(writer, f.sigma, f.rank * sizeof(float), error);
        if (!status) status = gguf_writer_write(writer, f.vt, f.vt_bytes, error);
        if (!status) status = gguf_writer_write(writer, f.sketch, sizeof f.sketch, error);
        factored_free(&f);
    }
    return status;
}

static zs_status write_output(work *w, uint32_t matrices, zs_error *error) {
    gguf_writer *writer = NULL;
    zs_status status = gguf_writer_create(w->output, w->params->force, &writer, error);
    if (status) return status;
    add_keys(w, writer, matrices);
    add_tensors(w, writer);
    status = gguf_writer_start(writer, error);
    if (!status) status = write_tensors(w, writer, error);
    if (!status) status = gguf_writer_finish(&writer, error);
    gguf_writer_discard(&writer);
    return status;
}

static void fill_report(const work *w, zs_factor_report *report_out) {
    struct stat info;
    report_out->bytes = stat(w->output, &info) == 0 ? (uint64_t)info.st_size : 0;
    static const char *const tower[] = {"v.attn_q", "v.attn_k", "v.attn_v", "v.attn_out", "v.ffn_up", "v.ffn_down", "projector"};
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        zs_factor_error e = {0};
        snprintf(e.kind, sizeof e.kind, "%s", kind < KIND_TOWER ? model_matrix_gguf_name(kind) : tower[kind - KIND_TOWER]);
        for (uint32_t i = 0; i < w->count; i++) {
            if (w->jobs[i].kind != kind) continue;
            e.matrices++;
            e.mean += w->plans[i].error;
            e.max = fmax(e.max, w->plans[i].error);
        }
        if (e.matrices == 0) continue;
        e.mean /= e.matrices;
        report_out->kinds[report_out->kind_count++] = e;
    }
}

static zs_status check_paths(const char *input, const char *output, bool force, zs_error *error) {
    struct stat in, out;
    if (stat(output, &out)) return ZS_OK;
    // The writer refuses that too, but only when the work is done.
    if (!S_ISREG(out.st_mode))
        return zs_error_set(error, ZS_ERROR_IO, "cannot write %s: it is %s", output, S_ISDIR(out.st_mode) ? "a folder" : "no regular file");
    if (!force) return zs_error_set(error, ZS_ERROR_EXISTS, "%s exists: choose another name or give --force", output);
    if (stat(input, &in) == 0 && in.st_ino == out.st_ino && in.st_dev == out.st_dev)
        return zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is input and output at once", input);
    return ZS_OK;
}

/// Takes over the matrices of an interrupted run whose weights are still the same.
static void resume(work *w) {
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->partial.offsets[i] && w->partial.weights[i] != weights_key(w->jobs[i].matrix)) w->partial.offsets[i] = 0;
        if (!w->partial.offsets[i]) continue;
        w->taken[i] = true;
        w->finished++;
        w->done += svd_cost(w->plans[i].out, w->plans[i].in);
    }
}

zs_status zs_factor_file(const char *input, const char *output, const zs_factor_params *params, zs_factor_report *report_out,
                         zs_error *error) {
    static const zs_factor_params defaults;
    work w = {.input = input,
              .output = output,
              .params = params ? params : &defaults,
              .lock = PTHREAD_MUTEX_INITIALIZER,
              .room = PTHREAD_COND_INITIALIZER};
    uint32_t matrices = w.params->matrices ? w.params->matrices : ZS_MATRICES_ALL;
    zs_factor_report result = {0};
    double start = now_seconds();
    w.memory = w.params->memory ? w.params->memory : default_memory();
    zs_status status = check_paths(input, output, w.params->force, error);
    if (!status) status = model_file_open(input, &w.model, error);
    if (status) return status;
    if (w.params->mmproj) status = model_file_add_images(&w.model, w.params->mmproj, error);
    if (!status && w.model.config.factored) status = zs_error_set(error, ZS_ERROR_ARGUMENT, "%s is factored already", input);
    if (!status) status = plan(&w, matrices, error);
    // The analyser forgets what w holds once the address of a part of it is passed.
    if (!status)
        status = partial_open(output, work_key(&w, matrices), w.count, w.plans, &w.partial, error); // NOLINT(clang-analyzer-unix.Malloc)
    if (!status) {
        resume(&w);
        result.resumed = w.finished;
        status = run_threads(&w, error);
        if (!status) status = write_output(&w, matrices, error);
        partial_close(&w.partial, status == ZS_OK);
    }
    if (!status) {
        fill_report(&w, &result);
        result.seconds = now_seconds() - start;
        result.memory = w.memory;
        result.memory_used = w.held_most;
        result.side_by_side = w.at_work_most;
        if (report_out) *report_out = result;
    }
    free(w.jobs);
    free(w.plans);
    free(w.taken);
    model_file_close(&w.model);
    return status;
}
