/// How long the program takes to its first token, and what it holds of the machine's memory.
#include "bench.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 32 };

/// `zsigma ask` as a user types it, on the device and with the precision that the bench was given.
static void fill_arguments(const bench *b, const char **arguments) {
    const struct {
        const char *name, *value;
    } passed[] = {
        {"--device", b->common->device}, {"--tier", b->common->tier}, {"--precision", b->common->precision}, {"--kv", b->common->kv}};
    const char *const fixed[] = {"zsigma", "ask", "-m", b->model_path, "--strategy",
                                 "none",   "-n",  "1",  "--quiet",     "What is the sum of 17 and 25?"};
    size_t count = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) arguments[count++] = fixed[i];
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
        if (!passed[i].value) continue;
        arguments[count++] = passed[i].name;
        arguments[count++] = passed[i].value;
    }
    arguments[count] = NULL;
}

static zs_status spawn(const bench *b, int output, pid_t *child, zs_error *error) {
    extern char **environ;
    const char *arguments[MAX_ARGUMENTS];
    posix_spawn_file_actions_t actions;
    fill_arguments(b, arguments);
    int problem = posix_spawn_file_actions_init(&actions);
    if (problem) return zs_error_set(error, ZS_ERROR_MEMORY, "cannot start the program: %s", strerror(problem));
    problem = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (!problem) problem = posix_spawn(child, "/proc/self/exe", &actions, NULL, (char *const *)(uintptr_t)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return problem ? zs_error_set(error, ZS_ERROR_IO, "cannot start the program: %s", strerror(problem)) : ZS_OK;
}

/// *ms is the time to the answer's first byte, or to its end when it is empty.
static zs_status time_start(const bench *b, double *ms, zs_error *error) {
    int ends[2], result = 0;
    char text[256];
    pid_t child;
    if (pipe(ends)) return zs_error_set(error, ZS_ERROR_IO, "cannot start the program: %s", strerror(errno));
    double start = bench_now_ms();
    zs_status status = spawn(b, ends[1], &child, error);
    close(ends[1]);
    if (!status) {
        ssize_t got = read(ends[0], text, sizeof text);
        *ms = bench_now_ms() - start;
        while (got > 0) got = read(ends[0], text, sizeof text);
        while (waitpid(child, &result, 0) < 0 && errno == EINTR) continue;
        if (result) status = zs_error_set(error, ZS_ERROR_IO, "the program that was started to be timed failed");
    }
    close(ends[0]);
    return status;
}

zs_status bench_start(bench *b, zs_error *error) {
    double *times = calloc(b->runs, sizeof *times), ms;
    zs_status status = times ? time_start(b, &ms, error) : zs_error_set(error, ZS_ERROR_MEMORY, "out of memory"); // warms the caches
    for (uint32_t run = 0; run < b->runs && !status; run++) status = time_start(b, &times[run], error);
    if (!status) figures_add(&b->figures, "first_token_after_start", "ms", times, b->runs)->bar = 1000;
    free(times);
    return status;
}

/// Resident megabytes; 0 where the system does not tell.
static double resident_mb(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long total, pages = 0;
    if (!file) return 0;
    if (fscanf(file, "%lu %lu", &total, &pages) != 2) pages = 0;
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

zs_status bench_memory(bench *b, zs_error *error) {
    const uint32_t base[] = {0};
    double ms;
    zs_status status = bench_time_decode(b, base, 1, BENCH_DEPTH, 4, &ms, error); // what is made when first used is there
    double resident = resident_mb();
    if (status || resident <= 0) return status;
    uint64_t weights = zs_model_get_info(b->stack.model)->weight_bytes, kv = zs_engine_get_info(b->stack.engine)->kv_bytes;
    figures_add_value(&b->figures, "model_memory", "MB", (double)weights / 1e6);
    figures_add_value(&b->figures, "kv_memory", "MB", (double)kv / 1e6);
    figures_add_value(&b->figures, "resident_memory", "MB", resident)->bar = (double)(weights + kv) / 1e6 + 100;
    return ZS_OK;
}
