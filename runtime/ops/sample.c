#include "ops/record.h"

void op_record_sample(const op_recorder *recorder, const op_sample *op) {
    PushSample push = {
        .step = op->step,
        .logits = op->logits,
        .index = op->index,
        .samplers = op->samplers,
        .results = op->results,
        .logits_stride = op->logits_stride,
        .vocab = op->vocab,
        .advance = op->advance,
    };
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_sample, .constant_count = 1, .constants = {op_row_workgroup(recorder, op->vocab)}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->rows, 1, 1},
                            .work = {.bytes = 12.0 * op->rows * op->vocab},
                        });
}

void op_record_logprobs(const op_recorder *recorder, const op_logprobs *op) {
    PushLogprobs push = {
        .logits = op->logits, .targets = op->targets, .out_ = op->out, .logits_stride = op->logits_stride, .vocab = op->vocab};
    op_record(recorder, &(op_dispatch){
                            .key = {.module = SHADER_logprobs, .constant_count = 1, .constants = {op_row_workgroup(recorder, op->vocab)}},
                            .push = &push,
                            .push_size = sizeof push,
                            .groups = {op->rows, 1, 1},
                            .work = {.bytes = 8.0 * op->rows * op->vocab},
                        });
}
