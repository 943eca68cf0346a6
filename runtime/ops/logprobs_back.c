#include "ops/record.h"

void op_record_logprobs_back(const op_recorder *recorder, const op_logprobs_back *op) {
    PushLogprobsBack push = {.logits = op->logits,
                             .targets = op->targets,
                             .weights = op->weights,
                             .out_ = op->out,
                             .logits_stride = op->logits_stride,
                             .vocab = op->vocab};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_logprobs_back, .constant_count = 1, .constants = {128}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->rows, 1, 1},
                            .work = {.bytes = 16.0 * op->rows * op->vocab},
                        });
}

void op_record_logprobs_kl_back(const op_recorder *recorder, const op_logprobs_kl_back *op) {
    PushLogprobsKlBack push = {.logits = op->logits,
                               .reference = op->reference,
                               .targets = op->targets,
                               .weights = op->weights,
                               .kl_weights = op->kl_weights,
                               .out_ = op->out,
                               .kl = op->kl,
                               .logits_stride = op->logits_stride,
                               .vocab = op->vocab,
                               .reverse = op->reverse};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_logprobs_kl_back, .constant_count = 1, .constants = {128}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->rows, 1, 1},
                            .work = {.bytes = 36.0 * op->rows * op->vocab},
                        });
}
