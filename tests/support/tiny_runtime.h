/// Short ways to a device, tiny models, engines and sessions, for tests that are about something else: whatever fails on
/// the way fails the test with the library's message.
#ifndef SUPPORT_TINY_RUNTIME_H
#define SUPPORT_TINY_RUNTIME_H

#include "support/tiny_expert.h"
#include "support/tiny_model.h"
#include "zsigma/zsigma_lab.h"

/// Fails the test unless status is ZS_OK.
void tiny_need(zs_status status, const zs_error *error);
/// A device without a self-test; log receives its messages.
zs_device *tiny_device(zs_log log);
/// Writes the dense model `dense` and, when `factored` is not NULL, its factored form.
void tiny_files(const tiny_model_params *params, const char *dense, zs_factor_type type, const char *factored);
zs_model *tiny_load(zs_device *device, const char *path);
/// precision exact and a context of TINY_CONTEXT unless params say otherwise.
zs_engine *tiny_engine(zs_model *model, zs_engine_params params);
uint32_t tiny_attach(zs_engine *engine, const tiny_expert_params *params);
/// Random ids without control tokens.
void tiny_ids(uint32_t *ids, size_t count, uint64_t seed);
/// A session with a prompt, about to make `more` tokens; ends are ignored.
zs_session *tiny_session(zs_engine *engine, zs_session_params params, const uint32_t *ids, size_t count, uint32_t more);
void tiny_run(zs_engine *engine);
/// log π of ids[prefix …] under an expert, count − prefix of them.
void tiny_score(zs_engine *engine, uint32_t expert, const uint32_t *ids, size_t prefix, size_t count, float *logprobs);

#endif
