/// Composed mode: whose weights are loaded, and whose turn it is.
#include "engine/engine.h"

bool engine_serves(const zs_engine *engine, const zs_session *session) {
    return !engine->composer || session->seq.expert_serial == engine->loaded;
}

bool engine_loaded_expert(const zs_engine *engine, uint32_t *id) {
    for (uint32_t i = 0; engine->loaded && i < engine->experts.count; i++) {
        if (engine->experts.rows[i].serial != engine->loaded) continue;
        *id = i;
        return true;
    }
    return false;
}

static zs_status compose(zs_engine *engine, uint32_t id, zs_error *error) {
    double start = engine_now_ms();
    zs_status status = engine_check_cancelled(engine, error);
    if (!status) status = engine_drain(engine, error);
    if (status) return status;
    engine->loaded = 0; // a mixture, should it fail
    status = model_compose(engine->composer, engine->experts.scales.address + 4ull * id * engine->model->scale_count, error);
    if (status) return status;
    engine->loaded = engine->experts.rows[id].serial;
    engine->stats.composes++;
    engine->stats.compose_ms += engine_now_ms() - start;
    return ZS_OK;
}

zs_status zs_engine_load_expert(zs_engine *engine, uint32_t id, zs_error *error) {
    uint64_t serial = expert_table_serial(&engine->experts, id);
    if (!serial) return zs_error_set(error, ZS_ERROR_ARGUMENT, "no expert with id %u is attached", id);
    return !engine->composer || serial == engine->loaded ? ZS_OK : compose(engine, id, error);
}

zs_status engine_turn(zs_engine *engine, zs_error *error) {
    const zs_session *next = NULL;
    if (!engine->composer) return ZS_OK;
    for (uint32_t i = 0; i < engine->params.max_sessions; i++) {
        const zs_session *session = engine->sessions[i];
        if (!session || session->done) continue;
        if (engine_serves(engine, session)) return ZS_OK;
        if (!next) next = session;
    }
    zs_status status = next ? session_check_expert(next, error) : ZS_OK;
    return !next || status ? status : zs_engine_load_expert(engine, next->params.expert, error);
}
