/// zsigma_lab: making models and experts. Link with zsigma_factor for zs_factor_file (the only part that needs LAPACK).
#ifndef ZSIGMA_LAB_H
#define ZSIGMA_LAB_H

#include "zsigma/zsigma.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- factoring -----------------------------------------------------------------------------------------------------

typedef enum zs_factor_type { ZS_FACTOR_F16 = 0, ZS_FACTOR_F32, ZS_FACTOR_Q8_0 } zs_factor_type;

enum { ZS_MATRICES_MLP = 1, ZS_MATRICES_ATTENTION = 2, ZS_MATRICES_ALL = 3 };

/// Relative error ‖W − U diag(σ) Vᵀ‖ / ‖W‖ with the factors as stored, over the matrices of one kind ("ffn_gate", …).
typedef struct zs_factor_error {
    char kind[32];
    uint32_t matrices;
    double mean, max;
} zs_factor_error;

typedef struct zs_factor_params {
    zs_factor_type type;
    uint32_t matrices; // ZS_MATRICES_* bits; 0: all
    uint32_t threads;  // 0: one per processor
    bool force;        // replace an existing output
    zs_progress progress; // done and total in the SVD's floating-point operations; false cancels, the work can be resumed
    zs_log log;
} zs_factor_params;

typedef struct zs_factor_report {
    zs_factor_error kinds[16];
    uint32_t kind_count;
    uint32_t resumed; // matrices taken from an interrupted run
    double seconds;
    uint64_t bytes; // size of the output
} zs_factor_report;

/// Factors every adapted matrix of a dense GGUF model by SVD in double precision and writes a factored model
/// (DESIGN.md §4). Interrupted work leaves OUT.partial, from which the same call goes on: with the matrices whose weights
/// are still the same, the others are done again. Memory stays bounded by a few matrices per thread. Errors:
/// ZS_ERROR_NUMERIC (NaN in a weight, named), ZS_ERROR_EXISTS (OUT, or an OUT.partial that is another program's or that
/// another run works on), ZS_ERROR_IO (full disk), …
zs_status zs_factor_file(const char *input, const char *output, const zs_factor_params *params, zs_factor_report *report, zs_error *error);

// ---- measuring -----------------------------------------------------------------------------------------------------
// Whole steps are measured from outside, through sessions; what needs to look inside is here.

typedef struct zs_kernel_params {
    bool decode;    // one decode step of `rows` sessions; else one prefill step of `rows` tokens of one session
    uint32_t rows;  // ≤ the engine's max_rows, or max_sessions when decoding
    uint32_t depth; // decode: tokens each session holds before; 0: 16
    uint32_t runs;  // steps that are averaged, after one that warms up; 0: 1
} zs_kernel_params;

/// The dispatches of a step with one label and kernel, taken together.
typedef struct zs_kernel_time {
    const char *label, *kernel; // static
    uint32_t calls;             // dispatches per step
    double ms;                  // of all calls together, by the device's timestamps
    double bytes, flops;        // of all calls together, as the operations estimate them
} zs_kernel_time;

/// Times every dispatch of a step by itself; the barriers between them make the step a little slower than it is. *times
/// is malloc'ed, in the order of first use. Sessions of the engine must be idle. Errors: ZS_ERROR_UNSUPPORTED where the
/// device has no timestamps, ZS_ERROR_ARGUMENT, and those of zs_engine_run.
zs_status zs_bench_kernels(zs_engine *engine, const zs_kernel_params *params, zs_kernel_time **times, size_t *count, zs_error *error);

typedef struct zs_random_model_params {
    const char *arch; // "smollm2-135m", "llama3-8b", … (zs_random_model_arch)
    const char *type; // "f32", "f16", "bf16", "q8_0", "q4_0" or "q4_1"; NULL: "f16"
    uint32_t layers;  // 0: as many as the model has
    bool factored;    // factors of full rank, in the type, instead of dense matrices
    zs_progress progress;
} zs_random_model_params;

/// A model of a known shape with random weights, made on the device tensor by tensor without a file: for measurements. It has
/// no tokenizer (zs_model_get_tokenizer gives NULL), so zs_ask refuses it. Errors: ZS_ERROR_ARGUMENT (unknown arch or type), and
/// those of zs_model_load.
zs_status zs_model_create_random(zs_device *device, const zs_random_model_params *params, zs_model **model, zs_error *error);
/// i-th known arch; NULL when i is out of range.
const char *zs_random_model_arch(uint32_t i);

/// An expert for every factored matrix of the model with multipliers spread evenly over 0.9 … 1.1; other seeds, other
/// numbers. Its name is "random". Errors: ZS_ERROR_ARGUMENT when the model is dense.
zs_status zs_expert_create_random(const zs_model *model, uint64_t seed, zs_expert **expert, zs_error *error);

#ifdef __cplusplus
}
#endif
#endif
