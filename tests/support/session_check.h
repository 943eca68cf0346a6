/// What sessions made, against the reference model and against each other; fails the test where it is something else.
#ifndef SUPPORT_SESSION_CHECK_H
#define SUPPORT_SESSION_CHECK_H

#include "engine/engine.h"
#include "support/reference_model.h"

/// Log-probabilities of what a session generated, against the reference under an expert (NULL: base).
void session_check_reference(const zs_session *session, reference_model *reference, const expert_file *expert, float bound);
/// Same tokens, and log-probabilities within bound; 0: the same bits.
void session_check_equal(const zs_session *a, const zs_session *b, float bound);
/// Every page is free or held by the cache, once its users are gone.
void session_check_pages(zs_engine *engine);

#endif
