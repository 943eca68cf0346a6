/// What one matrix of random normal numbers takes zsigma factor: factor_matrix OUT IN [MATRICES], that many side by side, each on a
/// thread of its own as zsigma factor has it. Prints seconds by the clock and of all threads' work, the reconstruction error and the
/// most memory that the process held (MATRICES · 4 OUT IN bytes of it are the input).
#include "factor/factored.h"
#include "factor/svd.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_MATRICES = 16 };

typedef struct job {
    uint32_t out, in;
    float *values; // [out, in]
    factored result;
    uint64_t planned; // bytes
    zs_status status;
    zs_error error;
} job;

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double uniform(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*state >> 11) + 0.5) * 0x1p-53;
}

/// Box and Muller's way; a deviation of 0.02, as weights have.
static bool fill(job *j, uint64_t seed) {
    size_t count = (size_t)j->out * j->in;
    j->values = malloc(count * sizeof *j->values);
    for (size_t i = 0; i < count && j->values; i++) {
        double radius = sqrt(-2 * log(uniform(&seed)));
        j->values[i] = (float)(0.02 * radius * cos(6.283185307179586 * uniform(&seed)));
    }
    return j->values;
}

static void *run(void *argument) {
    job *j = argument;
    uint64_t elements = (uint64_t)j->out * j->in;
    const gguf_tensor tensor = {.name = "random",
                                .type = TENSOR_F32,
                                .dims = 2,
                                .shape = {j->out, j->in},
                                .elements = elements,
                                .data = j->values,
                                .size = elements * sizeof(float)};
    const model_matrix matrix = {
        .canonical = "random", .out = j->out, .in = j->in, .rank = j->out < j->in ? j->out : j->in, .dense = &tensor};
    j->result = factored_plan(&matrix, ZS_FACTOR_F16);
    j->planned = factored_bytes(&matrix, &j->result);
    j->status = factored_compute(&matrix, "random", &j->result, &j->error);
    return NULL;
}

int main(int argc, char **argv) {
    static job jobs[MAX_MATRICES];
    pthread_t threads[MAX_MATRICES];
    unsigned long out = argc > 2 ? strtoul(argv[1], NULL, 10) : 0, in = argc > 2 ? strtoul(argv[2], NULL, 10) : 0,
                  count = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    if (out == 0 || in == 0 || out > 1u << 16 || in > 1u << 16 || count == 0 || count > MAX_MATRICES) {
        fprintf(stderr, "usage: factor_matrix OUT IN [MATRICES]\n");
        return 2;
    }
    svd_use_one_thread();
    for (unsigned long i = 0; i < count; i++) {
        jobs[i] = (job){.out = (uint32_t)out, .in = (uint32_t)in};
        if (!fill(&jobs[i], i)) return 1;
    }
    double clock = seconds(CLOCK_MONOTONIC), work = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (unsigned long i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, run, &jobs[i])) return 1;
    for (unsigned long i = 0; i < count; i++) pthread_join(threads[i], NULL);
    clock = seconds(CLOCK_MONOTONIC) - clock, work = seconds(CLOCK_PROCESS_CPUTIME_ID) - work;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    for (unsigned long i = 0; i < count; i++) {
        if (jobs[i].status) fprintf(stderr, "factor_matrix: %s\n", jobs[i].error.message);
        if (jobs[i].status) return 1;
    }
    printf("%lu x %lu, %lu at once: %.1f s by the clock, %.1f s of work, error %.6f, at most %.2f GB (%.2f planned)\n", out, in, count,
           clock, work, jobs[0].result.error, (double)usage.ru_maxrss * 1024e-9, (double)(count * jobs[0].planned) * 1e-9);
    for (unsigned long i = 0; i < count; i++) {
        factored_free(&jobs[i].result);
        free(jobs[i].values);
    }
    return 0;
}
