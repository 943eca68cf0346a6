/// The Llama decoder in plain double precision, straight from a model file and an expert file, to hold the runtime against:
/// dense or factored weights, z on the singular values. Written from DESIGN's formulas, not from the runtime's code.
#ifndef SUPPORT_REFERENCE_MODEL_H
#define SUPPORT_REFERENCE_MODEL_H

#include "loader/expert_file.h"

typedef struct reference_model reference_model;

/// A file that is not sound ends the process with a message.
reference_model *reference_model_open(const char *path);
void reference_model_close(reference_model **model);

/// logprobs[count, vocab]: log π(next token | ids[0 … t]) after each position t. expert NULL: the base model.
void reference_model_run(const reference_model *model, const expert_file *expert, const uint32_t *ids, uint32_t count, double *logprobs);

#endif
