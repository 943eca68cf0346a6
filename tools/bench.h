/// What the parts of bench share: options, the opened model, and the figures they add.
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include "cli.h"
#include "figures.h"
#include "zsigma/zsigma_lab.h"

typedef struct bench {
    // as typed
    const char *model_path, *arch, *type, *only, *experts_folder;
    uint32_t runs, prefill_tokens, decode_tokens, depth, pairs, layers;
    const char *compare; // an earlier run's --json
    bool kernels, vision, full, markdown, plan, tune;

    cli_common *common;
    cli_stack stack;
    figures figures;
    json_t *before; // figures of the earlier run, or NULL
    zs_device_peaks peaks;
    bool peaks_known;
    json_t *kernel_tables; // {"prefill": […], "decode": […], "compose_f16": […], …}, or NULL
    uint32_t random;       // state of the token ids
} bench;

enum {
    BENCH_DEPTH = 16,
    BENCH_BATCH = 8,
    BENCH_ROLLOUTS = 16,
    BENCH_FULL_ROLLOUTS = 64,
    BENCH_FULL_BATCH = 128,
    BENCH_SHORT_PROMPT = 128,
    BENCH_FULL_TOKENS = 2048,
    BENCH_PASS1_CONTEXT = 1024,
    BENCH_IMAGE_TOKENS = 3072
};

/// Some bars are a GPU's.
bool bench_on_gpu(const bench *b);
/// Milliseconds of a monotonic clock.
double bench_now_ms(void);
/// ids[count] as tests/bench/llama_cpp.mjs draws them: never the same twice, so that no cached prefix helps.
void bench_draw_ids(bench *b, uint32_t *ids, uint32_t count);
/// Sessions with a prompt of `depth` tokens each decode `tokens` more together, under experts[count]; *ms is the time of the
/// decode steps alone. Prompts are drawn anew.
zs_status bench_time_decode(bench *b, const uint32_t *experts, uint32_t count, uint32_t depth, uint32_t tokens, double *ms,
                            zs_error *error);

/// A prompt's steps, with the one token that they sample.
zs_status bench_time_prefill(bench *b, uint32_t tokens, double *ms, zs_error *error);
/// Times one session's prompt of ids[count] and `tokens` tokens after it, all of it.
zs_status bench_time_answer(bench *b, const uint32_t *ids, size_t count, uint32_t tokens, double *ms, zs_error *error);

/// What a step did, as its operations estimate it.
typedef struct bench_step {
    double bytes, flops;
    uint32_t dispatches;
} bench_step;

/// Floating-point operations that the device does at most, 1e9 a second. bench_device ran before.
double bench_peak(const bench *b);
/// Adds a table of a step's kernels under a name. bench_device ran before.
zs_status bench_kernel_table(bench *b, const char *name, const zs_kernel_params *params, bench_step *step, zs_error *error);

/// The parts. Each warms up, measures b->runs times and adds its figures.
zs_status bench_device(bench *b, zs_error *error);
zs_status bench_prefill(bench *b, zs_error *error);
zs_status bench_decode(bench *b, zs_error *error);
zs_status bench_batch(bench *b, zs_error *error);
/// Answers of many lengths, a new one begun whenever one is done, against what prefill and decode predict.
zs_status bench_rollouts(bench *b, zs_error *error);
/// From the program's start to the first byte of an answer; runs before anything is opened.
zs_status bench_start(bench *b, zs_error *error);
/// What the process holds, against weights, KV pool and 100 MB.
zs_status bench_memory(bench *b, zs_error *error);
/// What an expert costs: putting another one into the table, and eight of them in a batch of eight.
zs_status bench_experts(bench *b, zs_error *error);
/// What pass 1 adds to an answer, where an earlier question was dispatched already.
zs_status bench_two_pass(bench *b, zs_error *error);
/// Composed mode for each type: making the weights, kernel by kernel too, a decode step on them, and after how many tokens that has paid.
zs_status bench_compose(bench *b, zs_error *error);
zs_status bench_kernels(bench *b, zs_error *error);
/// An image of five tiles under LLaVA-NeXT: the tower's time, and a prompt with it.
zs_status bench_vision(bench *b, zs_error *error);

/// The figures of a file that bench --json wrote; the caller frees them.
zs_status bench_compare_read(const char *path, json_t **before, zs_error *error);

#endif
