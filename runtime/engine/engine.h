/// The inside of zs_engine: pools and tables, the buffers that steps read, and the pieces of the step loop.
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/expert_table.h"
#include "engine/image_store.h"
#include "engine/sequence.h"
#include "model/compose.h"

#include <stdatomic.h>

enum {
    ENGINE_BRANCHES = 64,
    ENGINE_LOGIT_ROWS = 256, // whose logits one step gives at most, where there are not more sessions
    ENGINE_AHEAD = 2,
    ENGINE_MEMOS = 256,
    ENGINE_WORTH_A_COPY = 8, // tokens: for fewer, keys and values of another sequence are not copied, but computed again
    MAX_SESSIONS = 4096
};

/// A finished sequence kept for its keys and values.
typedef struct cached_prefix {
    sequence seq;
    uint64_t used; // engine's clock at the last use
} cached_prefix;

/// A number that the layer above wants to keep as long as the engine, e.g. a label's prior.
typedef struct engine_memo {
    uint64_t key; // 0: free
    double value;
} engine_memo;

/// Arrays that the rows of a step are read from, in one GPU_MEMORY_SHARED buffer; prefill and decode have one each.
typedef struct step_arrays {
    gpu_buffer buffer;
    Step *step; // [2]; prefill: the second one's spans begin behind those of sessions that decode
    Row *rows;
    Span *spans;
    uint32_t *logit_rows, *targets;
    uint64_t step_address, rows_address, logit_rows_address, targets_address;
} step_arrays;

struct zs_engine {
    zs_model *model;
    const zs_model *running;  // what steps compute with: the model, or its composed form
    model_composer *composer; // composed mode only
    uint64_t loaded;          // serial of the expert whose weights are composed; 0: none
    zs_engine_params params;  // as chosen
    zs_engine_info info;
    zs_engine_stats stats;
    atomic_bool cancelled;
    model_workspace *workspace;
    kv_pool pool;
    expert_table experts;
    cached_prefix *cache; // [cache_count]
    uint32_t cache_count, cache_capacity;
    uint64_t clock;
    zs_session **sessions; // [max_sessions]; the index is the session's row of the page table
    gpu_buffer page_table; // uint64_t [max_sessions + ENGINE_BRANCHES, page_stride]
    uint32_t page_stride;
    gpu_buffer samplers;     // Sampler [max_sessions]
    gpu_buffer results;      // Sampled [max_sessions · SAMPLED_RING], then float [max_logit_rows]
    uint32_t max_logit_rows; // of a step: ENGINE_LOGIT_ROWS, of a large vocabulary fewer, or max_sessions
    step_arrays prefill, decode;
    gpu_command *prefill_command, *copy_command;
    gpu_command **decode_commands;   // [max_sessions + 1], by number of rows, recorded on first use
    engine_memo memos[ENGINE_MEMOS]; // by key modulo
    image_store images;
    uint64_t last_submit; // timeline value of the newest submit
    bool profiling;       // steps recorded from now on time every dispatch
};

struct zs_session {
    zs_engine *engine;
    uint32_t index;   // in engine->sessions
    uint64_t version; // another one whenever what steps in flight will bring stopped being wanted
    zs_session_params params;
    sequence seq;
    uint32_t prompt_count;
    uint32_t remaining;      // tokens still wanted
    uint32_t draft_count;    // tokens behind seq.count in seq.tokens that the next ones may be
    uint32_t draft_computed; // of them, the first ones, whose keys and values a step has computed
    bool done;
    float *logprobs; // [capacity], beside tokens
    gpu_buffer bits; // allowed mask, then seen mask; made on first need
    bool restricted;
};

/// A session as it was when a step was recorded: callbacks may change or destroy sessions whose steps are in flight.
typedef struct session_ref {
    uint32_t index;
    uint64_t version;
} session_ref;

session_ref session_refer(const zs_session *session);
/// NULL when the session was destroyed or changed since.
zs_session *session_find(const zs_engine *engine, session_ref ref);
/// Whether the newest token is all that it has to compute, without a draft behind it, and its turn is now.
bool session_decodes(const zs_session *session);
/// ZS_ERROR_ARGUMENT when the session's expert was detached under it.
zs_status session_check_expert(const zs_session *session, zs_error *error);

/// What an engine takes on the device.
typedef struct engine_bytes {
    uint64_t workspace, experts, kv, page;
    uint64_t images; // once there are any
} engine_bytes;
/// Of a model or its shape; running: what steps compute with. p as chosen.
engine_bytes engine_sizes(const zs_model *model, const zs_model *running, const zs_engine_params *p);
/// Features of images for kv_tokens, and what a prompt full of tiles takes to encode.
uint64_t engine_image_bytes(const zs_model *model, const model_workspace_params *params, uint32_t kv_tokens);
/// The device's, where it was left open.
zs_precision engine_precision(const zs_model *model, zs_precision asked);
/// Fills in what was left open.
void engine_choose_params(const zs_model *model, const zs_engine_params *asked, zs_engine_params *p);
/// Of parameters as chosen: whether this model's keys and values can be kept so.
zs_status engine_check_kv(const zs_model *model, const zs_engine_params *p, zs_error *error);
/// The device's type and the name of a mode with composed weights.
matrix_type engine_composed_type(zs_composed_type type);
const char *engine_mode_name(zs_mode mode, zs_composed_type type);

/// Whether a session's turn is now: in composed mode, when its expert's weights are loaded.
bool engine_serves(const zs_engine *engine, const zs_session *session);
/// Composed mode: when no session with work is served, loads the expert of the first one.
zs_status engine_turn(zs_engine *engine, zs_error *error);
/// Table id of the expert whose weights are loaded, which may be idle; false when there is none or nothing is composed.
bool engine_loaded_expert(const zs_engine *engine, uint32_t *id);

/// Writes a sequence's page addresses into a row of the page table, from page `first` on.
void engine_write_pages(zs_engine *engine, uint32_t row, const sequence *seq, uint32_t first);
/// Makes sure that positions below `length` have pages, evicting cached prefixes when the pool is empty.
zs_status engine_reserve(zs_engine *engine, sequence *seq, uint32_t length, zs_error *error);
/// The sequence (cached or live, but `seq`) under the same expert with the longest usable prefix of tokens[count] but the last, whose
/// logits are needed; NULL when there is none.
const sequence *engine_find_prefix(zs_engine *engine, const sequence *seq, const uint32_t *tokens, uint32_t count, uint32_t *length);
/// Fills an empty sequence from what engine_find_prefix finds, if that is ENGINE_WORTH_A_COPY tokens at least. Full pages are shared, a
/// partial one is copied. `seq` holds no tokens yet.
zs_status engine_take_prefix(zs_engine *engine, sequence *seq, const uint32_t *tokens, uint32_t count, zs_error *error);
/// Gives `to` (empty) the first `length` positions of `from`, as above; length ≤ from->computed.
zs_status engine_share_prefix(zs_engine *engine, const sequence *from, uint32_t length, sequence *to, zs_error *error);
/// Keeps a sequence's computed part for later prefixes; takes over its pages. The sequence is left destroyed.
void engine_keep_prefix(zs_engine *engine, sequence *seq);
/// Forgets all cached prefixes of ended sessions.
void engine_drop_prefixes(zs_engine *engine);
/// Whether an id is a token's, or that of a row of an image that is still kept.
bool engine_knows_token(const zs_engine *engine, uint32_t id);
/// The id of the first row of the image that an id is a row of; false for a token's, and where the image is not kept any more.
bool engine_find_image(const zs_engine *engine, uint32_t id, uint32_t *first_id);
/// What stands for an id in a Row.
uint32_t engine_row_token(const zs_engine *engine, uint32_t id);
void engine_destroy_images(zs_engine *engine);
/// Lets go of all images that no live session has in its prompt.
void engine_drop_images(zs_engine *engine);
/// Waits for everything submitted.
zs_status engine_drain(zs_engine *engine, zs_error *error);
zs_status engine_check_cancelled(const zs_engine *engine, zs_error *error);
zs_status engine_submit(zs_engine *engine, gpu_command *command, zs_error *error);
/// Sampler of a session, as the kernels read it, with its masks; nothing submitted may be running.
void engine_write_sampler(zs_session *session);
/// Keys and values are computed anew when they are next needed; nothing submitted may be running.
void session_forget(zs_session *session);
/// Looks a number up that was kept under key (≠ 0).
bool engine_find_memo(const zs_engine *engine, uint64_t key, double *value);
/// Keeps a number; an older one may have to make room.
void engine_keep_memo(zs_engine *engine, uint64_t key, double value);
/// Milliseconds of a monotonic clock.
double engine_now_ms(void);

/// Prefills whatever sessions with work have not computed and samples their first tokens; those that decode already go along.
/// *worked tells whether there was any.
zs_status engine_prefill(zs_engine *engine, zs_token_callback on_token, void *user, bool *worked, zs_error *error);
/// Decodes until some session ends or a callback adds work.
zs_status engine_decode(zs_engine *engine, zs_token_callback on_token, void *user, bool *worked, zs_error *error);
/// Takes a sampled token into the session, moves its draft on or drops it, tells the callback, and decides whether the session is done. A
/// session whose logits are no numbers is stopped and forgets what it computed.
zs_status engine_take_token(zs_session *session, zs_token_callback on_token, void *user, zs_error *error);

/// A run of rows of one sequence for a prefill step: positions seq.computed … end − 1.
typedef struct prefill_run {
    sequence *seq;
    uint32_t table_row, expert, end;
} prefill_run;
/// Adds rows and spans of `run` to the step, from its computed position on, at most `limit` rows; returns how many.
uint32_t prefill_add_rows(zs_engine *engine, const prefill_run *run, uint32_t limit, model_step *step);

#endif
