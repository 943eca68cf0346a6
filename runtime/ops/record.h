/// What the operations share when they record: getting a kernel, keeping the first failure.
#ifndef OPS_RECORD_H
#define OPS_RECORD_H

#include "ops/ops.h"

/// A kernel family's modules by matrix_type; suffix: of their names in shaders/variants.h, may be nothing.
#define MODULES_BY_TYPE(family, suffix)                                                                                                    \
    {                                                                                                                                      \
        [MATRIX_F32] = SHADER_##family##_f32##suffix, [MATRIX_F16] = SHADER_##family##_f16##suffix,                                        \
        [MATRIX_BF16] = SHADER_##family##_bf16##suffix, [MATRIX_Q8] = SHADER_##family##_q8##suffix,                                        \
        [MATRIX_Q4] = SHADER_##family##_q4##suffix, [MATRIX_Q5] = SHADER_##family##_q5##suffix,                                            \
        [MATRIX_Q4K] = SHADER_##family##_q4k##suffix, [MATRIX_Q5K] = SHADER_##family##_q5k##suffix,                                        \
        [MATRIX_Q6] = SHADER_##family##_q6##suffix                                                                                         \
    }

/// A dispatch with specialisation constants; `push` is the struct of shared.h that the kernel takes.
typedef struct op_dispatch {
    gpu_kernel_key key;
    const void *push;
    uint32_t push_size;
    uint32_t groups[3];
    gpu_work work;
} op_dispatch;

/// Where a layer's keys begin in a page, as the kernels count (kv.glsl).
uint32_t op_page_base(kv_type type, uint32_t layer, uint32_t kv_heads, uint32_t head_dim);
/// Invocations, a power of two, of a workgroup that takes a row of `width` values by itself.
uint32_t op_row_workgroup(const op_recorder *recorder, uint32_t width);
/// Rows that one workgroup of a CPU driver's kernel takes when each is an invocation's: as many as run together.
static inline uint32_t op_lanes_rows(const op_policy *policy) { return policy->subgroup_size > 8 ? 16 : 8; }
/// Whether such a workgroup is whole subgroups, whose invocations can share out what all of them read.
static inline bool op_lanes_share(const op_policy *policy) {
    return policy->lanes && (policy->tiers & ZS_TIER_SUBGROUP) && policy->subgroup_size >= 4 &&
           op_lanes_rows(policy) % policy->subgroup_size == 0;
}
/// Step rows of a block of the linear kernels there when there are many: 64, or 16 where those would be more than an eighth empty.
uint32_t op_lanes_tokens(uint32_t rows, const op_policy *policy);
/// How many output and step rows an invocation takes of a linear operation there.
typedef struct op_lanes {
    uint32_t rows, tokens;
} op_lanes;
op_lanes op_lanes_block(const op_linear *op, const op_policy *policy);
/// Heads that a workgroup of attention takes on a CPU: as many of those that share a KV head as its registers and the cache hold.
uint32_t op_lanes_heads(uint32_t heads, uint32_t kv_heads, uint32_t head_dim);
/// Workgroups for a row of columns, of which an invocation takes every so-many-th: on a CPU, where starting one costs as much as a hundred
/// values, a single one.
uint32_t op_column_groups(const op_recorder *recorder, uint32_t columns, uint32_t workgroup);
/// x[rows, width] as operands of matmul_matrix.comp: f16, and behind it what undoes its scaling, f32 [rows] (half_rows.comp).
typedef struct op_half_rows {
    uint64_t x, operands;
    uint64_t norm; // as op_linear.norm; 0: none
    uint32_t norm_width;
    float norm_eps;
    uint32_t width, x_stride, rows; // in floats; width: of operands, a multiple of 32
    uint32_t end;                   // of x's values in a row: operands behind it are zeros
} op_half_rows;
/// Whether every segment's x can be read so: by eights. (Parts of a matrix are whole eights too.)
static inline bool op_half_rows_suit(const op_segment *segments, uint32_t count) {
    for (uint32_t s = 0; s < count; s++)
        if (segments[s].x_offset % 8) return false;
    return true;
}
/// What its weights and activations take to read and write, and its products.
gpu_work op_linear_work(const op_linear *op);
/// LINEAR_SCALE … LINEAR_BIAS (shaders/shared.h), as its epilogue and norm ask for.
uint32_t op_linear_flags(const op_linear *op);
/// The constants of a norm, behind all others.
void op_add_norm(gpu_kernel_key *key, uint32_t width, float eps);
/// With a barrier before it, and behind it.
void op_record_half_rows(const op_recorder *recorder, const op_half_rows *op);
/// A kernel of matmul_matrix.comp; `shape` divides (op_matrix_divides).
gpu_kernel_key op_matrix_key(const op_policy *policy, const op_matrix_shape *shape, uint32_t module, const matrix *weight, uint32_t flags,
                             uint32_t segments, uint32_t x_tile, uint32_t splits);
void op_record(const op_recorder *recorder, const op_dispatch *dispatch);
/// Remembers a caller's mistake.
void op_fail(const op_recorder *recorder, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

static inline uint32_t divide_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

#endif
