#include "support/tiny_runtime.h"

#include "adapt/expert.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

void tiny_need(zs_status status, const zs_error *error) {
    if (status) fail_msg("%s", error->message);
}

zs_device *tiny_device(zs_log log) {
    zs_device *device = NULL;
    zs_error error;
    tiny_need(zs_device_create(&(zs_device_params){.skip_self_test = true, .log = log}, &device, &error), &error);
    return device;
}

void tiny_files(const tiny_model_params *params, const char *dense, zs_factor_type type, const char *factored) {
    zs_error error;
    tiny_need(tiny_model_write(dense, params, &error), &error);
    if (factored)
        tiny_need(zs_factor_file(dense, factored, &(zs_factor_params){.type = type, .force = true, .threads = 1}, NULL, &error), &error);
}

zs_model *tiny_load(zs_device *device, const char *path) {
    zs_model *model = NULL;
    zs_error error;
    tiny_need(zs_model_load(device, path, NULL, &model, &error), &error);
    return model;
}

zs_engine *tiny_engine(zs_model *model, zs_engine_params params) {
    zs_engine *engine = NULL;
    zs_error error;
    if (params.precision == ZS_PRECISION_DEFAULT) params.precision = ZS_PRECISION_EXACT;
    tiny_need(zs_engine_create(model, &params, &engine, &error), &error);
    return engine;
}

uint32_t tiny_attach(zs_engine *engine, const tiny_expert_params *params) {
    expert_file file;
    zs_expert *expert = NULL;
    uint32_t id = 0;
    zs_error error;
    tiny_expert_make(params, &file);
    tiny_need(expert_from_file(&file, &expert, &error), &error);
    zs_status status = zs_engine_attach_expert(engine, expert, false, &id, &error);
    zs_expert_destroy(&expert);
    tiny_need(status, &error);
    return id;
}

void tiny_ids(uint32_t *ids, size_t count, uint64_t seed) {
    for (size_t i = 0; i < count; i++) {
        uint64_t x = (seed + 1) * 0x9E3779B97F4A7C15u + i * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 29) * 0x94D049BB133111EBu;
        ids[i] = TINY_CONTROLS + (uint32_t)((x ^ x >> 32) % (TINY_VOCAB - TINY_CONTROLS));
    }
}

zs_session *tiny_session(zs_engine *engine, zs_session_params params, const uint32_t *ids, size_t count, uint32_t more) {
    zs_session *session = NULL;
    zs_error error;
    params.ignore_end = true;
    tiny_need(zs_session_create(engine, &params, &session, &error), &error);
    tiny_need(zs_session_set_prompt(session, ids, count, &error), &error);
    tiny_need(zs_session_generate(session, more, &error), &error);
    return session;
}

void tiny_run(zs_engine *engine) {
    zs_error error;
    tiny_need(zs_engine_run(engine, NULL, NULL, &error), &error);
}

void tiny_score(zs_engine *engine, uint32_t expert, const uint32_t *ids, size_t prefix, size_t count, float *logprobs) {
    zs_error error;
    const zs_score_item item = {expert, ids, prefix, ids + prefix, count - prefix, logprobs};
    tiny_need(zs_engine_score(engine, &item, 1, NULL, 0, &error), &error);
}
