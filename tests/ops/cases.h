/// The tables of cases, one function per operation.
#ifndef TESTS_OPS_CASES_H
#define TESTS_OPS_CASES_H

#include "harness.h"

void cases_pack(harness *h);
void cases_linear(harness *h);
void cases_linear_rows(harness *h);
void cases_chain(harness *h);
void cases_linear_back(harness *h);
void cases_scale(harness *h);
void cases_silu_mul(harness *h);
void cases_rms_norm_back(harness *h);
void cases_rope_back(harness *h);
void cases_attention_back(harness *h);
void cases_logprobs_back(harness *h);
void cases_logprobs_kl_back(harness *h);
void cases_rms_norm(harness *h);
void cases_layer_norm(harness *h);
void cases_layer_norm_back(harness *h);
void cases_gelu(harness *h);
void cases_gather(harness *h);
void cases_gather_sum(harness *h);
void cases_embed(harness *h);
void cases_rope_kv(harness *h);
void cases_attention(harness *h);
void cases_attention_rows(harness *h);
void cases_sample(harness *h);
void cases_logprobs(harness *h);
void cases_compose(harness *h);

/// A Step in the arena; members not given are 0.
typedef struct step_data {
    const Row *rows;
    uint32_t row_count;
    const Span *spans;
    uint32_t span_count;
    const float *scales;
    uint32_t scale_stride, scale_rows;
    const uint64_t *pages;
    uint32_t page_stride, page_rows;
} step_data;
typedef struct step_addresses {
    uint64_t step, rows, spans;
} step_addresses;
step_addresses put_step(harness *h, const step_data *data);

#endif
